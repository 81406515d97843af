"""Pages that jobs leave behind: templates that lie beside the code that fills them, and Markdown tables."""

from pathlib import Path


def render(template: str, **values: object) -> str:
    """A template, named by its path in `jobs/`, filled; jinja2.UndefinedError for a value that is missing.

    In a template, `rows | table` is a table of rows.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parents[1]),
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["table"] = table
    return environment.get_template(template).render(values)


def table(rows: list[dict]) -> str:
    """Rows, all with the same keys, as a Markdown table; fractions with three digits, None as a dash."""
    names = list(rows[0])
    lines = [names, ["---"] * len(names), *([_shown(row[name]) for name in names] for row in rows)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _shown(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) < 100 else f"{value:,.0f}"
    return str(value).replace("|", "\\|").replace("\n", " ")
