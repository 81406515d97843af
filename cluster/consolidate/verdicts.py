"""Known verdicts: answers of a decider that were paid for, and are never asked for again.

They are found in the table `decisions`, in the views of runs that a rollback has undone (the same question
has the same answer), and in staged files of killed runs.
"""

import json

import pyarrow as pa

from cluster.consolidate.fold import PINNED, UNITE, Verdict
from cluster.consolidate.plan import PlanSettings
from cluster.runtime.rows import arrow_type
from cluster.store.files import Files
from cluster.store.sql import in_lists
from cluster.store.store import Store

STAGED_VERDICTS = pa.schema(
    [("decision_id", pa.string()), ("user_id", pa.string()), ("verdict", arrow_type(Verdict))]
)


class KnownVerdicts:
    """Known verdicts on the memories of some users. Failed decisions are left out: they are asked again."""

    def __init__(self, store: Store, files: Files, settings: PlanSettings, user_ids: list[str]):
        self.unasked: set[str] = set()
        """Ids of decisions in the view that no decider was asked for: unions of repeats, and pins."""
        self._verdicts: dict[str, Verdict] = staged_verdicts(files, settings.decider)
        names = ["decision_id", "decider", "action", "text", "outcome", "reason", "raw"]
        # The view that is read comes last: a verdict in it needs no new row.
        for run_id in (*settings.undone, settings.as_of):
            for where in in_lists("user_id", user_ids):
                for row in store.rows("decisions", names, where, run_id).to_pylist():
                    if row["decider"] == settings.decider and row["outcome"] != "failed":
                        text, reason, raw = (row[name] or "" for name in ("text", "reason", "raw"))
                        self._verdicts[row["decision_id"]] = Verdict(
                            row["action"],
                            row["outcome"],
                            text,
                            reason=reason,
                            raw=raw,
                            is_known=run_id == settings.as_of,
                        )
                    elif row["decider"] in (UNITE, PINNED) and run_id == settings.as_of:
                        self.unasked.add(row["decision_id"])

    def get(self, decision_id: str) -> Verdict | None:
        """The verdict, or None where it has to be asked for."""
        return self._verdicts.get(decision_id)


def undone_runs(store: Store) -> tuple[str, ...]:
    """Runs that were the newest when a rollback undid them, oldest first, if their views are kept."""
    runs = store.runs()
    kept = {run.run_id for run in runs if run.has_view}
    left = [run.summary.get("from") for run in runs if run.job == "rollback"]
    return tuple(run_id for run_id in dict.fromkeys(left) if run_id in kept)


def verdicts_path(decider: str, batch: str = "") -> str:
    return f"decided/{decider}/{batch}.parquet" if batch else f"decided/{decider}"


def staged_verdicts(files: Files, decider: str) -> dict[str, Verdict]:
    """decision id -> verdict of answers that are staged and not committed."""
    found = {}
    staging = Files(files.uri, "staging")
    for path in staging.paths(verdicts_path(decider)):
        for row in staging.get_table(path).to_pylist():
            # Earlier releases staged JSON, and what was paid for then counts as well.
            told = row["verdict"] if isinstance(row["verdict"], dict) else json.loads(row["verdict"])
            verdict = Verdict(**told)
            if verdict.outcome != "failed":
                found[row["decision_id"]] = verdict
    return found
