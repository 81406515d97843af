"""A page, as a browser reads it: elements, ids, links and text, by the parser of the standard library."""

import itertools
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

VOID = {"meta", "input", "br", "hr", "img", "link"}
"""Elements without an end."""

APART = {*("td", "th", "tr", "li", "p", "dt", "dd", "h1", "h2", "h3", "h4", "caption", "article", "footer")}
"""Elements that stand apart from the text before them."""

BRINGING = ("link", "img", "iframe", "object", "embed", "base")
"""Elements that bring something from elsewhere."""

LOADING = {
    *("src", "srcset", "data", "poster", "background", "action", "formaction", "xlink:href", "style", "ping")
}
"""Attributes by which a page asks for something or brings a style of its own."""


@dataclass
class Page(HTMLParser):
    """Elements in their order: (tag, attributes, text up to the next tag)."""

    html: str
    elements: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    open_tags: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    raw: dict[str, str] = field(default_factory=dict)
    """Content of `style` and `script`."""
    problems: list[str] = field(default_factory=list)

    def __post_init__(self):
        super().__init__(convert_charrefs=True)
        self.feed(self.html)
        self.close()
        if self.open_tags:
            self.problems.append(f"left open: {self.open_tags}")

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.texts.append(" " if tag in APART else "")
        if len(attrs) != len(dict(attrs)):
            self.problems.append(f"<{tag}> has an attribute twice")
        if tag not in VOID:
            self.open_tags.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if not self.open_tags or self.open_tags.pop() != tag:
            self.problems.append(f"</{tag}> closes another")

    def handle_data(self, data):
        if self.open_tags and self.open_tags[-1] in ("style", "script"):
            self.raw[self.open_tags[-1]] = self.raw.get(self.open_tags[-1], "") + data
        else:
            self.texts.append(data)

    def handle_comment(self, data):
        self.problems.append(f"a comment: {data}")

    @property
    def text(self) -> str:
        return " ".join("".join(self.texts).split())

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def shape(self) -> list[tuple[str, tuple[str, ...]]]:
        """Tags with the names of their attributes: what hostile text must not change. Without the labels of
        axes, of which there are as many as there is room for."""
        found = [(tag, tuple(sorted(attributes))) for tag, attributes in self.elements]
        return [one for one in found if one != ("text", ("class", "text-anchor", "x", "y"))]


def problems(pages: dict[str, str]) -> list[str]:
    """What is wrong with pages that lie in one folder, by name: markup, ids, links, requests, headings."""
    read = {name: Page(html) for name, html in pages.items()}
    ids = {name: [found["id"] for _, found in page.elements if "id" in found] for name, page in read.items()}
    found = []
    for name, page in read.items():
        found += [f"{name}: {problem}" for problem in page.problems]
        found += [f"{name}: id {one} twice" for one in ids[name] if ids[name].count(one) > 1]
        for tag, attributes in page.elements:
            found += [f"{name}: <{tag} {one}>" for one in attributes if one in LOADING or one[:2] == "on"]
            for one in ("aria-labelledby", "for", "aria-describedby"):
                for word in (attributes.get(one) or "").split():
                    found += [] if word in ids[name] else [f"{name}: {one}={word} is nowhere"]
            if (href := attributes.get("href")) is not None:
                path, _, part = href.partition("#")
                place = path or name
                if ":" in href or place not in pages or (part and part not in ids[place]):
                    found.append(f"{name}: link {href!r} leads nowhere")
        found += [f"{name}: <{tag}>" for tag in BRINGING if page.of(tag)]
        levels = [int(tag[1]) for tag, _ in page.elements if tag in ("h1", "h2", "h3", "h4", "h5")]
        steps = itertools.pairwise(levels)
        found += [f"{name}: h{high} is followed by h{low}" for high, low in steps if low > high + 1]
        found += [] if levels.count(1) == 1 else [f"{name}: {levels.count(1)} h1"]
        tags = [tag for tag, _ in page.elements]
        found += (
            [f"{name}: a table without a caption"] if tags.count("table") != tags.count("caption") else []
        )
        charts = page.of("svg")
        unnamed = [one for one in charts if "aria-labelledby" not in one and one.get("aria-hidden") != "true"]
        found += [f"{name}: an svg without a title"] if unnamed else []
    return found


def pages_in(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text("utf-8") for path in folder.iterdir()}


@dataclass
class Tables(HTMLParser):
    """The tables of a page: caption -> rows of the texts of their cells, without the head."""

    html: str
    found: dict[str, list[list[str]]] = field(default_factory=dict)

    def __post_init__(self):
        super().__init__(convert_charrefs=True)
        self._caption, self._rows, self._texts = "", [], None
        self.feed(self.html)

    def handle_starttag(self, tag, attrs):
        if tag == "table":
            self._rows = []
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("caption", "td", "th"):
            self._texts = []

    def handle_endtag(self, tag):
        said = " ".join("".join(self._texts or ()).split())
        if tag == "caption":
            self._caption = said
        elif tag in ("td", "th"):
            self._rows[-1].append(said)
        elif tag == "table":
            self.found[self._caption] = self._rows[1:]

    def handle_data(self, data):
        if self._texts is not None:
            self._texts.append(data)


def table(html: str, caption: str) -> list[list[str]]:
    """The rows of the table whose caption begins so."""
    (rows,) = (rows for name, rows in Tables(html).found.items() if name.startswith(caption))
    return rows
