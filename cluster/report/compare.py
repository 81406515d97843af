"""Two views beside each other, of one store or of two: which memories both have, and what each one cost.

Memories are matched one to one, and each way takes only what those before it have left:

1. one id;
2. the same words of one user, resting on a common turn;
3. the same words of one user, whatever they rest on;
4. one user, a common turn, and at least MIN_SHARED of the words of both in common, the most alike first.

What is matched is the same where its words are, and changed where they are not. Case, punctuation and spaces
are no words. Only active memories count.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster.report.runs import RunEntry, Spent, runs_of, spending
from cluster.store.sql import in_lists
from cluster.store.store import Store

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

MIN_SHARED = 1 / 3
"""Words that two memories of one turn share, of all that either has, for one to be the other one changed:
those of one turn about two matters share what every statement of a person has, such as "user has a"."""

COLUMNS = ["record_id", "user_id", "semantic_text", "evidence"]
"""Columns of `records` that are compared."""

KINDS = ("same", "changed", "only_first", "only_second")

NUM_USERS = 1000
"""Users whose counts are told one by one: those that differ most."""


@dataclass(frozen=True)
class Work:
    """What runs took. `cost` is in the currency of the endpoint's prices, None where nobody was paid."""

    num_runs: int
    seconds: float
    prompt_tokens: int
    output_tokens: int
    cost: float | None


@dataclass(frozen=True)
class View:
    """One side of a comparison."""

    uri: str
    run_id: str
    job: str
    encoder: str
    embedder: str
    """Fingerprints."""
    num_users: int
    num_memories: int
    num_turns: int
    """Active ones."""
    own: Work
    """Of the run alone."""
    until: Work
    """Of all runs of the store up to this one, failed ones included."""


@dataclass(frozen=True)
class Comparison:
    """Two views. Counts are by KINDS."""

    first: View
    second: View
    counts: dict[str, int]
    of_user: dict[str, dict[str, int]]
    """User -> counts, those that differ most first, at most NUM_USERS."""
    num_users: int
    """Users of either."""
    pairs: tuple[dict, ...]
    """Of the users that were named: `user_id`, `kind`, and `first_id`, `first_text`, `second_id`,
    `second_text`, None where there is none."""


def compare(
    first: tuple[str, str | None], second: tuple[str, str | None], user_ids: Sequence[str] = ()
) -> Comparison:
    """Compare two views, each as (URI, run; None: the newest). `user_ids`: only these users, whose memories
    are told too. StoreError where there is no such store or run."""
    import polars as pl

    one, two = _read(*first, "--run", user_ids), _read(*second, "--with-run", user_ids)
    found = match(one.records, two.records)
    counts = [(pl.col("kind") == kind).sum().cast(pl.Int64).alias(kind) for kind in KINDS]
    of_user = found.group_by("user_id").agg(counts)
    differing = pl.sum_horizontal(KINDS[1:])
    shown = of_user.sort(differing, "user_id", descending=[True, False]).head(NUM_USERS)
    pairs = found.sort("user_id", "kind", "first_text", "second_text").to_dicts() if user_ids else []
    return Comparison(
        first=_view(one),
        second=_view(two),
        counts={kind: int(of_user[kind].sum()) for kind in KINDS},
        of_user={row.pop("user_id"): row for row in shown.to_dicts()},
        num_users=of_user.height,
        pairs=tuple(pairs),
    )


@dataclass(frozen=True)
class _Side:
    store: Store
    run_id: str
    records: "pa.Table"
    """Active memories, with COLUMNS."""
    num_turns: int


def _read(uri: str, run_id: str | None, option: str, user_ids: Sequence[str]) -> _Side:
    import pyarrow as pa

    store = Store(uri).snapshot()
    seen = store.view(run_id, option).run_id
    wheres = [f"active AND {where}" for where in in_lists("user_id", list(user_ids))] or ["active"]
    records = pa.concat_tables(store.rows("records", COLUMNS, where, seen) for where in wheres)
    turns = [store.rows("turns", ["user_id"], where, seen).num_rows for where in wheres]
    return _Side(store, seen, records, sum(turns))


def _view(side: _Side) -> View:
    import pyarrow.compute as pc

    entries = runs_of(side.store)
    place = next(number for number, entry in enumerate(entries) if entry.run_id == side.run_id)
    run, spent = entries[place], spending(entries)
    return View(
        uri=side.store.uri,
        run_id=side.run_id,
        job=run.job,
        encoder=run.encoder or "",
        embedder=run.embedder or "",
        num_users=pc.count_distinct(side.records.column("user_id")).as_py(),
        num_memories=side.records.num_rows,
        num_turns=side.num_turns,
        own=_work([run], spent),
        until=_work(entries[: place + 1], spent),
    )


def _work(entries: Sequence[RunEntry], spent: dict[str, Spent]) -> Work:
    costs = [cost for entry in entries if (cost := spent[entry.run_id].cost) is not None]
    return Work(
        num_runs=len(entries),
        seconds=round(sum(entry.seconds or 0 for entry in entries), 2),
        prompt_tokens=sum(spent[entry.run_id].prompt_tokens for entry in entries),
        output_tokens=sum(spent[entry.run_id].output_tokens for entry in entries),
        cost=round(sum(costs), 6) if costs else None,
    )


# --- matching -------------------------------------------------------------------------------------------


def match(first: "pa.Table", second: "pa.Table") -> "pl.DataFrame":
    """Rows of COLUMNS -> a row each memory of either, two that are matched in one: `user_id`, `kind`, and the
    id and text of both."""
    import polars as pl

    left, right = _frame(first), _frame(second)
    pairs = pl.DataFrame(schema={"first": left.schema["row"], "second": right.schema["row"]})
    for way in (_by_id, _by_words_and_turn, _by_words, _by_likeness):
        rest = (
            side.join(pairs, left_on="row", right_on=name, how="anti", maintain_order="left")
            for side, name in ((left, "first"), (right, "second"))
        )
        pairs = pl.concat([pairs, way(*rest)])
    shown = ["row", "user_id", "record_id", "text", "said"]
    both = (
        left.select(shown)
        .join(pairs, left_on="row", right_on="first", how="full", coalesce=True)
        .join(
            right.select(shown), left_on="second", right_on="row", how="full", coalesce=True, suffix="_second"
        )
    )
    has_first, has_second = pl.col("record_id").is_not_null(), pl.col("record_id_second").is_not_null()
    kind = (
        pl.when(~has_second)
        .then(pl.lit("only_first"))
        .when(~has_first)
        .then(pl.lit("only_second"))
        .when(pl.col("said") == pl.col("said_second"))
        .then(pl.lit("same"))
        .otherwise(pl.lit("changed"))
    )
    return both.select(
        pl.coalesce("user_id", "user_id_second").alias("user_id"),
        kind.alias("kind"),
        first_id="record_id",
        first_text="text",
        second_id="record_id_second",
        second_text="text_second",
    )


def _frame(rows: "pa.Table") -> "pl.DataFrame":
    """`row`, the columns, `words` (distinct), `said` (all words as one text) and `turns`."""
    import polars as pl

    frame = pl.from_arrow(rows)
    assert isinstance(frame, pl.DataFrame)
    words = pl.col("semantic_text").str.to_lowercase().str.extract_all(r"[\p{L}\p{N}\p{M}]+")
    place = (
        pl.element().struct.field("session_id")
        + "#"
        + pl.element().struct.field("turn_index").cast(pl.String)
    )
    return (
        frame.sort("user_id", "record_id")
        .select(
            "record_id",
            "user_id",
            text="semantic_text",
            words=words.list.unique(maintain_order=True),
            said=words.list.join(" "),
            turns=pl.col("evidence").list.eval(place).list.unique(maintain_order=True),
        )
        .with_row_index("row")
    )


def _by_id(left: "pl.DataFrame", right: "pl.DataFrame") -> "pl.DataFrame":
    found = left.join(right, on=["user_id", "record_id"], maintain_order="left")
    return _one_to_one(found.select(first="row", second="row_right"))


def _by_words_and_turn(left: "pl.DataFrame", right: "pl.DataFrame") -> "pl.DataFrame":
    sides = (side.select("row", "user_id", "said", "turns").explode("turns") for side in (left, right))
    found = next(sides).join(next(sides), on=["user_id", "said", "turns"], maintain_order="left_right")
    return _one_to_one(found.select(first="row", second="row_right").unique(maintain_order=True))


def _by_words(left: "pl.DataFrame", right: "pl.DataFrame") -> "pl.DataFrame":
    import polars as pl

    # The first of these words with the first of the other side, and so on.
    number = pl.int_range(pl.len()).over("user_id", "said").alias("number")
    sides = (side.select("row", "user_id", "said").with_columns(number) for side in (left, right))
    found = next(sides).join(next(sides), on=["user_id", "said", "number"], maintain_order="left")
    return found.select(first="row", second="row_right")


def _by_likeness(left: "pl.DataFrame", right: "pl.DataFrame") -> "pl.DataFrame":
    import polars as pl

    sides = (side.select("row", "user_id", "words", "turns").explode("turns") for side in (left, right))
    found = next(sides).join(next(sides), on=["user_id", "turns"]).unique(["row", "row_right"])
    shared = pl.col("words").list.set_intersection("words_right").list.len()
    either = pl.col("words").list.set_union("words_right").list.len()
    likeness = found.select(first="row", second="row_right", likeness=shared / either)
    likely = likeness.filter(pl.col("likeness") >= MIN_SHARED)
    ordered = likely.sort("likeness", "first", "second", descending=[True, False, False])
    return _one_to_one(ordered.select("first", "second"))


def _one_to_one(found: "pl.DataFrame") -> "pl.DataFrame":
    """Of pairs, best first, those in which each side stands once."""
    import polars as pl

    taken = [found.clear()]
    while found.height:
        best = found.unique("first", keep="first", maintain_order=True)
        best = best.unique("second", keep="first", maintain_order=True)
        taken.append(best)
        found = found.join(best, on="first", how="anti", maintain_order="left")
        found = found.join(best, on="second", how="anti", maintain_order="left")
    return pl.concat(taken)
