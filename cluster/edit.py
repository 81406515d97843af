"""Edits by hand, as rows of the store: what a person says of memories becomes revisions and decisions.

An edit makes one revision, whose encoder is `hand`, and closes the one in whose place it stands: nothing is
overwritten, and a rollback to the run before undoes it. What somebody states by hand counts as said when it
was edited, so that older evidence never closes it, and newer does. It holds for as long as what it corrects.
"""

import datetime as dt
import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from cluster.backfill.redact import redact
from cluster.consolidate.history import memory_id
from cluster.consolidate.pins import pinned
from cluster.language.claims import statement_key
from cluster.store.brought import segment_id, segment_row, session_id
from cluster.store.errors import StoreError
from cluster.store.sql import in_lists
from cluster.store.staging import known_columns
from cluster.store.store import Store
from schemas.audit import DISCARD
from schemas.edit import ADD, CORRECT, EDITED, PIN, UNPIN, Edit
from schemas.exchange import BadMemory
from schemas.identity import joined
from schemas.record import cleaned, normalized
from schemas.store import BY_HAND, DECISIONS_SCHEMA, SEGMENTS_SCHEMA, records_schema

if TYPE_CHECKING:
    import numpy as np

COUNTED = {ADD: "num_added", CORRECT: "num_corrected", PIN: "num_pinned", UNPIN: "num_unpinned"}
"""Action -> its count; what closes a memory is counted as num_deleted."""

Key = tuple[str, int]
"""Record id and revision."""


@dataclass
class Edits:
    """Edits of one run, taken one after the other: a later one sees what an earlier one did."""

    store: Store
    run_id: str
    started_at: dt.datetime
    counts: Counter[str] = field(default_factory=Counter)
    rows: dict[Key, dict] = field(default_factory=dict)
    """Whole rows of `records` as they are to stand, but for what the commit fills in of new memories."""
    decisions: list[dict] = field(default_factory=list)
    """Rows of DECISIONS_SCHEMA."""
    _revisions: dict[str, dict[int, dict]] = field(default_factory=dict)
    """Of each memory that was named, by its whole id, as the edits until now leave them."""
    _pinned: set[str] = field(default_factory=set)
    _said: dict[str, dict[str, str]] = field(default_factory=dict)
    """User -> statement -> memory that says so, of users who get memories."""

    def load(self, edits: Sequence[Edit]) -> None:
        """Read what the store has of the memories and users that these name."""
        self._pinned = set(pinned(self.store).to_pylist())
        self._read({edit.memory_id for edit in edits if edit.memory_id})
        columns = ["record_id", "user_id", "semantic_text", "memory_type", "temporal"]
        for where in in_lists("user_id", sorted({edit.user_id for edit in edits if edit.user_id})):
            for row in self.store.rows("records", columns, f"active AND {where}").to_pylist():
                self._said.setdefault(row["user_id"], {})[_statement(row)] = row["record_id"]

    def apply(self, edit: Edit) -> None:
        """Take an edit. BadMemory, which names the field, the value and the remedy, where it cannot be."""
        if edit.user_id is not None:
            self._add(edit, edit.user_id)
            return
        own = self._of(edit.memory_id or "")
        standing = [row for row in own.values() if row["active"]]
        if not standing:
            closed = own[max(own)]
            if not edit.close:
                raise BadMemory(
                    f"memory_id={edit.memory_id!r}: was closed by run {closed['closed_run_id']} "
                    f"({closed['closed_reason']}); add it anew with user_id and text, or roll back"
                )
            self.counts["num_unchanged"] += 1
            return
        row = max(standing, key=lambda one: one["revision"])
        change = self._change(edit, row)
        actions = self._actions(edit, row, change)
        if not actions:
            self.counts["num_unchanged"] += 1
            return
        self._replace(edit, row, change, actions)

    def _read(self, ids: Iterable[str]) -> None:
        """Read all revisions of memories, by their whole ids; what is no such id is of none."""
        names = records_schema(self.store.dim()).names
        for where in in_lists("record_id", sorted(ids)):
            for row in self.store.rows("records", names, where).to_pylist():
                self._revisions.setdefault(row["record_id"], {})[row["revision"]] = row

    def _of(self, given: str) -> dict[int, dict]:
        """Revisions of the memory that somebody names."""
        if given in self._revisions:
            return self._revisions[given]
        try:
            name = memory_id(self.store, given)
        except StoreError as error:
            raise BadMemory(str(error)) from None
        if name is None:
            raise BadMemory(
                f"memory_id={given!r}: no memory of this store; jobs.query and jobs.history show their ids"
            )
        if name not in self._revisions:
            self._read([name])
        return self._revisions[name]

    # --- a memory that is there -----------------------------------------------------------------------

    def _change(self, edit: Edit, row: dict) -> dict[str, Any]:
        """Columns of the memory's statement to which the edit gives another value."""
        said: dict[str, Any] = {}
        if edit.text is not None and (text := self._text(edit.text)) != row["semantic_text"]:
            said["semantic_text"] = text
            folded = text.casefold()
            said["entities"] = [name for name in row["entities"] or () if name.casefold() in folded]
        if edit.type and edit.type != row["memory_type"]:
            said["memory_type"] = edit.type
        temporal = dict(row["temporal"] or {})
        given = {"t_valid_from": edit.valid_from, "t_valid_to": edit.valid_to}
        dates = temporal | {name: day.isoformat() for name, day in given.items() if day}
        first, last = dates.get("t_valid_from"), dates.get("t_valid_to")
        if (edit.valid_from or edit.valid_to) and first and last and last < first:
            raise BadMemory(f"valid_to={last}: lies before valid_from={first}; give both")
        if dates != temporal:
            said["temporal"] = dates
        return said

    def _actions(self, edit: Edit, row: dict, change: dict[str, Any]) -> list[str]:
        """What the edit does; nothing where all is so already. The first is what made the revision."""
        if edit.close:
            if edit.valid_to and edit.valid_to > self.started_at.date():
                raise BadMemory(f"valid_to={edit.valid_to}: is to come; give it without close")
            return ["delete" if edit.valid_to else DISCARD]
        is_pinned = row["record_id"] in self._pinned
        wanted = {CORRECT: bool(change), PIN: edit.pin and not is_pinned, UNPIN: edit.unpin and is_pinned}
        return [action for action, is_wanted in wanted.items() if is_wanted]

    def _replace(self, edit: Edit, row: dict, change: dict[str, Any], actions: list[str]) -> None:
        own, record_id = self._revisions[row["record_id"]], row["record_id"]
        revision, action = max(own) + 1, actions[0]
        new = row | change | {"revision": revision, "encoder": BY_HAND}
        ended = {"active": False, "closed_run_id": self.run_id}
        if action == CORRECT:
            new |= self._stated(row, new)
        elif action == UNPIN:
            new["encoder"] = _encoder_of(own, row)
        elif action not in COUNTED:
            new |= ended | {"closed_reason": action}
        ids = [self._decide(edit, one, new) for one in actions]
        new |= {"decision_id": ids[0], "run_id": self.run_id, "updated_at": self.started_at}
        old = row | ended | {"closed_reason": EDITED, "updated_at": self.started_at}
        for one in (old, new):
            own[one["revision"]] = self.rows[record_id, one["revision"]] = one

    def _stated(self, row: dict, new: dict) -> dict[str, Any]:
        """What else is new of a memory that somebody has stated by hand."""
        temporal = dict(new["temporal"] or {})
        if not temporal.get("t_valid_from") and row["session_time"]:
            temporal["t_valid_from"] = row["session_time"].date().isoformat()
        has_text = new["semantic_text"] == row["semantic_text"]
        return {
            "temporal": temporal,
            "session_time": self.started_at,
            "normalized_text": normalized(new["memory_type"], new["semantic_text"]),
            "source_role": row["source_role"] if has_text else "",
            "vector": row["vector"] if has_text else None,
        }

    # --- a new memory ---------------------------------------------------------------------------------

    def _add(self, edit: Edit, user_id: str) -> None:
        days = {"t_valid_from": edit.valid_from, "t_valid_to": edit.valid_to}
        temporal = {"t_ref": ""} | {name: day.isoformat() if day else "" for name, day in days.items()}
        row: dict[str, Any] = {
            "semantic_text": self._text(edit.text or ""),
            "memory_type": edit.type or "fact",
            "temporal": temporal,
        }
        said = self._said.setdefault(user_id, {})
        statement = _statement(row)
        if known := said.get(statement):
            if edit.pin and known not in self._pinned:
                raise BadMemory(f"text: the user has this memory ({known}); pin it by its memory_id")
            self.counts["num_unchanged"] += 1
            return
        content = joined(BY_HAND, self.run_id, user_id, statement)
        record_id = hashlib.sha256(content.encode()).hexdigest()[:32]
        row |= {
            "record_id": record_id,
            "revision": 1,
            "segment_id": segment_id(BY_HAND, self.run_id, user_id),
            "user_id": user_id,
            "conversation_id": None,
            "session_id": session_id(BY_HAND, self.run_id),
            "session_time": self.started_at,
            "normalized_text": normalized(row["memory_type"], row["semantic_text"]),
            **{"entities": [], "tags": [], "evidence": [], "source_role": ""},
            "encoder": BY_HAND,
            "vector": None,
        }
        row["decision_id"] = self._decide(edit, ADD, row)
        if edit.pin:
            self._decide(edit, PIN, row)
        self.rows[record_id, 1] = row
        said[statement] = record_id

    # --- both -------------------------------------------------------------------------------------------

    def _text(self, text: str) -> str:
        found = redact(cleaned(text))
        self.counts["num_redactions"] += sum(found.counts.values())
        return found.text

    def _decide(self, edit: Edit, action: str, row: dict) -> str:
        """Note what was done, by whom and why; the decision's id."""
        author, reason = cleaned(edit.author or ""), redact(cleaned(edit.reason or "")).text
        content = joined(BY_HAND, self.run_id, action, row["record_id"], str(row["revision"]))
        decision_id = hashlib.sha256(content.encode()).hexdigest()[:32]
        self.decisions.append(
            {
                "decision_id": decision_id,
                "user_id": row["user_id"],
                "target_id": row["record_id"],
                "target_revision": row["revision"],
                **{"source_ids": [], "source_revisions": []},
                "decider": BY_HAND,
                "model": author,
                "prompt": None,
                "action": action,
                "text": row["semantic_text"] if action in (ADD, CORRECT) else "",
                "outcome": "applied",
                "reason": reason,
                "raw": "",
                **dict.fromkeys(("prompt_tokens", "cached_tokens", "output_tokens"), 0),
                "decided_at": self.started_at,
                "run_id": self.run_id,
            }
        )
        self.counts[COUNTED.get(action, "num_deleted")] += 1
        if action in (PIN, UNPIN):
            (self._pinned.add if action == PIN else self._pinned.discard)(row["record_id"])
        return decision_id

    # --- as tables ------------------------------------------------------------------------------------

    def texts(self) -> list[str]:
        """What is to be embedded, see `tables`."""
        return [row["semantic_text"] for row in self.rows.values() if row["vector"] is None]

    def tables(self, vectors: "np.ndarray | Sequence") -> tuple[dict[str, pa.Table], dict[str, pa.Table]]:
        """Rows to insert and rows to replace, by table. `vectors` float32 [num_texts, dim] are those of
        `texts`."""
        left = iter(vectors)
        for row in self.rows.values():
            if row["vector"] is None:
                row["vector"] = next(left)
        dim = len(next(iter(self.rows.values()))["vector"])
        new = [row for row in self.rows.values() if "active" not in row]
        others = [row for row in self.rows.values() if "active" in row]
        of_user = Counter(row["user_id"] for row in new)
        segments = [segment_row(BY_HAND, user, num, self.run_id) for user, num in sorted(of_user.items())]
        inserts = {
            "segments": known_columns(segments, SEGMENTS_SCHEMA),
            "records": known_columns(new, records_schema(dim)),
        }
        replaces = {
            "records": known_columns(others, records_schema(dim)),
            "decisions": known_columns(self.decisions, DECISIONS_SCHEMA),
        }
        return _with_rows(inserts), _with_rows(replaces)


def _with_rows(tables: dict[str, pa.Table]) -> dict[str, pa.Table]:
    return {name: table for name, table in tables.items() if table.num_rows}


def _statement(row: dict) -> str:
    temporal = row["temporal"] or {}
    dates = tuple(temporal.get(name) or "" for name in ("t_ref", "t_valid_from", "t_valid_to"))
    return statement_key(row["semantic_text"], row["memory_type"], dates)  # type: ignore[arg-type] # three


def _encoder_of(own: dict[int, dict], row: dict) -> str:
    """Whose a memory is that nobody pins any more: the encoder's, unless a person has stated something."""
    others = [one for one in own.values() if one["encoder"] != BY_HAND]
    said = ("semantic_text", "memory_type", "temporal")
    last = max(others, key=lambda one: one["revision"], default=row)
    return last["encoder"] if all(last[name] == row[name] for name in said) else BY_HAND
