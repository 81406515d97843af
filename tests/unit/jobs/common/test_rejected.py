"""How much of its input a job may lose, and what it says where it has lost more."""

import pytest

from jobs.common.cli import JobError
from jobs.common.rejected import check_rejected, new_rejections, too_many


@pytest.mark.parametrize(("num_bad", "num_all"), [(0, 0), (5, 0), (0, 7), (29, 100)])
def test_the_stated_share_itself_may_be_bad(num_bad, num_all):
    """Regression: 29 of 100 were more than 0.29, which times 100 is 28.999999999999996."""
    assert too_many("max_rejected_fraction", 0.29, num_bad, num_all, "rows were rejected") == ""


def test_one_more_than_the_stated_share_fails_the_job_with_where_the_bad_rows_are_and_the_first_reasons():
    reasons = ["a: empty", "a: empty", "b: empty", "c: empty", "d: empty"]
    with pytest.raises(JobError) as error:
        check_rejected(0.29, 30, 100, "rows were rejected", reasons, keep=lambda: "in FILE", remedy="Mend it")
    assert str(error.value).split("\n  ") == [
        "max_rejected_fraction=0.29: 30 of 100 rows were rejected (kept in FILE); nothing was published. "
        "Mend it",
        "a: empty",
        "b: empty",
        "c: empty",
    ]


def test_bad_rows_are_kept_only_where_the_job_fails():
    check_rejected(0.5, 1, 2, "rows were rejected", keep=lambda: pytest.fail("they are kept"))


class Known:
    """A store with one rejection."""

    def rows(self, table, columns):
        assert (table, columns) == ("rejections", ["rejection_id"])
        return self

    def to_pydict(self):
        return {"rejection_id": ["known"]}


def test_of_bad_rows_the_store_gets_each_once_that_it_has_not():
    rows = [{"rejection_id": name} for name in ("known", "new", "new", "other")]
    assert new_rejections(rows, Known()) == [{"rejection_id": "new"}, {"rejection_id": "other"}]
    assert new_rejections([], None) == []
