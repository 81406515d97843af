"""How much of its input a job may lose: where more than a stated share is bad, it fails.

One place counts and words it, for every `max_rejected_fraction` and `max_failed_fraction`.
"""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from jobs.common.cli import JobError

if TYPE_CHECKING:
    from cluster.store.store import Store

NUM_REASONS = 3
"""Reasons that a failure shows at most."""


def too_many(setting: str, limit: float, num_bad: int, num_all: int, what: str) -> str:
    """What is wrong where more than this share is bad; else empty. Where there is nothing, nothing is bad."""
    # A quotient: 0.29 times 100 is a little less than 29.
    if num_all == 0 or num_bad / num_all <= limit:
        return ""
    return f"{setting}={limit}: {num_bad} of {num_all} {what}"


def rejected(
    limit: float,
    num_bad: int,
    num_all: int,
    what: str,
    *,
    keep: Callable[[], str] | None = None,
    remedy: str = "Mend the input, or raise the limit",
) -> str:
    """What ends a job before it has published anything: more is bad than `max_rejected_fraction`; else empty.

    `what` says behind the two numbers what is bad: "rows were rejected". `keep` is called only then, and says
    where the bad rows are kept.
    """
    if not (told := too_many("max_rejected_fraction", limit, num_bad, num_all, what)):
        return ""
    kept = f" (kept {keep()})" if keep else ""
    return f"{told}{kept}; nothing was published. {remedy}"


def check_rejected(
    limit: float, num_bad: int, num_all: int, what: str, reasons: Iterable[str] = (), **more: Any
) -> None:
    """JobError where `rejected` says so, with the first of the reasons that differ; `more` as there."""
    if told := rejected(limit, num_bad, num_all, what, **more):
        raise JobError("\n  ".join([told, *list(dict.fromkeys(reasons))[:NUM_REASONS]]))


def new_rejections(rows: Iterable[dict], store: "Store") -> list[dict]:
    """Of rows of REJECTIONS_SCHEMA those that the store has not, each once: what is bad is rejected again
    whenever it is read."""
    found = {row["rejection_id"]: row for row in rows}
    if not found:
        return []
    known = set(store.rows("rejections", ["rejection_id"]).to_pydict().get("rejection_id", ()))
    return [row for name, row in found.items() if name not in known]
