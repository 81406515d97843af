"""What is paid for: the ledger answers as a dict of dicts would."""

import pickle

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from cluster.backfill.archive import session_key
from cluster.backfill.ledger import Ledger

COLUMNS = ("user_id", "session_id", "segment_id", "encoder", "outcome")

# Few ids, among them pairs that run together when joined, so that sessions meet.
IDS = st.sampled_from(["a", "b", "ab", "", "a\0", "\0a", "a b", "ü", "🙂", "'", "a' b'"])
ROW = st.tuples(
    IDS,
    IDS,
    st.binary(min_size=16, max_size=16).map(bytes.hex),
    st.sampled_from(["encoder-1", "encoder-2"]),
    st.sampled_from(["complete", "split", "partial", "rejected"]),
)
ROWS = st.lists(ROW, max_size=60, unique_by=lambda row: row[2])


def table(rows):
    return pa.table(
        {name: pa.array([row[index] for row in rows], pa.string()) for index, name in enumerate(COLUMNS)}
    )


@given(ROWS, IDS, IDS, st.sampled_from([None, "encoder-1", "encoder-3"]), st.booleans())
def test_it_answers_as_a_dict_would(rows, user_id, session_id, encoder, retry_rejected):
    expected = {}
    for user, session, segment, its_encoder, outcome in rows:
        done = encoder in (None, its_encoder)
        if retry_rejected and outcome in ("partial", "rejected"):
            done = False
        expected.setdefault((user, session), {})[segment] = done
    ledger = Ledger.of(table(rows), encoder=encoder, retry_rejected=retry_rejected)
    for user, session in [*expected, (user_id, session_id)]:
        assert ledger.of_session(user, session) == expected.get((user, session), {})


def test_by_session():
    rows = [
        ("u", "s", "0" * 32, "e", "complete"),
        ("u", "s", "1" * 32, "e", "complete"),
        ("u", "t", "2" * 32, "e", "complete"),
        ("v", "s", "3" * 32, "e", "complete"),
    ]
    ledger = Ledger.of(table(rows))
    assert ledger.of_session("u", "s") == {"0" * 32: True, "1" * 32: True}
    assert ledger.of_session("v", "s") == {"3" * 32: True}
    assert ledger.of_session("v", "t") == {}


def test_filters():
    rows = [
        ("u", "s", "0" * 32, "old", "complete"),
        ("u", "s", "1" * 32, "new", "complete"),
        ("u", "s", "2" * 32, "new", "partial"),
        ("u", "s", "3" * 32, "new", "rejected"),
        ("u", "s", "4" * 32, "new", "split"),
    ]

    def done(**filters):
        return [
            int(key[0])
            for key, value in Ledger.of(table(rows), **filters).of_session("u", "s").items()
            if value
        ]

    assert done() == [0, 1, 2, 3, 4]
    assert done(encoder="new") == [1, 2, 3, 4]
    assert done(encoder="neither") == []
    assert done(retry_rejected=True) == [0, 1, 4]
    assert done(encoder="new", retry_rejected=True) == [1, 4]


def test_an_empty_store_has_an_empty_ledger():
    """The store answers without columns where there is no table yet."""
    for rows in (pa.schema([]).empty_table(), table([])):
        ledger = Ledger.of(rows, encoder="e", retry_rejected=True)
        assert ledger.of_session("u", "s") == {}


def test_it_travels_to_workers():
    ledger = pickle.loads(pickle.dumps(Ledger.of(table([("u", "s", "0" * 32, "e", "complete")]))))
    assert ledger.of_session("u", "s") == {"0" * 32: True}


def test_a_large_ledger_is_quick():
    """Sorted arrays: a look-up among many segments does not walk over them."""
    rows = [("u", f"s{index // 4}", f"{index:032x}", "e", "complete") for index in range(20_000)]
    ledger = Ledger.of(table(rows))
    assert ledger.rows.nbytes == 37 * len(rows)
    for index in range(0, 20_000, 4):
        assert len(ledger.of_session("u", f"s{index // 4}")) == 4


def test_keys_tell_sessions_apart():
    pairs = [
        ("a", "b"),
        ("a\0", "b"),
        ("a", "\0b"),
        ("ab", ""),
        ("", "ab"),
        ("'a'", "b"),
        ("a", None),
        (1, "b"),
        ("1", "b"),
    ]
    assert len({session_key(*pair) for pair in pairs}) == len(pairs)
    assert all(len(session_key(*pair)) == 16 for pair in pairs)
    assert len(session_key("lone \ud800", "b")) == 16
