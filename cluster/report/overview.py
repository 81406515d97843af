"""What the report of a store tells: all runs, the last night in full, costs, growth and users."""

import datetime as dt
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from cluster.report.contents import (
    Rejected,
    UserState,
    ViewSize,
    changes,
    growth,
    rejections,
    sizes_of,
    users,
)
from cluster.report.health import Health, health_of
from cluster.report.runs import Night, RunEntry, Spent, nights_of, runs_of, spending
from cluster.store.sql import quote
from cluster.store.store import Store

RECENT = 7
"""Nights from which the next ones are reckoned."""

PROJECTED = 30
"""Nights that are reckoned ahead."""

AGES = ((1, "a day"), (7, "a week"), (30, "a month"), (90, "3 months"), (365, "a year"))
"""Classes of how long ago a user last said anything: days at most, and their name."""


@dataclass(frozen=True)
class Money:
    """Tokens and cost of nights and operations. Costs are in the currency of the endpoint's prices."""

    by_run: dict[str, Spent]
    by_night: tuple[Spent, ...]
    total: Spent
    num_recent: int
    """Nights behind the projection; those that failed, or found nothing new, count too."""
    projected: Spent | None
    """For the next PROJECTED nights; None before the first one."""


@dataclass(frozen=True)
class Overview:
    """All that the report tells. Times are UTC."""

    uri: str
    made_at: dt.datetime
    entries: tuple[RunEntry, ...]
    nights: tuple[Night, ...]
    last: Night | None
    """The newest night."""
    changes: dict[str, int] | None
    """What that night changed, by kind; None where it published nothing, or a view is not kept."""
    rejected: tuple[Rejected, ...]
    """What that night rejected, and its gates refused."""
    refused: dict[str, int]
    """Reason -> decisions of that night that a guard refused or that failed."""
    money: Money
    views: tuple[ViewSize, ...]
    users: tuple[UserState, ...]
    health: Health


def overview(uri: str, *, now: dt.datetime | None = None) -> Overview:
    """Read a store. StoreError where there is none."""
    now = now or dt.datetime.now(dt.UTC)
    store = Store(uri).snapshot()
    entries, sizes = runs_of(store), sizes_of(store)
    nights = nights_of(entries)
    last = next((one for one in reversed(nights) if one.job == "night"), None)
    own = [entry.run_id for entry in last.runs] if last else []
    return Overview(
        uri=uri,
        made_at=now,
        entries=tuple(entries),
        nights=tuple(nights),
        last=last,
        changes=changes(store, last, entries) if last else None,
        rejected=tuple(rejections(store, own)),
        refused=_refused(store, own),
        money=money(entries, nights),
        views=tuple(growth(store, entries, sizes)),
        users=tuple(users(store)),
        health=health_of(store, entries, sizes, now=now),
    )


def _refused(store: Store, runs: Sequence[str]) -> dict[str, int]:
    if not runs:
        return {}
    where = f"outcome != 'applied' AND run_id IN ({', '.join(map(quote, runs))})"
    rows = store.rows("decisions", ["outcome", "reason"], where).to_pylist()
    counts = Counter(f"{row['outcome']}: {row['reason'] or 'no reason'}" for row in rows)
    return dict(counts.most_common())


def money(entries: Sequence[RunEntry], nights: Sequence[Night]) -> Money:
    """What was spent, and what the next nights cost if they are like the last ones."""
    spent = spending(entries)
    by_night = [total([spent[entry.run_id] for entry in night.runs]) for night in nights]
    recent = [cost for night, cost in zip(nights, by_night, strict=True) if night.job == "night"][-RECENT:]
    projected = None
    if recent:
        summed, share = total(recent), PROJECTED / len(recent)
        cost = None if summed.cost is None else round(summed.cost * share, 6)
        projected = Spent(cost, round(summed.prompt_tokens * share), round(summed.output_tokens * share))
    return Money(spent, tuple(by_night), total(list(spent.values())), len(recent), projected)


def total(spent: Sequence[Spent]) -> Spent:
    """The sum; its cost is None where nobody was paid."""
    costs = [one.cost for one in spent if one.cost is not None]
    return Spent(
        round(sum(costs), 6) if costs else None,
        sum(one.prompt_tokens for one in spent),
        sum(one.output_tokens for one in spent),
    )


def ages(found: Sequence[UserState], now: dt.datetime) -> dict[str, int]:
    """How long ago users last said anything -> how many users, for all classes."""
    counts = dict.fromkeys([*(name for _, name in AGES), "longer", "no date"], 0)
    for user in found:
        name = "no date"
        if user.last_said is not None:
            days = (now - user.last_said).total_seconds() / 86_400
            name = next((name for most, name in AGES if days <= most), "longer")
        counts[name] += 1
    return counts
