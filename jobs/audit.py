"""Audit: finds junk memories in a store, whoever wrote them; with --apply closes them in one run.

    python -m jobs.audit --store URI                              # counts by kind, with samples
    python -m jobs.audit --store URI --output DIR                 # and one finding a line in audit.jsonl
    python -m jobs.audit --store URI --kinds echo fragment --apply    # closes what was found of these kinds
    python -m jobs.rollback --store URI --to RUN                  # undoes that: RUN is the run before

Looks among the active memories of each user for echoes of prompts, statements of the moment, fragments, facts
about other people, relative dates with an unknown day, near-duplicates, and contradictions of which both
sides are still active. Without `--apply` it takes no lease and changes nothing. Needs no Ray.
"""

import contextlib
import datetime as dt
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from cluster.runtime.shown import one_line
from jobs.common.choice import DeciderWithoutModel, check_decider
from jobs.common.cli import JobError, LocalFolder, UsageError, main, say, show
from jobs.common.consolidation import group_users
from jobs.common.run import Run, WriterConfig, absolute, writing
from jobs.common.update_config import UpdateSettings
from schemas.audit import AUDIT, KINDS, Finding, Kind

if TYPE_CHECKING:
    from cluster.consolidate.plan import PlanSettings
    from cluster.store.store import Store

FINDINGS = "audit.jsonl"

NUM_SAMPLES = 3
"""Findings of each kind that are shown."""

MAX_SHOWN_CHARS = 100

STAGED = "audit"
"""Folder of the staged files."""


class AuditConfig(WriterConfig):
    """Settings of an audit."""

    output: LocalFolder | None = None
    """Folder for `audit.jsonl`. It contains texts of memories: keep it as carefully as the store."""
    kinds: tuple[Kind, ...] = KINDS
    """What to look for: echo, transient, fragment, other_person, undated, duplicate, contradiction."""
    user_id: tuple[str, ...] = ()
    """Only the memories of these users. Not given: of all."""
    decider: DeciderWithoutModel | None = None
    """The decider that says whether a newer memory contradicts an older one. Not given: that of the store's
    last consolidation; rules if there was none or a language model decided."""
    apply: bool = False
    """Close what was found, in one run."""


def run(config: AuditConfig) -> dict:
    """Audit and return the summary. Safe to repeat."""
    from cluster.models.sources import ModelError
    from cluster.store.errors import StoreError
    from cluster.store.store import Store

    config = config.model_copy(update={"store": absolute(config.store)})
    if config.apply:
        with writing(config.store, "jobs.audit", wait_s=config.lease_wait) as store:
            return close(config, store)
    try:
        store = Store(config.store).snapshot()
        report = look(config, store, "audit", dt.datetime.now(dt.UTC), lambda *_: None)
    except (StoreError, ModelError) as error:
        raise JobError(str(error)) from error
    report.tell()
    return {"status": "done", "store": config.store, **report.counts()}


def close(config: AuditConfig, store: "Store") -> dict:
    """Look, and close what was found as one run."""
    from cluster.audit.closing import closing, closing_rows
    from cluster.store.files import Files

    last, staging = store.view(), Files(store.uri, "staging")
    replaces: dict[str, list[str]] = defaultdict(list)
    with Run("audit", config, encoder=last.encoder, embedder=last.embedder) as this:
        staging.delete(staging.paths(STAGED))
        num_closed = 0

        def stage(findings: list[Finding], settings: "PlanSettings") -> None:
            nonlocal num_closed
            if not (closed := closing(findings)):
                return
            for table, rows in closing_rows(store, closed, settings).items():
                staging.put_table(path := f"{STAGED}/{len(replaces[table]):06}-{table}.parquet", rows)
                replaces[table].append(path)
            num_closed += len(closed)

        with this.stage("look"):
            report = look(config, store, this.run_id, this.started_at, stage)
        report.tell()
        this.counts = report.counts() | {"num_closed": num_closed}
        if not replaces:
            return this.finish("unchanged")
        store.fence()
        with this.stage("publish"):
            store.commit(this.row(last.embedder_profile), replaces=dict(replaces))
        staging.delete(staging.paths(STAGED))
        say(f"[audit] undo with: python -m jobs.rollback --store {config.store} --to {last.run_id}")
        return this.finish("done")


@dataclass
class Report:
    """What was found so far: counts, and the first few of each kind."""

    kinds: tuple[Kind, ...]
    decider: str
    num_users: int = 0
    num_memories: int = 0
    found: Counter[str] = field(default_factory=Counter)
    junk: int = 0
    """Memories with a finding of any kind."""
    samples: dict[str, list[Finding]] = field(default_factory=dict)

    def add(self, findings: list[Finding]) -> None:
        self.junk += len({one.record_id for one in findings})
        for one in findings:
            self.found[one.kind] += 1
            samples = self.samples.setdefault(one.kind, [])
            if len(samples) < NUM_SAMPLES:
                samples.append(one)

    def counts(self) -> dict:
        """For the summary."""
        return {
            "decider": self.decider,
            "num_users": self.num_users,
            "num_memories": self.num_memories,
            "num_junk": self.junk,
            "found": {kind: self.found[kind] for kind in self.kinds},
        }

    def tell(self) -> None:
        """For a person: counts by kind, with samples."""
        show(f"{self.junk} of {self.num_memories} active memories of {self.num_users} users have a finding")
        for kind in self.kinds:
            show(f"{kind}: {self.found[kind]}")
            for one in self.samples.get(kind, ()):
                show(f"  {one_line(short(one.text))}  [{one.record_id[:8]}] {one.reason}")
                for other in one.evidence[:1]:
                    show(f"    {place_of(other)}: {one_line(short(other['text']))}")


def short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= MAX_SHOWN_CHARS else text[: MAX_SHOWN_CHARS - 3] + "..."


def place_of(evidence: dict) -> str:
    """Where a piece of evidence stands."""
    if "record_id" in evidence:
        return evidence["record_id"][:8]
    return f"{evidence['session_id']}#{evidence['turn_index']}"


def look(
    config: AuditConfig,
    store: "Store",
    run_id: str,
    started_at: dt.datetime,
    take: "Callable[[list[Finding], PlanSettings], None]",
) -> Report:
    """Audit the users group by group; `take` gets the findings of each, which are not kept."""
    from cluster.audit.search import audit, deciding

    last = store.view()
    kind = decider_of(config, store)
    settings = settings_of(store.uri, last.run_id, run_id, started_at)
    decide = deciding(kind, settings.min_confidence)
    report = Report(config.kinds, kind)
    kinds = [one for one in KINDS if one in config.kinds]
    with findings_file(config.output) as file:
        for users in group_users(store, settings):
            users = [user for user in users if not config.user_id or user in config.user_id]
            if not users:
                continue
            findings, num_memories = audit(store, users, settings, kinds, decide)
            report.num_users += len(users)
            report.num_memories += num_memories
            report.add(findings)
            if file:
                file.writelines(json.dumps(one.line(), ensure_ascii=False) + "\n" for one in findings)
            take(findings, settings)
            say(f"[audit] {report.num_memories} memories, {report.junk} with a finding")
    return report


def settings_of(uri: str, as_of: str, run_id: str, started_at: dt.datetime) -> "PlanSettings":
    """A consolidation's settings that compare all memories with all, and otherwise its defaults."""
    from cluster.consolidate.plan import PlanSettings

    names = {"min_similarity", "top_k", "max_sources", "min_confidence", "batch_size"}
    plain: dict[str, Any] = UpdateSettings().model_dump(include=names)
    return PlanSettings(
        uri=uri,
        as_of=as_of,
        run_id=run_id,
        started_at=started_at,
        new_runs=None,
        again=frozenset(),
        undone=(),
        decider=AUDIT,
        **plain,
    )


def decider_of(config: AuditConfig, store: "Store") -> str:
    """Which decider is asked about contradictions."""
    kind: str | None = config.decider
    if kind is None:
        runs = [run for run in store.runs() if run.job == "consolidate"]
        kind = runs[-1].config.get("decider") if runs else None
        kind = "rules" if kind in (None, "model") else kind
    if "contradiction" in config.kinds:
        check_decider(kind)
    return kind


@contextlib.contextmanager
def findings_file(output: str | None) -> Iterator[TextIO | None]:
    """`audit.jsonl` in the output folder, open for writing; None without a folder."""
    if output is None:
        yield None
        return
    try:
        Path(output).mkdir(parents=True, exist_ok=True)
        file = open(Path(output) / FINDINGS, "w", encoding="utf-8")  # noqa: SIM115 - closed below
    except OSError as error:
        raise UsageError(f"--output {output}: {error.strerror}; name a folder to write to") from None
    with file:
        yield file


if __name__ == "__main__":
    main(AuditConfig, run, __doc__)
