"""How findings are closed: each as a decision with its reason, and a row of `records` that is active no more.

A memory is closed once, for the first thing that is wrong with it. Nothing else changes, so that a rollback
to the run before brings all of it back.
"""

import hashlib

import pyarrow as pa

from cluster.consolidate.fold import Change, Memory
from cluster.consolidate.plan import PlanSettings
from cluster.consolidate.stages import revision_rows
from cluster.store.store import Store
from schemas.audit import AUDIT, Finding
from schemas.identity import joined
from schemas.store import DECISIONS_SCHEMA


def closing(findings: list[Finding]) -> list[Finding]:
    """Those of the findings that are closed, one a memory."""
    first: dict[str, Finding] = {}
    for one in findings:
        if one.action:
            first.setdefault(one.record_id, one)
    return list(first.values())


def closing_rows(store: Store, findings: list[Finding], settings: PlanSettings) -> dict[str, pa.Table]:
    """Table -> whole rows that close these findings; `findings` are those of `closing`, not empty."""
    changes = [
        Change(Memory(one.record_id, one.revision, one.user_id, "", "", 0, one.text), one.action)
        for one in findings
    ]
    records = revision_rows(store, changes, settings)
    assert records is not None, "there are findings"
    decisions = [_decision(one) | _of_run(settings) for one in findings]
    return {
        "decisions": pa.Table.from_pylist(decisions, schema=DECISIONS_SCHEMA),
        "records": records.drop_columns(["is_rewritten"]),
    }


def _decision(one: Finding) -> dict:
    """A row of DECISIONS_SCHEMA. Its reason has no words of any memory: other rows may outlive them."""
    sources = [part for source in one.sources for part in map(str, source)]
    content = joined(AUDIT, one.kind, one.record_id, str(one.revision), one.text, *sources)
    return {
        "decision_id": hashlib.sha256(content.encode()).hexdigest()[:32],
        "user_id": one.user_id,
        "target_id": one.record_id,
        "target_revision": one.revision,
        "source_ids": [record_id for record_id, _ in one.sources],
        "source_revisions": [revision for _, revision in one.sources],
        "decider": AUDIT,
        "action": one.action,
        "text": "",
        "outcome": "applied",
        "reason": f"{one.kind}: {one.reason}",
        "raw": "",
        **dict.fromkeys(("prompt_tokens", "cached_tokens", "output_tokens"), 0),
    }


def _of_run(settings: PlanSettings) -> dict:
    return {"decided_at": settings.started_at, "run_id": settings.run_id}
