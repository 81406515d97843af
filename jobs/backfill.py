"""Backfill: a conversation archive becomes a versioned memory store.

    python -m jobs.backfill --archive DIR --store URI
    python -m jobs.backfill --archive DIR --store URI --dry-run      # what it would cost
    python -m jobs.backfill --archive DIR --store URI --consolidate  # and what jobs.consolidate does
    ray job submit --working-dir . -- python -m jobs.backfill --archive s3://... --store s3://...

Reads Parquet archives (jobs.ingest and jobs.sample make them), cuts sessions into segments, encodes each
segment into memory records, embeds records and turns, and commits all of it at once. Run it again after a
crash or with new sessions: what was paid for is never paid for again.
"""

import time
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator

from cluster.runtime import Progress, Stage, is_local, run_stage
from jobs.common.choice import check_added, choose_embedder, choose_encoder
from jobs.common.cli import JobError, UsageError, main, say
from jobs.common.endpoints import at_endpoint, paying, workers
from jobs.common.forgotten import ForgetKeyConfig, read_forgotten
from jobs.common.plan import SPENT, Plan, Workers, batch_counts, encode_times, staged_tables
from jobs.common.pools import EnginePool
from jobs.common.run import (
    Run,
    StagesConfig,
    WriterConfig,
    absolute,
    check_engine,
    connect,
    load_profile,
    writing,
)
from jobs.common.turns import (
    TurnsPool,
    all_users,
    changed_users,
    counts_of,
    paths_of,
    read_users,
    rejection_rows,
)
from jobs.common.updates import UpdateConfig, UpdateSettings, consolidate
from schemas.carriers import ArchiveFile, Batch, EmbeddedBatch, InspectedFile, UnitCut, UsersRead
from schemas.endpoint import EndpointConfig
from schemas.profile import DeciderProfile, EmbedderProfile, EncoderProfile
from schemas.store import REJECTIONS_SCHEMA

if TYPE_CHECKING:
    from cluster.backfill.watermark import Watermark
    from cluster.forget.forgotten import Forgotten
    from cluster.store.files import Files
    from cluster.store.lease import Lease
    from cluster.store.store import Store

NUM_REASONS = 3
"""Reasons that are shown when a run fails on rejections."""

PATIENCE_S = 30
"""What a sick worker waits first, before it takes another batch from others that are well."""


OF_DECIDERS = ("decided/", "answers/decider/", "asked/decider/")
"""Staged files that a consolidation has paid for and goes on from, whatever is published meanwhile."""


class EncoderPool(EnginePool):
    """Actors that run the encoder."""

    batch_size: int = Field(64, ge=1)
    """Segments per batch: what one call of an actor encodes, and what a crash can cost."""
    in_flight: int = Field(2, ge=1)
    """Batches that an actor has in work at a time, so that vLLM does not wait for the last answers of one
    before it begins the next. With other engines, and without Ray, it is one."""


class BackfillConfig(ForgetKeyConfig, WriterConfig, StagesConfig):
    """Settings of a backfill."""

    archive: str
    """Folder or object-store URI of the archive."""
    store: str
    """Folder or object-store URI of the store; made if there is none."""
    profile: str | None = None
    """Encoder profile: a name in cluster/profiles/encoders, or a TOML file. Not given: the one that wrote the
    store, `default` for a new one."""
    embedder: str | None = None
    """Embedder profile: a name in cluster/profiles/embedders, or a TOML file. One with `turns` reads the
    turns of each user in order, with a memory that the store keeps. Not given: the one that wrote the
    store; for a new one `default`, or `minilm` where the default's package is not installed."""
    limit_sessions: int | None = Field(None, ge=1)
    """Read only the archive's first sessions, each as it stands last."""
    dry_run: bool = False
    """Cut and count, encode nothing, write nothing that a reader sees."""
    on_encoder_change: Literal["fail", "keep", "reencode"] = "fail"
    """When the store was written by another encoder: fail, keep what is there and encode only what is new,
    or reencode everything."""
    mask_contacts: bool = False
    """Replace phone numbers and mail addresses by markers too, as secrets always are."""
    redaction_rules: dict[str, str] = Field(default_factory=dict)
    """Kind -> regular expression: what it finds is replaced by `[redacted:KIND]` as well."""
    retry_rejected: bool = False
    """Encode again the segments that were rejected before."""
    include_rolled_back: bool = False
    """Bring back what jobs.rollback took out, as far as the archive has it."""
    max_rejected_fraction: float = Field(0.05, ge=0, le=1)
    """The run fails when a larger share of sessions, of segments, or of users is rejected."""
    max_input_tokens: int | None = Field(None, ge=1)
    """The run fails before any encoder call when it would read more tokens of conversation than this."""
    max_cost: float | None = Field(None, ge=0)
    """What an encoder behind an endpoint may cost, in the currency of its prices, what killed runs paid
    included. A run that reaches it publishes nothing and ends as `stopped`; with a higher cap it goes on."""
    consolidate: bool = False
    """Afterwards compare the new memories with the older ones, as jobs.consolidate does."""
    consolidation: UpdateSettings = UpdateSettings()
    """Settings of that."""
    endpoint: EndpointConfig = EndpointConfig()
    """Settings that go over the encoder profile's own, where its model is behind an endpoint."""
    encoder_pool: EncoderPool = EncoderPool()
    embedder_pool: TurnsPool = TurnsPool()

    @field_validator("redaction_rules")
    @classmethod
    def _check_rules(cls, rules: dict[str, str]) -> dict[str, str]:
        from cluster.backfill.redact import compiled

        # Reading the rules costs the import of the detectors, which only who has rules pays here.
        if rules:
            compiled(rules)
        return rules


def run(config: BackfillConfig) -> dict:
    """Run a backfill and return its summary. Safe to repeat at any time."""
    from cluster.backfill.archive import ArchiveError, list_files
    from cluster.store.files import unusable

    config = config.model_copy(update={"archive": absolute(config.archive), "store": absolute(config.store)})
    # What is named and not there is wrong usage, before a store is made.
    if config.profile:
        encoder = load_profile("encoders", config.profile, EncoderProfile)
        at_endpoint(encoder, config.endpoint, config.max_cost)
    if config.embedder:
        load_profile("embedders", config.embedder, EmbedderProfile)
    update = consolidation_of(config) if config.consolidate else None
    if problem := unusable(config.store):
        raise UsageError(f"--store {config.store!r}: {problem}")
    try:
        files = list_files(config.archive)
    except ArchiveError as error:
        raise UsageError(str(error)) from None
    say(f"[backfill] {config.archive} ({len(files)} files) -> {config.store}")
    with writing(config.store, "jobs.backfill", must_exist=False, wait_s=config.lease_wait) as (store, lease):
        encoder = choose_encoder(config.profile, store, config.endpoint, config.max_cost)
        embedder = choose_embedder(config.embedder, store)
        summary = backfill(config, files, encoder, embedder, store, lease)
        is_stopped = summary["status"] == "stopped"
        if update and not config.dry_run and not is_stopped and store.run():
            summary["consolidation"] = consolidate(update, store, lease)
            if summary["consolidation"]["status"] == "failed":
                summary["status"] = "failed"
        return summary


def consolidation_of(config: BackfillConfig, kind: type[UpdateConfig] = UpdateConfig) -> UpdateConfig:
    """What jobs.consolidate is to do. A decider behind an endpoint is asked at the encoder's, if there is no
    table [consolidation.endpoint]. UsageError for a decider that is named and cannot be asked."""
    settings = config.consolidation.model_dump(exclude_unset=True)
    name = config.consolidation.decider_profile
    profile = load_profile("deciders", name, DeciderProfile) if name else None
    if profile and profile.endpoint and "endpoint" not in settings:
        settings["endpoint"] = config.endpoint.model_dump(exclude_unset=True)
    update = kind(
        store=config.store,
        lease_wait=config.lease_wait,
        local=config.local,
        cluster=config.cluster,
        storage=config.storage,
        **settings,
    )
    if update.decider:
        check_added(update.decider)
    if profile and update.decider == "model":
        at_endpoint(profile, update.endpoint, update.max_cost)
    return update


def backfill(
    config: BackfillConfig,
    files: list[str],
    encoder: EncoderProfile,
    embedder: EmbedderProfile,
    store: "Store",
    lease: "Lease",
) -> dict:
    """archive -> units -> batches of segments -> records with vectors -> one commit."""
    from cluster.models.endpoint import CapReached

    with Run(
        "backfill",
        config,
        encoder=encoder.fingerprint,
        embedder=embedder.fingerprint,
        profiles={"encoder": encoder.model_dump(mode="json"), "embedder": embedder.model_dump(mode="json")},
    ) as this:
        check_compatible(config, encoder, embedder, store)
        connect(config.runs_on)
        if not config.dry_run:
            check_engine(encoder)

        forgotten = read_forgotten(config, config.store)
        with this.stage("inspect"):
            watermark = read_watermark(config, encoder, forgotten)
            inspected = inspect(config, files, watermark, forgotten)
        with this.stage("cut"):
            plan = cut(config, encoder, store, inspected, watermark, forgotten)
        this.counts |= plan.counts() | batch_counts([])
        check_plan(config, plan, this)
        if config.dry_run:
            return this.finish("dry_run")

        try:
            with this.stage("encode"), paying(this, encoder, config.store, "encoder"):
                done = encode_and_embed(config, encoder, embedder, plan)
        except CapReached as cap:
            say(f"[encode] {cap}")
            return this.finish("stopped")
        this.stages["encode"] |= encode_times(done)
        this.counts |= plan.counts() | batch_counts(done)
        this.counts["num_rejections"] += sum(batch.num_rejections for batch in done)
        num_rejected = sum(batch.num_segments_rejected for batch in done)
        check_rejected(config, this, "segments", num_rejected, plan.num_pending)

        read = []
        if embedder.turns:
            with this.stage("turns"):
                read = read_turns(config, embedder, store, plan, done, this)

        with this.stage("publish"):
            lease.check()
            changed = publish(this, embedder, plan, done, read, store)
        return this.finish("done" if changed else "unchanged")


# --- the steps ----------------------------------------------------------------------------------------


def read_watermark(config: BackfillConfig, encoder: EncoderProfile, forgotten: "Forgotten") -> "Watermark":
    """What is known of the archive from earlier nights that cut it as this one does."""
    from cluster.backfill.redact import compiled
    from cluster.backfill.watermark import Watermark, cut_fingerprint

    fingerprint = cut_fingerprint(
        encoder,
        forgotten,
        mask_contacts=config.mask_contacts,
        redaction_rules=compiled(config.redaction_rules),
    )
    return Watermark.read(config.store, config.archive, fingerprint)


def inspect(
    config: BackfillConfig, files: list[str], watermark: "Watermark", forgotten: "Forgotten"
) -> list[InspectedFile]:
    """Footers and keys of the archive's files, of those that are known from the watermark."""
    return watermark.filled(inspect_files(config, watermark.to_inspect(files), forgotten))


def inspect_files(
    config: BackfillConfig, files: list[ArchiveFile], forgotten: "Forgotten"
) -> list[InspectedFile]:
    from cluster.backfill.archive import inspect
    from cluster.backfill.watermark import session_secret

    stage = Stage(inspect, {"archive": config.archive, "secret": session_secret(forgotten)})
    return list(run_stage(files, stage))


def cut(
    config: BackfillConfig,
    encoder: EncoderProfile,
    store: "Store",
    found: list[InspectedFile],
    watermark: "Watermark",
    forgotten: "Forgotten",
) -> Plan:
    """Sessions -> segments that are not paid for yet, staged as batches. What the watermark knows, and the
    store has all of, is not read."""
    from cluster.backfill.archive import plan_units
    from cluster.backfill.cut_stage import cut_unit
    from cluster.backfill.ledger import COLUMNS, Ledger
    from cluster.backfill.redact import compiled
    from cluster.backfill.rows import rejection_row
    from cluster.backfill.watermark import session_secret
    from cluster.store.files import Files

    staging, units = Files(config.store, "staging"), plan_units(found, config.limit_sessions)
    ledger = Ledger.of(
        store.batches("segments", COLUMNS, where="active"),
        encoder=encoder.fingerprint if config.on_encoder_change == "reencode" else None,
        retry_rejected=config.retry_rejected,
        include_rolled_back=config.include_rolled_back,
        secret=session_secret(forgotten),
    )
    rules = compiled(config.redaction_rules)
    left, known = watermark.left(units, found, ledger)
    plan = Plan.of(known, num_superseded=sum(len(unit.superseded) for unit in units))
    num_unreadable = sum(len(file.bad) for file in found)
    plan.num_rows = sum(unit.num_rows_read for unit in units) + num_unreadable
    plan.rejections = [rejection_row(bad, rules) for file in found for bad in file.bad]
    if plan.num_known:
        say(f"[cut] {plan.num_known:,} of {plan.num_rows:,} sessions are as they were")
    stage = Stage(
        cut_unit,
        {
            "archive": config.archive,
            "profile": encoder,
            "ledger": ledger,
            "batch_size": config.encoder_pool.batch_size,
            "files": staging,
            "forgotten": forgotten,
            "mask_contacts": config.mask_contacts,
            "redaction_rules": rules,
        },
    )
    num_to_encode, cuts = 0, {}

    def note(result: UnitCut) -> str:
        nonlocal num_to_encode
        num_to_encode += sum(batch.num_segments for batch in result.batches)
        return f"{num_to_encode:,} segments to encode"

    results = run_stage(
        left,
        stage,
        progress=Progress("cut", "sessions", sum(unit.num_rows_left for unit in left)),
        count=lambda result: result.num_sessions + result.num_rejections,
        note=note,
        # What is committed in the archive's order is known to have come in so.
        in_order=True,
    )
    for unit, result in zip(left, results, strict=True):
        plan.add(result, staging)
        cuts[unit.path, unit.row_group] = result.rows
    rejected, plan.rejections = plan.rejections, []
    plan.reject(rejected, store)
    remember(config, found, watermark, cuts, forgotten)
    return plan


def remember(
    config: BackfillConfig,
    found: list[InspectedFile],
    watermark: "Watermark",
    cuts: dict[tuple[str, int], bytes],
    forgotten: "Forgotten",
) -> None:
    """Keep what is known of the archive now, for the next night."""
    now = watermark.with_cuts(found, cuts)
    if now.files == watermark.files:
        return
    # Of a file that was written anew meanwhile nobody knows which content was read.
    paths = {path for path, _ in cuts} | {file.path for file in found if not file.is_known}
    read = [ArchiveFile(path, now.files[path].identity) for path in sorted(paths & now.files.keys())]
    again = inspect_files(config, read, forgotten)
    kept = now.without(file.path for file in again if not file.is_known)
    # Whoever asks what another encoder would cost has not said that it is to be the store's.
    kept.save(config.store, is_only=not config.dry_run)


def encode_and_embed(
    config: BackfillConfig, encoder: EncoderProfile, embedder: EmbedderProfile, plan: Plan
) -> list[EmbeddedBatch]:
    """Batches -> encoder actors -> embedder actors -> staged rows of the tables, in the order of the plan.

    What sick workers give back is tried again by new ones, as long as some is done each time. JobError when
    nobody can do it, CapReached when the cap does not suffice for all.
    """
    from cluster.backfill.staged import segments_paid
    from cluster.models.endpoint import CapReached
    from cluster.store.files import Files

    if not plan.batches:
        return []
    files = Files(config.store, "staging")
    paid = segments_paid(files, encoder.fingerprint, {batch.batch_id for batch in plan.batches})
    spent: dict[str, Counter[str]] = {}
    attempt = uuid.uuid4().hex
    given_back = Workers(config.encoder_pool.min_size)
    progress = Progress("encode", "segments", plan.num_pending)
    done: list[EmbeddedBatch] = []
    left, failure, is_hopeless, cap = plan.batches, "", False, ""
    while left and not is_hopeless:
        num_before = len(done)
        for result in encoding_pass(config, encoder, embedder, left, files, paid, attempt, progress):
            cost = spent.setdefault(result.batch_id, Counter())
            cost.update({name: getattr(result, name) for name in SPENT})
            if result.is_stopped:
                cap = result.failure
                continue
            if result.failure:
                failure = result.failure
                say(f"[encode] a worker gave batch {result.batch_id} back: {failure}")
                if is_hopeless := given_back.has_given_back(result.worker):
                    break
                continue
            given_back.has_done()
            done.append(replace(result, **dict[str, Any](cost)))
        is_hopeless |= len(done) == num_before
        if cap:
            raise CapReached(
                f"max_cost={config.max_cost}: reached, with {len(plan.batches) - len(done)} of "
                f"{len(plan.batches)} batches left ({cap}). Nothing was published, and what was answered is "
                "kept: run the same command with a higher cap to go on"
            )
        ids = {result.batch_id for result in done}
        left = [batch for batch in left if batch.batch_id not in ids]
    if left:
        raise JobError(
            f"encode: no worker can do what is left, {len(left)} of {len(plan.batches)} batches; the last "
            f"gave up because {failure}. Mend that and run the command again: what was encoded is kept"
        )
    places = {batch.batch_id: place for place, batch in enumerate(plan.batches)}
    return sorted(done, key=lambda result: places[result.batch_id])


def in_flight(config: BackfillConfig, encoder: EncoderProfile) -> int:
    """Batches that an encoder actor has in work at a time."""
    from cluster.models.engine import SHARED

    return config.encoder_pool.in_flight if encoder.engine in SHARED and not is_local() else 1


def encoding_pass(
    config: BackfillConfig,
    encoder: EncoderProfile,
    embedder: EmbedderProfile,
    batches: list[Batch],
    files: "Files",
    paid: dict[str, str],
    attempt: str,
    progress: Progress,
) -> Iterator[EmbeddedBatch]:
    """Results of the embed stage, one a batch, as they come."""
    from cluster.backfill.embed_stage import EmbedStage
    from cluster.backfill.encode_stage import EncodeStage

    pool, engine = workers(encoder, config.encoder_pool, files, "encoder", config.max_cost)
    encode = {
        "profile": encoder,
        "files": files,
        "attempt": attempt,
        "paid": paid,
        "engine": engine,
        "patience_s": PATIENCE_S if pool.max_size > 1 and not is_local() else 0,
    }
    embed = {"encoder": encoder.fingerprint, "profile": embedder, "files": files}
    tokens, started_s = 0, time.monotonic()

    def note(result: EmbeddedBatch) -> str:
        nonlocal tokens
        tokens += result.prompt_tokens + result.output_tokens
        return f"{tokens / (time.monotonic() - started_s):,.0f} tokens/s"

    return run_stage(
        batches,
        Stage(EncodeStage, encode, pool, wants_gpu=True, in_flight=in_flight(config, encoder)),
        Stage(EmbedStage, embed, config.embedder_pool),
        progress=progress,
        count=lambda result: 0 if result.failure else result.num_segments,
        note=note,
    )


def read_turns(
    config: BackfillConfig,
    embedder: EmbedderProfile,
    store: "Store",
    plan: Plan,
    done: list[EmbeddedBatch],
    this: Run,
) -> list[UsersRead]:
    """Turns with vectors and memories of all users of whom anything changed, for an evolvable embedder."""
    users = changed_users(store, done, plan.closed_segments)
    read = read_users(store, embedder, users, config.embedder_pool)
    this.counts |= counts_of(read)
    num_users = len(all_users(store, "turns", "active") | users.keys())
    rejected = rejection_rows(read)
    check_rejected(config, this, "users", len(rejected), num_users, rejected)
    num_before = len(plan.rejections)
    plan.reject(rejected, store)
    this.counts["num_rejections"] += len(plan.rejections) - num_before
    return read


def publish(
    this: Run,
    embedder: EmbedderProfile,
    plan: Plan,
    done: list[EmbeddedBatch],
    read: list[UsersRead],
    store: "Store",
) -> bool:
    """Commit everything that was staged as one run; False when there is nothing to commit."""
    from cluster.embed.lengths import vector_lengths
    from cluster.store.files import Files

    staging = Files(this.home, "staging")
    has_news = any(part.num_turns or part.num_states for part in read)
    if not (done or plan.closed_segments or plan.rejections or has_news):
        staging.delete(staging.paths("turns"))
        return False
    inserts, replaces = staged_tables(done)
    if plan.rejections:
        staging.put_rows(path := f"rejections/{this.run_id}.parquet", plan.rejections, REJECTIONS_SCHEMA)
        replaces["rejections"].append(path)
    seen = (batch.dim for batch in done), (part.dim for part in read)
    dim, turn_dim = vector_lengths(embedder, store, *seen)
    if embedder.turns:
        turns, changed = paths_of(read)
        inserts |= turns
        replaces |= changed
    store.commit(
        this.row(embedder.model_dump_json()),
        dim,
        inserts=inserts,
        replaces=replaces,
        closed_segments=plan.closed_segments,
        turn_dim=turn_dim,
    )
    staged = [path for path in staging.paths() if not path.startswith(OF_DECIDERS)]
    # Listed while the lease was held: what another job stages later is not on the list.
    store.fence()
    staging.delete(staged)
    return True


# --- checks -------------------------------------------------------------------------------------------


def check_compatible(
    config: BackfillConfig, encoder: EncoderProfile, embedder: EmbedderProfile, store: "Store"
) -> None:
    """A store has one embedder; another encoder needs an explicit word."""
    last = store.run()
    if last is None:
        return
    if last.embedder != embedder.fingerprint:
        raise JobError(
            f"--embedder {config.embedder} ({embedder.fingerprint}): the store's vectors are of embedder "
            f"{last.embedder}, and a store never mixes two; use that embedder, or another --store"
        )
    if last.encoder != encoder.fingerprint and config.on_encoder_change == "fail":
        raise JobError(
            f"--profile {config.profile} ({encoder.fingerprint}): the store was written by encoder "
            f"{last.encoder}; pass --on-encoder-change keep (encode only what is new) or reencode "
            "(encode everything again)"
        )


def check_plan(config: BackfillConfig, plan: Plan, this: Run) -> None:
    """Before anything is paid: too many bad rows, or more tokens than allowed."""
    if plan.num_rows == 0:
        say(f"[cut] {config.archive}: the archive is empty, no file of it has a session")
    num_bad = len(plan.rejections) + plan.known_rejections
    check_rejected(config, this, "sessions", num_bad, plan.num_rows, plan.rejections)
    if config.max_input_tokens and plan.num_tokens > config.max_input_tokens:
        raise JobError(
            f"max_input_tokens={config.max_input_tokens}: {plan.num_pending} segments with {plan.num_tokens} "
            "tokens are to be encoded; raise the cap, or take fewer with --limit-sessions"
        )


def check_rejected(
    config: BackfillConfig,
    this: Run,
    what: str,
    num_rejected: int,
    num_all: int,
    rows: list[dict] | None = None,
) -> None:
    """Fail when more than the allowed share is rejected; the rejections are kept where the message says."""
    from cluster.store.files import Files

    if num_all == 0 or num_rejected / num_all <= config.max_rejected_fraction:
        return
    kept = "in the staged batches"
    if rows:
        runs = Files(config.store, "runs")
        runs.put_rows(f"{this.run_id}-rejections.parquet", rows, REJECTIONS_SCHEMA)
        kept = f"{config.store}/_slowwave/runs/{this.run_id}-rejections.parquet"
    first = dict.fromkeys(f"{row['reason']}: {row['detail']}" for row in rows or ())
    reasons = "".join(f"\n  {reason}" for reason in list(first)[:NUM_REASONS])
    raise JobError(
        f"max_rejected_fraction={config.max_rejected_fraction}: {num_rejected} of {num_all} {what} "
        f"were rejected (kept {kept}); nothing was published. Mend the input, or raise the limit: "
        f"what was encoded is not paid again{reasons}"
    )


if __name__ == "__main__":
    main(BackfillConfig, run, __doc__)
