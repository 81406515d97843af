"""Intents: what a writer of a store has decided to do, written down before it changes the first table.

Who comes after a killed writer reads its intent and finishes it, so a class here holds all that the work
needs. As JSON, each has its `kind`, but for a commit, which has none.
"""

from itertools import chain
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

Staged = dict[str, list[str]]
"""Table -> Parquet files under `_slowwave/staging`."""


class _Intent(BaseModel):
    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    run: dict[str, Any]
    """A row of RUNS_SCHEMA without `versions`, `finished_at` and `sequence`. Its times may be text."""

    @property
    def staged_paths(self) -> list[str]:
        """Staged files without which it cannot be finished."""
        return []


class Commit(_Intent):
    """Rows of staged files become a run, see cluster.store.commit."""

    kind: Literal["commit"] = Field("commit", exclude=True)
    dim: int
    turn_dim: int
    inserts: Staged
    replaces: Staged
    closed_segments: list[str]

    @property
    def staged_paths(self) -> list[str]:
        return [*chain(*self.inserts.values(), *self.replaces.values())]


class Rollback(_Intent):
    """A new run with the view of an earlier one."""

    kind: Literal["rollback"] = "rollback"
    to: str
    """Id of that run."""


class Reembed(_Intent):
    """Some tables consist of staged files alone from now on."""

    kind: Literal["reembed"] = "reembed"
    dim: int
    turn_dim: int | None
    staged: Staged

    @property
    def staged_paths(self) -> list[str]:
        return [*chain(*self.staged.values())]


class Compact(_Intent):
    """Views of old runs are given up."""

    kind: Literal["compact"] = "compact"
    expired: list[str]
    """Ids of these runs."""


class Forget(_Intent):
    """A user, a session or a memory is erased, see cluster.forget.erase."""

    kind: Literal["forget"] = "forget"
    subject: dict[str, Any]
    """Fields of cluster.forget.rules.Subject."""
    shown: str
    """What stands for the subject's id from now on."""
    remember: list[str]
    """Hashes of what no backfill may bring back."""
    made_with: dict[str, str | None] = Field(alias="list")
    """Of which list these hashes are: its `salt` and `secret_check`."""
    found: dict[str, Any]
    """Counts of what goes (`removed`), and its traces: `texts`, `ids`, `touched`."""
    known_traces: dict[str, str]
    """Path -> sha256 of files in which an earlier search of this subject found traces."""


Intent = Commit | Rollback | Reembed | Compact | Forget

_ANY = TypeAdapter(Annotated[Intent, Field(discriminator="kind")])


def read_intent(written: dict) -> Intent:
    """An intent out of its JSON object. ValueError, which names the field, if it is not one of these."""
    try:
        return _ANY.validate_python({"kind": "commit"} | written)
    except ValidationError as error:
        # Without the input, which may name a user.
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "kind"
        raise ValueError(f"{place}: {first['msg']}") from None
