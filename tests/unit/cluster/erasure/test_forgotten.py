"""The list of who is forgotten: what it tells to whom."""

import hashlib
import hmac
import json

import pytest

from cluster.erasure.forgotten import Forgotten
from cluster.store import StoreError

SECRET = "0123456789abcdef0123456789abcdef"


def listed(folder):
    return json.loads((folder / "_slowwave" / "forgotten" / "list.json").read_text())


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
    key = Forgotten.of_store(str(tmp_path), SECRET).key("user", "bob")
    Forgotten.remember(str(tmp_path), [key])
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
