"""Export: a store's memories, for people and for other memory systems.

    python -m jobs.export --store URI --to jsonl --output DIR
    python -m jobs.export --store URI --to mem0 --output DIR --user-id me you
    python -m jobs.export --store URI --to parquet --output DIR --since RUN     # what changed after that run
    python -m jobs.export --store URI --to cogx --output DIR --as-of RUN        # as that run left the store
    python -m jobs.export --store URI --to markdown --output DIR --at 2025-03-01    # what held on that day

Exports the active memories of all users, or of those that `--user-id` names. The output is a new folder: it
is written beside, and gets its name when it is complete, so that a killed export leaves nothing under it. An
increment (`--since`) has what was added and changed, and says what is to be deleted: JSON lines and Parquet
in the column `change`, the others in `closed.jsonl` with the receiver's own ids. Needs no Ray and no model,
takes no lease, and changes no memory of the store. The store remembers that an export went out, so that
jobs.forget can say what is to be deleted there (`--no-remember` leaves that out).
"""

import datetime as dt
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from cluster.runtime.entry_points import EXCHANGE_FORMATS, names
from jobs.common.cli import JobError, LocalFolder, UsageError, main, say
from jobs.common.run import Run, StoreConfig, absolute

if TYPE_CHECKING:
    from cluster.interchange.export import Export
    from cluster.store.store import Store

Format = Literal[
    "jsonl",
    "parquet",
    "markdown",
    "mem0",
    "cogx",
    "langgraph",
    "letta",
    "hindsight",
    "lychee",
    "lightmem",
]
if not TYPE_CHECKING:
    # And those that other distributions add.
    Format = Literal[Format, *names(EXCHANGE_FORMATS)]


class ExportConfig(StoreConfig):
    """Settings of an export."""

    format: Format = Field(json_schema_extra={"short": "--to"})
    """What to write; jobs/README.md says what each format keeps and loses."""
    output: LocalFolder
    """Folder to write: a new one, or an empty one."""
    user_id: tuple[str, ...] = ()
    """Only the memories of these users. Not given: of all."""
    as_of: str | None = None
    """Export the store as this run left it."""
    at: dt.date | None = None
    """Export what held on this day (YYYY-MM-DD), as far as the store knows; closed memories included that
    held then."""
    since: str | None = None
    """Export only what was added, changed or closed after this run."""

    remember: bool = True
    """Remember in the store that this export went out, for the tombstones of jobs.forget."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.at and self.since:
            raise ValueError(f"at={self.at}, since={self.since!r}: give one of the two")
        return self


def run(config: ExportConfig) -> dict:
    """Export and return the summary."""
    from cluster.interchange.export import Export, Selection
    from cluster.interchange.formats import WRITERS, write
    from cluster.store.errors import StoreError
    from cluster.store.store import Store

    writer = WRITERS[config.format]
    if config.since and not (writer.identify or writer.is_whole):
        raise UsageError(
            f"--since {config.since}: {config.format} cannot say which memories are gone; leave --since out, "
            f"or take one of {sorted(name for name, one in WRITERS.data.items() if one.identify)}"
        )
    output = Path(absolute(config.output))
    check_output(output)
    try:
        store = Store(absolute(config.store)).snapshot()
        view = store.view(config.as_of)
        since = store.view(config.since) if config.since else None
        selection = Selection(config.user_id, view.run_id, config.at, since.run_id if since else None)
        export, beside = Export(store, selection), output.with_name(f".{output.name}.export")
        # What a killed export has left there.
        shutil.rmtree(beside, ignore_errors=True)
        encoder, embedder = view.encoder, view.embedder
        try:
            with Run(
                "export", config, encoder=encoder, embedder=embedder, writes="output", home=str(beside)
            ) as this:
                with this.stage("write"):
                    write(config.format, beside, export)
                this.counts = counts_of(export) | {"as_of": view.run_id}
                summary = this.finish("done")
            summary["is_remembered"] = config.remember and remember(config, this.run_id, store, export)
            publish(beside, output)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    except StoreError as error:
        raise JobError(str(error)) from error
    say(f"[export] {summary['num_memories']} memories of {summary['num_users']} users: {config.output}")
    return summary


def remember(config: ExportConfig, run_id: str, store: "Store", export: "Export") -> bool:
    """Put the export on the store's list, before it gets its name; whether that could be written. StoreError
    where somebody was forgotten meanwhile."""
    from cluster.forget import exports
    from cluster.store.errors import StoreError
    from cluster.store.store import Store

    assert export.selection.as_of is not None, "a selection names its run"
    try:
        exports.remember(
            store.uri,
            run_id,
            format=config.format,
            output=absolute(config.output),
            as_of=export.selection.as_of,
            since=export.selection.since,
            at=config.at,
            users=config.user_id,
        )
    except Exception as error:  # a folder or a bucket that only may be read
        say(
            f"[export] --store {config.store}: cannot remember that this export goes out ({error}): "
            "jobs.forget will write no tombstone for it. Give this job the right to write there, or pass "
            "--no-remember"
        )
        return False
    try:
        exports.check_still_there(store, Store(store.uri))
    except StoreError:
        exports.take_back(store.uri, run_id)
        raise
    return True


def counts_of(export: "Export") -> dict:
    """What an export has given out, and what its format could not hold."""
    of_user = {user: count for user, count in export.num_of_user.items() if count}
    counts: dict[str, Any] = {"num_memories": sum(of_user.values()), "num_users": len(of_user)}
    if export.selection.since:
        changes = ("added", "changed", "closed")
        counts |= {f"num_{name}": export.num_of_change[name] for name in changes}
    counts |= {"num_skipped": sum(export.skipped.values())}
    if export.skipped:
        counts["skipped"] = dict(export.skipped)
    if len(of_user) <= MAX_SHOWN_USERS:
        from cluster.backfill.redact import shown_by_id

        counts["of_user"] = shown_by_id(dict(sorted(of_user.items())))
    return counts


MAX_SHOWN_USERS = 1000
"""A summary names the memories of each of so many users, at most."""


def check_output(output: Path) -> None:
    """UsageError where something is in the way."""
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise UsageError(f"--output {output}: is there already and not empty; name a new folder")


def publish(beside: Path, output: Path) -> None:
    """Give a complete export its name: at once, also over an empty folder."""
    from cluster.store.files import files_below, sync

    for path in files_below(beside):
        sync(path)
    beside.rename(output)
    sync(output.parent)


if __name__ == "__main__":
    main(ExportConfig, run, __doc__)
