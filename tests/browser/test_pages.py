"""Pages in a real browser: nothing fails, nothing is asked for, search and links work, text stays text."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.report.compare import compare
from cluster.report.pages import Measured, of_measures, write_comparison, write_report
from cluster.report.quality import Found, Quality
from cluster.report.svg import curves
from cluster.store.store import Store
from jobs.evaluate.report import bars
from tests.browser.browser import Browser, Tab
from tests.e2e.operations.stores import ANN
from tests.unit.cluster.report.nights import make
from tests.unit.cluster.store.stores import commit, segment

pytestmark = pytest.mark.browser

HOSTILE = (
    "<script>window.pwned = 1</script>",
    '<img src="http://evil.example/x.png" onerror="window.pwned = 1">',
    '"><svg onload="window.pwned = 1"></svg>',
    "</style></title><script>window.pwned = 1</script>",
    "' onmouseover='window.pwned = 1' x='",
    '<a href="javascript:window.pwned = 1">here</a><base href="http://evil.example/">',
    "<iframe srcdoc='<script>parent.pwned = 1</script>'></iframe><!-- ",
    "{{ 7 * 7 }} {% raw %} ${window.pwned = 1}",
    "\u202egnirts\u202c \x1b[31mred\x1b[0m",
)
"""What somebody may say, or be called."""


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Every kind of page, of the eleven nights."""
    home = tmp_path_factory.mktemp("pages")
    store = make(str(home / "store"))
    found = Found("run", 12, {"recall@5": 0.75, "MRR": None})
    write_report(store.uri, str(home / "pages"), ANN, Quality(found, found))
    write_comparison(
        str(home / "pages"),
        compare((store.uri, None), (store.uri, None), [ANN]),
        {"memories": [], "work": []},
    )
    boards = [{"profile": "default", "recall": 0.0}, {"profile": "default:base", "recall": None}]
    lines = {"training": [(float(step), 3 / step) for step in range(1, 90)], "validation": [(80.0, 1.0)]}
    charts = (
        bars("measures", "Encoders", boards, ["recall"], label="profile"),
        curves("l", "Loss", lines, of="Step"),
    )
    page = of_measures(Measured("Encoders", charts, "All", tuple(boards), notes="recall  a share"), None)
    (home / "pages" / "report.html").write_text(page, "utf-8")
    return home / "pages"


def pages_of(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.html"))


def check(tab: Tab, folder: Path) -> None:
    """Nothing has failed, and nothing but pages of the folder was asked for."""
    assert tab.problems == []
    assert set(tab.requests) <= {path.as_uri() for path in pages_of(folder)}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1200])
def test_every_page_opens_without_an_error_or_a_request_and_fits_its_window(browser, folder, width, scheme):
    grounds = {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 26)"}
    assert len(pages_of(folder)) == 4
    for path in pages_of(folder):
        tab = browser.open(path, width=width, scheme=scheme)
        check(tab, folder)
        assert tab.run("document.documentElement.scrollWidth <= window.innerWidth"), path.name
        ground = tab.run("getComputedStyle(document.documentElement).backgroundColor")
        assert ground == grounds[scheme], "the policy lets the page have its style"
        texts = "[...document.querySelectorAll('svg.chart')].every(svg => [...svg.querySelectorAll('text')]"
        texts += (
            ".every(text => { const one = text.getBBox(), all = svg.viewBox.baseVal; return one.x >= 0 &&"
        )
        assert tab.run(f"{texts} one.x + one.width <= all.width && one.y + one.height <= all.height; }}))"), (
            path
        )


def test_every_link_leads_to_what_it_names(browser, folder):
    for path in pages_of(folder):
        tab = browser.open(path)
        for number in range(tab.run("document.querySelectorAll('a[href]').length")):
            href = tab.run(f"document.querySelectorAll('a[href]')[{number}].getAttribute('href')")
            before = tab.num_loads
            click = "dispatchEvent(new MouseEvent('click', {bubbles: true, cancelable: true}))"
            tab.run(f"void document.querySelectorAll('a[href]')[{number}].{click}")
            if href.startswith("#"):
                assert tab.run("location.hash") == href and tab.run("!!document.querySelector(':target')"), (
                    href
                )
            else:
                tab.wait_for_load(before)
                assert tab.run("location.pathname").endswith(href) and tab.run(
                    "!!document.querySelector('h1')"
                )
                tab.load(path.as_uri())
        check(tab, folder)


def test_search_shows_the_memories_that_have_the_words(browser, folder):
    (path,) = folder.glob("user-*.html")
    tab = browser.open(path)
    shown = "[...document.querySelectorAll('article.memory')].filter(one => !one.hidden).length"
    of_all = tab.run(shown)
    assert of_all > 1 and tab.run("document.getElementById('found').textContent") == (
        f"{of_all} of {of_all} memories"
    )
    tab.run("document.getElementById('words').focus()")
    tab.type("OSLO lives")
    assert 0 < tab.run(shown) < of_all
    hidden = "[...document.querySelectorAll('article.memory')].filter(one => one.hidden)"
    assert tab.run(
        f"{hidden}.every(one => !/oslo/i.test(one.textContent) || !/lives/i.test(one.textContent))"
    )
    tab.type(" nobody-said-this")
    assert tab.run(shown) == 0 and tab.run("document.getElementById('found').textContent").startswith("0 of")
    check(tab, folder)


def test_the_keyboard_s_first_stop_leads_to_the_content(browser, folder):
    for path in pages_of(folder):
        tab = browser.open(path)
        tab.press("Tab", 9)
        assert tab.run("document.activeElement.className") == "skip", path.name
        tab.press("Enter", 13)
        assert tab.run("location.hash") == "#main"


def test_hostile_text_is_shown_as_text(browser, tmp_path):
    store = Store(str(tmp_path / "store"), must_exist=False)
    user = HOSTILE[1]
    said = [
        segment(f"s{number}", text, user=user, session=f"{number}{text}", records=[f"User says {text}"])
        for number, text in enumerate(HOSTILE)
    ]
    commit(store, "run1", *said)
    write_report(store.uri, str(tmp_path / "pages"), user)
    write_comparison(
        str(tmp_path / "pages"),
        compare((store.uri, None), (store.uri, None), [user]),
        {"memories": [], "work": []},
    )
    boards = [{"profile": text, "recall": 0.5} for text in HOSTILE]
    charts = (bars("measures", HOSTILE[0], boards, ["recall"], label="profile"),)
    page = of_measures(Measured(HOSTILE[3], charts, HOSTILE[1], tuple(boards), notes=HOSTILE[2]), None)
    (tmp_path / "pages" / "report.html").write_text(page, "utf-8")
    for path in pages_of(tmp_path / "pages"):
        tab = browser.open(path)
        tab.run(
            "document.querySelectorAll('*').forEach(one => one.dispatchEvent(new MouseEvent('mouseover')))"
        )
        check(tab, tmp_path / "pages")
        assert tab.run("typeof window.pwned") == "undefined"
        assert (
            tab.run("document.querySelectorAll('img, iframe, base, svg[onload], [onmouseover]').length") == 0
        )
        assert tab.run("[...document.links].every(one => one.protocol == 'file:')")
        if path.name.startswith(("user-", "report")):
            text = tab.run("document.body.textContent")
            assert all(one in text for one in HOSTILE[:-1]) and "\u202e" not in text
