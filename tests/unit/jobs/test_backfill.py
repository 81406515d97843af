"""What a backfill says when it ends without memories, and what it reads of an archive that it knows.
Tokenizer, encoder and embedder are scripted."""

import datetime as dt
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.backfill import cut_stage, embed_stage, encode_stage, projection
from cluster.backfill.projection import project
from cluster.store.files import WATERMARKS, Files
from jobs import backfill
from jobs.backfill import BackfillConfig, check_plan, check_rejected, run
from jobs.backfill.plan import Plan
from jobs.common.cli import JobError, UsageError
from jobs.forget import ForgetConfig
from jobs.forget import run as forget
from schemas.archive import ARCHIVE_SCHEMA
from tests.unit.cluster.backfill.scripted import (
    EMBEDDER,
    PROFILE,
    ScriptedEmbedder,
    ScriptedEncoder,
    session,
    word_offsets,
)


def rejection(number: int, detail: str) -> dict:
    return {"rejection_id": str(number), "reason": "invalid_session", "detail": detail}


def test_a_failure_shows_the_first_three_reasons_that_differ(tmp_path):
    config = SimpleNamespace(max_rejected_fraction=0.05, store=str(tmp_path))
    this = SimpleNamespace(run_id="run", finish=lambda status: None)
    details = ["user_id=None: name the user with --user-id", "user_id=None: name the user with --user-id"]
    details += ["turns=[]", "turns[0].role=None", "turns='hi'"]
    rows = [rejection(number, detail) for number, detail in enumerate(details)]
    with pytest.raises(JobError) as error:
        check_rejected(config, this, "sessions", 5, 5, rows)
    _, *shown = str(error.value).split("\n  ")
    assert shown == [f"invalid_session: {detail}" for detail in (details[0], *details[2:4])]


def test_a_store_that_cannot_lie_there_is_refused_before_anything_is_made_or_paid(tmp_path):
    pq.write_table(ARCHIVE_SCHEMA.empty_table(), tmp_path / "a.parquet")
    config = BackfillConfig(archive=str(tmp_path), store=str(tmp_path / "night?1"))
    with pytest.raises(UsageError, match=r"^--store '.*night\?1': has the character '\?', .*; name another"):
        run(config)
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]


def test_an_archive_without_sessions_is_reported_as_empty(capsys):
    config = SimpleNamespace(archive="archive", max_rejected_fraction=0.05, max_input_tokens=None)
    check_plan(config, Plan(), None)
    assert "archive: the archive is empty, no file of it has a session" in capsys.readouterr().err


@pytest.mark.parametrize("engine", ["vllm", "openai"])
def test_a_dry_run_tells_calls_tokens_and_money_and_asks_nobody(tmp_path, monkeypatch, capsys, engine):
    profile = PROFILE.model_copy(update={"engine": engine})
    monkeypatch.setattr(backfill, "choose_encoder", lambda *given: profile)
    monkeypatch.setattr(backfill, "choose_embedder", lambda *given: EMBEDDER)
    monkeypatch.setattr(backfill, "check_engine", lambda profile: None)
    for module in (cut_stage, projection):
        monkeypatch.setattr(module, "segment_offsets", lambda profile: word_offsets)
    monkeypatch.setattr(encode_stage, "Encoder", None)
    rows = pa.Table.from_pylist([session(0), session(1)], schema=ARCHIVE_SCHEMA)
    (archive := tmp_path / "archive").mkdir()
    pq.write_table(rows, archive / "a.parquet")
    options = {"archive": str(archive), "store": str(tmp_path / "store"), "local": True, "dry_run": True}
    prices = {"model": "m", "prompt_price": 100.0, "output_price": 1_000.0}
    summary = run(BackfillConfig.model_validate(options | {"endpoint": prices}))
    expected = project(4, summary["input_tokens"], profile, [])
    assert summary["status"] == "dry_run" and expected.prompt_tokens > summary["input_tokens"] > 0
    assert {name: summary[name] for name in summary if name.startswith("expected_")} == {
        "expected_calls": expected.num_calls,
        "expected_prompt_tokens": expected.prompt_tokens,
        "expected_output_tokens": expected.output_tokens,
        "expected_from": "profile",
    } | ({"expected_cost": summary["expected_cost"]} if engine == "openai" else {})
    said = capsys.readouterr().err
    assert f"would take about {expected.num_calls} calls with {expected.prompt_tokens} tokens" in said
    if engine == "openai":
        cost = (expected.prompt_tokens * 100 + expected.output_tokens * 1_000) / 1e6
        assert summary["expected_cost"] == pytest.approx(cost, abs=1e-4) and "by the prices" in said


def test_times_of_an_archive_that_count_as_unknown_are_named(tmp_path, monkeypatch, capsys):
    """Regression: jobs.ingest said so, and a backfill of an archive that others wrote did not."""
    monkeypatch.setattr(backfill, "choose_encoder", lambda *given: PROFILE)
    monkeypatch.setattr(backfill, "choose_embedder", lambda *given: EMBEDDER)
    for module in (cut_stage, projection):
        monkeypatch.setattr(module, "segment_offsets", lambda profile: word_offsets)
    times = [dt.datetime(year, 1, 1, tzinfo=dt.UTC) for year in (2026, 9999)]
    rows = [session(number, session_time=time) for number, time in enumerate(times)]
    (archive := tmp_path / "archive").mkdir()
    pq.write_table(pa.Table.from_pylist(rows, schema=ARCHIVE_SCHEMA), archive / "a.parquet")
    config = BackfillConfig(archive=str(archive), store=str(tmp_path / "store"), local=True, dry_run=True)
    assert run(config)["num_unknown_times"] == 1
    assert "times of the archive that count as unknown: 1, such as a.parquet:1: session_time=9999" in (
        capsys.readouterr().err
    )


def test_a_night_reads_what_is_new_and_a_forgetting_deletes_what_is_known(tmp_path, monkeypatch):
    monkeypatch.setattr(backfill, "choose_encoder", lambda *given: PROFILE)
    monkeypatch.setattr(backfill, "choose_embedder", lambda *given: EMBEDDER)
    monkeypatch.setattr(backfill, "check_engine", lambda profile: None)
    monkeypatch.setattr(cut_stage, "segment_offsets", lambda profile: word_offsets)
    monkeypatch.setattr(encode_stage, "Encoder", ScriptedEncoder().load)
    monkeypatch.setattr(embed_stage, "Embedder", ScriptedEmbedder().load)
    store, read = str(tmp_path / "store"), []
    monkeypatch.setattr(
        cut_stage, "redact_session", lambda row, **how: read.append(row["session_id"]) or REDACT(row, **how)
    )

    def night(*rows: dict) -> tuple[str, int, int, list[str]]:
        read.clear()
        if rows:
            path = archive / f"{rows[0]['session_id']}.parquet"
            pq.write_table(pa.Table.from_pylist(list(rows), schema=ARCHIVE_SCHEMA), path)
        summary = run(BackfillConfig(archive=str(archive), store=store, local=True))
        names = ("status", "num_sessions", "num_sessions_known")
        return *(summary[name] for name in names), list(read)

    (archive := tmp_path / "archive").mkdir()
    assert night(session(0), session(1)) == ("done", 2, 0, ["session0", "session1"])
    assert night() == ("unchanged", 2, 2, [])
    assert night(session(2)) == ("done", 3, 2, ["session2"])
    assert night() == ("unchanged", 3, 3, [])
    assert Files(store, WATERMARKS).paths() and not Files(store, "staging").paths()
    forget(ForgetConfig(store=store, session_id="session1"))
    assert not Files(store, WATERMARKS).paths()
    assert night() == ("unchanged", 2, 0, ["session0", "session2"])
    assert night() == ("unchanged", 2, 2, [])


REDACT = cut_stage.redact_session
