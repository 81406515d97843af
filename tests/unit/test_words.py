"""One idea, one word: README's list of words, held against the pages and the code."""

import ast
import functools
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OTHERS = {".venv", ".venv-interchange", ".cache", "data"}
"""Folders whose pages are not ours."""
PAGES = sorted(path for path in ROOT.rglob("*.md") if not OTHERS & set(path.relative_to(ROOT).parts))
CODE = sorted(path for part in ("schemas", "cluster", "jobs") for path in (ROOT / part).rglob("*.py"))

OTHER_WORDS = {
    "turn": r"utterances?|dialog(?:ue)? acts?",
    "session": r"dialog(?:ue)? sessions?|sittings?(?! of a conversation)",
    "segment": r"text chunks?|passages? of a session",
    "record": r"memory (?:items?|entries|entry|units?|objects?)|memoranda",
    "revision": r"record versions?|versions? of a record",
    "encoder": r"extraction model|memory extractor",
    "embedder": r"embedding models?|vectori[sz]ers?",
    "decider": r"decision models?|update agents?",
    "rejection": r"dead letters?|quarantin\w+",
    "lease": r"store locks?|writer locks?",
    "manifest": r"run (?:reports?|logs?|cards?)",
}
"""Words that others use for an idea that has one of ours."""


def glossary() -> list[str]:
    """The words in bold of README's section Words, in lower case."""
    section = re.search(r"^## Words\n(.*?)^## ", (ROOT / "README.md").read_text(), re.M | re.S)
    return [word.lower() for word in re.findall(r"\*\*([^*]+)\*\*", section[1])]


@functools.cache
def prose(path: Path) -> tuple[str, ...]:
    """What of a file is written for people: a page, or docstrings and comments."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return (text,)
    strings = []
    for node in ast.walk(ast.parse(text)):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            strings.append(node.value.value)
    return (*strings, *re.findall(r"^\s*# (.*)$", text, re.M))


def test_every_word_of_the_list_names_something_in_the_code():
    names = {
        part.lower()
        for path in CODE
        for name in re.findall(r"\b[A-Za-z_]{3,}\b", path.read_text(encoding="utf-8"))
        for part in re.findall(r"[A-Z]?[a-z]+", name)
    }
    assert len(glossary()) >= 10
    assert not {word for word in glossary() if word not in names}


def test_every_idea_with_other_words_is_in_the_list():
    assert OTHER_WORDS.keys() <= set(glossary())


@pytest.mark.parametrize("word", OTHER_WORDS)
def test_pages_docstrings_and_comments_use_one_word_for_an_idea(word):
    other = re.compile(rf"\b(?:{OTHER_WORDS[word]})\b", re.IGNORECASE)
    found = [
        f"{path.relative_to(ROOT)}: {match[0]!r}, say {word!r}"
        for path in (*PAGES, *CODE)
        for text in prose(path)
        for match in other.finditer(text)
    ]
    assert not found
