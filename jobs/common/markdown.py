"""Pages that jobs leave behind: templates that lie beside the code that fills them, and Markdown tables."""

from pathlib import Path

from cluster.report.words import cell


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
    lines = [names, ["---"] * len(names), *([_escaped(cell(row[name])) for name in names] for row in rows)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
