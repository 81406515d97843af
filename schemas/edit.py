"""Edits by hand: what a person wants done to a memory, and the decision that records it.

An edit is a revision of its memory, made by a decision whose `decider` is `hand`. Of such a decision `model`
is the author, `reason` why, `target_revision` the revision that it made; it has no sources. Its `action` is
one of those below, or what closes a memory: `delete` where somebody said until when it held, else `discard`.
"""

import datetime as dt
from typing import Any

from pydantic import Field, ValidationError, model_validator

from schemas.exchange import MAX_TEXT_CHARS, BadMemory
from schemas.record import MemoryType, cleaned
from schemas.settings import Settings

ADD, CORRECT, PIN, UNPIN = "add", "correct", "pin", "unpin"
"""Actions. A memory is pinned while the last decision that pins or unpins it pins it."""

EDITED = "edited"
"""`closed_reason` of the revision in whose place an edit has put another one."""

MAX_REASON_CHARS = 1000

MAX_AUTHOR_CHARS = 200


class EditKeys(Settings):
    """What may be said of an edit, as options and as keys of a line."""

    memory_id: str | None = Field(None, min_length=1)
    """The memory to change; the beginning of its id is enough."""
    user_id: str | None = Field(None, min_length=1)
    """Instead of memory_id: add a memory of this user."""
    text: str | None = None
    """What the memory says."""
    type: MemoryType | None = None
    """Type of the memory. Not given: a new memory is a fact."""
    valid_from: dt.date | None = None
    """Day (YYYY-MM-DD) from which it holds."""
    valid_to: dt.date | None = None
    """First day (YYYY-MM-DD) on which it no longer holds."""
    pin: bool = False
    """Pin it: no decider, no audit and no new encoding closes or rewrites it."""
    unpin: bool = False
    """Unpin it: it may be decided about again."""
    close: bool = False
    """Close it: with valid_to it held until that day, without it never held."""
    author: str | None = Field(None, max_length=MAX_AUTHOR_CHARS)
    """Who makes the edit; required."""
    reason: str | None = Field(None, max_length=MAX_REASON_CHARS)
    """Why; required."""

    @property
    def corrects(self) -> bool:
        """Whether it says anything about what a memory says, or when it holds."""
        return any(one is not None for one in (self.text, self.type, self.valid_from, self.valid_to))

    def problem(self) -> str | None:
        """What is wrong with it, if anything: field, value and remedy."""
        for name in ("author", "reason"):
            if not (getattr(self, name) or "").strip():
                return f"{name}: not given; say {'who edits' if name == 'author' else 'why'}"
        if (self.memory_id is None) == (self.user_id is None):
            given = "both are given" if self.memory_id else "neither is given"
            return f"memory_id, user_id: {given}; name a memory to change, or whose a new one is"
        if self.text is not None and not cleaned(self.text):
            return "text: empty; a memory needs a text, and --close closes one"
        if self.text is not None and len(cleaned(self.text)) > MAX_TEXT_CHARS:
            return f"text: {len(self.text)} characters; a memory has at most {MAX_TEXT_CHARS}"
        if self.pin and self.unpin:
            return "pin, unpin: give one of the two"
        if self.valid_from and self.valid_to and self.valid_to < self.valid_from:
            return f"valid_to={self.valid_to}: lies before valid_from={self.valid_from}; exchange them"
        if self.user_id is not None:
            if self.text is None:
                return f"user_id={self.user_id!r}: give text too, which the new memory is to say"
            if self.unpin or self.close:
                return "unpin, close: are for a memory that is there; name it with memory_id"
        elif not (self.corrects or self.pin or self.unpin or self.close):
            return f"memory_id={self.memory_id!r}: nothing to do; give text, type, dates, pin, unpin or close"
        if self.close and (self.text is not None or self.type or self.valid_from or self.pin or self.unpin):
            return (
                "close: goes with valid_to alone; a text that is wrong is corrected with text, without close"
            )
        return None


class Edit(EditKeys):
    """One edit, complete."""

    @model_validator(mode="after")
    def _check(self) -> "Edit":
        if problem := self.problem():
            raise ValueError(problem)
        return self


def read_edit(row: dict[str, Any]) -> Edit:
    """An edit out of a line's object. BadMemory, which names the field, the value and the remedy."""
    try:
        return Edit.model_validate(row)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(map(str, first["loc"]))
        if not name:
            raise BadMemory(str(first["ctx"]["error"])) from None
        if first["type"] == "extra_forbidden":
            known = ", ".join(EditKeys.model_fields)
            raise BadMemory(f"{name}: no such key; known keys: {known}") from None
        raise BadMemory(f"{name}={str(first['input'])[:60]!r}: {first['msg']}") from None
