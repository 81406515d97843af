"""What an erasure takes along, by the rules alone: evidence is the unit, and nobody else loses a row."""

import datetime as dt
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.embed.turn_embedder import EachUser
from cluster.forget.forgotten import BLANK, Forgotten
from cluster.forget.rules import Subject, erase
from cluster.forget.words import words
from schemas.profiles.embedder import EvolvableProfile
from schemas.store import TABLE_KEYS

TIME = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
IN_ORDER = EachUser(EvolvableProfile(model="none"))


def turn(session_id, index, content):
    return {
        "session_id": session_id,
        "turn_index": index,
        "content": content,
        "segment_id": f"{session_id}-segment",
        "conversation_id": None,
        "session_time": TIME,
    }


def record(record_id, text, *evidence, revision=1, active=True, reason=None, decision=None):
    return {
        "record_id": record_id,
        "revision": revision,
        "semantic_text": text,
        "evidence": [{"session_id": session_id, "turn_index": index} for session_id, index in evidence],
        "session_id": evidence[0][0],
        "segment_id": f"{evidence[0][0]}-segment",
        "conversation_id": None,
        "session_time": TIME,
        "entities": [],
        "tags": [],
        "temporal": {"t_ref": "2026-01-01", "t_valid_from": "", "t_valid_to": ""},
        "active": active,
        "closed_run_id": None if active else "run2",
        "closed_reason": reason,
        "decision_id": decision,
    }


def decision(decision_id, target, source, action):
    return {
        "decision_id": decision_id,
        "target_id": target[0],
        "target_revision": target[1],
        "source_ids": [source[0]],
        "source_revisions": [source[1]],
        "action": action,
        "outcome": "applied",
    }


def rejection(raw, user_id=None, session_id=None, source="a.parquet:1"):
    names = {"user_id": user_id, "session_id": session_id, "source": source}
    return {"rejection_id": raw, "raw": raw, "detail": "", **names}


def rows(**given):
    return {name: [] for name in TABLE_KEYS} | given


def ids(erased):
    return sorted((row["record_id"], row["revision"]) for row in erased)


S1 = Subject("ann", "s1")


def test_a_user_takes_everything():
    found = erase(
        Subject("ann"),
        rows(
            turns=[turn("s1", 0, "a"), turn("s2", 0, "b")],
            records=[record("r", "text", ("s1", 0), ("s2", 0))],
            decisions=[decision("d", ("r", 1), ("x", 1), "ignore")],
        ),
    )
    assert {name: len(erasure.deleted) for name, erasure in found.items()} == {
        "segments": 0,
        "rejections": 0,
        "decisions": 1,
        "states": 0,
        "turns": 2,
        "records": 1,
    }


def test_a_latent_memory_goes_with_the_vectors_that_were_made_with_it():
    turns = [turn(session_id, 0, "a") for session_id in ("s0", "s1", "s2")]
    given_rows = rows(turns=turns, states=[{"user_id": "ann", "num_turns": 3}])
    found = erase(S1, given_rows, IN_ORDER)
    assert found["states"].deleted == given_rows["states"]
    assert found["turns"].changed == [turns[2] | {"vector": None}]
    assert erase(S1, given_rows)["turns"].changed == []


def test_a_record_of_another_session_is_not_touched():
    found = erase(S1, rows(records=[record("r", "User has a dog.", ("s2", 0))]))
    assert found["records"].deleted == found["records"].changed == []


def test_what_rests_on_both_stays_with_the_rest():
    both = record("r", "User has a dog.", ("s1", 0), ("s2", 3))
    found = erase(
        S1, rows(turns=[turn("s1", 0, "My dog"), turn("s2", 3, "the user has that dog")], records=[both])
    )
    assert found["records"].deleted == []
    (changed,) = found["records"].changed
    assert changed["evidence"] == [{"session_id": "s2", "turn_index": 3}]
    assert (changed["session_id"], changed["segment_id"]) == ("s2", "s2-segment")
    assert changed["temporal"]["t_ref"] == ""


def test_a_word_that_only_the_erased_said_takes_the_revision():
    first = record("r", "User has a dog.", ("s2", 3), active=False, reason="update")
    second = record("r", "User has a dog named Rex.", ("s2", 3), ("s1", 0), revision=2)
    found = erase(
        S1,
        rows(
            turns=[turn("s1", 0, "named Rex"), turn("s2", 3, "I have a dog, says the user")],
            records=[first, second],
        ),
    )
    assert ids(found["records"].deleted) == [("r", 2)]
    (changed,) = found["records"].changed
    assert (changed["revision"], changed["active"], changed["closed_reason"]) == (1, True, None)


@pytest.mark.parametrize("action", ["delete", "unite"])
def test_what_only_erased_memories_had_closed_is_open_again(action):
    old = record("old", "User lives in Lyon.", ("s2", 0), active=False, reason=action)
    new = record("new", "User lives in Oslo.", ("s1", 0))
    found = erase(S1, rows(records=[old, new], decisions=[decision("d", ("old", 1), ("new", 1), action)]))
    assert ids(found["records"].changed) == [("old", 1)] and found["records"].changed[0]["active"]
    assert len(found["decisions"].deleted) == 1


def test_what_a_replaced_segment_had_closed_stays_closed():
    old = record("old", "User lives in Lyon.", ("s2", 0), active=False, reason="segment_replaced")
    new = record("new", "User lives in Oslo.", ("s1", 0))
    found = erase(S1, rows(records=[old, new], decisions=[decision("d", ("old", 1), ("new", 1), "delete")]))
    assert found["records"].changed == []


def test_rejections_that_show_it_go():
    said = "a sentence that is long enough"
    found = erase(
        S1,
        rows(
            turns=[turn("s1", 0, said)],
            segments=[{"segment_id": "g", "session_id": "s1", "first_turn": 0, "last_turn": 1}],
            rejections=[
                rejection("own", "ann", "s1"),
                rejection(f"{{'content': '{said}'}}"),
                rejection("of the segment", "ann", "s1", source="g"),
                rejection("of another", "bob", "s1"),
            ],
        ),
    )
    assert len(found["rejections"].deleted) == 3
    somebody = [rejection("{'user_id': 'ann', 'turns': []}"), rejection("{'user_id': 'hannah'}")]
    found = erase(Subject("ann"), rows(rejections=somebody))
    assert found["rejections"].deleted == somebody[:1]


@pytest.mark.parametrize(
    ("erased", "kept", "text"),
    [
        ("I have MS", "I have a doctor", "User has MS."),
        ("my HP broke", "my printer broke", "User has an HP printer."),
        ("I work in IT", "it is a job I work in", "User works in IT."),
        ("我住在北京", "我住在中国", "用户住在北京。"),
        ("我有一只猫", "我有一只", "用户养猫。"),
        ("ベルリンに住んでいる", "ドイツに住んでいる", "ユーザーはベルリンに住んでいる。"),
        ("서울에 살아요", "한국에 살아요", "사용자는 서울에 산다."),
        ("I have two labradors", "I have two animals", "User has a labrador."),
    ],
)
def test_words_that_only_the_erased_said_take_a_memory_whatever_their_length_or_script(erased, kept, text):
    turns = [turn("s1", 0, erased), turn("s2", 0, kept)]
    both = record("r", text, ("s1", 0), ("s2", 0))
    assert ids(erase(S1, rows(turns=turns, records=[both]))["records"].deleted) == [("r", 1)]


def test_words_that_both_said_keep_a_memory():
    turns = [
        turn("s1", 0, "I am in IT, I have MS and it is an HP"),
        turn("s2", 0, "MS, HP and working in IT"),
    ]
    both = record("r", "User has MS and an HP and works in IT.", ("s1", 0), ("s2", 0))
    assert erase(S1, rows(turns=turns, records=[both]))["records"].deleted == []


MEMORY = Subject("ann", record_id="m", turns=frozenset({("s1", 0)}))
SAID = [turn("s1", 0, "We moved to Lyon"), turn("s1", 1, "I like the cheese there"), turn("s1", 2, "Bye")]
SEGMENT = {"segment_id": "s1-segment", "session_id": "s1", "first_turn": 0, "last_turn": 2}


def forget_memory(*others, segment=SEGMENT):
    memory = record("m", "User lives in Lyon.", ("s1", 0))
    return erase(MEMORY, rows(turns=SAID, records=[memory, *others], segments=[segment]))["records"]


def test_a_sibling_that_took_a_word_from_an_erased_turn_goes():
    heard = record("heard", "User likes the cheese of Lyon.", ("s1", 1))
    own = record("own", "User likes the cheese.", ("s1", 1))
    assert ids(forget_memory(heard, own).deleted) == [("heard", 1), ("m", 1)]


def test_a_sibling_whose_names_alone_are_of_an_erased_turn_loses_them():
    own = record("own", "User likes the cheese.", ("s1", 1)) | {
        "entities": ["Lyon", "cheese"],
        "tags": ["lyon"],
    }
    found = forget_memory(own)
    assert ids(found.deleted) == [("m", 1)]
    assert [(row["entities"], row["tags"]) for row in found.changed] == [(["cheese"], [])]


def test_a_sibling_of_an_earlier_segment_heard_nothing():
    earlier = record("earlier", "User was in Lyon.", ("s1", 1)) | {"segment_id": "s1-earlier"}
    before = SEGMENT | {"segment_id": "s1-earlier", "last_turn": -1}
    assert ids(forget_memory(earlier, segment=before).deleted) == [("m", 1)]


def test_a_sibling_does_not_account_for_the_word_that_it_took():
    heard = record("heard", "User likes the cheese of Lyon.", ("s1", 1))
    both = record("both", "User eats cheese in Lyon.", ("s1", 0), ("s1", 1))
    assert ids(forget_memory(heard, both).deleted) == [("both", 1), ("heard", 1), ("m", 1)]


def test_states_stay_where_a_session_was_never_read():
    given_rows = rows(turns=[turn("s2", 0, "a")], states=[{"user_id": "ann", "num_turns": 3}])
    assert erase(S1, given_rows, IN_ORDER)["states"].deleted == []


SHOWN = "A sentence with 'quotes'\nand a break, which goes on for long enough to be cut off somewhere"


@pytest.mark.parametrize(
    ("raw", "user_id", "session_id"),
    [
        (repr({"user_id": None, "turns": [{"content": SHOWN}]}), None, None),
        (repr({"user_id": "ann", "session_id": 7, "turns": [{"content": SHOWN}]})[:90], "ann", None),
        (repr({"user_id": None, "session_id": "s1", "turns": 5}), None, "s1"),
        (repr({"user_id": None, "session_id": None, "turns": [{"content": "我住在北京朝阳区"}]}), None, None),
        (repr({"user_id": "ann", "session_id": None, "turns": [{"content": "Up 42!"}]}), "ann", None),
    ],
)
def test_a_rejection_that_shows_a_part_of_the_erased_goes_whatever_is_damaged_in_it(raw, user_id, session_id):
    said = [turn("s1", 0, SHOWN), turn("s1", 1, "我住在北京朝阳区"), turn("s1", 2, "Up 42!")]
    found = erase(S1, rows(turns=said, rejections=[rejection(raw, user_id, session_id)]))
    assert len(found["rejections"].deleted) == 1
    others = [rejection("{'content': 'of mine'}", user, "s2") for user in ("ann", "bob", None)]
    assert erase(S1, rows(turns=said, rejections=others))["rejections"].deleted == []


def test_an_id_that_is_a_number_in_the_archive_is_known_in_a_rejection():
    mine, other = rejection("{'user_id': 12, 'turns': []}"), rejection("{'user_id': 123, 'turns': []}")
    assert erase(Subject("12"), rows(rejections=[mine, other]))["rejections"].deleted == [mine]


PLACES = [("s1", 0), ("s1", 1), ("s2", 0), ("s3", 0)]
RECORDS = st.lists(
    st.tuples(
        st.sampled_from(["dog", "cat", "Oslo 12", "dog Oslo"]), st.sets(st.sampled_from(PLACES), min_size=1)
    ),
    max_size=6,
)


@given(RECORDS, st.lists(st.sampled_from(["dog", "cat", "Oslo 12", "hm"]), min_size=4, max_size=4))
def test_no_erased_evidence_and_no_word_of_it_alone_is_left(given_records, said):
    turns = [turn(*place, text) for place, text in zip(PLACES, said, strict=True)]
    records = [
        record(f"r{number}", text, *sorted(places)) for number, (text, places) in enumerate(given_records)
    ]
    found = erase(S1, rows(turns=turns, records=records))["records"]
    gone = {row["record_id"] for row in found.deleted}
    changed = {row["record_id"]: row for row in found.changed}
    left = [changed.get(row["record_id"], row) for row in records if row["record_id"] not in gone]
    assert all(item["session_id"] != "s1" for row in left for item in row["evidence"])
    assert all(row["evidence"] and row["session_id"] != "s1" for row in left)
    # Nothing that rests on other turns alone is lost.
    for row, (_, places) in zip(records, given_records, strict=True):
        if all(session_id != "s1" for session_id, _ in places):
            assert row in left
    # What stays says nothing that only the erased turns said.
    kept = set(itertools.chain(*(words(t["content"]) for t in turns if t["session_id"] != "s1")))
    own = set(itertools.chain(*(words(row["semantic_text"]) for row in left if row not in found.changed)))
    erased = set(itertools.chain(*(words(t["content"]) for t in turns if t["session_id"] == "s1")))
    for row in found.changed:
        assert not words(row["semantic_text"]) & erased - kept - own


# --- the list -----------------------------------------------------------------------------------------


def test_the_list_of_the_forgotten(tmp_path):
    uri = str(tmp_path)
    forgotten = Forgotten.of_store(uri)
    assert not forgotten.has_session("ann", "s1")
    forgotten = forgotten.with_keys([forgotten.key("session", "ann", "s1"), forgotten.key("user", "bob")])
    forgotten.save(uri)
    again = Forgotten.of_store(uri)
    assert again == forgotten
    for user_id, session_id, expected in (
        ("ann", "s1", True),
        ("ann", "s2", False),
        ("bob", None, True),
        (None, "s1", False),
        ("anns", "1", False),
    ):
        assert again.has_session(user_id, session_id) is expected
    stored = (tmp_path / "_slowwave" / "forgotten" / "list.json").read_text()
    assert "ann" not in stored and "bob" not in stored


def test_a_forgotten_turn_is_known_by_place_and_by_text():
    forgotten = Forgotten("salt", frozenset())
    keys = [forgotten.key("turn", "ann", "s1", 1), forgotten.key("text", "ann", "s1", "my secret")]
    forgotten = forgotten.with_keys(keys)

    def blanked(session_id, *contents):
        row = {"user_id": "ann", "session_id": session_id, "turns": [{"content": text} for text in contents]}
        forgotten.blank_turns(row)
        return [turn["content"] for turn in row["turns"]]

    assert blanked("s1", "hi", "edited", "bye") == ["hi", BLANK, "bye"]
    assert blanked("s1", "hi", "new", "my secret") == ["hi", BLANK, BLANK]
    assert blanked("s2", "hi", "my secret") == ["hi", "my secret"]


# --- extra fields ---------------------------------------------------------------------------------------


def test_of_a_memory_that_loses_evidence_the_values_stay_that_the_rest_accounts_for():
    """A choice is no word of anybody, so nobody knows whose it is: it goes, as a tag does."""
    both = record("r", "User has a dog.", ("s1", 0), ("s2", 3)) | {
        "extra": [("breed", "whippet"), ("owner", "that dog"), ("mood", "good")]
    }
    said = [turn("s1", 0, "My dog is a whippet"), turn("s2", 3, "the user has that dog")]
    (changed,) = erase(S1, rows(turns=said, records=[both]))["records"].changed
    assert changed["extra"] == [("owner", "that dog")]
    alone = both | {"extra": [("breed", "whippet")]}
    (changed,) = erase(S1, rows(turns=said, records=[alone]))["records"].changed
    assert changed["extra"] is None


def test_a_sibling_loses_values_that_use_a_word_of_an_erased_turn():
    own = record("own", "User likes the cheese.", ("s1", 1)) | {
        "extra": [("place", "Lyon"), ("food", "cheese"), ("mood", "good")]
    }
    (changed,) = forget_memory(own).changed
    assert changed["extra"] == [("food", "cheese"), ("mood", "good")]
    untold = record("own", "User likes the cheese.", ("s1", 1)) | {"extra": [("mood", "good")]}
    assert forget_memory(untold).changed == []
