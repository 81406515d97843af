"""Import: brings memories of other systems, and of exports, into a store.

    python -m jobs.import --input memories.jsonl --store URI
    python -m jobs.import --from mem0 --input mem0-export.json --store URI
    python -m jobs.import --from cogx --input FOLDER --store URI
    python -m jobs.import --from markdown --input notes.md --store URI --user-id me
    python -m jobs.import --from claude --input data-export.zip --store URI --user-id me

Every row becomes a record, with the encoder `imported` and no evidence but what the file names, embedded as
the store's other records are, in a run of its own. It can be searched, consolidated, rolled back, forgotten
and exported like every other. What the store has already is not brought again, so that the same file twice
leaves the store unchanged. A bad row costs that row, and is kept with its reason in the table `rejections`.
Secrets are replaced by markers, and what was forgotten stays out. Needs no Ray.
"""

import itertools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from cluster.runtime.entry_points import EXCHANGE_FORMATS, names
from jobs.common.choice import choose_encoder, embedder_of
from jobs.common.cli import UsageError, main, say
from jobs.common.forgotten import ForgetKeyConfig, read_forgotten
from jobs.common.rejected import check_rejected, new_rejections
from jobs.common.run import Run, WriterConfig, absolute, load_profile, writing
from schemas.profiles.embedder import EmbedderProfile

if TYPE_CHECKING:
    from cluster.store.files import Files
    from cluster.store.store import Store
    from schemas.exchange import Memory

AUTO: Literal["auto"] = "auto"

Format = Literal[
    "auto",
    "jsonl",
    "parquet",
    "mem0",
    "cogx",
    "markdown",
    "langgraph",
    "letta",
    "hindsight",
    "lychee",
    "lightmem",
    "claude",
    "chatgpt",
]
if not TYPE_CHECKING:
    # And those that other distributions add.
    Format = Literal[Format, *names(EXCHANGE_FORMATS)]

BATCH = 1024
"""Memories that are embedded and staged together."""


class ImportConfig(ForgetKeyConfig, WriterConfig):
    """Settings of an import."""

    format: Format = Field(AUTO, json_schema_extra={"short": "--from"})
    """What the input is: `auto` tells it by names of files and by how they begin. jobs/README.md says what is
    read of each format."""
    input: str
    """File or folder to read; a folder that jobs.export wrote is one."""
    store: str
    """Folder or object-store URI of the store; made where there is none."""
    user_id: str | None = None
    """Whose memories those are that name nobody."""
    embedder: str | None = None
    """Embedder profile of a new store: a name in cluster/profiles/embedders, or a TOML file; one that exists
    goes on with its own, which this may say where to find."""
    max_rejected_fraction: float = Field(0.05, ge=0, le=1)
    """The run fails and publishes nothing when a larger share of the rows is rejected."""


def run(config: ImportConfig) -> dict:
    """Import and return the summary. Safe to repeat."""
    from cluster.interchange.formats import READERS, recognised
    from cluster.store.files import unusable
    from schemas.exchange import BadMemory

    config = config.model_copy(update={"store": absolute(config.store)})
    if not Path(config.input).exists():
        raise UsageError(f"--input {config.input}: no such file or folder; check the path")
    if config.format == AUTO:
        try:
            config = config.model_copy(update={"format": recognised(Path(config.input))})
        except BadMemory as error:
            raise UsageError(f"--input {error}") from None
        say(f"[import] {config.input}: read as {config.format}; --from names another format")
    READERS[config.format]  # before anything is made
    if problem := unusable(config.store):
        raise UsageError(f"--store {config.store!r}: {problem}")
    if config.embedder:
        load_profile("embedders", config.embedder, EmbedderProfile)
    with writing(config.store, "jobs.import", must_exist=False, wait_s=config.lease_wait) as store:
        return bring(config, store)


def bring(config: ImportConfig, store: "Store") -> dict:
    """input -> memories that are new -> records with vectors -> one commit."""
    from cluster.interchange.formats import read
    from cluster.interchange.intake import Intake
    from cluster.store.files import Files
    from schemas.exchange import BadMemory

    last, profile = store.run(), embedder_of(config.embedder, store)
    # A new store gets the encoder that its first backfill would have given it.
    encoder = last.encoder if last else choose_encoder(None, store).fingerprint
    profiles = {"embedder": profile.model_dump(mode="json")}
    with Run("import", config, encoder=encoder, embedder=profile.fingerprint, profiles=profiles) as this:
        known = store.rows("records", ["record_id", "user_id"]).to_pydict() if last else {}
        known = dict(zip(known.get("record_id", ()), known.get("user_id", ()), strict=True))
        intake = Intake(known, read_forgotten(config, store.uri))
        staging = Files(store.uri, "staging")
        staging.delete(staging.paths(STAGED))
        rows = read(config.format, Path(config.input), config.user_id)
        with this.stage("embed"):
            try:
                paths, of_user, dim = embed(intake.new(rows), profile, this.run_id, staging)
            except BadMemory as error:
                raise UsageError(f"--input {error}") from None
        unknown = new_rejections(intake.rejections, store)
        this.counts = {name: intake.counts[name] for name in COUNTS}
        this.counts |= {"num_records": sum(of_user.values()), "num_users": len(of_user)}
        check_rejected(
            config.max_rejected_fraction,
            this.counts["num_rejections"],
            this.counts["num_rows"],
            "rows were rejected",
            [f"{row['source']}: {row['detail']}" for row in intake.rejections],
        )
        if not (paths or unknown):
            return this.finish("unchanged")
        store.fence()
        with this.stage("publish"):
            publish(this, store, staging, profile, paths, of_user, unknown, dim)
        staging.delete(staging.paths(STAGED))
        return this.finish("done")


STAGED = "import"
"""Folder of the staged files."""

COUNTS = ("num_rows", "num_known", "num_closed", "num_forgotten", "num_redactions", "num_rejections")


def embed(
    memories: "Iterator[Memory]", profile: EmbedderProfile, run_id: str, staging: "Files"
) -> tuple[list[str], Counter[str], int | None]:
    """Stage the memories as records with vectors: paths, records of each user, length of the vectors (None
    where there was nothing to embed)."""
    from cluster.embed.embedder import Embedder
    from cluster.interchange.intake import record_row
    from cluster.store.staging import known_columns, put_as_content
    from schemas.store import records_schema

    paths: list[str] = []
    of_user: Counter[str] = Counter()
    embedder = None
    while batch := list(itertools.islice(memories, BATCH)):
        embedder = embedder or Embedder(profile)
        vectors = embedder.embed([memory.semantic_text for memory in batch])
        rows = [record_row(one, run_id, vector) for one, vector in zip(batch, vectors, strict=True)]
        table = known_columns(rows, records_schema(len(vectors[0])))
        paths.append(put_as_content(staging, f"{STAGED}/{len(paths):06}", table))
        of_user.update(memory.user_id for memory in batch)
        say(f"[embed] {sum(of_user.values())} memories")
    return paths, of_user, embedder.dim if embedder else None


def publish(
    this: Run,
    store: "Store",
    staging: "Files",
    profile: EmbedderProfile,
    paths: list[str],
    of_user: Counter[str],
    rejections: list[dict],
    dim: int | None,
) -> None:
    """Commit what was staged as one run."""
    from cluster.embed.turn_embedder import vector_lengths
    from cluster.interchange.intake import IMPORTED
    from cluster.store.brought import segment_row
    from cluster.store.staging import known_columns
    from schemas.store import REJECTIONS_SCHEMA, SEGMENTS_SCHEMA

    inserts: dict[str, list[str]] = {}
    replaces: dict[str, list[str]] = {}
    if paths:
        rows = [segment_row(IMPORTED, user, count, this.run_id) for user, count in sorted(of_user.items())]
        staging.put_table(path := f"{STAGED}/segments.parquet", known_columns(rows, SEGMENTS_SCHEMA))
        inserts = {"segments": [path], "records": paths}
    if rejections:
        rows = [row | {"run_id": this.run_id} for row in rejections]
        staging.put_rows(path := f"{STAGED}/rejections.parquet", rows, REJECTIONS_SCHEMA)
        replaces = {"rejections": [path]}
    dim, turn_dim = vector_lengths(profile, store, [dim] if dim else [])
    run = this.row(profile.model_dump_json())
    store.commit(run, dim, inserts=inserts, replaces=replaces, turn_dim=turn_dim)


if __name__ == "__main__":
    main(ImportConfig, run, __doc__)
