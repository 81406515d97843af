"""Rows of a pass."""

from cluster.models.row_batches import batches


def test_a_batch_stays_below_its_tokens_with_padding_unless_one_row_has_more():
    rows = [50, 3, 9, 10, 8, 2]
    found = list(batches(rows, lambda row: row, 30))
    assert sorted(sum(found, [])) == sorted(rows)  # noqa: RUF017
    assert all(len(batch) == 1 or max(batch) * len(batch) <= 30 for batch in found)
    assert found[0] == [50]
