"""Edit: corrects, pins, closes or adds memories by hand, in one run that can be undone.

    python -m jobs.edit --store URI --memory-id ID --text "User lives in Rome." --author ann --reason "asked"
    python -m jobs.edit --store URI --memory-id ID --pin --author ann --reason "must not be lost"
    python -m jobs.edit --store URI --memory-id ID --close --valid-to 2026-03-01 --author ann --reason "moved"
    python -m jobs.edit --store URI --user-id U --text "User is 40." --author ann --reason "a call"
    python -m jobs.edit --store URI --file EDITS.jsonl --author ann     # an edit per line, with the same keys
    python -m jobs.rollback --store URI --to RUN                        # undoes it: RUN is the run before

Each edit is a revision with its author and its reason, which jobs.history shows. Consolidation leaves a
pinned memory as it is, and a text written by hand until something newer is said. No new encoding of the
conversation brings back what was edited. A bad line of the file is skipped and reported. Needs no Ray, and a
model only for new texts.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pydantic import Field, model_validator

from jobs.common.choice import embedder_of
from jobs.common.cli import UsageError, main, say
from jobs.common.forgotten import ForgetKeyConfig, read_forgotten
from jobs.common.rejected import check_rejected
from jobs.common.run import Run, WriterConfig, absolute, writing
from schemas.edit import Edit, EditKeys, read_edit
from schemas.exchange import BadMemory

if TYPE_CHECKING:
    from cluster.edit import Edits
    from cluster.forget.forgotten import Forgotten
    from cluster.store.store import Store

STAGED = "edit"
"""Folder of the staged files."""

NUM_SHOWN = 20
"""Bad lines that are named."""

COUNTS = (
    "num_edits",
    *("num_corrected", "num_added", "num_deleted", "num_pinned", "num_unpinned"),
    *("num_unchanged", "num_redactions", "num_rejections"),
)


class EditConfig(EditKeys, ForgetKeyConfig, WriterConfig):
    """Settings of edits by hand: one by options, or many in a file."""

    file: str | None = None
    """JSON lines, each an edit with the names of these options as its keys; `author` and `reason` hold for
    lines that have none."""
    embedder: str | None = None
    """Load the store's embedder from this profile (a name or a TOML file), if it has moved."""
    max_rejected_fraction: float = Field(0.5, ge=0, le=1)
    """The run fails and publishes nothing when a larger share of the edits cannot be done."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        given = self.model_fields_set & (EditKeys.model_fields.keys() - {"author", "reason"})
        if self.file and given:
            raise ValueError(f"file={self.file!r}: give it without {', '.join(sorted(given))}")
        if not self.file and (problem := self.problem()):
            raise ValueError(problem)
        return self

    def edit(self) -> Edit:
        """The one of the options."""
        return Edit(**self.model_dump(include=set(EditKeys.model_fields)))

    def without_edit(self) -> Self:
        """What a manifest may keep: who is meant and what was said stand in the store alone, where a
        forgetting finds them."""
        return self.model_copy(update={name: field.default for name, field in EditKeys.model_fields.items()})


def run(config: EditConfig) -> dict:
    """Edit and return the summary. Safe to repeat: what is so already is unchanged."""
    config = config.model_copy(update={"store": absolute(config.store)})
    if config.file and not Path(config.file).is_file():
        raise UsageError(f"--file {config.file}: no such file; check the path")
    with writing(config.store, "jobs.edit", wait_s=config.lease_wait) as store:
        return edit(config, store)


def edit(config: EditConfig, store: "Store") -> dict:
    """Lines -> edits -> revisions and decisions -> vectors -> one commit."""
    from cluster.edit import Edits
    from cluster.store.files import Files

    last = store.view()
    staging, forgotten = Files(store.uri, "staging"), read_forgotten(config, store.uri)
    with Run("edit", config.without_edit(), encoder=last.encoder, embedder=last.embedder) as this:
        staging.delete(staging.paths(STAGED))
        edits = Edits(store, this.run_id, this.started_at)
        bad = take(edits, list(lines(config)), forgotten)
        this.counts = {name: edits.counts[name] for name in COUNTS}
        check_rejected(
            config.max_rejected_fraction,
            this.counts["num_rejections"],
            this.counts["num_edits"],
            "edits cannot be done",
            bad,
            remedy="Mend them, or raise the limit",
        )
        if not edits.rows:
            return this.finish("unchanged") | {"rejected": bad}
        vectors = []
        if texts := edits.texts():
            with this.stage("embed"):
                vectors = embed(config, store, texts)
        inserts, replaces = edits.tables(vectors)
        paths: list[dict[str, list[str]]] = []
        for kind, tables in (("new", inserts), ("whole", replaces)):
            paths.append({name: [f"{STAGED}/{kind}-{name}.parquet"] for name in tables})
            for name, table in tables.items():
                staging.put_table(paths[-1][name][0], table)
        store.fence()
        with this.stage("publish"):
            store.commit(this.row(last.embedder_profile), inserts=paths[0], replaces=paths[1])
        staging.delete(staging.paths(STAGED))
        say(f"[edit] undo with: python -m jobs.rollback --store {config.store} --to {last.run_id}")
        return this.finish("done") | {"rejected": bad}


Line = tuple[str, Edit | str]
"""Where an edit stands, and the edit, or why it cannot be done."""


def lines(config: EditConfig) -> Iterator[Line]:
    """The edits that are asked for."""
    from cluster.interchange.files import BadRow, read_lines

    if not config.file:
        yield "options", config.edit()
        return
    both = {name: value for name in ("author", "reason") if (value := getattr(config, name))}
    for found in read_lines(Path(config.file)):
        if isinstance(found, BadRow):
            yield found.place, found.reason
            continue
        place, row = found
        try:
            yield place, read_edit(both | row)
        except BadMemory as error:
            yield place, str(error)


def take(edits: "Edits", found: list[Line], forgotten: "Forgotten") -> list[str]:
    """Apply the edits, in their order; where they stand and why, of those that cannot be done."""
    edits.load([one for _, one in found if isinstance(one, Edit)])
    bad: list[str] = []
    for place, one in found:
        try:
            if isinstance(one, str):
                raise BadMemory(one)
            if forgotten.has_session(one.user_id, None):
                raise BadMemory("user_id: is on the list of who is forgotten, and stays out")
            edits.apply(one)
        except BadMemory as error:
            bad.append(f"{place}: {error}")
            say(f"[edit] {bad[-1]}")
    edits.counts["num_rejections"], edits.counts["num_edits"] = len(bad), len(found)
    return bad[:NUM_SHOWN]


def embed(config: EditConfig, store: "Store", texts: list[str]) -> list:
    """Vectors float32 [len(texts), dim] of the embedder that wrote the store."""
    from cluster.embed.embedder import Embedder

    return list(Embedder(embedder_of(config.embedder, store)).embed(texts))


if __name__ == "__main__":
    main(EditConfig, run, __doc__)
