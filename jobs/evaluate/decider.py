"""Deciders: how well they decide decisions that are known, of the validation part of a training set.

    python -m jobs.evaluate decider --data DIR --deciders rules default default:base --report DIR
    python -m jobs.evaluate decider --pairs FILE --deciders rules --report DIR

DIR is what `jobs.distill decider` writes. A decider is `rules`, `pairs`, `crosspairs`, or a
profile by name or TOML file, with :base, :merged or :per_request behind it. All are asked the same questions,
once, in their own prompts.

FILE has pairs of memories, {"older": TEXT, "newer": TEXT, "older_should": keep | delete | unite} a line. The
older is of day 0, the newer of day 30, and each pair goes through a whole consolidation. `keep`, `delete` and
`unite` are then shares of right answers with their Wilson 95 % intervals; a keep that is rewritten is wrong.

  accuracy        share of the questions decided as the label says; an unreadable answer is wrong
  update ...      the same for the questions whose label is this action
  stability       share of the answers that are a valid decision at the first asking
  invention_rate  share of the updates with a number, name or date that stands in none of the memories
  text_exact, text_f1    of updates that are labelled so: the rewritten text against the labelled one
"""

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from cluster.report.svg import Chart
from jobs.common.choice import WITHOUT_MODEL, check_there, default_embedder
from jobs.common.cli import JobError, UsageError
from jobs.common.endpoints import all_at_endpoint
from jobs.common.run import connect, recorded
from jobs.evaluate.answers import ModelsConfig, ask_model
from jobs.evaluate.report import bars, check_folder, rounded, write_report
from jobs.evaluate.variants import load_variants
from schemas.decision import ACTIONS, Decision, InvalidDecision, decision_schema, parse_decision
from schemas.profiles.decider import DeciderProfile
from schemas.profiles.embedder import EmbedderProfile

if TYPE_CHECKING:
    from cluster.consolidate.fold import Question
    from cluster.consolidate.without_model import Decider

_DATED = re.compile(r"^(?:\d+\. )?\((\d{4}-\d{2}-\d{2}|date unknown)\) (.+)$", re.MULTILINE)


class Config(ModelsConfig):
    """Settings of a decider evaluation."""

    data: str | None = None
    """Training set of task decider."""
    pairs: str | None = None
    """Labelled pairs of memories, JSONL."""
    embedder: str | None = None
    """For pairs: name in cluster/profiles/embedders, or TOML file. Not given: what a new store gets."""
    min_similarity: float = Field(0.5, ge=-1, le=1)
    """For pairs: least cosine of two memories that are compared, as in jobs.consolidate."""
    min_confidence: float = Field(0.5, ge=0, le=1)
    """For pairs: as in jobs.consolidate."""
    deciders: list[str] = Field(["rules"], min_length=1)
    """`rules`, `pairs`, `crosspairs`, what an installed distribution adds, names in
    cluster/profiles/deciders or TOML files."""
    max_questions: int | None = Field(None, ge=1)
    """The first so many questions; not given: all."""


@recorded("evaluate decider", writes="report")
def run(config: Config) -> dict:
    """Measure every decider, write the report, return the summary."""
    if (config.data is None) == (config.pairs is None):
        raise UsageError("--data, --pairs: give one of the two")
    return run_pairs(config) if config.pairs else run_set(config)


def run_set(config: Config) -> dict:
    """Deciders on the questions of a training set."""
    started_s = time.monotonic()
    folder = check_folder(config.report)
    profiles, examples = asked_models(config), read_examples(config)
    questions = [example["question"] for example in examples]
    boards, confusion = [], {}
    per_s: float | None
    for name in config.deciders:
        if name in WITHOUT_MODEL:
            decisions, per_s = decide_without_model(name, questions)
        else:
            decisions, per_s = decide_by_model(config, name, profiles[name], questions)
        boards.append({"decider": name, **board(examples, decisions), "decisions/s": per_s})
        confusion[name] = count_pairs(examples, decisions)
    report = {"num_questions": len(questions), "deciders": boards, "confusion": confusion}
    definitions = __doc__[__doc__.index("  accuracy") :]
    write_report(folder, config, rounded(report), "Deciders", boards, definitions, charts(boards))
    seconds = round(time.monotonic() - started_s, 2)
    return {"status": "done", **rounded(report), "report": str(folder), "seconds": seconds}


def run_pairs(config: Config) -> dict:
    """Deciders on labelled pairs, each through a whole consolidation."""
    from cluster.embed.embedder import Embedder
    from cluster.models.resolve import resolve_embedder
    from cluster.models.sources import ModelError
    from jobs.common.run import load_profile
    from jobs.evaluate.pairs import consolidate_pairs, mistakes, pairs_board, read_pairs

    started_s = time.monotonic()
    folder = check_folder(config.report)
    assert config.pairs is not None
    pairs, profiles = read_pairs(config.pairs, config.max_questions), asked_models(config)
    try:
        name = config.embedder or default_embedder()
        embedder = Embedder(resolve_embedder(load_profile("embedders", name, EmbedderProfile)))
    except ModelError as error:
        raise JobError(str(error)) from error
    boards, wrong = [], {}
    decide: Callable[[list], list]
    for name in config.deciders:
        if name in WITHOUT_MODEL:
            decide = decider_named(name).decide
        else:
            decide = model_decide(name, profiles[name], config)
        fates, per_s = consolidate_pairs(pairs, embedder.embed, decide, min_similarity=config.min_similarity)
        boards.append({"decider": name, **pairs_board(pairs, fates), "pairs/s": per_s})
        wrong[name] = mistakes(pairs, fates)
    report = {"num_pairs": len(pairs), "deciders": boards}
    definitions = __doc__[__doc__.index("FILE has") : __doc__.index("  accuracy")]
    write_report(
        folder,
        config,
        rounded(report) | {"mistakes": wrong},
        "Deciders on pairs",
        boards,
        definitions,
        charts(boards, ("keep", "delete", "unite")),
    )
    seconds = round(time.monotonic() - started_s, 2)
    return {"status": "done", **rounded(report), "report": str(folder), "seconds": seconds}


def asked_models(config: Config) -> dict[str, DeciderProfile]:
    """Deciders that have a profile, by name, resolved and with the cluster connected for them. JobError where
    one of all that are named cannot be had."""
    from cluster.models.resolve import resolve_decider
    from cluster.models.sources import ModelError

    names = [name for name in config.deciders if name not in WITHOUT_MODEL]
    variants = load_variants("deciders", names, DeciderProfile) if names else {}
    if names:
        variants = all_at_endpoint(variants, config.endpoint, config.max_cost)
    try:
        profiles = {name: resolve_decider(profile) for name, profile in variants.items()}
        check_there(config.deciders)
    except ModelError as error:
        raise JobError(str(error)) from error
    if profiles:
        connect(config.runs_on)
    return profiles


# --- the questions --------------------------------------------------------------------------------------


def read_examples(config: Config) -> list[dict]:
    """`question` (see cluster.consolidate.fold), `label`, rewritten `text`. UsageError for no set."""
    import pyarrow.parquet as pq

    assert config.data is not None
    path = Path(config.data) / "validation.parquet"
    if not path.is_file():
        raise UsageError(f"--data {config.data}: has no validation.parquet; make it with jobs.distill")
    rows = pq.read_table(path).to_pylist()
    rows = [row for row in rows if row["task"] == "decider"][: config.max_questions]
    if not rows:
        raise UsageError(f"--data {config.data}: has no example of task decider; see jobs.distill decider")
    return [
        {
            "question": read_question(row["messages"][-1]["content"], row["source_id"]),
            "label": row["label"],
            "text": parse_decision(row["completion"]).updated_text,
        }
        for row in rows
    ]


def read_question(content: str, source_id: str) -> "Question":
    """The question that a decider's prompt shows: its first dated line is the target, the others sources."""
    from cluster.consolidate.fold import Memory, Question, Source

    memories = [
        Memory(
            record_id=f"{number:06}",
            revision=1,
            user_id="",
            session_time="" if date == "date unknown" else date,
            session_id="",
            turn=number,
            text=text,
        )
        for number, (date, text) in enumerate(_DATED.findall(content))
    ]
    if len(memories) < 2:
        raise UsageError(
            f"--data: example {source_id} shows no target with sources; was it made for deciders?"
        )
    # Similar enough for every rule: that they were compared at all is what the prompt says.
    return Question(memories[0], tuple(Source(memory, 1.0) for memory in memories[1:]))


# --- the deciders ---------------------------------------------------------------------------------------


def decide_without_model(name: str, questions: list) -> tuple[list, float]:
    """Decisions (schemas.decision.Decision), and how many a second."""
    from schemas.decision import Decision

    decider, started_s = decider_named(name), time.monotonic()
    verdicts = decider.decide(questions)
    seconds = time.monotonic() - started_s
    return [Decision(action=v.action, updated_text=v.text) for v in verdicts], len(questions) / seconds


def decider_named(name: str) -> "Decider":
    """One of WITHOUT_MODEL, its gazetteer loaded."""
    from cluster.consolidate.without_model import WITHOUT_MODEL as KINDS
    from cluster.language import places

    places.find("")
    return KINDS[name]()


def model_decide(name: str, profile: DeciderProfile, config: Config) -> Callable[[list], list]:
    """A model as a fold asks it, behind the guards; an answer that cannot be read fails."""
    from cluster.consolidate.decider import guard
    from cluster.consolidate.fold import Verdict

    def decide(questions: list) -> list:
        decisions, _ = decide_by_model(config, name, profile, questions)
        verdicts = [
            Verdict(made.action, text=made.updated_text, confidence=made.confidence)
            if made
            else Verdict("", "failed")
            for made in decisions
        ]
        return [
            guard(question, verdict, min_confidence=config.min_confidence)
            for question, verdict in zip(questions, verdicts, strict=True)
        ]

    return decide


def decide_by_model(
    config: Config, name: str, profile: DeciderProfile, questions: list
) -> tuple[list[Decision | None], float | None]:
    """Decisions, None where the first answer was none, and how many a second."""
    from transformers import AutoTokenizer

    from cluster.consolidate.decider import DeciderPrompt
    from cluster.models.sources import tokenizer_folder

    prompt = DeciderPrompt(profile, AutoTokenizer.from_pretrained(tokenizer_folder(profile)))
    asked = [
        [prompt.messages(question, shown) for shown in (len(question.sources), 1)] for question in questions
    ]
    schema = decision_schema(profile.limits)
    replies, per_s = ask_model(f"decider {name}", config, profile, schema, asked)
    decisions: list[Decision | None] = []
    for reply in replies:
        try:
            decisions.append(parse_decision(reply["text"]))
        except InvalidDecision:
            decisions.append(None)
    return decisions, per_s


# --- reporting ------------------------------------------------------------------------------------------


def board(examples: list[dict], decisions: list) -> dict:
    """One line of the table. None where there is nothing to measure."""
    import polars as pl

    from cluster.consolidate.decider import invented
    from cluster.evaluate.scoring import exact_match, mean, token_f1

    pairs = list(zip(examples, decisions, strict=True))
    right = [(e["label"], made is not None and made.action == e["label"]) for e, made in pairs]
    rows = pl.DataFrame(right, {"label": pl.String, "right": pl.Boolean}, orient="row")
    by_label = dict(rows.group_by("label").agg(pl.col("right").mean()).iter_rows())
    updates = [(example, made) for example, made in pairs if made is not None and made.action == "update"]
    both = [(example["text"], made.updated_text) for example, made in updates if example["label"] == "update"]
    return {
        "questions": len(pairs),
        "accuracy": rows["right"].mean(),
        **{action: by_label.get(action) for action in ACTIONS},
        "stability": mean(float(made is not None) for made in decisions),
        "invention_rate": mean(
            float(bool(invented(made.updated_text, example["question"]))) for example, made in updates
        ),
        "text_exact": mean(exact_match(made, [wanted]) for wanted, made in both),
        "text_f1": mean(token_f1(made, [wanted]) for wanted, made in both),
    }


def count_pairs(examples: list[dict], decisions: list) -> dict[str, dict[str, int]]:
    """label -> action -> how often; `unreadable` where there was no decision."""
    counts: dict[str, dict[str, int]] = {}
    for example, made in zip(examples, decisions, strict=True):
        row = counts.setdefault(example["label"], {})
        action = made.action if made is not None else "unreadable"
        row[action] = row.get(action, 0) + 1
    return counts


MEASURES = ("accuracy", *ACTIONS, "stability", "invention_rate")


def charts(boards: list[dict], names: tuple[str, ...] = MEASURES) -> list[Chart]:
    """These measures of each decider."""
    return [bars("measures", "Deciders", boards, names, label="decider")]
