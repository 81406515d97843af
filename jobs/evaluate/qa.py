"""Answers: what models say to questions about users, with nothing but what they learned, and with memories.

    python -m jobs.evaluate qa --store URI --questions FILE --profiles default default:base --report DIR

A profile is a name in cluster/profiles/answerers or a TOML file, with :base, :merged or :per_request behind
it; every one answers twice. Without retrieval it sees the question alone, and knows what its training
taught it. With retrieval it sees the first -k hits of jobs.query as well, oldest first.

  exact, f1     exact match and F1 of words, normalised as for SQuAD; questions without an answer are left out
  judged        with --judge: share that the judge finds right; it sees question, right answer and answer
  unanswered    share cut at the token limit, or whose prompt did not fit
  cost          of a model behind an endpoint, what its answers cost by its prices
"""

import json
import time
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from cluster.report.svg import Chart
from cluster.runtime import Progress
from jobs.common.cli import JobError
from jobs.common.endpoints import all_at_endpoint
from jobs.common.questions import Question, read_questions
from jobs.common.run import absolute, connect, load_profile, question_embedder, recorded
from jobs.evaluate.answers import ModelsConfig, ask_model, cost_of
from jobs.evaluate.report import bars, check_folder, rounded, write_report
from jobs.evaluate.variants import load_variants
from schemas.archive import who
from schemas.profiles.answerer import AnswererProfile

if TYPE_CHECKING:
    import polars as pl

    from cluster.evaluate.qa import Fact

GROUPS = ("profile", "retrieval", "question_type")
MEASURES = ("exact", "f1", "judged", "unanswered")

MAX_HIT_CHARS = 600
"""Of a raw turn, so much is shown."""

JUDGE_PROMPT = (
    "You grade an answer. It is right when it says what the right answer says, in whatever words, and "
    'nothing that contradicts it. Answer {"right": true} or {"right": false}.'
)
JUDGE_SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {"right": {"type": "boolean"}},
        "required": ["right"],
        "additionalProperties": False,
    }
)


class Config(ModelsConfig):
    """Settings of an evaluation of answers."""

    store: str
    """Folder or object-store URI of the store."""
    questions: str
    """File with questions and answers: LongMemEval, LoCoMo, or questions.jsonl of jobs.sample."""
    profiles: list[str] = Field(["default"], min_length=1)
    """Answerers: names in cluster/profiles/answerers or TOML files."""
    format: Literal["longmemeval", "locomo", "realtalk", "beam", "sample"] | None = None
    """What the questions are. Not given: told from their fields."""
    as_of: str | None = None
    """Look at the store as this run left it."""
    k: int = Field(10, ge=1, le=100, json_schema_extra={"short": "-k"})
    """Hits that are shown."""
    judge: str | None = None
    """Answerer profile of the model that grades; not given: no judge."""
    max_questions: int | None = Field(None, ge=1)
    """The first so many questions; not given: all."""


@recorded("evaluate qa", writes="report")
def run(config: Config) -> dict:
    """Measure every profile with retrieval off and on, write the report, return the summary."""
    from cluster.models.resolve import resolve_answerer
    from cluster.models.sources import ModelError
    from cluster.store.errors import StoreError

    started_s = time.monotonic()
    folder = check_folder(config.report)
    variants = load_variants("answerers", config.profiles, AnswererProfile)
    questions = [asked for asked in read_questions(config.questions, config.format) if asked.answer.strip()]
    questions = questions[: config.max_questions]
    try:
        asked = dict(variants)
        if config.judge:
            asked[""] = load_profile("answerers", config.judge, AnswererProfile)
        asked = all_at_endpoint(asked, config.endpoint, config.max_cost)
        resolved = {name: resolve_answerer(profile) for name, profile in asked.items()}
        judge = resolved.get("")
        facts = retrieve(config, questions)
    except (ModelError, StoreError) as error:
        raise JobError(str(error)) from error
    connect(config.runs_on)
    boards, answers = [], []
    for name in variants:
        profile = resolved[name]
        prompts = [*prompts_of(questions, None), *prompts_of(questions, facts)]
        replies, per_s = ask_model(f"qa {name}", config, profile, None, prompts)
        verdicts: list[float | None] = [None] * len(replies)
        if judge:
            verdicts = grade(config, questions * 2, replies, judge)
        for number, retrieval in enumerate(("off", "on")):
            part = slice(number * len(questions), (number + 1) * len(questions))
            rows = assess(questions, replies[part], verdicts[part])
            line = {"profile": name, "retrieval": retrieval, **board(rows), "answers/s": per_s}
            if (cost := cost_of(profile, replies[part])) is not None:
                line["cost"] = cost
            boards.append(line)
            answers += [{"profile": name, "retrieval": retrieval, **row} for row in rows]
    report = {"num_questions": len(questions), "answerers": boards, "by_type": by_type(answers)}
    definitions = __doc__[__doc__.index("A profile is") :]
    details = rounded(report | {"answers": answers})
    write_report(folder, config, details, "Answers", boards, definitions, charts(boards))
    seconds = round(time.monotonic() - started_s, 2)
    return {"status": "done", **rounded(report), "report": str(folder), "seconds": seconds}


# --- prompts --------------------------------------------------------------------------------------------


def retrieve(config: Config, questions: list[Question]) -> list[list]:
    """For each question the facts (cluster.evaluate.qa.Fact) of its first hits, best first."""
    from cluster.store.store import Store

    store = Store(absolute(config.store))
    view = store.view(config.as_of)
    embedder = question_embedder(store, view)
    progress, found = Progress("retrieve", "questions", len(questions)), []
    for question in questions:
        hits = embedder.search(
            question.user_id, question.text, config.k, at=question.at, asked_on=question.asked_on
        )
        found.append([fact_of(hit) for hit in hits])
        progress.advance(1)
    return found


def fact_of(hit: dict) -> "Fact":
    """A hit as a fact of the prompt: a record's text, or who said what."""
    from cluster.evaluate.qa import Fact

    text = hit.get("semantic_text")
    if text is None:
        text = f"{who(hit)}: {' '.join(hit['content'].split())}"[:MAX_HIT_CHARS]
    return Fact(
        record_id=hit.get("record_id") or hit["turn_id"],
        user_id=hit["user_id"],
        session_id=hit["session_id"],
        date=hit["session_time"].date().isoformat() if hit["session_time"] else "",
        text=text,
    )


def prompts_of(questions: list[Question], facts: list[list] | None) -> list[list[list[dict]]]:
    """Prompts with all facts, and with ever fewer where these do not fit."""
    from cluster.evaluate.qa import messages

    prompts = []
    for number, question in enumerate(questions):
        shown = facts[number] if facts else []
        counts = [len(shown) >> halving for halving in range(len(shown).bit_length() + 1)]
        prompts.append([messages(question.user_id, question.text, shown[:count]) for count in counts])
    return prompts


def grade(
    config: Config, questions: list[Question], replies: list[dict], judge: AnswererProfile
) -> list[float | None]:
    """1 right, 0 wrong, None where the judge said neither."""
    asked = []
    for question, reply in zip(questions, replies, strict=True):
        shown = f"Question: {question.text}\nRight answer: {question.answer}\nAnswer: {reply['text'].strip()}"
        asked.append([[{"role": "system", "content": JUDGE_PROMPT}, {"role": "user", "content": shown}]])
    verdicts, _ = ask_model("judge", config, judge, JUDGE_SCHEMA, asked)
    return [_verdict(reply["text"]) for reply in verdicts]


def _verdict(text: str) -> float | None:
    try:
        return float(json.loads(text)["right"])
    except (ValueError, TypeError, KeyError):
        return None


# --- reporting ------------------------------------------------------------------------------------------


def assess(questions: list[Question], replies: list[dict], verdicts: list[float | None]) -> list[dict]:
    """One row per answer."""
    from cluster.evaluate.scoring import exact_match, token_f1

    rows = []
    for question, reply, verdict in zip(questions, replies, verdicts, strict=True):
        answer = reply["text"].strip()
        rows.append(
            {
                "question_id": question.question_id,
                "question_type": question.question_type,
                "answer": answer,
                "exact": exact_match(answer, [question.answer]),
                "f1": token_f1(answer, [question.answer]),
                "judged": verdict,
                "unanswered": float(not reply["complete"]),
            }
        )
    return rows


def board(answers: "list[dict] | pl.DataFrame") -> dict:
    """Means over answers: rows of `assess`, or a frame of them."""
    rows = _frame(answers)
    return {"questions": rows.height, **rows.select(MEASURES).mean().row(0, named=True)}


def by_type(answers: list[dict]) -> dict:
    """profile, retrieval -> question type -> measures."""
    found: dict[str, dict] = {}
    for (profile, retrieval, kind), part in (
        _frame(answers).sort(GROUPS).group_by(GROUPS, maintain_order=True)
    ):
        found.setdefault(f"{profile}, retrieval {retrieval}", {})[kind] = board(part)
    return found


def _frame(answers: "list[dict] | pl.DataFrame") -> "pl.DataFrame":
    import polars as pl

    return pl.DataFrame(answers, dict.fromkeys(GROUPS, pl.String) | dict.fromkeys(MEASURES, pl.Float64))


def charts(boards: list[dict]) -> list[Chart]:
    """Measures of each profile, retrieval off and on."""
    named = [row | {"name": f"{row['profile']}, retrieval {row['retrieval']}"} for row in boards]
    return [bars("measures", "Answers", named, MEASURES, label="name")]
