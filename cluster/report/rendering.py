"""How a page is made: its template, its policy, and how values are written on it.

A page is one file without a request to anywhere, from disk or a bucket. Whatever others wrote is text here.
Jinja escapes every value, what a browser would obey inside a text (controls, marks that turn it around) is
shown as its escape, and the page's policy lets nothing run and nothing load but its own style and script,
which it names by their hashes.
"""

import base64
import functools
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.backfill.redact import shown_id
from cluster.report.runs import RunEntry
from cluster.report.svg import draw
from cluster.report.words import cell, count, day, price, seconds, size, time
from cluster.runtime.shown import harmless
from schemas.archive import who
from schemas.store import BY_HAND

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

TEMPLATES = Path(__file__).parent / "templates"

MAX_SHORT = 160
"""Characters of a statement in a sentence."""


def render(template: str, title: str, script: str = "", **values: object) -> str:
    """A page. `script` names a file beside the templates."""
    from markupsafe import Markup

    style, code = _text("page.css"), _text(script) if script else ""
    sources = [f"style-src '{_hash(style)}'", *([f"script-src '{_hash(code)}'"] if code else [])]
    policy = "; ".join(["default-src 'none'", *sources, "base-uri 'none'", "form-action 'none'"])
    return (
        _environment()
        .get_template(template)
        .render(title=title, policy=Markup(policy), style=Markup(style), script=Markup(code), **values)
    )


@functools.cache
def _environment() -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    def finalize(value: object) -> object:
        return value if isinstance(value, Markup) or not isinstance(value, str) else harmless(value)

    found = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        autoescape=True,
        finalize=finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {
        "anchor": anchor,
        "cell": cell,
        "count": count,
        "day": day,
        "decision": decision,
        "draw": draw,
        "price": price,
        "remarks": remarks,
        "run_link": run_link,
        "seconds": seconds,
        "short": short,
        "shown_id": shown_id,
        "size": size,
        "time": time,
        "who": who,
    }
    return found


@functools.cache
def _text(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


# --- runs and decisions --------------------------------------------------------------------------------


def anchor(entry: RunEntry) -> str:
    """The id of a run's row: a hash, since a run's id may hold what an id on a page may not."""
    return f"run-{hashlib.sha256(entry.run_id.encode()).hexdigest()[:12]}"


def run_link(entry: RunEntry | None) -> "Markup | str":
    """A link to a run's row, with when it ended."""
    from markupsafe import Markup

    if entry is None:
        return "none"
    link = '<a href="#{}">{}</a> ({})'
    return Markup(link).format(anchor(entry), harmless(f"{entry.job} {entry.run_id}"), time(entry.ended_at))


TOLD = {
    "forget": [("removed", "num_records_removed", "records"), ("removed", "num_turns_removed", "turns")],
    "import": [("brought", "num_records", "records"), ("rejected", "num_rejections", "rows")],
    "reembed": [("embedded", "num_rows_embedded", "rows anew")],
}
"""Counts that tell what an operation did: verb, name, what is counted."""


def remarks(entry: RunEntry) -> str:
    """What is to be said of a run beside its counts."""
    told = [entry.reason] if entry.reason else []
    for verb, name, what in TOLD.get(entry.job, ()):
        told += [f"{verb} {count(num)} {what}"] if (num := entry.counts.get(name)) else []
    told += [f"back to run {entry.counts.get('to')}"] if entry.job == "rollback" else []
    told += [f"undone by the rollback {entry.undone_by}"] if entry.undone_by else []
    told += ["its view has expired"] if entry.is_published and not entry.has_view else []
    return "; ".join(told)


def decision(row: dict) -> str:
    """A decision in one sentence: what, to what, because of what, by whom, and whether it was applied."""
    if row["decider"] == BY_HAND:
        return (
            f"by hand: {row['action']} “{short(row['target']['text'] or '(not kept)')}”, by {row['model']} "
            f"({row['reason']}) in run {row['run_id']} on {day(row['decided_at'])}, decision "
            f"{row['decision_id']}"
        )
    by = f"{row['model']}, prompt {row['prompt']}" if row["model"] else row["decider"]
    sources = "; ".join(f"“{short(one['text'] or '(not kept)')}”" for one in row["sources"])
    why = f" ({row['reason']})" if row["reason"] else ""
    return (
        f"{row['outcome']}: {row['action']} “{short(row['target']['text'] or '(not kept)')}” because of "
        f"{sources or 'nothing'}{why}, by {by} in run {row['run_id']} on {day(row['decided_at'])}, decision "
        f"{row['decision_id']}"
    )


def short(text: str, max_chars: int = MAX_SHORT) -> str:
    """The text in one line, cut where it is longer."""
    text = " ".join(text.split())
    return text if len(text) <= max_chars else text[: max_chars - 1] + "…"
