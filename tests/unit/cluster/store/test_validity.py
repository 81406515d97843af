"""When memories held, from rows and decisions made by hand."""

import datetime as dt

from cluster.store.validity import Period, periods


def row(name, day, *, revision=0, active=True, reason=None, vector=(1.0, 0.0), decision=None, dates=("", "")):
    return {
        "record_id": name,
        "revision": revision,
        "active": active,
        "closed_reason": reason,
        "decision_id": decision,
        "session_time": dt.datetime(2026, *day, 12, tzinfo=dt.UTC) if day else None,
        "temporal": {"t_ref": "", "t_valid_from": dates[0], "t_valid_to": dates[1]},
        "vector": list(vector),
    }


def decision(target, *sources, action="delete", outcome="applied"):
    return {
        "decision_id": f"{action} {target}",
        "target_id": target,
        "source_ids": list(sources),
        "action": action,
        "outcome": outcome,
    }


def day(month, number):
    return dt.date(2026, month, number)


def test_a_memory_holds_from_its_own_day_or_from_that_of_its_session():
    rows = [
        row("a", (1, 5)),
        row("b", (1, 5), dates=("2025-12-01", "2026-02-01")),
        row("c", None),
        row("d", (1, 5), dates=("some day", "")),
    ]
    assert periods(rows, []) == {
        ("a", 0): Period(day(1, 5)),
        ("b", 0): Period(dt.date(2025, 12, 1), day(2, 1)),
        ("c", 0): Period(),
        ("d", 0): Period(day(1, 5)),
    }


def test_a_replaced_memory_ends_where_its_replacement_begins():
    rows = [row("oslo", (1, 5), active=False, reason="delete"), row("rome", (3, 5), dates=("2026-03-01", ""))]
    found = periods(rows, [decision("oslo", "rome")])
    assert found["oslo", 0] == Period(day(1, 5), day(3, 1), "rome")
    assert found["rome", 0] == Period(day(3, 1))


def test_of_several_sources_the_one_that_is_most_alike_replaced_it():
    rows = [
        row("oslo", (1, 5), active=False, reason="delete"),
        row("tea", (2, 1), vector=(0.0, 1.0)),
        row("rome", (3, 1), vector=(0.9, 0.4)),
    ]
    assert periods(rows, [decision("oslo", "tea", "rome")])["oslo", 0].replaced_by == "rome"


def test_each_of_a_chain_ends_where_the_next_begins():
    """One run decides newest first, so the ledger names the last value as what replaced both others."""
    rows = [
        row("oslo", (1, 5), active=False, reason="delete"),
        row("job", (2, 1), active=False, reason="delete", vector=(0.0, 1.0)),
        row("bergen", (3, 1), active=False, reason="delete"),
        row("rome", (6, 1), vector=(0.9, 0.4)),
    ]
    found = periods(rows, [decision("oslo", "rome"), decision("bergen", "rome"), decision("job", "rome")])
    assert found["oslo", 0] == Period(day(1, 5), day(3, 1), "bergen")
    assert found["bergen", 0] == Period(day(3, 1), day(6, 1), "rome")
    assert found["job", 0] == Period(day(2, 1), day(6, 1), "rome")


def test_a_text_that_was_rewritten_holds_until_the_day_of_the_memory_that_it_was_rewritten_for():
    rows = [
        row("child", (1, 5), active=False, reason="update"),
        row("child", (1, 5), revision=1, decision="update child"),
        row("mia", (4, 1)),
    ]
    found = periods(rows, [decision("child", "mia", action="update")])
    assert found["child", 0] == Period(day(1, 5), day(4, 1), "child")
    assert found["child", 1] == Period(day(4, 1))


def test_what_was_closed_without_being_replaced_has_no_replacement():
    rows = [row("a", (1, 5), active=False, reason="delete"), row("b", (2, 1))]
    assert periods(rows, [decision("a", "b", outcome="refused")])["a", 0].replaced_by is None


def test_a_replacement_that_is_no_longer_there_still_ended_it():
    rows = [row("a", (1, 5), active=False, reason="delete")]
    assert periods(rows, [decision("a", "gone")])["a", 0] == Period(day(1, 5), None, "gone")
