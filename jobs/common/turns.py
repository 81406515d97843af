"""Turns through an embedder that reads all of a user's together: what jobs.backfill and jobs.reembed share.

Which users have to be read, the actors that read them, and what becomes of users that cannot be read. Whether
there is such a stage is asked of cluster.embed.turn_embedder.
"""

import hashlib
import uuid
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from cluster.runtime import PoolConfig, Progress, Stage, run_stage
from schemas.identity import joined
from schemas.profiles.embedder import EmbedderProfile
from schemas.stage_items import EmbeddedBatch, UsersRead, UsersToRead

if TYPE_CHECKING:
    from cluster.store.store import Store


class TurnsPool(PoolConfig):
    """Actors that run the embedder."""

    num_cpus: float = 0.5
    num_users: int = Field(64, ge=1)
    """Users whose turns one call of an actor reads, with an evolvable embedder; what a crash can cost."""


def changed_users(
    store: "Store", done: Iterable[EmbeddedBatch], closed_segments: list[str]
) -> dict[str, dict[str, list[str]]]:
    """Users whose turns have to be read: user id -> `turns` (staged files) and `closed` (segment ids).

    Those with new turns in the batches that are `done`, with segments that the run closes, and those that
    the store holds turns but no memory of.
    """
    from cluster.store.sql import in_lists

    users: dict[str, dict] = {}
    for batch in done:
        for user_id in batch.users:
            _entry(users, user_id)["turns"].append(batch.tables["turns"])
    for where in in_lists("segment_id", closed_segments):
        for row in store.rows("segments", ["user_id", "segment_id"], f"active AND {where}").to_pylist():
            _entry(users, row["user_id"])["closed"].append(row["segment_id"])
    unread = all_users(store, "turns", "active") - all_users(store, "states", "num_turns > 0")
    for user_id in unread | all_users(store, "turns", "active AND vector IS NULL"):
        _entry(users, user_id)
    return users


def all_users(store: "Store", table: str, where: str | None = None) -> set[str]:
    rows = store.rows(table, ["user_id"], where)
    return set(rows.column("user_id").unique().to_pylist()) if rows.num_rows else set()


def _entry(users: dict[str, dict], user_id: str) -> dict:
    return users.setdefault(user_id, {"turns": [], "closed": []})


def read_users(
    stage: type,
    store: "Store",
    profile: EmbedderProfile,
    users: dict[str, dict],
    pool: TurnsPool,
    *,
    anew: bool = False,
) -> list[UsersRead]:
    """Users -> actors -> staged turns and memories. `stage` is the embedder's `user_stage`."""
    from cluster.store.files import Files

    items = []
    names = sorted(users)
    for start in range(0, len(names), pool.num_users):
        group = names[start : start + pool.num_users]
        paths = sorted({path for user_id in group for path in users[user_id]["turns"]})
        closed = [segment_id for user_id in group for segment_id in users[user_id]["closed"]]
        items.append(UsersToRead(tuple(group), tuple(paths), tuple(closed)))
    arguments = {
        "uri": store.uri,
        "profile": profile,
        "files": Files(store.uri, "staging"),
        "attempt": uuid.uuid4().hex,
        "anew": anew,
    }
    progress = Progress("turns", "users", len(names))
    found = run_stage(
        items, Stage(stage, arguments, pool), progress=progress, count=lambda part: part.num_users
    )
    return sorted(found, key=lambda part: part.key)


def paths_of(found: Sequence[UsersRead]) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Staged files of results, as Store.commit takes them: `inserts` and `replaces`."""
    if not found:
        return {}, {}
    turns: dict[bool, list[str]] = {False: [], True: []}
    states = []
    for part in found:
        turns[part.replaces] += [part.tables["turns"]] if "turns" in part.tables else []
        states += [part.tables["states"]] if "states" in part.tables else []
    return {"turns": turns[False]}, {"turns": turns[True], "states": states}


def joined_paths(*parts: dict[str, list[str]]) -> dict[str, list[str]]:
    """Table -> staged files of all parts."""
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: [path for part in parts for path in part.get(name, [])] for name in names}


def rejection_rows(found: list[UsersRead]) -> list[dict]:
    """Rows of REJECTIONS_SCHEMA, one for each user whose turns could not be read."""
    from cluster.backfill.redact import redact, shown_id

    return [
        {
            "rejection_id": hashlib.sha256(
                joined("embedder", user.user_id, user.detail).encode()
            ).hexdigest()[:32],
            "stage": "embedder",
            "source": f"user:{shown_id(user.user_id)}",
            "user_id": user.user_id,
            "session_id": None,
            "reason": "embedder_error",
            "detail": redact(user.detail).text + "; the turns have no vectors, the next backfill tries again",
            "raw": "",
        }
        for part in found
        for user in part.rejections
    ]


def counts_of(found: list[UsersRead]) -> dict:
    """For the summary."""
    return {
        "num_users_read": sum(part.num_users for part in found),
        "num_users_rejected": sum(len(part.rejections) for part in found),
        "num_turns_embedded": sum(part.num_turns_embedded_now for part in found),
    }
