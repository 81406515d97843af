"""Archive -> staged batches of segments, without unchanged sessions and segments already paid for."""

from typing import TYPE_CHECKING

from cluster.runtime import Progress, Stage, run_stage
from jobs.backfill.config import BackfillConfig
from jobs.backfill.plan import Plan
from jobs.common.cli import say
from schemas.profiles.encoder import EncoderProfile
from schemas.stage_items import ArchiveFile, InspectedFile, UnitCut

if TYPE_CHECKING:
    from cluster.backfill.watermark import Watermark
    from cluster.forget.forgotten import Forgotten
    from cluster.store.store import Store


def read_watermark(config: BackfillConfig, encoder: EncoderProfile, forgotten: "Forgotten") -> "Watermark":
    """What earlier nights, which cut the archive in the same way, have noted of its sessions."""
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
    """Row groups and session keys of every file: read from it, or from the watermark if it is unchanged."""
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
    """Sessions -> segments that are not paid for yet, staged as batches. A session is not read if the
    watermark knows its segments and the store has all of them."""
    from cluster.backfill.archive import plan_units
    from cluster.backfill.cut_stage import cut_unit
    from cluster.backfill.ledger import COLUMNS, Ledger
    from cluster.backfill.redact import compiled
    from cluster.backfill.staged import join_batches
    from cluster.backfill.table_rows import rejection_row
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
        # `created_at` of records then follows the order of the archive.
        in_order=True,
    )
    for unit, result in zip(left, results, strict=True):
        plan.add(result, staging)
        cuts[unit.path, unit.row_group] = result.rows
    if plan.unknown_times:
        shown = "; ".join(plan.unknown_times)
        say(f"[cut] times of the archive that count as unknown: {plan.num_unknown_times:,}, such as {shown}")
    plan.batches = join_batches(plan.batches, config.encoder_pool.batch_size)
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
    """Save the watermark for the next night."""
    now = watermark.with_cuts(found, cuts)
    if now.files == watermark.files:
        return
    # A file that was rewritten during the cut is left out: which content was read is unknown.
    paths = {path for path, _ in cuts} | {file.path for file in found if not file.is_known}
    read = [ArchiveFile(path, now.files[path].identity) for path in sorted(paths & now.files.keys())]
    again = inspect_files(config, read, forgotten)
    kept = now.without(file.path for file in again if not file.is_known)
    # A dry run may try another encoder, so it leaves the notes of the store's own encoder.
    kept.save(config.store, is_only=not config.dry_run)
