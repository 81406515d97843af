"""Deciders of other distributions: told apart by their source, and held to what a decider must give."""

import importlib.metadata
import sys

import pytest

from cluster.consolidate.fold import Question, Source, Verdict
from cluster.consolidate.without_model import (
    FINGERPRINTS,
    LOADED,
    WITHOUT_MODEL,
    AddedDecider,
    added_fingerprint,
    load_decider,
    package_files,
)
from cluster.runtime import entry_points
from cluster.runtime.entry_points import DECIDERS, Addition, EntryPointError
from cluster.store.crash_markers import WorkerSick
from tests.adding import DECIDER, install
from tests.unit.cluster.consolidate.memories import memory

QUESTION = Question(memory("old", 1, "a"), (Source(memory("new", 2, "b"), 0.9),))
MODULE = "mine:Decider"


@pytest.fixture
def added(tmp_path, monkeypatch):
    """`added(sources, value)`: an entry point of a distribution with these modules, imported anew."""

    def made(sources, value="mine.deciders:Decider"):
        site = tmp_path / str(len(list(tmp_path.iterdir())))
        install(site, {DECIDERS: {"ours": value}}, sources)
        monkeypatch.syspath_prepend(str(site))
        for name in [name for name in sys.modules if name.partition(".")[0] == "mine"]:
            monkeypatch.delitem(sys.modules, name)
        entry_points._entries.cache_clear()
        (entry,) = [
            one
            for one in importlib.metadata.distribution("mine").entry_points
            if (one.group, one.name) == (DECIDERS, "ours")
        ]
        return Addition(entry, entry.load())

    yield made
    monkeypatch.undo()
    entry_points._entries.cache_clear()


PACKAGE = {"mine/__init__.py": "", "mine/deciders.py": DECIDER, "mine/words.txt": "tea"}


@pytest.mark.parametrize(
    "change",
    [
        {"mine/deciders.py": DECIDER.replace("ignore", "delete")},
        {"mine/words.txt": "coffee"},
        {"mine/deep/__init__.py": "", "mine/deep/helper.py": "from cluster.language import dates"},
        {"mine/deciders.py": f"import numpy\n{DECIDER}"},
    ],
)
def test_another_source_is_another_decider(added, change, monkeypatch):
    before = added_fingerprint(added(PACKAGE))
    assert added_fingerprint(added(PACKAGE)) == before, "wherever it is installed"
    assert added_fingerprint(added(PACKAGE | change)) != before
    assert not {"mine.deep", "mine.deep.helper"} & sys.modules.keys(), "read, not imported"


def test_what_of_this_project_a_helper_imports_counts(added, monkeypatch):
    """As with the deciders that ship: their decisions change with it."""
    helper = PACKAGE | {"mine/helper.py": "from cluster.language import dates"}
    before = added_fingerprint(added(helper))
    from cluster.consolidate import without_model

    asked = []
    monkeypatch.setattr(without_model, "source_fingerprint", lambda *names: asked.extend(names) or "other")
    assert added_fingerprint(added(helper)) != before
    assert {"mine.deciders", "cluster.language.dates", "cluster.consolidate.fold"} <= set(asked)


def test_two_deciders_of_one_module_are_told_apart(added):
    sources = PACKAGE | {"mine/deciders.py": f"{DECIDER}\nclass Other(Decider):\n    pass\n"}
    one, other = added(sources), added(sources, "mine.deciders:Other")
    assert added_fingerprint(one) != added_fingerprint(other)


@pytest.mark.parametrize(
    ("others", "value", "files"),
    [
        ({"mine.py": DECIDER}, MODULE, ["mine.py"]),
        ({"mine/one.py": DECIDER, "mine/other.py": ""}, "mine.one:Decider", ["one.py"]),
        (
            {"mine/inner/__init__.py": "", "mine/inner/one.py": DECIDER, "mine/other.py": ""},
            "mine.inner.one:Decider",
            ["__init__.py", "one.py"],
        ),
    ],
)
def test_a_module_alone_and_a_package_in_a_namespace_have_their_own_files(added, others, value, files):
    addition = added(others, value)
    assert [path.name for path in package_files(addition.entry.module)] == files
    assert len(added_fingerprint(addition)) == 16


def test_a_source_that_cannot_be_read_is_refused(added, monkeypatch):
    addition = added(PACKAGE | {"mine/broken.py": "def ("})
    with pytest.raises(EntryPointError, match=r"'ours' of slowwave.deciders in mine 1.2: the source of mine"):
        added_fingerprint(addition)


def test_its_verdicts_are_its_own_and_its_calls_are_counted_where_it_counts(added):
    decider = AddedDecider(added(PACKAGE))
    assert decider.decide([QUESTION, QUESTION]) == [Verdict("ignore")] * 2
    assert decider.num_calls == 0
    counting = DECIDER.replace("class Decider:", "class Decider:\n    num_calls = 7")
    assert AddedDecider(added(PACKAGE | {"mine/deciders.py": counting})).num_calls == 7


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("return []", "0 verdicts on 1 questions"),
        ("return ['delete']", "'delete': must be a Verdict"),
        ("return [Verdict('close')]", "its action one of ('update', 'delete', 'ignore')"),
        ("return None", "TypeError: "),
        ("raise OSError('no disk')", "OSError: no disk"),
    ],
)
def test_a_decider_that_fails_is_blamed_by_name(added, body, why):
    source = DECIDER.replace('return [Verdict("ignore") for question in questions]', body)
    decider = AddedDecider(added({"mine.py": source}, MODULE))
    with pytest.raises(WorkerSick) as caught:
        decider.decide([QUESTION])
    assert str(caught.value).startswith("entry point 'ours' of slowwave.deciders in mine 1.2: ")
    assert why in str(caught.value)


def test_a_verdict_that_is_refused_or_failed_needs_no_action(added):
    body = DECIDER.replace('Verdict("ignore")', 'Verdict("", "failed")')
    assert AddedDecider(added({"mine.py": body}, MODULE)).decide([QUESTION]) == [Verdict("", "failed")]


def test_a_decider_that_cannot_be_made_is_blamed_by_name(added):
    source = DECIDER + "    def __init__(self):\n        raise OSError('no weights')\n"
    with pytest.raises(WorkerSick, match=r"in mine 1.2: OSError: no weights"):
        AddedDecider(added({"mine.py": source}, "mine:Decider"))


@pytest.mark.parametrize(
    "source",
    ["Decider = 1", "def Decider(): ...", "class Decider: ...", "class Decider:\n    decide = 1"],
)
def test_what_is_no_class_that_decides_is_refused(added, source):
    addition = added({"mine.py": source}, MODULE)
    for known in (WITHOUT_MODEL, FINGERPRINTS):
        with pytest.raises(EntryPointError, match="expected a class without required arguments that"):
            known[addition.entry.name]


def test_a_worker_without_the_distribution_says_so():
    with pytest.raises(WorkerSick, match=r"adds the decider 'ours'; install it there, by pip of \[cluster\]"):
        load_decider("ours")


def test_what_ships_has_fingerprints_and_only_that_a_network():
    assert WITHOUT_MODEL.data.keys() == FINGERPRINTS.data.keys() >= set(LOADED)
