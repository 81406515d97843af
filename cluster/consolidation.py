"""The stages of a consolidation, as workers run them: rows between them are references, data lies staged.

    group of users --plan--> memories, pairs --decide--> decisions, revisions --embed--> rows of the tables

A group is whole users, so that no stage needs another group's data. Answers of a model are staged as soon as
they are had, a file a batch: a killed run asks for none of them again.
"""

import datetime as dt
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster.candidates import own_turns, similar_pairs, slot_pairs, total_order, union
from cluster.claims import binding_slots, read, slots, statement_key
from cluster.decider import ModelDecider, Rules, guard
from cluster.embedder import Embedder
from cluster.files import Files
from cluster.fold import UNITE, Change, Decide, Memory, Pair, Question, Verdict, fold
from schemas.profile import DeciderProfile, EmbedderProfile
from schemas.store import DECISIONS_SCHEMA, EVIDENCE, TEMPORAL, TIME, records_schema

MAX_IN = 500
"""Values in one IN list of a query."""

PLANNED = pa.schema(
    [
        ("record_id", pa.string()),
        ("revision", pa.int32()),
        ("last_revision", pa.int32()),
        ("user_id", pa.string()),
        ("session_time", TIME),
        ("session_id", pa.string()),
        ("turn", pa.int64()),
        ("semantic_text", pa.string()),
        ("memory_type", pa.string()),
        ("entities", pa.list_(pa.string())),
        ("tags", pa.list_(pa.string())),
        ("temporal", TEMPORAL),
        ("evidence", pa.list_(EVIDENCE)),
    ]
)
"""A memory of the plan: one that repeats another, or stands on either side of a pair."""

PAIRS = pa.schema([("target", pa.string()), ("source", pa.string()), ("score", pa.float32())])

STAGED_VERDICTS = pa.schema([("decision_id", pa.string()), ("verdict", pa.string())])


@dataclass(frozen=True)
class Settings:
    """What the stages need to know, the same for every worker of a run."""

    uri: str
    as_of: str
    """The run whose view is read: the same one in every worker, whatever is committed meanwhile."""
    run_id: str
    started_at: dt.datetime
    new_runs: tuple[str, ...] | None
    """Memories that these runs wrote are new; None: all are."""
    again: frozenset[str]
    """Record ids that are new once more, because a decision about them failed."""
    decider: str
    """Fingerprint."""
    min_similarity: float
    top_k: int
    max_sources: int
    min_confidence: float
    batch_size: int


# --- plan ---------------------------------------------------------------------------------------------

_LOADED = [
    *("record_id", "revision", "user_id", "session_time", "session_id", "semantic_text", "memory_type"),
    *("entities", "tags", "temporal", "evidence", "run_id", "vector"),
]


def plan_group(group_id: str, user_ids: list[str], settings: Settings, files: Files) -> dict:
    """Candidates of a group of users, staged; and what deciding them would cost if all were ignored."""
    from cluster.store import Store, quote

    store = Store(settings.uri)
    parts = []
    for start in range(0, len(user_ids), MAX_IN):
        users = f"user_id IN ({', '.join(map(quote, user_ids[start : start + MAX_IN]))})"
        parts.append(store.rows("records", _LOADED, f"{users} AND active", settings.as_of))
    records = pa.concat_tables(parts)
    records = records.take(pa.array(total_order(records)))
    is_new = is_new_mask(records, settings)
    chosen, pairs, num_repeats = candidates(records, is_new, settings)
    planned = records.take(pa.array(chosen)).drop_columns(["run_id", "vector"])
    highest = _highest_revisions(store, planned, settings)
    planned = planned.append_column("turn", pa.array(own_turns(planned), pa.int64()))
    planned = planned.append_column("last_revision", pa.array(highest, pa.int32()))
    files.put_table(f"{group_id}/memories.parquet", planned.select(PLANNED.names).cast(PLANNED))
    files.put_table(f"{group_id}/pairs.parquet", pairs)
    return {
        "group_id": group_id,
        "num_users": len(user_ids),
        "num_memories": records.num_rows,
        "num_new": int(is_new.sum()),
        "num_pairs": pairs.num_rows,
        "num_repeats": num_repeats,
        "num_targets": pc.count_distinct(pairs.column("target")).as_py(),
    }


def estimate_group(group_id: str, settings: Settings, files: Files) -> dict:
    """Calls and characters that deciding a planned group would cost, if all it asks for were ignored."""
    from cluster.store import Store

    memories, cost = load_memories(group_id, files), {"num_calls": 0, "prompt_chars": 0}
    user_ids = sorted({memory.user_id for memory in memories})
    known = Ledger(Store(settings.uri), files, settings, user_ids)

    def count(questions: list[Question]) -> list[Verdict]:
        answers = []
        for question in questions:
            verdict = known.get(question.decision_id(settings.decider))
            if verdict is None:
                cost["num_calls"] += 1
                cost["prompt_chars"] += len(question.target.text) + 16
                cost["prompt_chars"] += sum(len(source.memory.text) + 16 for source in question.sources)
            answers.append(verdict or Verdict("ignore"))
        return answers

    pairs = load_pairs(group_id, files)
    fold(memories, pairs, count, decider=settings.decider, max_sources=settings.max_sources)
    return cost


def is_new_mask(records: pa.Table, settings: Settings) -> np.ndarray:
    """bool [num_records]: which memories this run has to compare with the others."""
    if settings.new_runs is None:
        return np.ones(records.num_rows, bool)
    runs = pa.array(settings.new_runs, pa.string())
    mask = pc.is_in(records.column("run_id"), value_set=runs).to_numpy()
    if settings.again:
        ids = pa.array(sorted(settings.again), pa.string())
        mask = mask | pc.is_in(records.column("record_id"), value_set=ids).to_numpy()
    return mask


def candidates(records: pa.Table, is_new: np.ndarray, settings: Settings) -> tuple[np.ndarray, pa.Table, int]:
    """Rows of the store in total order -> positions that the fold needs, pairs (PAIRS), number of repeats.

    Of memories that repeat each other only the newest is compared: the others are united with it.
    """
    users = records.column("user_id").combine_chunks().dictionary_encode().indices.to_numpy(False)
    starts = np.flatnonzero(np.diff(users, prepend=-1))
    texts = records.column("semantic_text").to_pylist()
    types = records.column("memory_type").to_pylist()
    temporals = records.column("temporal").to_pylist()
    ids = records.column("record_id").to_pylist()
    vectors = _vectors(records)
    chosen, rows, num_repeats = set(), [], 0
    for start, end in zip(starts, [*starts[1:], len(users)], strict=True):
        if not is_new[start:end].any():
            continue
        groups: dict[str, list[int]] = {}
        for position in range(start, end):
            dates = tuple((temporals[position] or {}).get(name) or "" for name in TEMPORAL_NAMES)
            groups.setdefault(statement_key(texts[position], types[position], dates), []).append(position)
        for members in groups.values():
            if len(members) > 1 and is_new[members].any():
                chosen.update(members)
                num_repeats += len(members) - 1
        distinct = np.array(sorted(members[-1] for members in groups.values()))
        new = is_new[distinct]
        similar = similar_pairs(
            vectors[distinct], new, top_k=settings.top_k, min_similarity=settings.min_similarity
        )
        statements = [read(texts[position]) for position in distinct]
        names, binding = [slots(one) for one in statements], [binding_slots(one) for one in statements]
        pairs = union(similar, slot_pairs(vectors[distinct], new, names, binding))
        targets, sources = distinct[pairs.targets], distinct[pairs.sources]
        chosen.update(targets.tolist(), sources.tolist())
        rows += zip(targets.tolist(), sources.tolist(), pairs.scores.tolist(), strict=True)
    table = pa.table(
        {
            "target": pa.array([ids[target] for target, _, _ in rows], pa.string()),
            "source": pa.array([ids[source] for _, source, _ in rows], pa.string()),
            "score": pa.array([score for _, _, score in rows], pa.float32()),
        }
    )
    return np.array(sorted(chosen), np.int64), table, num_repeats


TEMPORAL_NAMES = [field.name for field in TEMPORAL]


def _vectors(records: pa.Table) -> np.ndarray:
    column = records.column("vector").combine_chunks()
    return column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)


def _highest_revisions(store, planned: pa.Table, settings: Settings) -> list[int]:
    """A record that was closed and came back may have closed revisions above its active one."""
    highest: dict[str, int] = {}
    for where in _in_lists("user_id", planned.column("user_id").unique().to_pylist()):
        closed = store.rows("records", ["record_id", "revision"], f"{where} AND NOT active", settings.as_of)
        columns = (closed.column(name).to_pylist() for name in ("record_id", "revision"))
        for record_id, revision in zip(*columns, strict=True):
            highest[record_id] = max(revision, highest.get(record_id, 0))
    return [highest.get(record_id, 0) for record_id in planned.column("record_id").to_pylist()]


def _in_lists(column: str, values: list[str]) -> list[str]:
    from cluster.store import quote

    return [
        f"{column} IN ({', '.join(map(quote, values[start : start + MAX_IN]))})"
        for start in range(0, len(values), MAX_IN)
    ]


def load_memories(group_id: str, files: Files) -> list[Memory]:
    """The planned memories of a group."""
    return [memory_of(row) for row in files.get_table(f"{group_id}/memories.parquet").to_pylist()]


def memory_of(row: dict) -> Memory:
    """A row of PLANNED as the fold's memory."""
    temporal = row["temporal"] or {}
    return Memory(
        record_id=row["record_id"],
        revision=row["revision"],
        last_revision=row["last_revision"],
        user_id=row["user_id"],
        session_time=row["session_time"].isoformat() if row["session_time"] else "",
        session_id=row["session_id"],
        turn=row["turn"],
        text=row["semantic_text"],
        memory_type=row["memory_type"],
        entities=tuple(row["entities"] or ()),
        tags=tuple(row["tags"] or ()),
        temporal=tuple(temporal.get(name) or "" for name in TEMPORAL_NAMES),
        evidence=tuple(sorted((turn["session_id"], turn["turn_index"]) for turn in row["evidence"] or ())),
    )


def load_pairs(group_id: str, files: Files) -> list[Pair]:
    """The planned pairs of a group."""
    rows = files.get_table(f"{group_id}/pairs.parquet").to_pydict()
    return [Pair(*pair) for pair in zip(rows["target"], rows["source"], rows["score"], strict=True)]


# --- ledger -------------------------------------------------------------------------------------------


class Ledger:
    """Verdicts that were paid for: committed ones of some users, and staged ones of killed runs.

    Failed decisions are not among them: they are asked for again.
    """

    def __init__(self, store, files: Files, settings: Settings, user_ids: list[str]):
        self.united: set[str] = set()
        self._verdicts: dict[str, Verdict] = staged_verdicts(files, settings.decider)
        names = ["decision_id", "decider", "action", "text", "outcome", "reason"]
        for where in _in_lists("user_id", user_ids):
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


# --- decide -------------------------------------------------------------------------------------------


class DecideStage:
    """Actor, or a task: group -> decisions and revisions, staged. Without a profile the rules decide."""

    def __init__(self, profile: DeciderProfile | None, settings: Settings, files: Files, engine: dict):
        self._settings, self._files = settings, files
        self._decider: Rules | ModelDecider | None = Rules() if profile is None else None
        # Loading waits for a question: a run that knows all answers never loads a model.
        self._load: Callable = lambda: ModelDecider(profile, **engine)
        self._stages_verdicts = profile is not None

    def __call__(self, row: dict) -> dict:
        from cluster.store import Store

        settings, group_id = self._settings, row["group_id"]
        memories, store = load_memories(group_id, self._files), Store(settings.uri)
        user_ids = sorted({memory.user_id for memory in memories})
        ledger = Ledger(store, self._files, settings, user_ids)
        folded = fold(
            memories,
            load_pairs(group_id, self._files),
            self._deciding(ledger),
            decider=settings.decider,
            max_sources=settings.max_sources,
        )
        decisions = [row for row in folded.decisions if row["decision_id"] not in ledger.united]
        stamp = {"decided_at": settings.started_at, "run_id": settings.run_id}
        self._files.put_rows(
            f"{group_id}/decisions.parquet", [row | stamp for row in decisions], DECISIONS_SCHEMA
        )
        revisions = revision_rows(store, folded.changes, settings)
        if revisions is not None:
            num_rewritten = sum(revisions.column("is_rewritten").to_pylist())
            ready = revisions if num_rewritten else revisions.drop_columns(["is_rewritten"])
            name = "revisions" if num_rewritten else "records"
            self._files.put_table(f"{group_id}/{name}.parquet", ready)
        asked = [row for row in decisions if row["decider"] == settings.decider]
        return row | {
            "num_layers": folded.num_layers,
            "num_decisions": folded.num_questions,
            "num_decisions_known": folded.num_known,
            "num_rows_decisions": len(decisions),
            "num_rows_records": 0 if revisions is None else revisions.num_rows,
            "num_united": sum(change.closed_reason == UNITE for change in folded.changes),
            "num_deleted": sum(change.closed_reason == "delete" for change in folded.changes),
            "num_rewritten": sum(change.is_rewritten for change in folded.changes),
            "num_refused": sum(row["outcome"] == "refused" for row in asked),
            "num_failed": sum(row["outcome"] == "failed" for row in asked),
            "prompt_tokens": sum(row["prompt_tokens"] for row in asked),
            "cached_tokens": sum(row["cached_tokens"] for row in asked),
            "output_tokens": sum(row["output_tokens"] for row in asked),
        }

    def _deciding(self, ledger: Ledger) -> Decide:
        decider, settings = self._settings.decider, self._settings

        def decide(questions: list[Question]) -> list[Verdict]:
            verdicts = [ledger.get(question.decision_id(decider)) for question in questions]
            missing = [number for number, verdict in enumerate(verdicts) if verdict is None]
            for start in range(0, len(missing), settings.batch_size):
                batch = missing[start : start + settings.batch_size]
                for number, verdict in zip(batch, self._ask([questions[n] for n in batch]), strict=True):
                    verdicts[number] = verdict
            return verdicts

        return decide

    def _ask(self, questions: list[Question]) -> list[Verdict]:
        if self._decider is None:
            self._decider = self._load()
        verdicts = [
            guard(question, verdict, min_confidence=self._settings.min_confidence)
            for question, verdict in zip(questions, self._decider.decide(questions), strict=True)
        ]
        if self._stages_verdicts:
            ids = [question.decision_id(self._settings.decider) for question in questions]
            batch = hashlib.sha256("".join(ids).encode()).hexdigest()[:24]
            rows = [
                {"decision_id": decision_id, "verdict": json.dumps(vars(verdict))}
                for decision_id, verdict in zip(ids, verdicts, strict=True)
            ]
            staging = Files(self._settings.uri, "staging")
            staging.put_rows(verdicts_path(self._settings.decider, batch), rows, STAGED_VERDICTS)
        return verdicts


def revision_rows(store, changes: list[Change], settings: Settings) -> pa.Table | None:
    """Whole rows of the table `records`, with `is_rewritten`: what is closed, and what comes in its place.

    A rewritten row still has its old vector here; None where nothing changes.
    """
    if not changes:
        return None
    changes = sorted(changes, key=lambda change: (change.memory.user_id, change.memory.record_id))
    schema = records_schema(store.dim())
    parts = []
    for start in range(0, len(changes), MAX_IN):
        memories = [change.memory for change in changes[start : start + MAX_IN]]
        # The user's index narrows the search before the ids, which have none, are looked at.
        (users,) = _in_lists("user_id", sorted({memory.user_id for memory in memories}))
        (ids,) = _in_lists("record_id", [memory.record_id for memory in memories])
        where = f"active AND {users} AND {ids}"
        parts.append(store.rows("records", schema.names, where, settings.as_of))
    before = pa.concat_tables(parts).cast(schema)
    # Vectors stay in Arrow: as Python numbers they would take ten times their memory.
    plain = before.drop_columns(["vector"]).to_pylist()
    place = {row["record_id"]: number for number, row in enumerate(plain)}
    rows, taken, rewritten = [], [], []
    for change in changes:
        number, revised = place[change.memory.record_id], change.revised
        row = plain[number]
        reason = change.closed_reason or ("update" if change.is_rewritten else UNITE)
        ended = {"active": False, "closed_run_id": settings.run_id, "closed_reason": reason}
        rows.append(row | ended | {"updated_at": settings.started_at})
        taken.append(number)
        rewritten.append(False)
        if revised is None:
            continue
        rows.append(row | _revision(revised, change.decision_id, settings))
        taken.append(number)
        rewritten.append(change.is_rewritten)
    vectors = before.column("vector").take(pa.array(taken, pa.int64()))
    index = schema.get_field_index("vector")
    table = pa.Table.from_pylist(rows, schema=schema.remove(index))
    table = table.add_column(index, schema.field(index), vectors)
    return table.append_column("is_rewritten", pa.array(rewritten, pa.bool_()))


def _revision(revised: Memory, decision_id: str, settings: Settings) -> dict:
    """Columns of a new revision that differ from those of the one before."""
    return {
        "revision": revised.revision,
        "semantic_text": revised.text,
        "normalized_text": f"{revised.memory_type}: {revised.text}",
        "entities": list(revised.entities),
        "tags": list(revised.tags),
        "temporal": dict(zip(TEMPORAL_NAMES, revised.temporal, strict=True)),
        "evidence": [{"session_id": session, "turn_index": turn} for session, turn in revised.evidence],
        "decision_id": decision_id,
        "updated_at": settings.started_at,
        "run_id": settings.run_id,
    }


# --- lost grounds -------------------------------------------------------------------------------------

LOST = "grounds_lost"
"""`closed_reason` of a rewritten revision whose source is gone."""


def restorable(store, run_id: str, started_at: dt.datetime) -> pa.Table | None:
    """Rows that bring back what was decided for the sake of a memory that is gone; None where nothing is.

    A memory is gone when its segment was replaced: the session was edited, or encoded again. What had been
    deleted for it, united with it or rewritten after it returns as a new revision with the content that the
    decision saw, provided that its own segment still stands; it is then compared with everything anew.
    """
    names = ["record_id", "revision", "segment_id", "active", "closed_reason", "decision_id"]
    applied = "outcome = 'applied' AND action != 'ignore'"
    decisions = store.rows(
        "decisions", ["decision_id", "target_id", "target_revision", "source_ids"], applied
    ).to_pylist()
    if not decisions:
        return None
    rows = store.rows("records", names, "NOT active OR revision > 1").to_pylist()
    replaced = {row["record_id"] for row in rows if row["closed_reason"] == "segment_replaced"}
    known = sorted(replaced | {row["record_id"] for row in rows})
    active = {
        row["record_id"]: row
        for where in _in_lists("record_id", known)
        for row in store.rows("records", names, f"active AND {where}").to_pylist()
    }
    gone = replaced - active.keys()
    highest: dict[str, dict] = {}
    for row in rows:
        if row["revision"] >= highest.get(row["record_id"], row)["revision"]:
            highest[row["record_id"]] = row
    wanted: dict[str, int] = {}
    for decision in decisions:
        target, last = decision["target_id"], highest.get(decision["target_id"])
        if last is None or not gone.intersection(decision["source_ids"]):
            continue
        now = active.get(target)
        was_closed = now is None and last["closed_reason"] in ("delete", UNITE)
        if was_closed or (now is not None and now["decision_id"] == decision["decision_id"]):
            wanted[target] = min(decision["target_revision"], wanted.get(target, decision["target_revision"]))
    segments = sorted({highest[target]["segment_id"] for target in wanted})
    standing = {
        segment_id
        for where in _in_lists("segment_id", segments)
        for segment_id in store.rows("segments", ["segment_id"], f"active AND {where}")
        .column("segment_id")
        .to_pylist()
    }
    wanted = {
        target: revision for target, revision in wanted.items() if highest[target]["segment_id"] in standing
    }
    if not wanted:
        return None
    schema, found = records_schema(store.dim()), []
    for where in _in_lists("record_id", sorted(wanted)):
        for row in store.rows("records", schema.names, where).to_pylist():
            target = row["record_id"]
            if row["revision"] == wanted[target]:
                again = {"active": True, "closed_run_id": None, "closed_reason": None, "decision_id": None}
                again |= {"run_id": run_id, "revision": highest[target]["revision"] + 1}
                found.append(row | again | {"updated_at": started_at})
            elif row["active"]:
                ended = {"active": False, "closed_run_id": run_id, "closed_reason": LOST}
                found.append(row | ended | {"updated_at": started_at})
    return pa.Table.from_pylist(found, schema=schema)


# --- embed --------------------------------------------------------------------------------------------


class EmbedRevisions:
    """Actor, for groups with rewritten texts: revisions -> rows of `records`, embedded anew."""

    def __init__(self, profile: EmbedderProfile, files: Files):
        self._profile, self._files = profile, files
        self._embedder: Embedder | None = None

    def __call__(self, row: dict) -> dict:
        table = self._files.get_table(f"{row['group_id']}/revisions.parquet")
        mask = table.column("is_rewritten").to_numpy()
        table = table.drop_columns(["is_rewritten"])
        if self._embedder is None:
            self._embedder = Embedder(self._profile)
        texts = table.column("semantic_text").filter(pa.array(mask)).to_pylist()
        vectors = _vectors(table).copy()
        vectors[mask] = self._embedder.embed(texts)
        index, dim = table.schema.get_field_index("vector"), vectors.shape[1]
        column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), dim)
        table = table.set_column(index, table.schema.field(index), column)
        self._files.put_table(f"{row['group_id']}/records.parquet", table)
        return row
