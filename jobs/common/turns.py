"""Turns through an evolvable embedder, on the cluster: what jobs.backfill and jobs.reembed share.

Which users have to be read, the actors that read them, and what becomes of users that cannot be read. The
work itself is in cluster.evolvable.turns.
"""

import hashlib
import json
import uuid

from cluster.runtime import PoolConfig, actor_options
from jobs.common.cli import Progress
from schemas.identity import joined
from schemas.profile import EmbedderProfile


def changed_users(store, done: list[dict], closed_segments: list[str]) -> dict[str, dict]:
    """Users whose turns have to be read: user id -> `turns` (staged files) and `closed` (segment ids).

    Those with new turns (`done`: results of the embed stage, with the `path` of their staged turns), with
    segments that the run closes, and those that the store holds turns but no memory of.
    """
    from cluster.store.store import in_lists

    users: dict[str, dict] = {}
    for batch in done:
        for user_id in json.loads(batch["users"]):
            _entry(users, user_id)["turns"].append(batch["path"])
    for where in in_lists("segment_id", closed_segments):
        for row in store.rows("segments", ["user_id", "segment_id"], f"active AND {where}").to_pylist():
            _entry(users, row["user_id"])["closed"].append(row["segment_id"])
    unread = all_users(store, "turns", "active") - all_users(store, "states", "num_turns > 0")
    for user_id in unread | all_users(store, "turns", "active AND vector IS NULL"):
        _entry(users, user_id)
    return users


def all_users(store, table: str, where: str | None = None) -> set[str]:
    rows = store.rows(table, ["user_id"], where)
    return set(rows.column("user_id").unique().to_pylist()) if rows.num_rows else set()


def _entry(users: dict[str, dict], user_id: str) -> dict:
    return users.setdefault(user_id, {"turns": [], "closed": []})


def read_users(
    store, profile: EmbedderProfile, users: dict[str, dict], pool: PoolConfig, *, anew: bool = False
) -> list[dict]:
    """Users -> actors -> staged turns and memories; returns results of cluster.evolvable.turns.TurnStage."""
    import ray

    from cluster.evolvable.turns import TurnStage
    from cluster.store.files import Files

    items = []
    names = sorted(users)
    for start in range(0, len(names), pool.num_users):
        group = names[start : start + pool.num_users]
        paths = sorted({path for user_id in group for path in users[user_id]["turns"]})
        closed = [segment_id for user_id in group for segment_id in users[user_id]["closed"]]
        item = {"users": group, "turns": paths, "closed": closed}
        items.append({"item": json.dumps(item)})
    if not items:
        return []
    rows = ray.data.from_items(items, override_num_blocks=min(len(items), 4096)).map(
        TurnStage,
        fn_constructor_args=(store.uri, profile, Files(store.uri, "staging"), uuid.uuid4().hex),
        fn_constructor_kwargs={"anew": anew},
        **actor_options(pool, pool.num_gpus or 0),
    )
    progress, found = Progress("turns", "users", len(names)), []
    for row in rows.iter_rows():
        found.append(row)
        progress.advance(row["num_users"])
    return sorted(found, key=lambda row: row["key"])


def paths_of(found: list[dict]) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Staged files of results, as Store.commit takes them: `inserts` and `replaces`."""
    turns: dict[bool, list[str]] = {False: [], True: []}
    states = []
    for row in found:
        tables = json.loads(row["tables"])
        turns[row["replaces"]] += [tables["turns"]] if "turns" in tables else []
        states += [tables["states"]] if "states" in tables else []
    return {"turns": turns[False]}, {"turns": turns[True], "states": states}


def rejection_rows(found: list[dict]) -> list[dict]:
    """Rows of REJECTIONS_SCHEMA, one for each user whose turns could not be read."""
    from cluster.backfill.redact import redact, shown_id

    return [
        {
            "rejection_id": hashlib.sha256(
                joined("embedder", item["user_id"], item["detail"]).encode()
            ).hexdigest()[:32],
            "stage": "embedder",
            "source": f"user:{shown_id(item['user_id'])}",
            "user_id": item["user_id"],
            "session_id": None,
            "reason": "embedder_error",
            "detail": redact(item["detail"]).text
            + "; the turns have no vectors, the next backfill tries again",
            "raw": "",
        }
        for row in found
        for item in json.loads(row["rejections"])
    ]


def counts_of(found: list[dict]) -> dict:
    """For the summary."""
    return {
        "num_users_read": sum(row["num_users"] for row in found),
        "num_users_rejected": sum(len(json.loads(row["rejections"])) for row in found),
        "num_turns_embedded": sum(row["num_turns_embedded_now"] for row in found),
    }
