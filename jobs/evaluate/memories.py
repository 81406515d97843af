"""Memories: what of a store's records people would have written down, and what of theirs is missing.

    python -m jobs.evaluate memories --store URI --gold DIR/_gold --report DIR
    python -m jobs.evaluate memories --memories FILE --gold DIR/_gold --report DIR

DIR/_gold is what `jobs.sample` leaves beside its archive. FILE holds memories of another system as JSON lines
{"user_id", "text", "date"}: they have no evidence, so words alone decide. English and each other language are
reported apart.

  recall             share of the memories that must be found which some record matches
  precision          share of the records that match a memory, one record a memory
  negations_lost     records that would match, but deny what the memory says, or say what it denies
  numbers_lost       records that would match, but for a number
  current_active     of the current memories that must be found: share that some active record matches
  outdated_active    of the superseded memories: share that some active record, not ended, still states
  entity_coverage    share of the entities of matched memories that their records name
  dates_resolved     of the memories with a day from which they hold: share of their records with that day
  dates_wrong        share of those records with another day

A record matches a memory if it rests on one of its turns, has its polarity, and holds one alternative of each
of its keys. The first four look at what the encoder wrote (first revisions), the next two at active records.
"""

import time
from typing import TYPE_CHECKING

from cluster.report.svg import Chart
from jobs.common.cli import JobConfig, JobError, LocalFolder, UsageError
from jobs.common.gold import as_found, read_gold
from jobs.common.input_items import read_all_items
from jobs.common.run import absolute
from jobs.evaluate.report import bars, check_folder, rounded, write_report

if TYPE_CHECKING:
    from cluster.evaluate.memories import Found

COLUMNS = ["record_id", "revision", "user_id", "semantic_text", "entities", "temporal", "evidence", "active"]


class Config(JobConfig):
    """Settings of an evaluation of memories."""

    gold: str
    """Folder `_gold` of an archive that jobs.sample wrote."""
    store: str | None = None
    """Store whose records are measured."""
    memories: str | None = None
    """Or a file with another system's memories."""
    report: LocalFolder
    """Folder for report.json, report.md and report.html."""
    as_of: str | None = None
    """Look at the store as this run left it."""


def run(config: Config) -> dict:
    """Measure, write the report, return the summary."""
    started_s = time.monotonic()
    if (config.store is None) == (config.memories is None):
        raise UsageError("give one of --store and --memories: which memories are to be measured?")
    folder = check_folder(config.report)
    gold = read_gold(config.gold)
    rows = read_store(config) if config.store else read_foreign(config.memories or "")
    users = {row["user_id"] for row in gold}
    rows = [row for row in rows if row["user_id"] in users]
    report = {
        language: measure(rows, [row for row in gold if row["language"] == language])
        for language in sorted({row["language"] for row in gold}, key=lambda name: (name != "en", name))
    }
    details = rounded({"languages": report})
    boards = [
        {"language": name, **{key: value for key, value in board.items() if not isinstance(value, list)}}
        for name, board in report.items()
    ]
    definitions = __doc__[__doc__.index("  recall") :]
    write_report(folder, config, details, "Memories", boards, definitions, charts(boards))
    seconds = round(time.monotonic() - started_s, 2)
    return {"status": "done", "boards": rounded(boards), "report": str(folder), "seconds": seconds}


def read_store(config: Config) -> list[dict]:
    """Records of a store, every revision, as rows of COLUMNS."""
    from cluster.store.errors import StoreError
    from cluster.store.store import Store

    assert config.store is not None
    try:
        return Store(absolute(config.store)).rows("records", COLUMNS, as_of=config.as_of).to_pylist()
    except StoreError as error:
        raise JobError(str(error)) from error


def read_foreign(path: str) -> list[dict]:
    """Memories of another system, as such rows."""
    rows = []
    for number, item in enumerate(read_all_items(path, "--memories"), 1):
        user_id, text = (item.get(name) if isinstance(item, dict) else None for name in ("user_id", "text"))
        if not isinstance(user_id, str) or not isinstance(text, str):
            raise UsageError(f"--memories {path}: item {number} lacks user_id or text; give both as strings")
        rows.append(
            {
                "record_id": f"{number}",
                "revision": 1,
                "user_id": user_id,
                "semantic_text": text,
                "entities": [],
                "temporal": {"t_ref": "", "t_valid_from": item.get("date") or "", "t_valid_to": ""},
                "evidence": [],
                "active": True,
            }
        )
    return rows


# --- measuring ------------------------------------------------------------------------------------------


def measure(rows: list[dict], gold: list[dict]) -> dict:
    """All numbers for the memories of one language."""
    from cluster.evaluate.memories import denies, holds_keys, pair, score
    from cluster.evaluate.scoring import mean

    users = {row["user_id"] for row in gold}
    rows = [row for row in rows if row["user_id"] in users]
    first = [row for row in rows if row["revision"] == 1]
    memories = [as_found(row) for row in gold]
    result = score([_record(row) for row in first], memories)
    by_id = {row["memory_id"]: row for row in gold}
    by_record = {row["record_id"]: row for row in first}
    pairs = [
        (by_record[record], by_id[memory])
        for record, memory in pair([_record(row) for row in first], memories).items()
    ]
    named = [
        any(name.casefold() in entity.casefold() for entity in record["entities"])
        for record, memory in pairs
        for name in memory["entities"]
    ]
    dated = [(r["temporal"], m["temporal"]) for r, m in pairs if m["temporal"]["t_valid_from"]]
    same = [made["t_valid_from"] == wanted["t_valid_from"] for made, wanted in dated]
    other = [bool(made["t_valid_from"]) and not right for (made, _), right in zip(dated, same, strict=True)]
    active: dict[str, list[dict]] = {user_id: [] for user_id in users}
    for row in rows:
        if row["active"]:
            active[row["user_id"]].append(row)

    def stating(memory: dict) -> list[dict]:
        """Active records that say so, in the same polarity."""
        text, keys = memory["semantic_text"], memory["keys"]
        return [
            record
            for record in active[memory["user_id"]]
            if denies(record["semantic_text"]) == denies(text) and holds_keys(record["semantic_text"], keys)
        ]

    # A record that was united with others rests on more turns than the memory's own: its words decide.
    lasting = [bool(stating(row)) for row in gold if row["is_must"] and row["status"] == "current"]
    stale = [
        any(not record["temporal"]["t_valid_to"] and _rests_on(record, row) for record in stating(row))
        for row in gold
        if row["is_must"] and row["status"] == "superseded"
    ]
    return result | {
        "current_active": mean(lasting),
        "outdated_active": mean(stale),
        "entity_coverage": mean(named),
        "dates_resolved": mean(same),
        "dates_wrong": mean(other),
        "num_dated": len(dated),
    }


def _rests_on(record: dict, memory: dict) -> bool:
    turns = {(turn["session_id"], turn["turn_index"]) for turn in record["evidence"]}
    return not turns or any((memory["session_id"], turn) in turns for turn in memory["evidence_turns"])


def _record(row: dict) -> "Found":
    from cluster.evaluate.memories import Found

    turns = frozenset((turn["session_id"], turn["turn_index"]) for turn in row["evidence"])
    return Found(id=row["record_id"], user_id=row["user_id"], text=row["semantic_text"], turns=turns)


MEASURES = ("recall", "precision", "current_active", "outdated_active", "entity_coverage", "dates_resolved")


def charts(boards: list[dict]) -> list[Chart]:
    """Shares by language."""
    return [bars("measures", "Memories by language", boards, MEASURES, label="language")]
