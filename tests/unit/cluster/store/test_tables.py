"""How tables are kept small: which of their parts are joined, and what nights leave on the disk."""

import random
from pathlib import Path

import lancedb
import pyarrow as pa
import pytest

from cluster.store.tables import MAX_PARTS, MAX_ROWS, MIN_JOINED, num_to_join, settle, words_query

NUM_NIGHTS = 30


@pytest.mark.parametrize(
    ("rows", "num"),
    [
        ([], 0),
        ([200] * MAX_PARTS, 0),
        ([200] * (MAX_PARTS + 1), MAX_PARTS + 1),
        ([9_000] + [200] * MAX_PARTS, MAX_PARTS),
        ([9_000] * 14 + [200] * 7, 7),
        # To join four costs more than twice what it costs to join three, but three are too few.
        ([9_000] * 18 + [200] * 3, 4),
        ([MAX_ROWS] * 50 + [200] * MAX_PARTS, 0),
        ([200] * 50 + [MAX_ROWS] + [200] * (MAX_PARTS + 1), MAX_PARTS + 1),
        ([0] * (MAX_PARTS + 1), MIN_JOINED),
    ],
)
def test_of_too_many_parts_the_cheapest_are_joined(rows, num):
    assert num_to_join(rows) == num


@pytest.mark.parametrize("most", [1, 10, 5_000])
@pytest.mark.parametrize(("num_nights", "times"), [(30, 2), (365, 4), (1_825, 9)])
def test_parts_stay_few_and_a_row_is_written_some_times_in_years_of_nights(most, num_nights, times):
    rng, parts, added, written = random.Random(most), [], 0, 0
    for _ in range(num_nights):
        new = rng.randint(1, most)
        parts.append(new)
        added, written = added + new, written + new
        if num := num_to_join(parts):
            written += sum(parts[-num:])
            parts[-num:] = [sum(parts[-num:])]
        small = parts[max((at + 1 for at, one in enumerate(parts) if one >= MAX_ROWS), default=0) :]
        assert sum(parts) == added and len(small) <= MAX_PARTS
    assert written <= times * added


def small(number: int, num: int = 40) -> pa.Table:
    """Rows of one night, 30 kB of vectors."""
    rng = random.Random(number)
    words = ["oslo", "rome", "cat", "tea", "long", "walk", "nurse"]
    texts = [" ".join(rng.choices(words, k=6)) for _ in range(num)]
    vectors = [[rng.random() for _ in range(192)] for _ in range(num)]
    columns = {"user_id": [f"u{number % 3}"] * num, "semantic_text": texts}
    return pa.table(columns | {"vector": pa.array(vectors, pa.list_(pa.float32(), 192))})


def num_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_nights_of_which_every_view_stays_leave_less_than_twice_their_rows(tmp_path):
    """Regression: every night joined all files, so that disk grew with the square of the nights."""
    table = lancedb.connect(tmp_path / "store").create_table("records", schema=small(0).schema)
    whole = lancedb.connect(tmp_path / "whole").create_table("records", schema=small(0).schema)
    for night in range(NUM_NIGHTS):
        table.add(small(night))
        settle(table, "records")
        table.tags.create(f"run-{night}", table.version)
    whole.add(pa.concat_tables([small(night) for night in range(NUM_NIGHTS)]))
    data, least = (num_bytes(tmp_path / one / "records.lance" / "data") for one in ("store", "whole"))
    assert least < data <= 2 * least
    dataset = table.to_lance()
    assert len(dataset.get_fragments()) <= MAX_PARTS
    assert all(
        len(dataset.stats.index_stats(one.name)["indices"]) <= MAX_PARTS for one in table.list_indices()
    )


def test_what_is_indexed_in_parts_is_found_and_scored_as_in_one(tmp_path):
    table = lancedb.connect(tmp_path / "store").create_table("records", schema=small(0).schema)
    for night in range(MAX_PARTS + 3):
        table.add(small(night, num=5))
        settle(table, "records")

    def found() -> set[tuple[str, float]]:
        query = table.search(words_query("rome cat", "semantic_text"), query_type="fts")
        hits = query.where("user_id = 'u1'", prefilter=True).limit(1_000).to_list()
        return {(hit["semantic_text"], round(hit["_score"], 4)) for hit in hits}

    parts = table.to_lance().stats.index_stats("semantic_text_idx")
    assert parts["num_indices"] > 1 and parts["num_unindexed_rows"] == 0
    in_parts = found()
    table.to_lance().optimize.optimize_indices(num_indices_to_merge=99)
    table.checkout_latest()
    assert found() == in_parts != set()


def test_a_file_of_which_more_than_half_is_deleted_is_written_again(tmp_path):
    table = lancedb.connect(tmp_path / "store").create_table("records", data=small(0))
    table.delete("semantic_text LIKE 'oslo%'")
    settle(table, "records")
    assert [one.num_deletions > 0 for one in (f.metadata for f in table.to_lance().get_fragments())] == [True]
    table.delete("semantic_text NOT LIKE '%tea'")
    left = table.count_rows()
    settle(table, "records")
    (one,) = (fragment.metadata for fragment in table.to_lance().get_fragments())
    assert (one.num_deletions, one.physical_rows, table.count_rows()) == (0, left, left)
