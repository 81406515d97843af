"""Retrieval as it is measured, of a view of a store: what questions find of the turns that answer them.

`jobs.evaluate retrieval` says what each measure is.
"""

from typing import TYPE_CHECKING

from cluster.runtime import Progress
from jobs.common.cli import JobError, say
from jobs.common.questions import Question
from jobs.common.run import question_embedder

if TYPE_CHECKING:
    from cluster.evaluate.haystack import Ranked
    from cluster.report.quality import Quality
    from cluster.store.ranking import Rerank
    from cluster.store.runs import FinishedRun
    from cluster.store.store import Store

CUTS = (1, 5, 10, 20)
CURVE = (1, 2, 3, 5, 7, 10, 15, 20, 30, 50)
SEARCH_HITS = 100

LISTS = ("turns", "records", "both", "search")


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


SHOWN = {
    **{f"evidence_turn_recall_at_{k}": f"recall@{k}" for k in CUTS},
    "evidence_all_recall_at_5": "all evidence in 5",
    "mrr": "MRR",
}
"""What the report shows of a list: measure -> its name there."""


def quality_of(uri: str, questions: list[Question]) -> "Quality":
    """What the store's search finds now, and found before the last night. StoreError, JobError."""
    from cluster.report.contents import view_before
    from cluster.report.quality import Found, Quality
    from cluster.report.runs import nights_of, runs_of
    from cluster.store.store import Store

    store = Store(uri).snapshot()

    def found(run_id: str | None) -> Found:
        view = store.view(run_id)
        means = summarise(score_view(store, view, questions))
        measures = {name: means["search"][key] for key, name in SHOWN.items()}
        return Found(view.run_id, means["num_questions_with_evidence"], measures)

    now, entries = found(None), runs_of(store)
    night = next((one for one in reversed(nights_of(entries)) if one.job == "night"), None)
    earlier = view_before(night, entries) if night else None
    before = None
    if earlier is not None:
        try:
            before = found(earlier.run_id)
        except JobError as error:
            say(f"[retrieval] before the last night: {error}")
    return Quality(now, before)


def short(measures: dict, name: str) -> dict:
    """Of one list, what the summary and the table show."""
    shown = [*(f"evidence_turn_recall_at_{k}" for k in CUTS), "evidence_all_recall_at_5"]
    shown += ["session_recall_at_10", "mrr", "stale_rate"]
    if name == "records":
        shown.append("evidence_coverage")
    return {key: measures[key] for key in shown}
