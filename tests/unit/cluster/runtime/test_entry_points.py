"""Entry points of other distributions: names without an import, and one line where one cannot be used."""

import sys

import pytest

from cluster.runtime import entry_points
from cluster.runtime.entry_points import EntryPointError, Known
from tests.adding import install

GROUP = "slowwave.numbers"
SOURCE = "one, two, word = 1, 2, 'three'\n"


@pytest.fixture(autouse=True)
def anew(monkeypatch):
    """What is installed is read once a process."""
    entry_points._entries.cache_clear()
    yield
    monkeypatch.undo()
    entry_points._entries.cache_clear()


def installed(tmp_path, monkeypatch, source=SOURCE, name="mine", **entries):
    """A distribution with these entry points, whose module is called like it."""
    site = tmp_path / name
    install(site, {GROUP: entries}, {f"{name}.py": source}, name=name)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.delitem(sys.modules, name, raising=False)
    return site


def known(**shipped):
    return Known(
        GROUP,
        shipped,
        "a number",
        lambda addition: addition.value if isinstance(addition.value, int) else None,
        reserved=("auto",),
    )


def test_what_ships_comes_first_and_what_is_added_behind_it(tmp_path, monkeypatch):
    installed(tmp_path, monkeypatch, two="mine:two", one="mine:one")
    numbers = known(ten=10)
    assert entry_points.names(GROUP) == ("one", "two")
    assert dict(numbers) == {"ten": 10, "one": 1, "two": 2} and len(numbers) == 3
    assert ("one" in numbers, "three" in numbers) == (True, False)
    assert [name for name in numbers if numbers.is_added(name)] == ["one", "two"]
    assert numbers.get("three") is None
    with pytest.raises(KeyError, match="three"):
        numbers["three"]


def test_names_are_known_without_an_import(tmp_path, monkeypatch):
    """Help answers at once, also where a distribution is broken."""
    installed(tmp_path, monkeypatch, source="raise SystemError('imported')", one="mine:one")
    assert [*known()] == ["one"]
    assert "mine" not in sys.modules


def refused(numbers, name):
    """The message, which is one line."""
    with pytest.raises(EntryPointError) as caught:
        numbers[name]
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["ten", "auto"])
def test_a_name_that_ships_is_refused_when_it_is_asked_for(tmp_path, monkeypatch, name):
    installed(tmp_path, monkeypatch, **{name: "mine:one", "two": "mine:two"})
    numbers = known(ten=10)
    assert refused(numbers, name) == (
        f"entry point '{name}' of slowwave.numbers in mine 1.2: the name is Slowwave's own; "
        "expected a name of its own. Mend that distribution, or uninstall it"
    )
    assert numbers["two"] == 2, "nobody else is concerned"
    assert [*numbers] == ["ten", "two"], "no name twice"


def test_a_name_of_two_distributions_is_refused(tmp_path, monkeypatch):
    installed(tmp_path, monkeypatch, one="mine:one")
    installed(tmp_path, monkeypatch, name="yours", one="yours:two")
    told = refused(known(), "one")
    assert "in mine 1.2: yours 1.2 has the same name; expected a name of its own" in told


@pytest.mark.parametrize("name", ["One", "a/b", "one two", ".."])
def test_a_name_that_no_option_and_no_file_can_have_is_refused(tmp_path, monkeypatch, name):
    installed(tmp_path, monkeypatch, **{name: "mine:one"})
    assert "not a name for an option; expected a name like" in refused(known(), name)


@pytest.mark.parametrize(
    ("source", "entry", "why"),
    [
        (SOURCE, "nowhere:one", "ModuleNotFoundError: No module named 'nowhere'"),
        (SOURCE, "mine:three", "AttributeError: "),
        ("import nowhere", "mine:one", "ModuleNotFoundError: No module named 'nowhere'"),
        ("one = (", "mine:one", "SyntaxError: "),
        ("raise ValueError('two\\nlines')", "mine:one", "ValueError: two lines"),
    ],
)
def test_what_cannot_be_imported_is_refused_with_the_reason(tmp_path, monkeypatch, source, entry, why):
    installed(tmp_path, monkeypatch, source=source, one=entry)
    told = refused(known(), "one")
    begin = f"entry point 'one' of slowwave.numbers in mine 1.2: {entry} cannot be imported ("
    assert told.startswith(begin) and why in told and "expected a number" in told


def test_what_is_something_else_than_expected_is_refused(tmp_path, monkeypatch):
    installed(tmp_path, monkeypatch, one="mine:word")
    told = refused(known(), "one")
    assert "slowwave.numbers in mine 1.2: mine:word is 'three'; expected a number." in told


def test_an_entry_point_is_imported_once(tmp_path, monkeypatch):
    installed(tmp_path, monkeypatch, source="one = id(object())", one="mine:one")
    numbers = known()
    first = numbers["one"]
    del sys.modules["mine"]
    assert numbers["one"] == first
