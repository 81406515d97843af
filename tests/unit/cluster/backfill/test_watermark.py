"""The watermark: what is known is not cut again, and every night plans just what it would plan without it."""

import contextlib
import dataclasses
import datetime as dt
import os
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import schemas.archive
from cluster.backfill import cut_stage
from cluster.backfill.archive import identity_of, inspect, session_key
from cluster.backfill.ledger import COLUMNS
from cluster.backfill.redact import compiled
from cluster.backfill.staged import plan_path
from cluster.backfill.watermark import Watermark, cut_fingerprint, session_secret
from cluster.forget.forgotten import Forgotten
from cluster.runtime import ClusterConfig, connect
from cluster.store.files import WATERMARKS, Files, put_below
from cluster.store.maintenance import rollback_marks
from jobs import backfill
from jobs.backfill import BackfillConfig
from schemas.archive import ARCHIVE_SCHEMA
from schemas.stage_items import ArchiveFile
from schemas.store import SEGMENTS_SCHEMA
from tests.buckets import found_by, new_bucket, serving
from tests.unit.cluster.backfill.scripted import PROFILE, session, turn, word_offsets

SCHEMA = pa.schema([pa.field(field.name, field.type) for field in ARCHIVE_SCHEMA])
OTHER_PROFILE = PROFILE.model_copy(update={"system_prompt": "Remember well."})


@pytest.fixture(autouse=True)
def here():
    connect(ClusterConfig(local=True))


class Place:
    """An archive, and a store that keeps of its tables what the cut asks for: each night is planned by the
    real thing, with and without the watermark, and then committed as `Store.commit` does."""

    def __init__(self, folder: Path):
        self.archive, self.uri = folder / "archive", str(folder / "store")
        self.archive.mkdir()
        self.staging, self.known = Files(self.uri, "staging"), Files(self.uri, WATERMARKS)
        self.segments: dict[str, dict] = {}
        self.views: list[dict[str, dict]] = []
        self.rejections: set[str] = set()

    # What jobs.backfill asks of a store.

    def batches(self, name, columns, where):
        assert (name, columns, where) == ("segments", COLUMNS, "active")
        rows = [row for row in self.segments.values() if row["active"]]
        return pa.Table.from_pylist(rows, schema=SEGMENTS_SCHEMA).select(columns).to_batches(3)

    def rows(self, name, columns):
        return pa.table({"rejection_id": pa.array(sorted(self.rejections), pa.string())})

    # What happens to it.

    def write(self, name, rows, group_size=2):
        pq.write_table(
            pa.Table.from_pylist(rows, schema=SCHEMA), self.archive / name, row_group_size=group_size
        )

    def files(self):
        return sorted(path.name for path in self.archive.iterdir())

    def config(self, **options):
        return BackfillConfig(archive=str(self.archive), store=self.uri, local=True, **options)

    def plan(self, config, profile=PROFILE, watermark=None):
        """The night's plan; with the staged watermark unless one is given."""
        forgotten = Forgotten.of_store(self.uri)
        watermark = watermark or backfill.read_watermark(config, profile, forgotten)
        found = backfill.inspect(config, self.files(), watermark, forgotten)
        return backfill.cut(config, profile, self, found, watermark, forgotten)

    def night(self, profile=PROFILE, **options):
        if not self.files():
            return None
        config = self.config(**options)
        without = self.plan(config, profile, Watermark(path="without.parquet"))
        plan = self.plan(config, profile)
        assert without.num_known == 0
        assert dataclasses.replace(plan, num_known=0) == without
        self.commit(plan, profile)
        return plan

    def commit(self, plan, profile):
        new = {}
        for part in (part for batch in plan.batches for part in batch.parts):
            for segment in self.staging.get_table(plan_path(part)).to_pylist():
                row = {field.name: segment.get(field.name) for field in SEGMENTS_SCHEMA}
                # Every third is rejected, whoever encodes it.
                outcome = "rejected" if int(segment["segment_id"], 16) % 3 == 0 else "complete"
                new[segment["segment_id"]] = row | {
                    "outcome": outcome,
                    "encoder": profile.fingerprint,
                    "active": True,
                }
        closed = {name: self.segments[name] | {"active": False} for name in plan.closed_segments}
        self.segments = self.segments | closed | new
        self.rejections |= {row["rejection_id"] for row in plan.rejections}
        self.views.append(self.segments)

    def roll_back(self, number):
        if not self.views:
            return
        then = self.views[number % len(self.views)]
        tables = [
            pa.Table.from_pylist(list(view.values()), schema=SEGMENTS_SCHEMA)
            for view in (self.segments, then)
        ]
        marks = rollback_marks(now=tables[0], then=tables[1], run_id="rollback").to_pylist()
        self.segments = then | {row["segment_id"]: row for row in marks}
        self.views.append(self.segments)

    def forget(self, *parts):
        """The list and the rows; the watermark stays, as if somebody had put it back."""
        forgotten = Forgotten.of_store(self.uri)
        forgotten.with_keys([forgotten.key(*parts)]).save(self.uri)
        ids = dict(zip(("user_id", "session_id"), parts[1:], strict=False))
        self.segments, *self.views = [
            {name: row for name, row in view.items() if any(row[key] != ids[key] for key in ids)}
            for view in (self.segments, *self.views)
        ]


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


# --- every night plans what it would plan without it ----------------------------------------------------

LONG_AHEAD = dt.datetime.now(dt.UTC) + dt.timedelta(days=3)

VERSIONS = {
    "short": lambda number: session(number, num_turns=2),
    "grown": lambda number: session(number, num_turns=5),
    "edited": lambda number: session(
        number, turns=[turn("Another beginning"), turn("my password: hunter2!")]
    ),
    "bad": lambda number: session(number, turns=[]),
    "nameless": lambda number: session(number, user_id=" "),
    "ahead": lambda number: session(number, session_time=LONG_AHEAD),
    "of_another": lambda number: session(number, user_id="another", num_turns=3),
}

NUMBERS = st.integers(0, 4)
ROWS = st.lists(
    st.tuples(st.sampled_from(sorted(VERSIONS)), NUMBERS).map(lambda one: VERSIONS[one[0]](one[1])),
    min_size=1,
    max_size=5,
)
NIGHT = st.fixed_dictionaries(
    {},
    optional={
        "limit_sessions": st.integers(1, 4),
        "retry_rejected": st.just(True),
        "include_rolled_back": st.just(True),
        "on_encoder_change": st.sampled_from(["keep", "reencode"]),
        "mask_contacts": st.just(True),
        "redaction_rules": st.just({"place": "beginning"}),
        "profile": st.just(OTHER_PROFILE),
    },
)
PLAIN_NIGHT = st.just(("night", {}))
OPERATION = st.one_of(
    st.tuples(st.just("write"), st.integers(0, 2), ROWS),
    st.tuples(st.just("remove"), st.integers(0, 2)),
    PLAIN_NIGHT,
    PLAIN_NIGHT,
    st.tuples(st.just("night"), NIGHT),
    st.tuples(st.just("roll_back"), st.integers(0, 5)),
    st.sampled_from(
        [
            ("forget", "user", "another"),
            ("forget", "session", "user", "session1"),
            ("forget", "turn", "user", "session2", 1),
            ("days_pass",),
            ("lose",),
        ]
    ),
)


@settings(max_examples=20)
@given(ROWS, ROWS, st.lists(OPERATION, max_size=7))
def test_every_night_plans_what_it_would_plan_without_the_watermark(first, second, operations):
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(cut_stage, "segment_offsets", lambda profile: word_offsets)
        place = Place(Path(folder))
        place.write("0.parquet", first)
        place.write("1.parquet", second)
        place.night()
        for name, *arguments in [*operations, ("night", {})]:
            if name == "write":
                place.write(f"{arguments[0]}.parquet", arguments[1])
            elif name == "remove":
                (place.archive / f"{arguments[0]}.parquet").unlink(missing_ok=True)
            elif name == "night":
                place.night(**arguments[0])
            elif name == "days_pass":
                patch.setattr(schemas.archive, "MAX_AHEAD", dt.timedelta(days=10))
            elif name == "lose":
                place.known.delete(place.known.paths())
            else:
                with contextlib.suppress(IndexError):
                    getattr(place, name)(*arguments)


# --- what is not cut again ------------------------------------------------------------------------------


def test_an_unchanged_night_reads_no_session(place, monkeypatch):
    place.write("a.parquet", [session(number) for number in range(5)])
    assert place.night().num_known == 0
    with monkeypatch.context() as patch:
        patch.setattr(cut_stage, "read_rows", lambda *unit: pytest.fail("a session is read"))
        patch.setattr("cluster.backfill.archive.inspect_file", lambda *path: pytest.fail("keys are read"))
        plan = place.plan(place.config())
    assert (plan.num_known, plan.num_sessions, plan.num_segments, plan.batches) == (5, 5, 10, [])


def test_of_new_and_grown_sessions_no_others_are_cut(place, monkeypatch):
    place.write("a.parquet", [session(number) for number in range(6)])
    place.night()
    place.write("b.parquet", [session(1, num_turns=6), session(9)])
    cut = []
    monkeypatch.setattr(
        cut_stage, "cut_session", lambda row, *how: cut.append(row["session_id"]) or CUT(row, *how)
    )
    plan = place.plan(place.config())
    assert (plan.num_known, plan.num_superseded, cut) == (5, 1, ["session1", "session9"])


CUT = cut_stage.cut_session


def test_what_the_store_has_no_longer_is_cut_again(place):
    place.write("a.parquet", [session(number) for number in range(4)])
    place.night()
    gone = next(name for name, row in place.segments.items() if row["session_id"] == "session2")
    del place.segments[gone]
    plan = place.night()
    assert (plan.num_known, plan.num_pending) == (3, 1)


def test_bad_rows_are_read_every_night_and_the_others_are_not(place):
    place.write("a.parquet", [session(0), session(1, turns=[]), session(2)], group_size=8)
    place.night()
    plan = place.night()
    assert (plan.num_known, plan.known_rejections, plan.num_sessions) == (2, 1, 2)


# --- what is not trusted --------------------------------------------------------------------------------


def test_another_content_of_the_same_size_and_times_is_another_identity(place):
    found, path = [], place.archive / "a.parquet"
    for number in (1, 2, 1):
        place.write("a.parquet", [session(number)])
        os.utime(path, (1, 1))
        found.append((path.stat().st_size, path.stat().st_mtime, identity_of(str(place.archive), path.name)))
    assert found[0][:2] == found[1][:2] and found[0] == found[2] != found[1]


def test_in_a_bucket_the_identity_is_of_its_etag_and_nothing_is_read(place, monkeypatch):
    place.write("a.parquet", [session(0)])
    with serving() as environment, found_by(environment):
        archive = f"s3://{new_bucket(environment, is_versioned=False)}"
        found = []
        for rows in ([session(0)], [session(1)], [session(0)]):
            place.write("a.parquet", rows)
            put_below(archive, "a.parquet", (place.archive / "a.parquet").read_bytes())
            monkeypatch.setattr("hashlib.file_digest", lambda *file: pytest.fail("it is read"))
            found.append(inspect(ArchiveFile("a.parquet", b""), archive=archive).identity)
        assert found[0] == found[2] != found[1] and all(found)
        assert inspect(ArchiveFile("a.parquet", found[2]), archive=archive).is_known


def test_a_file_that_changes_while_it_is_cut_is_not_remembered(place, monkeypatch):
    rows = [session(number) for number in range(4)]
    place.write("a.parquet", rows)
    place.write("b.parquet", [session(7)])

    def cut_session(row, *how):
        place.write("a.parquet", [*rows, session(8)])
        return CUT(row, *how)

    with monkeypatch.context() as patch:
        patch.setattr(cut_stage, "cut_session", cut_session)
        place.plan(place.config())
    read = backfill.read_watermark(place.config(), PROFILE, Forgotten.of_store(place.uri))
    assert list(read.files) == ["b.parquet"]


def test_a_dry_run_with_another_encoder_does_not_cost_the_next_night(place):
    place.write("a.parquet", [session(0)])
    place.night()
    place.plan(place.config(dry_run=True), OTHER_PROFILE)
    assert place.night().num_known == 1
    place.write("b.parquet", [session(1)])
    place.night()
    assert len(place.known.paths()) == 2, "with the one that is taken without a watermark"


@pytest.mark.parametrize("damage", [b"", b"no Parquet", None])
def test_a_watermark_that_is_damaged_or_gone_is_none(place, damage):
    place.write("a.parquet", [session(0)])
    place.night()
    (path,) = [one for one in place.known.paths() if "without" not in one]
    if damage is None:
        place.known.put_table(path, pa.table({"path": ["a.parquet"]}))
    else:
        place.known.put(path, damage)
    assert place.night().num_known == 0
    assert place.night().num_known == 1


def test_whatever_decides_how_sessions_are_cut_is_in_the_fingerprint():
    listed = Forgotten("ab" * 16, frozenset(["cd" * 16]))
    rules = compiled({"place": "Oslo"})
    found = [
        cut_fingerprint(profile, forgotten, mask_contacts=contacts, redaction_rules=own)
        for profile, forgotten, contacts, own in [
            (PROFILE, Forgotten("", frozenset()), False, ()),
            (OTHER_PROFILE, Forgotten("", frozenset()), False, ()),
            (PROFILE, listed, False, ()),
            (PROFILE, listed.with_keys(["ef" * 16]), False, ()),
            (PROFILE, dataclasses.replace(listed, secret=b"x" * 16), False, ()),
            (PROFILE, Forgotten("", frozenset()), True, ()),
            (PROFILE, Forgotten("", frozenset()), False, rules),
        ]
    ]
    assert len(set(found)) == len(found)
    # A store that has forgotten nothing has no list, and a salt of each moment.
    assert found[0] == cut_fingerprint(
        PROFILE, Forgotten("01" * 16, frozenset()), mask_contacts=False, redaction_rules=()
    )


def test_with_the_operator_s_secret_nobody_can_look_up_a_session_by_its_id(place, monkeypatch):
    place.write("a.parquet", [session(0)])
    keyed = Forgotten("ab" * 16, frozenset(), secret=b"a secret of the operator")
    monkeypatch.setattr(Forgotten, "of_store", lambda uri: keyed)
    assert [place.night().num_known, place.night().num_known] == [0, 1]
    (path,) = [one for one in place.known.paths() if "without" not in one]
    (key,) = place.known.get_table(path).column("keys").to_pylist()
    assert key == session_key("user", "session0", session_secret(keyed)) != session_key("user", "session0")
