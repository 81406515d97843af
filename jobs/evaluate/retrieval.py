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
from typing import Literal

from pydantic import Field, field_validator

from cluster.report.svg import Chart, Series, curves
from cluster.report.words import digits
from jobs.common.cli import JobConfig, JobError, LocalFolder
from jobs.common.measuring import CURVE, CUTS, LISTS, score_view, short, summarise
from jobs.common.questions import read_questions
from jobs.common.run import absolute, recorded, reranker_of
from jobs.evaluate.report import check_folder, rounded, write_report


class Config(JobConfig):
    """Settings of a retrieval evaluation."""

    store: str
    """Folder or object-store URI of the store."""
    questions: list[str] = Field(min_length=1)
    """Files with questions and their evidence: LongMemEval, LoCoMo, REALTALK, probing_questions.json of BEAM,
    or questions.jsonl of jobs.sample."""
    report: LocalFolder
    """Folder for report.json, report.md and report.html."""
    format: Literal["longmemeval", "locomo", "realtalk", "beam", "sample"] | None = None
    """What the questions are. Not given: told from their fields."""
    as_of: str | None = None
    """Look at the store as this run left it."""
    before: str | None = None
    """An earlier run to compare with."""
    embedder: str | None = None
    """Load the store's embedder from this profile, if it is no longer where the store says: a name in
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
        view = store.view(config.as_of)
        earlier = store.view(config.before) if config.before else None
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
    write_report(folder, config, details, "Retrieval", table(report), definitions, charts(report))
    counts = ("as_of", "num_questions", "num_questions_with_evidence", "num_questions_without_rows")
    summary = {name: report[name] for name in counts} | {name: short(report[name], name) for name in LISTS}
    if earlier:
        summary["before"] = {name: short(report["before"][name], name) for name in LISTS}
    seconds = round(time.monotonic() - started_s, 2)
    return {"status": "done", **rounded(summary), "report": str(folder), "seconds": seconds}


# --- reporting ------------------------------------------------------------------------------------------


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


def charts(report: dict) -> list[Chart]:
    """Recall over k, and by question type."""
    recall = "evidence_turn_recall_at_{}".format
    lines = {
        name: [(k, value) for k in CURVE if (value := report[name][recall(k)]) is not None] for name in LISTS
    }
    by_type = report["by_type"]
    of_type = [Series(name, tuple(by_type[kind][name][recall(10)] for kind in by_type)) for name in LISTS]
    names = tuple(f"{kind} ({part['num_questions']})" for kind, part in by_type.items())
    by_ten = "Share of the evidence turns among the first 10 hits, by question type"
    return [
        curves("recall", "Share of the evidence turns among the first k hits", lines, of="k", top=1),
        Chart("types", by_ten, names, tuple(of_type), digits, "rows", "Type of question", top=1),
    ]
