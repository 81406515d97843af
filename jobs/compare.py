"""Compare: shows two stores, or two runs of one, side by side: memories, costs, and what a search finds.

    python -m jobs.compare --store A --with B                               # as they are now
    python -m jobs.compare --store A --run R1 --with-run R2                 # two runs of one store
    python -m jobs.compare --store A --with B --questions data/sample/_gold/questions.jsonl
    python -m jobs.compare --store A --with B --output DIR                  # and a page for a browser
    python -m jobs.compare --store A --with B --user-id U                   # and this user's memories

Memories of both count as the same if user and words are equal, and as changed if they are based on a common
turn and have other words; all others are only in one. With questions whose evidence is known, it also
compares the measures of jobs.evaluate retrieval; nothing else needs a model. Reads only; needs no Ray. Use it
to try another encoder, embedder or decider on a sample before you switch a store to it.
"""

import dataclasses
from typing import TYPE_CHECKING, Self

from pydantic import Field, model_validator

from cluster.runtime.shown import one_line
from jobs.common.cli import JobConfig, JobError, UsageError, main, say
from jobs.common.measuring import LISTS, score_view, short, summarise
from jobs.common.questions import Question, QuestionFiles, read_questions
from jobs.common.run import absolute

if TYPE_CHECKING:
    from cluster.report.compare import Comparison, View

Cells = tuple[str, ...]
"""A row of a table: a name, then what the first and the second have."""

NUM_SHOWN = 10
"""Users in the table, and memories of each kind of a named user."""


class CompareConfig(JobConfig):
    """Settings of a comparison."""

    store: str
    """Folder or object-store URI of the first store."""
    other: str | None = Field(None, json_schema_extra={"short": "--with"})
    """The second store. Not given: the first one, of which with_run names another run."""
    run: str | None = None
    """Compare the first store as this run left it."""
    with_run: str | None = None
    """Compare the second store as this run left it."""
    user_id: tuple[str, ...] = ()
    """Compare only these users, and show their memories. Not given: all users, as counts."""
    questions: QuestionFiles = ()
    """Files with questions and their evidence, as jobs.evaluate retrieval reads them."""
    output: str | None = None
    """Folder or object-store URI for `compare.html`."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.other is None and self.with_run is None:
            raise ValueError("nothing to compare with: name another store (--with), or a run (--with-run)")
        return self


def run(config: CompareConfig) -> dict:
    """Compare, show the table on stderr, and return the summary."""
    from cluster.backfill.redact import shown_rows
    from cluster.report.compare import compare
    from cluster.store.errors import StoreError

    questions = [one for path in config.questions for one in read_questions(path)]
    first, second = absolute(config.store), absolute(config.other or config.store)
    try:
        found = compare((first, config.run), (second, config.with_run), config.user_id)
        measured = retrieval(found, questions) if questions else None
    except StoreError as error:
        raise JobError(str(error)) from error
    tables = {"memories": memories(found), "work": work(found)}
    if measured:
        tables["retrieval"] = retrieval_rows(measured)
    for line in text_of(found, tables):
        say(line)
    summary = {"status": "done", "store": config.store, "with": config.other or config.store, **counts(found)}
    summary |= {"retrieval": measured} if measured else {}
    summary |= {"memories": shown_rows(list(found.pairs))} if config.user_id else {}
    return summary | (
        {"output": config.output, "pages": written(config.output, found, tables)} if config.output else {}
    )


def written(output: str, found: "Comparison", tables: dict[str, list[Cells]]) -> list[str]:
    """Write the page; its name."""
    from cluster.report.pages import write_comparison

    try:
        pages = write_comparison(absolute(output), found, tables)
    except OSError as error:
        raise UsageError(f"--output {output}: {error.strerror or error}; name a folder to write to") from None
    say(f"[compare] {output}: {', '.join(pages)}")
    return pages


def counts(found: "Comparison") -> dict:
    """For the summary."""
    from cluster.backfill.redact import shown_by_id

    return {
        **{f"num_{kind}": num for kind, num in found.counts.items()},
        "num_users": found.num_users,
        "first": dataclasses.asdict(found.first),
        "second": dataclasses.asdict(found.second),
        "of_user": shown_by_id(found.of_user),
    }


def retrieval(found: "Comparison", questions: list[Question]) -> dict[str, dict]:
    """Side -> measures of each list, as jobs.evaluate retrieval has them."""
    from cluster.store.store import Store

    measured = {}
    for name, view in (("first", found.first), ("second", found.second)):
        store = Store(view.uri)
        means = summarise(score_view(store, store.view(view.run_id), questions))
        of_lists = {
            name: {key: rounded(value) for key, value in short(means[name], name).items()} for name in LISTS
        }
        measured[name] = {"num_questions": means["num_questions"], **of_lists}
    return measured


def rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


# --- tables -----------------------------------------------------------------------------------------------


def memories(found: "Comparison") -> list[Cells]:
    """What there is, and how it is matched."""
    both, sides = found.counts, (found.first, found.second)
    return [
        ("run", *(view.run_id for view in sides)),
        ("job", *(view.job for view in sides)),
        ("encoder", *(view.encoder for view in sides)),
        ("embedder", *(view.embedder for view in sides)),
        ("users", *(f"{view.num_users:,}" for view in sides)),
        ("turns", *(f"{view.num_turns:,}" for view in sides)),
        ("memories", *(f"{view.num_memories:,}" for view in sides)),
        ("the same in both", f"{both['same']:,}", f"{both['same']:,}"),
        ("changed", f"{both['changed']:,}", f"{both['changed']:,}"),
        ("only here", f"{both['only_first']:,}", f"{both['only_second']:,}"),
    ]


def work(found: "Comparison") -> list[Cells]:
    """What the runs took."""
    names = {"own": "this run", "until": "all runs until it"}
    rows: list[Cells] = []
    for name, words in names.items():
        sides = [getattr(view, name) for view in (found.first, found.second)]
        rows += [
            (f"seconds, {words}", *(f"{one.seconds:,.1f}" for one in sides)),
            (f"tokens read, {words}", *(f"{one.prompt_tokens:,}" for one in sides)),
            (f"tokens written, {words}", *(f"{one.output_tokens:,}" for one in sides)),
            (f"cost, {words}", *("–" if one.cost is None else f"{one.cost:,.4f}" for one in sides)),
        ]
    return rows


def retrieval_rows(measured: dict[str, dict]) -> list[Cells]:
    """Measures of both."""
    first, second = measured["first"], measured["second"]
    rows: list[Cells] = [("questions", *(f"{side['num_questions']:,}" for side in (first, second)))]
    for name in LISTS:
        for key in first[name]:
            shown = (
                "–" if (value := side[name][key]) is None else f"{value:.4f}" for side in (first, second)
            )
            rows.append((f"{name}: {key}", *shown))
    return rows


def text_of(found: "Comparison", tables: dict[str, list[Cells]]) -> list[str]:
    """The tables for a terminal, then the users that differ most, or the memories of those that are named."""
    from cluster.backfill.redact import shown_id

    lines = [f"first:  {place(found.first)}", f"second: {place(found.second)}"]
    widths = [max(len(row[column]) for rows in tables.values() for row in rows) for column in range(3)]
    for rows in tables.values():
        lines.append("")
        lines += [f"{row[0]:{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:>{widths[2]}}" for row in rows]
    lines.append("")
    for user_id, kinds in list(found.of_user.items())[:NUM_SHOWN]:
        told = ", ".join(f"{num:,} {kind.replace('_', ' in ')}" for kind, num in kinds.items() if num)
        lines.append(f"{shown_id(user_id)}: {told}")
        own = [pair for pair in found.pairs if pair["user_id"] == user_id and pair["kind"] != "same"]
        lines += [f"  {line}" for pair in own for line in pair_lines(pair)]
    return [one_line(line) for line in lines]


def place(view: "View") -> str:
    return f"{view.uri} as run {view.run_id} left it"


def pair_lines(pair: dict) -> list[str]:
    """Two memories that differ, or one that stands alone."""
    sides = (("-", pair["first_text"], pair["first_id"]), ("+", pair["second_text"], pair["second_id"]))
    return [f"{mark} {text}  {name[:12]}" for mark, text, name in sides if text is not None]


if __name__ == "__main__":
    main(CompareConfig, run, __doc__)
