"""Retrieval: how well questions find the turns that answer them, in raw turns, in records, and in both.

    python -m jobs.evaluate retrieval --store URI --questions FILE --report DIR
    python -m jobs.evaluate retrieval --store URI --questions FILE --report DIR --before RUN

A question is asked of its own user's rows only (LongMemEval: one haystack a question). Hits are ranked by the
cosine of the stored vector with the question's, and a hit whose turns all stand further up takes no place.
`search` is what jobs.query answers, each hit in its place: on the question's own day, with --at where the
question names a day that it is about. A raw turn stands for itself, a record for the turns that it cites.
Turns beyond what is stored count as missed. Every number is a mean over questions:

  evidence_turn_recall_at_k  share of the question's evidence turns that its first k hits stand for
  evidence_all_recall_at_5   how often the first 5 hits stand for all of them
  session_recall_at_10       share of its evidence sessions of which one of the first 10 hits is a part
  mrr                        1 / position of the first hit that stands for an evidence turn
  evidence_coverage          share of its evidence turns that some record cites, at any rank
  stale_rate                 of knowledge updates: how often an outdated statement ranks above the current one

Questions without evidence turns count for session_recall_at_10 alone, where they name sessions. `--before` is
an earlier run of the same store, for example the one before a consolidation: it is measured as well.
"""

import time
from typing import TYPE_CHECKING, Literal

from pydantic import Field, field_validator

from cluster.runtime import Progress
from jobs.common.cli import JobConfig, JobError, LocalFolder, say
from jobs.common.questions import Question, read_questions
from jobs.common.run import absolute, question_embedder, recorded, reranker_of
from jobs.evaluate.report import check_folder, rounded, write_report

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from cluster.evaluate.haystack import Ranked
    from cluster.store.ranking import Rerank
    from cluster.store.runs import FinishedRun
    from cluster.store.store import Store

CUTS = (1, 5, 10, 20)
CURVE = (1, 2, 3, 5, 7, 10, 15, 20, 30, 50)
SEARCH_HITS = 100

LISTS = ("turns", "records", "both", "search")


class Config(JobConfig):
    """Settings of a retrieval evaluation."""

    store: str
    """Folder or object-store URI of the store."""
    questions: list[str] = Field(min_length=1)
    """Files with questions and their evidence: LongMemEval, LoCoMo, REALTALK, probing_questions.json of BEAM,
    or questions.jsonl of jobs.sample."""
    report: LocalFolder
    """Folder for report.json, report.md and report.png."""
    format: Literal["longmemeval", "locomo", "realtalk", "beam", "sample"] | None = None
    """What the questions are. Not given: told from their fields."""
    as_of: str | None = None
    """Look at the store as this run left it."""
    before: str | None = None
    """An earlier run to compare with."""
    embedder: str | None = None
    """Where the store's embedder is to be had, if no longer where the store says: a name in
    cluster/profiles/embedders, or a TOML file."""
    reranker: str | None = None
    """A cross-encoder of sentence-transformers (hub id or folder) that `search` has the best hits read by."""

    @field_validator("questions", mode="before")
    @classmethod
    def _one_file_is_a_list(cls, questions: object) -> object:
        return [questions] if isinstance(questions, str) else questions


@recorded("evaluate retrieval", writes="report")
def run(config: Config) -> dict:
    """Measure, write the report, return the summary. JobError when the store has none of the users."""
    from cluster.store.errors import StoreError
    from cluster.store.store import Store

    started_s = time.monotonic()
    folder = check_folder(config.report)
    questions = [one for path in config.questions for one in read_questions(path, config.format)]
    rerank = reranker_of(config.reranker)
    try:
        store = Store(absolute(config.store))
        view = store.run(config.as_of)
        earlier = store.run(config.before) if config.before else None
        assert view is not None
        rows = score_view(store, view, questions, config.embedder, rerank)
        report = {"as_of": view.run_id, **summarise(rows)}
        if earlier:
            report["before"] = {
                "as_of": earlier.run_id,
                **summarise(score_view(store, earlier, questions, None, rerank)),
            }
    except StoreError as error:
        raise JobError(str(error)) from error
    details = rounded(report | {"per_question": rows})
    definitions = __doc__[__doc__.index("A question is") :]
    write_report(
        folder, config, details, "Retrieval", table(report), definitions, lambda figure: draw(figure, report)
    )
    counts = ("as_of", "num_questions", "num_questions_with_evidence", "num_questions_without_rows")
    summary = {name: report[name] for name in counts} | {name: short(report[name], name) for name in LISTS}
    if earlier:
        summary["before"] = {name: short(report["before"][name], name) for name in LISTS}
    seconds = round(time.monotonic() - started_s, 2)
    return {"status": "done", **rounded(summary), "report": str(folder), "seconds": seconds}


# --- measuring ------------------------------------------------------------------------------------------


def score_view(
    store: "Store",
    view: "FinishedRun",
    questions: list[Question],
    embedder_name: str | None = None,
    rerank: "Rerank | None" = None,
) -> list[dict]:
    """One row per question: `question_id`, `question_type`, and its measures by list, None without rows."""
    from cluster.evaluate.haystack import Haystack

    embedder = question_embedder(store, view, embedder_name)
    by_user: dict[str, list[Question]] = {}
    for question in questions:
        by_user.setdefault(question.user_id, []).append(question)
    progress = Progress("retrieval", "questions", len(questions))
    rows = []
    for user_id, asked in by_user.items():
        haystack = Haystack(store, user_id, view.run_id)
        vectors = embedder.vectors(user_id, [question.text for question in asked])
        for question, (vector, turn_vector) in zip(asked, vectors, strict=True):
            row = {"question_id": question.question_id, "question_type": question.question_type}
            rankings: dict[str, Ranked | None] = dict.fromkeys(LISTS)
            if haystack.num_hits:
                hits = store.search(
                    user_id,
                    question.text,
                    vector,
                    SEARCH_HITS,
                    view.run_id,
                    turn_vector=turn_vector,
                    at=question.at,
                    asked_on=question.asked_on,
                    rerank=rerank,
                )
                searched = haystack.ranking_of_hits(hits)
                rankings = {**haystack.rankings(vector, turn_vector), "search": searched}
            rows.append(
                row | {name: ranked and measure(question, ranked) for name, ranked in rankings.items()}
            )
        progress.advance(len(asked))
    missing = [row["question_id"] for row in rows if row["turns"] is None]
    if len(missing) == len(rows):
        raise JobError(
            f"--store {store.uri}: has no row of the users that the questions are about, for example "
            f"{questions[0].user_id!r}; ingest and backfill the conversations of the same file first"
        )
    if missing:
        say(f"[retrieval] left out: {len(missing)} questions about users without rows, as {missing[0]}")
    return rows


def measure(question: Question, ranked: "Ranked") -> dict:
    """The measures of one question in one list, a cluster.evaluate.haystack.Ranked."""
    from cluster.evaluate.scoring import NEVER, all_at, is_stale, recall_at, reciprocal_rank

    ranks = ranked.turns(question.evidence)
    current, outdated = question.evidence - question.outdated, question.outdated
    return {
        **{f"evidence_turn_recall_at_{k}": recall_at(ranks, k) for k in CURVE},
        "evidence_all_recall_at_5": all_at(ranks, 5),
        "session_recall_at_10": recall_at(ranked.sessions(question.sessions), 10),
        "mrr": reciprocal_rank(ranks),
        "stale_rate": is_stale(ranked.turns(current), ranked.turns(outdated)),
        "evidence_coverage": recall_at(ranks, NEVER),
    }


# --- reporting ------------------------------------------------------------------------------------------


def summarise(rows: list[dict]) -> dict:
    """Means over the questions of a view, overall and by question type."""
    import polars as pl

    asked = pl.DataFrame([row for row in rows if row["turns"]], infer_schema_length=None)
    means = [
        pl.len().alias("num_questions"),
        pl.col("turns").struct.field("mrr").count().alias("num_questions_with_evidence"),
        *(pl.struct(pl.col(name).struct.field("*").mean()).alias(name) for name in LISTS),
    ]
    by_type = asked.group_by("question_type").agg(means).sort("question_type").to_dicts()
    return {
        "num_questions_without_rows": len(rows) - asked.height,
        **asked.select(means).row(0, named=True),
        "by_type": {part.pop("question_type"): part for part in by_type},
    }


def short(measures: dict, name: str) -> dict:
    """Of one list, what the summary and the table show."""
    shown = [*(f"evidence_turn_recall_at_{k}" for k in CUTS), "evidence_all_recall_at_5"]
    shown += ["session_recall_at_10", "mrr", "stale_rate"]
    if name == "records":
        shown.append("evidence_coverage")
    return {key: measures[key] for key in shown}


def table(report: dict) -> list[dict]:
    """One row per list, of all questions, of the view before, and of each question type."""
    parts = {"all": report, **({"all, before": report["before"]} if "before" in report else {})}
    return [
        {
            "questions": f"{part} ({means['num_questions']})",
            "hits": name,
            **{f"recall@{k}": means[name][f"evidence_turn_recall_at_{k}"] for k in CUTS},
            "all@5": means[name]["evidence_all_recall_at_5"],
            "session recall@10": means[name]["session_recall_at_10"],
            "MRR": means[name]["mrr"],
            "stale rate": means[name]["stale_rate"],
            "coverage": means[name]["evidence_coverage"] if name == "records" else None,
        }
        for part, means in (parts | report["by_type"]).items()
        for name in LISTS
    ]


def draw(figure: "Figure", report: dict) -> None:
    """Recall over k, and by question type."""
    curves, bars = figure.subplots(1, 2)
    types = list(report["by_type"])
    for number, name in enumerate(LISTS):
        curves.plot(
            CURVE, [report[name][f"evidence_turn_recall_at_{k}"] for k in CURVE], marker=".", label=name
        )
        heights = [report["by_type"][kind][name]["evidence_turn_recall_at_10"] or 0 for kind in types]
        bars.barh([place + 0.2 * number for place in range(len(types))], heights, height=0.2, label=name)
    curves.set(xlabel="k", ylabel="evidence-turn recall@k", ylim=(0, 1), title="All questions")
    curves.legend()
    curves.grid(alpha=0.3)
    bars.set(xlabel="evidence-turn recall@10", xlim=(0, 1), title="By question type")
    bars.set_yticks([place + 0.3 for place in range(len(types))], types)
    bars.invert_yaxis()
