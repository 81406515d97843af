"""Encoders: what several profiles make of the same conversations, in one leaderboard.

    python -m jobs.evaluate encoder --archive DIR --profiles default default:base --report DIR
    python -m jobs.evaluate encoder --archive DIR --profiles A A:per_request --questions FILE --report DIR

A profile is a name or a TOML file; `:base` leaves its adapter out, `:merged` and `:per_request` say how it is
served. Every profile cuts the same sessions in its own way, and is loaded once, on actors of its own.

  schema_ok        share of the segments answered whole and valid, halving included, without a rejection
  complete         share whose first answer was: neither cut nor halved
  failure_rate     share with a rejection, or with no record although a user states something of himself
                   (`missed`), or with records that the verifier's rules all refuse (`refused`)
  atomicity ...    means of the four scores, 0 to 5, over the segments that did not fail and have records:
                   by rule (cluster.evaluate.trial says how) unless a judge is named
  composite        mean of the weighted scores over all segments with something to score, failures as 0
  evidence         with --questions: share of the evidence turns of users that some record cites
  statements       share of what the rule-based teacher finds in the segments that some record holds
  silent           of the segments in which no user states anything (advice only): share without a record
  p50, p95         seconds of one segment alone; segments/s are those of one engine with whole batches
  cost             of a model behind an endpoint, what its answers cost by its prices

Segments that are rightly silent have no score and are no failure. A profile whose segments are measured is
not encoded again by the next run into the same report folder.
"""

import hashlib
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from cluster.report.svg import Chart
from cluster.runtime import Progress
from jobs.common.cli import JobError, UsageError, say
from jobs.common.endpoints import all_at_endpoint
from jobs.common.questions import read_questions
from jobs.common.run import absolute, connect, recorded
from jobs.evaluate.answers import ModelsConfig, cost_of, through
from jobs.evaluate.report import bars, check_folder, rounded, write_report
from jobs.evaluate.variants import load_variants
from schemas.endpoint import EndpointConfig
from schemas.profiles.encoder import EncoderProfile

SCORES = ("atomicity", "self_containedness", "entity_coverage", "evidence_alignment")


class Config(ModelsConfig):
    """Settings of an encoder evaluation."""

    archive: str
    """Folder or object-store URI of the archive."""
    profiles: list[str] = Field(min_length=1)
    """Encoder profiles: names in cluster/profiles/encoders or TOML files, each also with :base, :merged or
    :per_request behind it."""
    questions: str | None = None
    """Questions whose evidence the archive holds, for `evidence`."""
    format: Literal["longmemeval", "locomo", "realtalk", "beam", "sample"] | None = None
    """What the questions are. Not given: told from their fields."""
    only_evidence_sessions: bool = False
    """Encode only sessions with evidence of a question."""
    max_sessions: int | None = Field(200, ge=1)
    """Sessions that are drawn, evenly by hash; none: all."""
    seed: int = 0
    """Of the draw."""
    judge: Literal["rules", "vllm", "openai"] = "rules"
    """Who scores: rules (proxies, comparable with nobody else's), a judge profile on this cluster, or an
    OpenAI-compatible endpoint."""
    judge_profile: str = "default"
    """Rubric, and for vllm the model: a name in cluster/profiles/judges, or a TOML file."""
    judge_endpoint: EndpointConfig = EndpointConfig()
    num_alone: int = Field(16, ge=1)
    """Segments that are timed one by one, at most a quarter of all."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.judge == "openai" and not (self.judge_endpoint.base_url and self.judge_endpoint.model):
            raise ValueError(
                "judge openai needs base_url and model: set them in table [judge_endpoint] of --config"
            )
        if self.judge == "openai" and self.max_cost is not None and not self.judge_endpoint.has_prices:
            raise ValueError(
                f"max_cost={self.max_cost}: it caps no judge without prices; set prompt_price and "
                "output_price in the table [judge_endpoint]"
            )
        return self


@recorded("evaluate encoder", writes="report")
def run(config: Config) -> dict:
    """Measure every profile, write the report, return the summary with the leaderboard."""
    from cluster.backfill.archive import ArchiveError
    from cluster.models.resolve import resolve_encoder
    from cluster.models.sources import ModelError

    started_s = time.monotonic()
    folder = check_folder(config.report)
    variants = load_variants("encoders", config.profiles, EncoderProfile)
    # Where no profile asks an endpoint, the cap is the judge's alone.
    asks = config.judge != "openai" or any(profile.engine == "openai" for profile in variants.values())
    variants = all_at_endpoint(variants, config.endpoint, config.max_cost if asks else None)
    try:
        profiles = {name: resolve_encoder(profile) for name, profile in variants.items()}
        evidence = evidence_of(config)
        sessions = read_sessions(config, evidence)
    except ModelError as error:
        raise JobError(str(error)) from error
    except ArchiveError as error:
        raise UsageError(str(error)) from None
    connect(config.runs_on)
    boards, details = [], {}
    for name, profile in profiles.items():
        measured = measure(config, name, profile, sessions, folder)
        boards.append({"profile": name, **board(measured, evidence), **costs(profile, measured)})
        sources = sorted({row["source"] for row in measured["rows"]})
        details[name] = {
            "fingerprint": profile.fingerprint,
            "failures": failures(measured["rows"]),
            "by_source": {
                source: board(only(measured, source), evidence) for source in sources if len(sources) > 1
            },
        }
    boards.sort(key=lambda row: -(row["composite"] or 0))
    report = {
        "num_sessions": len(sessions),
        "scores_by": config.judge,
        "leaderboard": boards,
        "profiles": details,
    }
    definitions = __doc__[__doc__.index("  schema_ok") :]
    table = rows_of(boards, details)
    write_report(folder, config, rounded(report), "Encoders", table, definitions, charts(boards))
    seconds = round(time.monotonic() - started_s, 2)
    return {"status": "done", **rounded(report), "report": str(folder), "seconds": seconds}


# --- what is measured on --------------------------------------------------------------------------------


def evidence_of(config: Config) -> dict[tuple[str, str], set[int]]:
    """(user, session) -> evidence turns of the questions."""
    found: dict[tuple[str, str], set[int]] = {}
    for question in read_questions(config.questions, config.format) if config.questions else ():
        for session_id, turn_index in question.evidence:
            found.setdefault((question.user_id, session_id), set()).add(turn_index)
    if config.only_evidence_sessions and not found:
        raise UsageError("--only-evidence-sessions: needs --questions with evidence")
    return found


def read_sessions(config: Config, evidence: dict) -> list[tuple[str, dict]]:
    """(source, session) of the sessions that are measured on, redacted as a backfill redacts them.

    The source is the first part of the archive file's name, which is the format that it was ingested from.
    """
    from cluster.backfill.archive import BadRow, inspect_file, list_files, plan_units, read_unit, session_key
    from cluster.backfill.redact import redact

    archive = absolute(config.archive)
    units = plan_units([inspect_file(archive, path) for path in list_files(archive)])
    found = []
    for unit in units:
        source = unit.path.rpartition("/")[2].split("-")[0].removesuffix(".parquet")
        for row in read_unit(archive, unit):
            if isinstance(row, BadRow):
                say(f"[encoder] {row.source}: left out, {row.reason}")
            elif not config.only_evidence_sessions or (row["user_id"], row["session_id"]) in evidence:
                key = session_key(f"{config.seed}\0{row['user_id']}", row["session_id"])
                found.append((key, source, row))
    if not found:
        raise UsageError(f"--archive {config.archive}: has no session to measure on")
    found.sort(key=lambda entry: entry[0])
    chosen = [(source, row) for _, source, row in found[: config.max_sessions]]
    for _, row in chosen:
        for turn in row["turns"]:
            turn["content"] = redact(turn["content"]).text
    return chosen


# --- measuring ------------------------------------------------------------------------------------------


def measure(config: Config, name: str, profile: EncoderProfile, sessions: list, folder: Path) -> dict:
    """Rows of cluster.evaluate.trial.assess with source and times, of one profile; kept in the report."""
    from cluster.backfill.cut_stage import segment_offsets
    from cluster.backfill.segmenter import cut_session
    from cluster.evaluate.trial import Trial, TrialBatch

    offsets, segments = segment_offsets(profile), []
    for source, session in sessions:
        segments += [(source, segment) for segment in cut_session(session, offsets, profile)]
    num_alone = min(config.num_alone, max(1, len(segments) // 4))
    content = [
        profile.fingerprint,
        num_alone,
        config.pool.batch_size,
        *(s["segment_id"] for _, s in segments),
    ]
    key = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
    kept = folder / "segments" / f"{key}.json"
    by_id = {segment["segment_id"]: (source, segment) for source, segment in segments}
    if kept.is_file():
        say(f"[encoder] {name}: measured before, see {kept}")
        return judged(config, name, json.loads(kept.read_text(encoding="utf-8")), by_id)

    plain = [segment for _, segment in segments]
    # Drawn over all sessions: the first segments of a session are not like its later ones.
    alone = plain[:: max(1, len(plain) // num_alone)][:num_alone]
    ids = {segment["segment_id"] for segment in alone}
    rest = [segment for segment in plain if segment["segment_id"] not in ids]
    size = config.pool.batch_size
    batches = [TrialBatch(tuple(alone), alone=True)]
    batches += [TrialBatch(tuple(rest[start : start + size]), False) for start in range(0, len(rest), size)]
    progress = Progress(f"encoder {name}", "segments", len(plain))
    tried = through(f"encoder {name}", config, profile, Trial, {}, batches, progress)
    rows = [asdict(row) for batch in tried for row in batch.rows]
    latencies = [seconds for batch in tried if batch.alone for seconds in batch.seconds]
    batch_s = sum(seconds for batch in tried if not batch.alone for seconds in batch.seconds)
    for row in rows:
        source, segment = by_id[row["segment_id"]]
        users = {part["turn_index"] for part in segment["current"] if part["role"] == "user"}
        place = {name: segment[name] for name in ("user_id", "session_id")}
        row |= {"source": source, **place, "user_turns": sorted(users)}
    measured = {
        "profile": name,
        "rows": rows,
        "latencies_s": latencies,
        "segments_per_s": len(rest) / batch_s if rest else None,
    }
    kept.parent.mkdir(exist_ok=True)
    kept.write_text(json.dumps(measured, ensure_ascii=False), encoding="utf-8")
    return judged(config, name, measured, by_id)


def judged(config: Config, name: str, measured: dict, by_id: dict[str, tuple[str, dict]]) -> dict:
    """With the judge's scores, where one is named."""
    if config.judge == "rules":
        return measured
    from jobs.evaluate.judging import judge_rows

    segments = {segment_id: segment for segment_id, (_, segment) in by_id.items()}
    return measured | {"rows": judge_rows(config, name, measured["rows"], segments)}


# --- reporting ------------------------------------------------------------------------------------------


def only(measured: dict, source: str) -> dict:
    rows = [row for row in measured["rows"] if row["source"] == source]
    # Times are taken over all sources together.
    return measured | {"rows": rows, "latencies_s": [], "segments_per_s": None}


def failures(rows: list[dict]) -> dict[str, int]:
    """How often each class of failure occurred."""
    classes = sorted({row["failure"] for row in rows} - {""})
    return {name: sum(row["failure"] == name for row in rows) for name in classes}


def board(measured: dict, evidence: dict[tuple[str, str], set[int]]) -> dict:
    """One line of the leaderboard. None where there is nothing to measure."""
    from cluster.evaluate.scoring import mean, percentile
    from cluster.evaluate.trial import weighted

    rows = measured["rows"]
    scored = [row["scores"] for row in rows if row["scores"]]
    composites = [0.0 if row["failure"] else weighted(row["scores"]) for row in rows if has_score(row)]
    silent = [float(not row["num_records"]) for row in rows if not row["states_something"]]
    stated, held = (sum(row[name] for row in rows) for name in ("num_statements", "num_statements_held"))
    wanted, cited = set(), set()
    for row in rows:
        place = (row["user_id"], row["session_id"])
        turns = evidence.get(place, set())
        wanted |= {(*place, turn) for turn in turns & set(row["user_turns"])}
        cited |= {(*place, turn) for turn in turns & set(row["cited"])}
    return {
        "segments": len(rows),
        "records": sum(row["num_records"] for row in rows),
        "schema_ok": mean(float(row["schema_ok"]) for row in rows),
        "complete": mean(float(row["complete"]) for row in rows),
        "failure_rate": mean(float(bool(row["failure"])) for row in rows),
        **{name: mean(scores[name] for scores in scored) for name in SCORES},
        "composite": mean(composites),
        "evidence": len(wanted & cited) / len(wanted) if wanted else None,
        "statements": held / stated if stated else None,
        "silent": mean(silent),
        "p50_s": percentile(measured["latencies_s"], 50),
        "p95_s": percentile(measured["latencies_s"], 95),
        "segments/s": measured["segments_per_s"],
    }


def costs(profile: EncoderProfile, measured: dict) -> dict:
    """`cost` of a model behind an endpoint; nothing of another."""
    cost = cost_of(profile, measured["rows"])
    return {} if cost is None else {"cost": cost}


def rows_of(boards: list[dict], details: dict) -> list[dict]:
    """The leaderboard as it is printed: under each profile its sources, where there are several, and which
    classes of failure there were."""
    rows = []
    for board in boards:
        found = details[board["profile"]]
        classes = ", ".join(f"{name} {count}" for name, count in found["failures"].items())
        rows.append(board | {"failures": classes or None})
        rows += [
            {"profile": f"{board['profile']}, {source}", **part, "failures": None}
            for source, part in found["by_source"].items()
        ]
    return rows


def has_score(row: dict) -> bool:
    """Whether the composite counts a segment: it failed, or it has scores. The rest is rightly silent."""
    return bool(row["failure"] or row["scores"])


def charts(boards: list[dict]) -> list[Chart]:
    """Scores and seconds of each profile."""
    scores = "Scores, 0 to 5: means of what did not fail, and the composite with failures as 0"
    times = "Seconds of one segment alone: half take no longer, and 95 of 100"
    return [
        bars("scores", scores, boards, (*SCORES, "composite"), label="profile", top=5),
        bars("times", times, boards, ("p50_s", "p95_s"), label="profile", top=0),
    ]
