"""The pages that a browser opens: a report of a store, a comparison, what was measured."""

import datetime as dt
import hashlib
from dataclasses import dataclass

from cluster.report.compare import Comparison
from cluster.report.memories import user_page
from cluster.report.overview import overview
from cluster.report.page_of_store import of_store
from cluster.report.page_of_user import of_user
from cluster.report.quality import Quality
from cluster.report.rendering import render
from cluster.report.svg import Chart, Series
from cluster.store.files import put_below

INDEX = "index.html"
COMPARED = "compare.html"
HTML = "text/html; charset=utf-8"

MAX_USERS = 50
"""Users in the page of a comparison: those who differ most."""


def write_report(
    uri: str,
    output: str,
    user_id: str | None = None,
    quality: Quality | None = None,
    *,
    now: dt.datetime | None = None,
) -> list[str]:
    """Write the report of a store into a folder or bucket; the paths of its pages, relative to it. `quality`
    is what somebody measured with known questions.

    StoreError where there is no store, or nothing of the user. Pages of an earlier report stay until they are
    written again.
    """
    pages, user_pages = {}, []
    if user_id is not None:
        found = user_page(uri, user_id, now=now)
        path = f"user-{hashlib.sha256(user_id.encode()).hexdigest()[:12]}.html"
        pages[path] = of_user(found, INDEX)
        user_pages = [(found.shown_id, path)]
    pages[INDEX] = of_store(overview(uri, now=now), user_pages, quality)
    for path, text in pages.items():
        put_below(output, path, text.encode(), HTML)
    return sorted(pages)


def write_comparison(
    output: str,
    found: Comparison,
    tables: dict[str, list[tuple[str, ...]]],
    *,
    now: dt.datetime | None = None,
) -> list[str]:
    """Write the page of a comparison; its path. `tables`: `memories`, `work` and, where it was measured,
    `retrieval`, each with rows of a name and what the first and the second have."""
    page = of_comparison(found, tables, now or dt.datetime.now(dt.UTC))
    put_below(output, COMPARED, page.encode(), HTML)
    return [COMPARED]


# --- two views ------------------------------------------------------------------------------------------


def of_comparison(found: Comparison, tables: dict[str, list[tuple[str, ...]]], now: dt.datetime) -> str:
    """The page of a comparison."""
    both, alone = (found.counts[name] for name in ("same", "changed")), ("only_first", "only_second")
    series = [Series(name, (float(num),) * 2) for name, num in zip(("same", "changed"), both, strict=True)]
    series.append(Series("only here", tuple(float(found.counts[name]) for name in alone)))
    title = "Memories of the first and of the second"
    chart = Chart("kinds", title, ("first", "second"), tuple(series), kind="stacked")
    return render(
        "compare.html.j2",
        "A comparison of memories",
        found=found,
        made_at=now,
        tables={"retrieval": None} | tables,
        users=list(found.of_user.items())[:MAX_USERS],
        chart=chart,
    )


# --- measures -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measured:
    """What a job has measured, as the page of it tells it."""

    title: str
    charts: tuple[Chart, ...]
    caption: str
    """Of the table."""
    rows: tuple[dict, ...] = ()
    """Of the table, all with the same keys, the first of which names a row."""
    facts: tuple[tuple[str, str], ...] = ()
    notes: str = ""
    """What the numbers are."""

    def is_number(self, name: str) -> bool:
        """Whether a column of the table has numbers alone."""
        return all(row[name] is None or isinstance(row[name], int | float) for row in self.rows)


def of_measures(found: Measured, now: dt.datetime | None) -> str:
    """The page of what was measured. `now`: None where the same measures must give the same bytes."""
    return render("measured.html.j2", found.title, found=found, made_at=now)
