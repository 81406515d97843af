"""The flow of a consolidation, for jobs.consolidate and for jobs.backfill --consolidate.

New memories are compared with older ones of the same user, a decider says what becomes of the older ones, and
all changes are committed at once as revisions, tombstones and decisions.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from cluster.runtime import Progress, Stage, run_stage
from jobs.common.choice import choose_decider
from jobs.common.cli import JobError, UsageError, say
from jobs.common.endpoints import paying, workers
from jobs.common.rejected import too_many
from jobs.common.run import Run, check_engine, connect
from jobs.common.update_config import UpdateConfig, UpdateSettings
from schemas.profiles.decider import DeciderProfile
from schemas.profiles.embedder import EmbedderProfile
from schemas.stage_items import DecidedGroup, PlannedGroup, UserGroup

if TYPE_CHECKING:
    from cluster.consolidate.plan import PlanSettings
    from cluster.store.files import Files
    from cluster.store.runs import FinishedRun
    from cluster.store.store import Store

GROUP_MEMORIES = 50_000
"""Memories of the users that one task compares: about 100 MB of vectors with 384 dimensions. One user is
never divided."""

FEEDING_JOBS = ("backfill", "restore", "import", "edit")
"""Jobs whose memories are new to a consolidation. Those of a rollback are not: deciding them again would undo
the rollback."""


def consolidate(config: UpdateConfig, store: "Store") -> dict:
    """store -> groups of users -> candidate pairs -> decisions -> revisions -> one commit. Safe to repeat."""
    from cluster.store.files import Files

    embedder = store.view().profile
    kind, profile = choose_decider(config, store)
    config = config.model_copy(update={"decider": kind})
    if not config.dry_run:
        restore(config, store, embedder)
    with new_run("consolidate", config, store, profile) as this:
        connect(config.runs_on)
        if profile and not config.dry_run:
            check_engine(profile)
        files = Files(config.store, f"staging/consolidate/{this.run_id}")
        # What a killed run had planned is of no use; the answers that it paid for lie elsewhere.
        old = Files(config.store, "staging/consolidate")
        old.delete(old.paths())
        with this.stage("plan"):
            groups, settings = plan(config, this, store, profile, files)
        this.counts |= {"decider": settings.decider, "num_retried": len(settings.again)} | plan_counts(groups)
        say(
            "[plan] {num_new} new memories, {num_repeats} repeats, {num_targets} memories to decide about; "
            "expected: {expected_calls} calls, {expected_tokens} tokens".format(**this.counts)
        )
        check_caps(config, this)
        if config.dry_run:
            files.delete(files.paths())
            return this.finish("dry_run")
        with this.stage("decide"), paying(this, profile, config.store, "decider"):
            done = decide(config, profile, settings, groups, files)
        this.counts |= decide_counts(done)
        if any(group.is_stopped or group.failure for group in done):
            files.delete(files.paths())
            return stop(config, this, done)
        with this.stage("embed"):
            embed(config, embedder, done, files)
        with this.stage("publish"):
            store.fence()
            changed = publish(this, embedder, done, store)
        # Not sooner: a commit that dies half way is finished from these files.
        files.delete(files.paths())
        if num_failed := this.counts["num_failed"]:
            say(
                f"{num_failed} of {this.counts['num_decisions']} decisions failed (table `decisions`, "
                "outcome `failed`, with the reason); the next run asks for them again"
            )
            limit, num_all = config.max_failed_fraction, this.counts["num_decisions"]
            if told := too_many("max_failed_fraction", limit, num_failed, num_all, "decisions failed"):
                say(told)
                return this.finish("failed")
        return this.finish("done" if changed else "unchanged")


def new_run(job: str, config: UpdateConfig, store: "Store", profile: DeciderProfile | None = None) -> Run:
    """A run that leaves encoder and embedder of the store as they are."""
    last = store.view()
    profiles = {"decider": profile.model_dump(mode="json") if profile else config.decider}
    return Run(job, config, encoder=last.encoder, embedder=last.embedder, profiles=profiles)


# --- the steps ----------------------------------------------------------------------------------------


def restore(config: UpdateConfig, store: "Store", embedder: EmbedderProfile) -> None:
    """Reopen, in a run of its own, memories whose superseding memory no longer exists."""
    from cluster.consolidate.grounds import restorable
    from cluster.store.files import Files

    this = new_run("restore", config, store)
    unseen = unseen_runs(config, store, lambda run: run.job in ("consolidate", "restore"))
    gone_by = None if unseen is None else frozenset(run.run_id for run in unseen)
    rows = restorable(store, this.run_id, this.started_at, gone_by)
    if rows is None:
        return
    # Begun only here: most nights have nothing to bring back, and need no run that says so.
    with this:
        this.counts["num_restored"] = sum(rows.column("active").to_pylist())
        staging = Files(config.store, "staging")
        staging.put_table(path := f"consolidate/{this.run_id}.parquet", rows)
        store.fence()
        store.commit(this.row(embedder.model_dump_json()), replaces={"records": [path]})
        staging.delete([path])
        this.finish("done")
        say(f"[restore] {this.counts['num_restored']} memories, because what had replaced them is gone")


def plan(
    config: UpdateConfig, this: Run, store: "Store", profile: DeciderProfile | None, files: "Files"
) -> "tuple[list[PlannedGroup], PlanSettings]":
    """Users with new memories, in groups -> staged memories and pairs; the planned groups, the settings."""
    from cluster.consolidate.plan import PlanSettings, plan_group
    from cluster.consolidate.stages import plan_for_model
    from cluster.consolidate.verdicts import undone_runs
    from cluster.consolidate.without_model import FINGERPRINTS

    assert config.decider is not None, "consolidate has chosen one"
    fingerprint = profile.fingerprint if profile else FINGERPRINTS[config.decider]()
    new_runs, again = delta(config, store, fingerprint)
    settings = PlanSettings(
        uri=store.uri,
        as_of=store.view().run_id,
        run_id=this.run_id,
        started_at=this.started_at,
        new_runs=new_runs,
        again=frozenset(again),
        undone=undone_runs(store),
        decider=fingerprint,
        **config.model_dump(
            include={"min_similarity", "top_k", "max_sources", "min_confidence", "batch_size"}
        ),
    )
    groups = group_users(store, settings)
    if not groups:
        return [], settings
    arguments = {"settings": settings, "files": files}
    stage = (
        Stage(plan_for_model, arguments | {"profile": profile}) if profile else Stage(plan_group, arguments)
    )
    items = [UserGroup(f"{number:06}", tuple(users)) for number, users in enumerate(groups)]
    progress = Progress("plan", "groups of users", len(groups))
    return list(run_stage(items, stage, progress=progress, in_order=True)), settings


def delta(
    config: UpdateConfig, store: "Store", fingerprint: str
) -> tuple[tuple[str, ...] | None, dict[str, str]]:
    """Runs whose memories are new (None: all), and targets of failed decisions (record id -> user)."""
    failed = f"outcome = 'failed' AND decider = '{fingerprint}'"
    rows = store.rows("decisions", ["target_id", "user_id"], failed).to_pylist()
    again = {row["target_id"]: row["user_id"] for row in rows}
    unseen = unseen_runs(
        config,
        store,
        lambda run: run.job == "consolidate" and run.summary.get("decider") == fingerprint,
    )
    if unseen is None:
        return None, again
    # With --since, memories that a consolidation or a rollback wrote are compared too.
    return tuple(run.run_id for run in unseen if config.since or run.job in FEEDING_JOBS), again


def unseen_runs(
    config: UpdateConfig, store: "Store", has_compared: "Callable[[FinishedRun], bool]"
) -> "list[FinishedRun] | None":
    """Runs after the last one that `has_compared` memories, or after `since` if that is earlier; None:
    all."""
    if config.since == "all":
        return None
    runs = store.runs()
    ids = [run.run_id for run in runs]
    first = max((number + 1 for number, run in enumerate(runs) if has_compared(run)), default=0)
    if config.since is not None:
        if config.since not in ids:
            raise UsageError(f"--since {config.since}: no such run in {store.uri}; it has {ids}, or say all")
        first = min(first, ids.index(config.since) + 1)
    return runs[first:]


def group_users(store: "Store", settings: "PlanSettings") -> list[list[str]]:
    """Users with something new, in groups of about GROUP_MEMORIES memories."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    from cluster.consolidate.plan import is_new_mask

    if settings.new_runs == () and not settings.again:
        return []
    rows = store.rows("records", ["record_id", "user_id", "run_id"], "active", settings.as_of)
    touched = pc.unique(rows.column("user_id").filter(pa.array(is_new_mask(rows, settings))))
    counts = pc.value_counts(rows.column("user_id").filter(pc.is_in(rows.column("user_id"), touched)))
    users = sorted(zip(counts.field(0).to_pylist(), counts.field(1).to_pylist(), strict=True))
    number = np.cumsum([0, *(count for _, count in users)])[:-1] // GROUP_MEMORIES
    groups: dict[int, list[str]] = {}
    for (user_id, _), group in zip(users, number.tolist(), strict=True):
        groups.setdefault(group, []).append(user_id)
    return list(groups.values())


def decide(
    config: UpdateConfig,
    profile: DeciderProfile | None,
    settings: "PlanSettings",
    groups: list[PlannedGroup],
    files: "Files",
) -> list[DecidedGroup]:
    """Planned groups -> deciders -> staged decisions and revisions."""
    from cluster.consolidate.budget import budget_for_all
    from cluster.consolidate.stages import DecideStage, decide_group
    from cluster.consolidate.without_model import LOADED, WITHOUT_MODEL
    from cluster.store.files import Files

    pending = [group for group in groups if group.num_targets or group.num_repeats]
    if not pending:
        return []
    arguments = {"settings": settings, "files": files}
    if config.decider in LOADED or WITHOUT_MODEL.is_added(config.decider):
        # What another distribution's has to load, nobody knows: it is kept.
        arguments |= {"profile": None, "engine": {}, "kind": config.decider}
        stage = Stage(DecideStage, arguments, config.decider_pool, wants_gpu=config.decider in LOADED)
    elif profile is None:
        # Nothing to load: tasks run in workers that are up, where an actor would have to be started.
        stage = Stage(decide_group, arguments | {"kind": config.decider})
    else:
        paid = Files(config.store, "staging")
        pool, engine = workers(profile, config.decider_pool, paid, "decider", config.max_cost)
        budget = budget_for_all(config.max_calls, config.max_decider_tokens)
        arguments |= {"profile": profile, "engine": engine, "budget": budget}
        stage = Stage(DecideStage, arguments, pool, wants_gpu=True)
    done = run_stage(
        pending,
        stage,
        progress=Progress("decide", "targets", sum(group.num_targets for group in pending)),
        count=lambda group: group.num_targets,
        note=lambda group: f"{group.num_deleted + group.num_rewritten} changed",
        in_order=True,
    )
    return list(done)


def embed(config: UpdateConfig, embedder: EmbedderProfile, done: list[DecidedGroup], files: "Files") -> None:
    """Groups with rewritten texts -> embedders -> staged rows with their own vectors."""
    from cluster.consolidate.stages import EmbedRevisions

    if rewritten := [group for group in done if group.num_rewritten]:
        check_embedder(embedder)
        stage = Stage(EmbedRevisions, {"profile": embedder, "files": files}, config.embedder_pool)
        list(run_stage(rewritten, stage))


def check_embedder(profile: EmbedderProfile) -> None:
    """A rewritten text must not get a vector of another model than its neighbours have."""
    from cluster.models.resolve import resolve_embedder

    of_records = profile.model_copy(update={"turns": None})
    if resolve_embedder(of_records).model_hash != profile.model_hash:
        raise JobError(
            f"embedder {profile.name!r}: the model {profile.model} is no longer the one that wrote this "
            "store; restore that version of it, or change the store's vectors with jobs.reembed. Nothing was "
            "changed, and answers of a model are kept"
        )


def staged_rows(run_id: str, done: list[DecidedGroup]) -> dict[str, list[str]]:
    """Table -> paths of what the deciders have staged for it."""
    return {
        table: [
            f"consolidate/{run_id}/{group.group_id}/{table}.parquet"
            for group in done
            if getattr(group, f"num_rows_{table}")
        ]
        for table in ("decisions", "records")
    }


def publish(this: Run, embedder: EmbedderProfile, done: list[DecidedGroup], store: "Store") -> bool:
    """Commit decisions and revisions as one run; False when there is nothing to commit."""
    from cluster.consolidate.verdicts import verdicts_path
    from cluster.store.files import Files

    assert isinstance(this.config, UpdateConfig)
    staging = Files(this.config.store, "staging")
    replaces = staged_rows(this.run_id, done)
    if any(replaces.values()) or (this.counts["num_new"] and this.config.since is None):
        # A run without changes is committed too: it says what has been compared.
        store.commit(this.row(embedder.model_dump_json()), replaces=replaces)
        paid = (verdicts_path(this.counts["decider"]), "answers/decider", "asked/decider")
        staging.delete(path for folder in paid for path in staging.paths(folder))
        return True
    return False


# --- checks and counts --------------------------------------------------------------------------------


def plan_counts(groups: list[PlannedGroup]) -> dict:
    """For the summary. Calls and tokens are what the first look expects: a rewritten source may add some."""
    names = (
        *("num_users", "num_memories", "num_new", "num_pairs", "num_repeats", "num_targets"),
        # None where no model decides: rules cost nothing.
        *("expected_calls", "expected_tokens"),
    )
    return {name: sum(getattr(group, name) for group in groups) for name in names}


def decide_counts(done: list[DecidedGroup]) -> dict:
    """Sums over the groups, for the summary."""
    names = [
        *("num_decisions", "num_decisions_known", "num_united", "num_deleted", "num_rewritten"),
        *("num_refused", "num_failed", "num_calls", "spent_tokens"),
        *("prompt_tokens", "cached_tokens", "output_tokens"),
    ]
    return {name: sum(getattr(group, name) for group in done) for name in names} | {
        "num_layers": max((group.num_layers for group in done), default=0)
    }


def check_caps(config: UpdateSettings, this: Run) -> None:
    """Before anything is paid."""
    for cap, count, what in (
        ("max_calls", "expected_calls", "calls"),
        ("max_decider_tokens", "expected_tokens", "tokens"),
    ):
        limit = getattr(config, cap)
        if limit is not None and this.counts[count] > limit and not getattr(config, "dry_run", False):
            raise JobError(
                f"{cap}={limit}: about {this.counts[count]} {what} are needed; raise the cap, take less with "
                "--since, or raise --min-similarity. Nothing was asked and nothing was changed"
            )


def stop(config: UpdateSettings, this: Run, done: list[DecidedGroup]) -> dict:
    """No more can be decided: the summary where the cap on costs is reached; JobError where another one is,
    or where the model cannot be asked."""
    if failure := next((group.failure for group in done if group.failure), ""):
        raise JobError(f"decide: {failure}. Nothing was changed, and what was answered is kept")
    if cap := next((group.cap for group in done if group.cap), ""):
        say(
            f"[decide] max_cost={config.max_cost}: reached, with questions left ({cap}). Nothing was "
            "changed, and what was answered is kept: run the same command with a higher cap to go on"
        )
        return this.finish("stopped")
    caps = ", ".join(f"{cap}={getattr(config, cap)}" for cap in ("max_calls", "max_decider_tokens"))
    raise JobError(
        f"{caps}: reached after {this.counts['num_calls']} calls and {this.counts['spent_tokens']} tokens, "
        "with questions left. Nothing was changed and the answers are kept: run the same command again to go "
        "on from them, or raise the cap"
    )
