"""The list of who is forgotten: what it tells to whom."""

import hashlib
import hmac
import json

import pytest

from cluster.forget.forgotten import Forgotten
from cluster.store.errors import StoreError
from cluster.store.files import Files
from jobs.backfill import BackfillConfig
from jobs.common.forgotten import read_forgotten

SECRET = "0123456789abcdef0123456789abcdef"


def listed(folder):
    (path,) = (folder / "_slowwave" / "forgotten").iterdir()
    return json.loads(path.read_text())


def put(uri, user_id, secret=None):
    forgotten = Forgotten.of_store(uri, secret)
    forgotten.with_keys([forgotten.key("user", user_id)]).save(uri)


def test_without_the_operator_s_secret_a_guessed_id_is_not_confirmed(tmp_path):
    put(str(tmp_path), "ann", SECRET)
    found = listed(tmp_path)
    assert SECRET not in json.dumps(found) and SECRET not in repr(Forgotten.of_store(str(tmp_path), SECRET))
    guess = hmac.digest(found["salt"].encode(), b"str:user\0str:ann", hashlib.sha256).hex()[:32]
    assert guess not in found["keys"]
    assert Forgotten(found["salt"], frozenset(found["keys"])).has_session("ann", "s") is False
    assert Forgotten.of_store(str(tmp_path), SECRET).has_session("ann", "s")


def test_a_list_that_was_made_without_a_secret_takes_one_and_stays_valid(tmp_path):
    put(str(tmp_path), "ann")
    before = set(listed(tmp_path)["keys"])
    # A backfill with the secret only reads.
    assert Forgotten.of_store(str(tmp_path), SECRET).has_session("ann", "s")
    put(str(tmp_path), "bob", SECRET)
    again = Forgotten.of_store(str(tmp_path), SECRET)
    assert [again.has_session(user_id, "s") for user_id in ("ann", "bob", "carol")] == [True, True, False]
    assert not before & set(listed(tmp_path)["keys"])


@pytest.mark.parametrize("secret", [None, "another secret, long enough"])
def test_a_keyed_list_is_never_read_as_an_empty_one(tmp_path, secret):
    put(str(tmp_path), "ann", SECRET)
    with pytest.raises(StoreError, match="keyed with"):
        Forgotten.of_store(str(tmp_path), secret)


def test_who_has_no_secret_can_finish_a_forgetting(tmp_path):
    put(str(tmp_path), "ann", SECRET)
    forgotten = Forgotten.of_store(str(tmp_path), SECRET)
    Forgotten.remember(str(tmp_path), [forgotten.key("user", "bob")], forgotten.made_with())
    again = Forgotten.of_store(str(tmp_path), SECRET)
    assert again.has_session("ann", "s") and again.has_session("bob", "s")


def test_ids_with_nul_are_not_taken_for_others():
    forgotten = Forgotten("salt", frozenset())
    one = forgotten.key("session", "ann\0str:b", "c")
    assert one != forgotten.key("session", "ann", "b\0str:c")


@pytest.mark.parametrize(
    ("user_id", "session_id", "expected"),
    [
        (None, "s1", True),
        ("ann", None, True),
        ("ann", " ", True),
        ("ann", "s1", True),
        ("ann", "s2", False),
        ("bob", "s1", False),
    ],
)
def test_a_bad_row_shows_nothing_when_it_may_be_of_the_forgotten(user_id, session_id, expected):
    forgotten = Forgotten("salt", frozenset())
    shown = repr({"turns": [{"content": "a"}, {"content": "b"}, {"content": None}]})
    assert not forgotten.may_show(user_id, session_id, shown)
    forgotten = forgotten.with_keys([forgotten.key("turn", "ann", "s1", 2)])
    assert forgotten.may_show(user_id, session_id, shown) is expected
    assert not forgotten.may_show(None, None, "")


# --- two writers ----------------------------------------------------------------------------------------


def test_who_slept_with_an_older_list_takes_nobody_off_a_newer_one(tmp_path):
    uri = str(tmp_path)
    put(uri, "ann")
    sleeper = Forgotten.of_store(uri)
    put(uri, "bob")
    sleeper.save(uri)  # what it has to say is said
    with pytest.raises(StoreError, match=r"another job has changed the list .* run the same command again"):
        sleeper.with_keys([sleeper.key("user", "carol")]).save(uri)
    with pytest.raises(StoreError, match="another job has changed the list"):
        Forgotten("0" * 32, frozenset()).save(uri)
    now = Forgotten.of_store(uri)
    assert [now.has_session(user_id, "s") for user_id in ("ann", "bob", "carol")] == [True, True, False]


@pytest.mark.parametrize("step", ["paths", "get", "create", "delete"])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("num_others", [1, 3])
def test_who_sleeps_while_it_remembers_takes_nobody_off_the_list(
    tmp_path, monkeypatch, step, when, num_others
):
    """Regression: it wrote the list that it had read over the one that others had made meanwhile."""
    uri, original, others = str(tmp_path), getattr(Files, step), [f"other{n}" for n in range(num_others)]
    put(uri, "ann")
    sleeper = Forgotten.of_store(uri)

    def sleeps(self, *args):
        monkeypatch.setattr(Files, step, original)
        found = original(self, *args) if when == "after" else None
        for user_id in others:
            put(uri, user_id)
        return original(self, *args) if when == "before" else found

    monkeypatch.setattr(Files, step, sleeps)
    Forgotten.remember(uri, [sleeper.key("user", "bob")], sleeper.made_with())
    now = Forgotten.of_store(uri)
    assert all(now.has_session(user_id, "s") for user_id in ("ann", "bob", *others))
    assert len(Files(uri, "forgotten").paths()) == 1


def test_who_makes_the_first_list_does_not_replace_one_that_another_made_meanwhile(tmp_path):
    """With another salt, which would leave its hashes without a meaning."""
    sleeper = Forgotten.of_store(str(tmp_path))
    put(str(tmp_path), "ann")
    with pytest.raises(StoreError, match="another job has changed the list"):
        sleeper.save(str(tmp_path))
    assert Forgotten.of_store(str(tmp_path)).has_session("ann", "s")


# --- a list that is damaged or lost ---------------------------------------------------------------------

HEX = "0123456789abcdef" * 2
WHOLE = {"salt": HEX, "keys": [HEX]}
DAMAGED = {
    "empty": b"",
    "half-written": json.dumps(WHOLE).encode()[:-20],
    "zeros, as a power cut leaves them": b"\0" * 100,
    "no JSON": b"salt = 1",
    "no UTF-8": b'{"salt": "\xff\xfe"}',
    "too deep": b"[" * 100_000,
    "null": b"null",
    "a list": json.dumps([WHOLE]).encode(),
    "a string": json.dumps(json.dumps(WHOLE)).encode(),
    "an object of nothing": b"{}",
    "no salt": json.dumps({"keys": [HEX]}).encode(),
    "no keys": json.dumps({"salt": HEX}).encode(),
    "null for keys": json.dumps(WHOLE | {"keys": None}).encode(),
    "one string for keys": json.dumps(WHOLE | {"keys": HEX}).encode(),
    "an object for keys": json.dumps(WHOLE | {"keys": {HEX: HEX}}).encode(),
    "a number among the keys": json.dumps(WHOLE | {"keys": [HEX, 1]}).encode(),
    "a key that was cut": json.dumps(WHOLE | {"keys": [HEX, HEX[:-1]]}).encode(),
    "a number for the salt": json.dumps(WHOLE | {"salt": 1}).encode(),
    "half a character in the salt": json.dumps(WHOLE | {"salt": "\ud800"}).encode(),
    "a number for the check": json.dumps(WHOLE | {"secret_check": 1}).encode(),
    "an unknown field": json.dumps(WHOLE | {"more": 1}).encode(),
}


@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_list_is_refused_with_the_remedy_and_stays_as_it_is(tmp_path, data):
    """Also for who finishes a killed forgetting: a list that were read in part would bring the rest back."""
    uri, files = str(tmp_path), Files(str(tmp_path), "forgotten")
    files.put("list.json", data)
    for ask in (
        lambda: Forgotten.of_store(uri),
        lambda: Forgotten.of_store(uri, SECRET),
        lambda: Forgotten.of_store(uri, may_begin=False),
        lambda: Forgotten.remember(uri, [HEX], {"salt": HEX, "secret_check": None}),
        lambda: read_forgotten(BackfillConfig(archive="a", store=uri), uri),
    ):
        with pytest.raises(StoreError, match=r"list\.json: damaged .*backup.* delete it and forget again"):
            ask()
    assert files.get("list.json") == data


def test_who_was_forgotten_is_not_let_in_when_the_list_is_gone(tmp_path):
    """A receipt says that there was one. A forgetting may begin it anew, which is the remedy."""
    uri = str(tmp_path)
    assert Forgotten.of_store(uri, may_begin=False).keys == frozenset()
    Files(uri, "receipts").put_json("run1.json", {})
    with pytest.raises(StoreError, match=r"list\.json: lost.*jobs.forget --in-advance"):
        read_forgotten(BackfillConfig(archive="a", store=uri), uri)
    put(uri, "ann")
    assert read_forgotten(BackfillConfig(archive="a", store=uri), uri).has_session("ann", "s")


@pytest.mark.parametrize("secret", [None, SECRET])
def test_a_killed_forgetting_is_remembered_though_the_damaged_list_was_deleted(tmp_path, secret):
    """Its hashes are of the salt, and of the secret, that the list had."""
    forgotten = Forgotten.of_store(str(tmp_path), secret)
    Forgotten.remember(str(tmp_path), [forgotten.key("user", "bob")], forgotten.made_with())
    again = Forgotten.of_store(str(tmp_path), secret)
    assert again.has_session("bob", "s") and not again.has_session("ann", "s")


def test_hashes_do_not_go_on_a_list_on_which_they_say_nothing(tmp_path):
    forgotten = Forgotten.of_store(str(tmp_path))
    put(str(tmp_path), "ann")
    with pytest.raises(StoreError, match=r"list\.json: not the one that an interrupted forgetting"):
        Forgotten.remember(str(tmp_path), [forgotten.key("user", "bob")], forgotten.made_with())
