"""Verdicts that were paid for: those of the table `decisions`, and those that killed runs have staged."""

import json

import pyarrow as pa

from cluster.files import Files
from cluster.fold import UNITE, Verdict
from cluster.plan import Settings
from cluster.store import Store, in_lists

STAGED_VERDICTS = pa.schema([("decision_id", pa.string()), ("verdict", pa.string())])


class Ledger:
    """Verdicts on the memories of some users, committed and staged.

    Failed decisions are not among them: they are asked for again.
    """

    def __init__(self, store: Store, files: Files, settings: Settings, user_ids: list[str]):
        self.united: set[str] = set()
        self._verdicts: dict[str, Verdict] = staged_verdicts(files, settings.decider)
        names = ["decision_id", "decider", "action", "text", "outcome", "reason"]
        for where in in_lists("user_id", user_ids):
            for row in store.rows("decisions", names, where, settings.as_of).to_pylist():
                if row["decider"] == UNITE:
                    self.united.add(row["decision_id"])
                elif row["decider"] == settings.decider and row["outcome"] != "failed":
                    self._verdicts[row["decision_id"]] = Verdict(
                        row["action"], row["outcome"], row["text"] or "", reason=row["reason"], is_known=True
                    )

    def get(self, decision_id: str) -> Verdict | None:
        """The verdict, or None where it has to be asked for."""
        return self._verdicts.get(decision_id)


def verdicts_path(decider: str, batch: str = "") -> str:
    return f"decided/{decider}/{batch}.parquet" if batch else f"decided/{decider}"


def staged_verdicts(files: Files, decider: str) -> dict[str, Verdict]:
    """decision id -> verdict of answers that are staged and not committed."""
    found = {}
    staging = Files(files.uri, "staging")
    for path in staging.paths(verdicts_path(decider)):
        for row in staging.get_table(path).to_pylist():
            verdict = Verdict(**json.loads(row["verdict"]))
            if verdict.outcome != "failed":
                found[row["decision_id"]] = verdict
    return found
