"""`Store.search`: one user's records and turns that are near by vector or share words, ranked."""

import dataclasses
import datetime as dt

import numpy as np

from cluster.store.ranking import DEFAULT as RANKING
from cluster.store.ranking import RankingSettings, Rerank, rank, read_question
from cluster.store.reading import Reader
from cluster.store.sql import in_lists, quote
from cluster.store.tables import text_column, words_query
from cluster.store.validity import ENDED_BY_DECISION, periods
from schemas.record import extra_of
from schemas.store import TABLE_KEYS, records_schema

MIN_CANDIDATES = 30
"""Rows of each table that are ranked even for the shortest list of hits."""

REPLACED = f"closed_reason IN ({', '.join(repr(reason) for reason in ENDED_BY_DECISION)})"
"""Condition of rows of `records` that held until something else took their place."""

DECISION_COLUMNS = ["decision_id", "target_id", "source_ids", "action", "outcome"]


def search(
    store: Reader,
    user_id: str,
    text: str,
    vector: np.ndarray,
    k: int,
    as_of: str | None = None,
    *,
    turn_vector: np.ndarray | None = None,
    kind: str | None = None,
    at: dt.date | None = None,
    asked_on: dt.date | None = None,
    rerank: Rerank | None = None,
    settings: RankingSettings = RANKING,
) -> list[dict]:
    """The user's `k` best rows of records and turns together, each with `kind` and `score`.

    With `kind` only records (`record`) or only turns (`turn`). `vector` float32 [dim] of norm 1.
    `turn_vector` float32 [turn_dim] is given where another model embeds the turns.
    cluster.store.ranking says what counts for the order. `asked_on` is the day from which "last week"
    is seen, `at` the day that the answer is about, if not now: a record then counts for the days on
    which it was true, which `since`, `until` and `replaced_by` of its hit say. `rerank` reads the best
    hits once more. Never returns a row of another user: the filter comes first.
    """
    hits, seen = [], store.snapshot()
    vectors = {"records": vector, "turns": vector if turn_vector is None else turn_vector}
    for name, asked in vectors.items():
        if not kind or name == f"{kind}s":
            hits += _candidates(seen, name, user_id, text, asked, k, as_of)
    hits = _with_periods(seen, user_id, hits, vector, as_of)
    return rank(
        hits,
        read_question(text, asked_on or at),
        k,
        at=at,
        today=asked_on,
        has_one_scale=turn_vector is None,
        rerank=rerank,
        settings=settings,
    )


def _candidates(
    store: Reader, name: str, user_id: str, text: str, asked: np.ndarray, k: int, as_of: str | None
) -> list[dict]:
    """Rows of a table that are near by vector or share words, as cluster.store.ranking takes them; also
    records that were replaced."""
    table = store.table(name, as_of)
    if table is None or not table.count_rows():
        return []
    mine = f"user_id = {quote(user_id)} AND active"
    if "closed_reason" in table.schema.names:
        mine = f"user_id = {quote(user_id)} AND (active OR {REPLACED})"
    limit = max(3 * k, MIN_CANDIDATES)
    by_vector = table.search(asked, query_type="vector").where(mine, prefilter=True).limit(limit)
    by_words = table.search(words_query(text, text_column(name)), query_type="fts")
    by_words = by_words.where(mine, prefilter=True).limit(limit)
    found: dict[tuple, dict] = {}
    for row in [*by_words.to_arrow().to_pylist(), *by_vector.to_arrow().to_pylist()]:
        found.setdefault(tuple(row[key] for key in TABLE_KEYS[name]), row)
    best = max((row.get("_score", 0.0) for row in found.values()), default=0.0)
    return [
        {name: value for name, value in row.items() if name not in ("_distance", "_score")}
        | {
            "kind": name.removesuffix("s"),
            "cosine": 0.0 if row["vector"] is None else float(np.dot(row["vector"], asked)),
            "words": row.get("_score", 0.0) / best if best else 0.0,
        }
        for row in found.values()
    ]


def _with_periods(
    store: Reader, user_id: str, hits: list[dict], asked: np.ndarray, as_of: str | None
) -> list[dict]:
    """Hits, without vectors, to which two things are added: for records the days on which they held, and for
    replaced records the record in whose favour they were closed, as a hit of its own. Values of extra fields
    are there by their names."""
    records = {(hit["record_id"], hit["revision"]): hit for hit in hits if hit["kind"] == "record"}
    names = records_schema(1).names
    old, decisions, others = [], [], []
    of_user = f"user_id = {quote(user_id)}"
    if any(not hit["active"] or hit.get("decision_id") for hit in records.values()):
        old = store.rows("records", names, f"{of_user} AND NOT active AND {REPLACED}", as_of).to_pylist()
        applied = f"{of_user} AND outcome = 'applied'"
        decisions = store.rows("decisions", DECISION_COLUMNS, applied, as_of).to_pylist()
        sources = sorted({name for row in decisions for name in row["source_ids"]})
        for where in in_lists("record_id", sources):
            others += store.rows("records", names, f"{of_user} AND {where}", as_of).to_pylist()
    known = {(row["record_id"], row["revision"]): row for row in [*others, *old]} | records
    held = periods(known.values(), decisions)
    found = {key: records[key] for key in records if records[key]["active"] or held[key].replaced_by}
    newest = {record_id: (record_id, revision) for record_id, revision in sorted(known)}
    following = list(found)
    while following:
        key = newest.get(held[following.pop()].replaced_by)
        if key and key not in found and (known[key]["active"] or held[key].replaced_by):
            cosine = float(np.dot(known[key]["vector"], asked))
            found[key] = known[key] | {"kind": "record", "cosine": cosine, "words": 0.0}
            following.append(key)
    turns = [hit for hit in hits if hit["kind"] == "turn"]
    dated = [
        hit | dataclasses.asdict(held[key]) | {"extra": extra_of(hit.get("extra"))}
        for key, hit in found.items()
    ]
    return [{name: value for name, value in hit.items() if name != "vector"} for hit in [*dated, *turns]]
