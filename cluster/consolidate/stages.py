"""The stages of a consolidation, for a group of users: what is passed on are references to staged files.

    memories, pairs (.plan) --decide--> decisions, revisions --embed--> rows of the tables

Answers of a model are staged as soon as they arrive, one file per batch: after a kill none of them is asked
for again.
"""

import functools
import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pyarrow as pa

from cluster.consolidate.budget import Budget, SharedBudget
from cluster.consolidate.decider import ModelDecider, expected_tokens, guarded
from cluster.consolidate.fold import UNITE, Change, Decide, Memory, Question, Verdict, fold
from cluster.consolidate.plan import (
    PlanSettings,
    columns_of,
    load_memories,
    load_pairs,
    plan_group,
    vectors_of,
)
from cluster.consolidate.verdicts import STAGED_VERDICTS, KnownVerdicts, verdicts_path
from cluster.consolidate.without_model import Decider, load_decider
from cluster.embed.embedder import Embedder
from cluster.models.paid_answers import CapReached
from cluster.store.crash_markers import WorkerSick
from cluster.store.files import Files
from cluster.store.sql import MAX_IN, in_lists
from cluster.store.store import Store
from schemas.profiles.decider import DeciderProfile
from schemas.profiles.embedder import EmbedderProfile
from schemas.record import normalized
from schemas.stage_items import DecidedGroup, PlannedGroup, UserGroup
from schemas.store import DECISIONS_SCHEMA, records_schema


def plan_for_model(
    group: UserGroup, *, profile: DeciderProfile, settings: PlanSettings, files: Files
) -> PlannedGroup:
    """Stage: `plan_group`, and what a model would cost."""
    return estimate_group(plan_group(group, settings=settings, files=files), profile, settings, files)


def estimate_group(
    group: PlannedGroup, profile: DeciderProfile, settings: PlanSettings, files: Files
) -> PlannedGroup:
    """Adds the calls and tokens that deciding the group would cost if every answer were `ignore`."""
    memories = load_memories(group.group_id, files)
    cost = {"expected_calls": 0, "expected_tokens": 0}
    user_ids = sorted({memory.user_id for memory in memories})
    known = KnownVerdicts(Store(settings.uri), files, settings, user_ids)

    def count(questions: list[Question]) -> list[Verdict]:
        answers = []
        for question in questions:
            verdict = known.get(question.decision_id(settings.decider))
            if verdict is None:
                cost["expected_calls"] += 1
                cost["expected_tokens"] += expected_tokens(profile, question)
            answers.append(verdict or Verdict("ignore"))
        return answers

    pairs = load_pairs(group.group_id, files)
    fold(memories, pairs, count, decider=settings.decider, max_sources=settings.max_sources)
    return replace(group, expected_calls=cost["expected_calls"], expected_tokens=cost["expected_tokens"])


def decide_group(group: PlannedGroup, *, settings: PlanSettings, files: Files, kind: str) -> DecidedGroup:
    """Stage: DecideStage with one of WITHOUT_MODEL, of which there is nothing to keep loaded."""
    return DecideStage(None, settings, files, {}, kind=kind)(group)


class DecideStage:
    """Actor: group -> decisions and revisions, staged. Without a profile one of WITHOUT_MODEL
    decides, by its name.

    A group for which the budget does not suffice comes back with `is_stopped`, its answers staged; `cap` says
    so where it is the one on costs. `failure` says why the decider can decide nothing now, empty otherwise.
    """

    def __init__(
        self,
        profile: DeciderProfile | None,
        settings: PlanSettings,
        files: Files,
        engine: dict,
        budget: Budget | SharedBudget | None = None,
        kind: str = "rules",
    ):
        self._profile, self._settings, self._files = profile, settings, files
        self._budget = budget if profile else None
        self._decider: Decider | None = None
        # Loading waits for a question: a run that knows all answers never loads a model.
        self._load: Callable[[], Decider] = (
            (lambda: ModelDecider(profile, **engine)) if profile else functools.partial(load_decider, kind)
        )
        self._spent = {"num_calls": 0, "spent_tokens": 0}

    def __call__(self, group: PlannedGroup) -> DecidedGroup:
        self._spent = dict.fromkeys(self._spent, 0)
        try:
            counts: dict[str, Any] = self._decide(group.group_id)
        except CapReached as cap:
            counts = {"is_stopped": True, "cap": str(cap)}
        except WorkerSick as error:
            counts = {"failure": str(error)}
        return DecidedGroup(**vars(group), **(counts | self._spent))

    def _decide(self, group_id: str) -> dict[str, int]:
        settings = self._settings
        memories, store = load_memories(group_id, self._files), Store(settings.uri)
        user_ids = sorted({memory.user_id for memory in memories})
        known = KnownVerdicts(store, self._files, settings, user_ids)
        folded = fold(
            memories,
            load_pairs(group_id, self._files),
            self._deciding(known),
            decider=settings.decider,
            max_sources=settings.max_sources,
        )
        decisions = [row for row in folded.decisions if row["decision_id"] not in known.unasked]
        stamp = {"decided_at": settings.started_at, "run_id": settings.run_id}
        asked = [row for row in decisions if row["decider"] == settings.decider]
        if profile := self._profile:
            for row in asked:
                row.update(model=profile.model_name, prompt=profile.prompt_fingerprint)
        self._files.put_rows(
            f"{group_id}/decisions.parquet", [row | stamp for row in decisions], DECISIONS_SCHEMA
        )
        revisions = revision_rows(store, folded.changes, settings)
        if revisions is not None:
            num_rewritten = sum(revisions.column("is_rewritten").to_pylist())
            ready = revisions if num_rewritten else revisions.drop_columns(["is_rewritten"])
            name = "revisions" if num_rewritten else "records"
            self._files.put_table(f"{group_id}/{name}.parquet", ready)
        return {
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

    def _deciding(self, known: KnownVerdicts) -> Decide:
        decider, settings = self._settings.decider, self._settings

        def decide(questions: list[Question]) -> list[Verdict]:
            verdicts = [known.get(question.decision_id(decider)) for question in questions]
            missing = [number for number, verdict in enumerate(verdicts) if verdict is None]
            for start in range(0, len(missing), settings.batch_size):
                batch = missing[start : start + settings.batch_size]
                for number, verdict in zip(batch, self._ask([questions[n] for n in batch]), strict=True):
                    verdicts[number] = verdict
            return [verdict for verdict in verdicts if verdict is not None]

        return decide

    def _ask(self, questions: list[Question]) -> list[Verdict]:
        verdicts: list[Verdict] = []
        while rest := questions[len(verdicts) :]:
            if self._budget and self._profile:
                rest = rest[: self._budget.take([expected_tokens(self._profile, one) for one in rest])]
            if not rest:
                raise CapReached
            verdicts += self._answer(rest)
        return verdicts

    def _answer(self, questions: list[Question]) -> list[Verdict]:
        if self._decider is None:
            self._decider = self._load()
        calls_before = self._decider.num_calls
        verdicts = self._decider.decide(questions)
        verdicts = guarded(questions, verdicts, min_confidence=self._settings.min_confidence)
        num_calls = self._decider.num_calls - calls_before
        num_tokens = sum(verdict.prompt_tokens + verdict.output_tokens for verdict in verdicts)
        self._spent["num_calls"] += num_calls
        self._spent["spent_tokens"] += num_tokens
        if self._budget and self._profile:
            expected = sum(expected_tokens(self._profile, question) for question in questions)
            self._budget.settle(num_calls - len(questions), num_tokens - expected)
        if self._profile:
            ids = [question.decision_id(self._settings.decider) for question in questions]
            batch = hashlib.sha256("".join(ids).encode()).hexdigest()[:24]
            rows = [
                {
                    "decision_id": decision_id,
                    "user_id": question.target.user_id,
                    "verdict": vars(verdict),
                }
                for decision_id, question, verdict in zip(ids, questions, verdicts, strict=True)
            ]
            staging = Files(self._settings.uri, "staging")
            staging.put_rows(verdicts_path(self._settings.decider, batch), rows, STAGED_VERDICTS)
        return verdicts


def revision_rows(store: Store, changes: list[Change], settings: PlanSettings) -> pa.Table | None:
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
        (users,) = in_lists("user_id", sorted({memory.user_id for memory in memories}))
        (ids,) = in_lists("record_id", [memory.record_id for memory in memories])
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


def _revision(revised: Memory, decision_id: str, settings: PlanSettings) -> dict:
    """Columns of a new revision that differ from those of the one before."""
    return {
        **columns_of(revised),
        "normalized_text": normalized(revised.memory_type, revised.text),
        "decision_id": decision_id,
        "updated_at": settings.started_at,
        "run_id": settings.run_id,
    }


class EmbedRevisions:
    """Actor, for groups with rewritten texts: revisions -> rows of `records`, embedded anew."""

    def __init__(self, profile: EmbedderProfile, files: Files):
        self._profile, self._files = profile, files
        self._embedder: Embedder | None = None

    def __call__(self, group: DecidedGroup) -> DecidedGroup:
        table = self._files.get_table(f"{group.group_id}/revisions.parquet")
        mask = table.column("is_rewritten").to_numpy()
        table = table.drop_columns(["is_rewritten"])
        if self._embedder is None:
            self._embedder = Embedder(self._profile)
        texts = table.column("semantic_text").filter(pa.array(mask)).to_pylist()
        vectors = vectors_of(table).copy()
        vectors[mask] = self._embedder.embed(texts)
        index, dim = table.schema.get_field_index("vector"), vectors.shape[1]
        column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), dim)
        table = table.set_column(index, table.schema.field(index), column)
        self._files.put_table(f"{group.group_id}/records.parquet", table)
        return group
