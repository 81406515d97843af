"""What every job that writes a store shares: a run's identity, counts and manifest; profiles by name.

A run's manifest is `_slowwave/runs/RUN.json` in the store: the summary, the whole config, the resolved
profiles, the versions of the packages. It is there from the beginning, with the status `running`, and says at
the end how the run ended: done, unchanged, dry_run, failed, interrupted.
"""

import atexit
import contextlib
import datetime as dt
import functools
import json
import os
import time
import tomllib
import uuid
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from pydantic import BaseModel, Field, SecretStr, model_validator

from cluster.profiles import SHIPPED
from cluster.runtime import ClusterConfig, ClusterError, hide_secrets, is_local
from cluster.runtime import connect as connect_cluster
from jobs.common.cli import HeldError, JobConfig, JobError, UsageError, say
from jobs.common.ending import watcher
from jobs.common.manifest import put_run, versions_of
from jobs.common.metrics import metrics
from schemas.manifest import RunManifest, RunStatus
from schemas.profiles.embedder import EmbedderProfile
from schemas.profiles.model import ModelProfile
from schemas.training import PROFILE_FILE

if TYPE_CHECKING:
    from cluster.embed.questions import QuestionEmbedder
    from cluster.models.reranker import Reranker
    from cluster.store.runs import FinishedRun
    from cluster.store.store import Store

CONFIGS = Path(__file__).parents[1] / "configs"

Profile = TypeVar("Profile", bound=BaseModel)
Config = TypeVar("Config", bound=JobConfig)

PACKAGES = ("ray", "lancedb", "pyarrow", "transformers")


class StoreConfig(JobConfig):
    """Base of the config of a job on a store."""

    store: str
    """Folder or object-store URI of the store."""


class WriterConfig(StoreConfig):
    """Base of the config of a job that writes a store."""

    lease_wait: float = Field(0, ge=0)
    """Seconds to wait while another job writes the store, with a line every 30 s. Then, or with 0 at once,
    the job ends with exit code 3."""


class StagesConfig(JobConfig):
    """Base of the config of a job that runs stages."""

    local: bool = False
    """Run the stages in this process, one item after the other, without Ray: quicker for small work. The same
    as `local = true` in [cluster]."""
    cluster: ClusterConfig = ClusterConfig()

    @model_validator(mode="after")
    def _check_local(self) -> Self:
        if self.local:
            self.cluster.check_local()
        return self

    @property
    def runs_on(self) -> ClusterConfig:
        """`cluster`, with the option, and with [storage] for its workers too."""
        storage = {name: SecretStr(value) for name, value in self.storage.environment().items()}
        changes = {"local": self.local or self.cluster.local, "env_vars": storage | self.cluster.env_vars}
        return self.cluster.model_copy(update=changes)


def connect(cluster: ClusterConfig) -> None:
    """Connect to the cluster, or to none where it is `local`. JobError when it does not start."""
    if cluster.local and watcher.is_a_process:
        # The last thing of all: native libraries list there what they have left.
        atexit.register(lambda: os.dup2(os.open(os.devnull, os.O_WRONLY), 2))
    try:
        connect_cluster(cluster)
    except ClusterError as error:
        raise JobError(str(error)) from error


def check_engine(profile: ModelProfile) -> None:
    """JobError where the stages run in this process and the profile's engine is not installed here."""
    if is_local() and getattr(profile, "engine", "vllm") == "vllm" and not find_spec("vllm"):
        raise JobError(
            f"profile {profile.name!r}: its engine is vLLM, which is not installed here; install it (make "
            "setup), or leave --local out where workers have it. An encoder can also be run by transformers: "
            "copy its profile to a TOML file, set engine = 'transformers' in it, leave min_confidence out, "
            "and pass the file with --profile. That is another encoder, with a fingerprint of its own: its "
            "answers may differ"
        )


class Run:
    """One run of a job on a store, or on another folder, as a context that ends its manifest.

        with Run(...) as this:
            ...
            return this.finish("done")

    A run that an exception ends has `failed`, one that Ctrl-C or SIGTERM ends `interrupted`.
    """

    def __init__(
        self,
        job: str,
        config: JobConfig,
        *,
        encoder: str,
        embedder: str,
        profiles: dict | None = None,
        writes: str = "store",
        home: str | None = None,
    ):
        """`encoder` and `embedder` are fingerprints; `profiles` goes into the manifest as it is. `writes` is
        the setting that names the folder which the run writes and which keeps its manifest; `home` is where
        that folder is while it is being written."""
        self.writes, self._home = writes, home
        self.job, self.config, self.profiles = job, config, profiles or {}
        self.encoder, self.embedder = encoder, embedder
        self.started_at, self.started_s = dt.datetime.now(dt.UTC), time.monotonic()
        self.run_id = f"{self.started_at:%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:6]}"
        self.stages: dict[str, dict] = {}
        self.counts: dict[str, Any] = {}
        """What the summary says beside: numbers, and names of runs and models."""
        self._is_finished = False
        self._was_missing = "://" not in self.home and not Path(self.home).exists()

    def __enter__(self) -> "Run":
        try:
            self._open()
        except KeyboardInterrupt as error:
            # The context has not begun: nobody else would end the manifest.
            self.__exit__(type(error), error, None)
            raise
        return self

    def _open(self) -> None:
        try:
            self._put(self._manifest(RunStatus.RUNNING))
        except OSError as error:
            option = f"--{self.writes} {self.home}"
            raise UsageError(f"{option}: {error.strerror}; name a folder to write to") from None
        watcher.opened(absolute(self.home), self.run_id)

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        if isinstance(error, UsageError) and self._was_missing:
            # Wrong usage is found before any work, and makes no folder.
            self._unmake_home()
        if not self._is_finished:
            is_told = isinstance(error, KeyboardInterrupt)
            try:
                self._end(RunStatus.INTERRUPTED if is_told else RunStatus.FAILED, error)
            except Exception as problem:
                # What ended the run matters more than that its manifest could not say so.
                say(f"[{self.job}] the manifest of run {self.run_id} could not be written: {problem}")

    def _unmake_home(self) -> None:
        """Take back the manifest and the folders that it made; what holds anything else stays."""
        from cluster.store.files import Files

        Files(self.home, "runs").delete([f"{self.run_id}.json"])
        home = Path(self.home)
        for folder in sorted((path for path in home.rglob("*") if path.is_dir()), reverse=True):
            with contextlib.suppress(OSError):
                folder.rmdir()
        with contextlib.suppress(OSError):
            home.rmdir()
        self._is_finished = True
        watcher.closed(self.run_id)

    @property
    def home(self) -> str:
        """The folder that the run writes."""
        return self._home or str(getattr(self.config, self.writes))

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage. Other facts about it may be added to `stages[name]` later."""
        started_s = time.monotonic()
        yield
        self.stages[name] = {"seconds": round(time.monotonic() - started_s, 2)}
        self._put(self._manifest(RunStatus.RUNNING))
        say(f"[{name}] {self.stages[name]['seconds']} s")

    def row(self, embedder_profile: str) -> dict:
        """A row of RUNS_SCHEMA, but for what only the commit knows."""
        return {
            "run_id": self.run_id,
            "job": self.job,
            "started_at": self.started_at.isoformat(),
            "encoder": self.encoder,
            "embedder": self.embedder,
            "embedder_profile": embedder_profile,
            "config": hide_secrets(self.config.model_dump_json()),
            "summary": hide_secrets(json.dumps(self.counts)),
        }

    def finish(self, status: str, printed: dict[str, Any] | None = None) -> dict:
        """The summary; also ends the run's manifest. `printed` is what the job says instead of it."""
        manifest = self._end(RunStatus(status), printed=printed)
        return {
            "run_id": self.run_id,
            "status": status,
            **self.counts,
            "seconds": manifest.seconds,
            "stages": self.stages,
            **self._place,
        }

    @property
    def _place(self) -> dict[str, Any]:
        return {self.writes: getattr(self.config, self.writes)}

    def _manifest(self, status: RunStatus) -> RunManifest:
        summary = self.counts | self._place
        return RunManifest.with_keys(
            summary | self.profiles,
            run_id=self.run_id,
            job=self.job,
            status=status,
            started_at=self.started_at,
            seconds=round(time.monotonic() - self.started_s, 2),
            stages=self.stages,
            config=self.config.model_dump(mode="json"),
            profiles=self.profiles,
            packages=versions_of(PACKAGES),
            summary=summary,
        )

    def _end(
        self, status: RunStatus, error: BaseException | None = None, printed: dict[str, Any] | None = None
    ) -> RunManifest:
        # An unexpected error may quote what somebody said, and a manifest is kept: its kind must do.
        told = str(error).partition("\n")[0] if isinstance(error, JobError) else type(error).__name__
        fields: dict[str, Any] = {"error": told} if error else {}
        if printed is not None:
            fields["summary"] = {name: value for name, value in printed.items() if name != "status"}
        manifest = self._manifest(status).ended(status, **fields)
        metrics.ended(manifest)
        self._put(manifest)
        self._is_finished = True
        watcher.closed(self.run_id)
        return manifest

    def _put(self, manifest: RunManifest) -> None:
        from cluster.store.files import Files

        put_run(Files(self.home, "runs"), manifest)


def recorded(job: str, writes: str) -> Callable[[Callable[[Config], dict]], Callable[[Config], dict]]:
    """Decorates the `run` of a job that writes another folder than a store: it leaves its manifest there."""

    def decorate(run: Callable[[Config], dict]) -> Callable[[Config], dict]:
        @functools.wraps(run)
        def with_manifest(config: Config) -> dict:
            with Run(job, config, encoder="", embedder="", writes=writes) as this:
                summary = run(config)
                this.finish(summary.get("status", "done"), summary)
            return summary

        return with_manifest

    return decorate


@contextlib.contextmanager
def writing(uri: str, job: str, *, must_exist: bool = True, wait_s: float = 0) -> "Iterator[Store]":
    """A store, for a job that writes it, under its lease and with nothing left half done.

    What the store, the lease or a model finds wrong is raised as JobError; HeldError where another job still
    writes the store after `wait_s` seconds.
    """
    from cluster.forget.erase import OPERATIONS
    from cluster.models.sources import ModelError
    from cluster.store.errors import StoreError
    from cluster.store.lease import Lease, LeaseHeld, LeaseLost
    from cluster.store.store import Store

    try:
        store = Store(absolute(uri), must_exist=must_exist)
        with Lease(store.uri, job, wait_s=wait_s) as lease:
            store.lease = lease
            if finished := store.recover(OPERATIONS):
                say(f"[{job}] finished run {finished}, which had been interrupted")
            yield store
    except LeaseHeld as error:
        raise HeldError(str(error)) from error
    except (ModelError, StoreError, LeaseLost) as error:
        raise JobError(str(error)) from error


def load_profile(folder: str, name: str, kind: type[Profile]) -> Profile:
    """A profile by name (cluster/profiles/FOLDER/NAME.toml), by the path of a TOML file, or by the folder
    of an adapter that jobs.train made."""
    path = Path(name) if name.endswith(".toml") else SHIPPED / folder / f"{name}.toml"
    try:
        if (beside := Path(name) / PROFILE_FILE).is_file():
            path = beside
            return kind.model_validate(json.loads(path.read_text()) | {"adapter": absolute(name)})
        return kind.model_validate(tomllib.loads(path.read_text()))
    except FileNotFoundError:
        known = sorted(found.stem for found in (SHIPPED / folder).glob("*.toml"))
        raise UsageError(f"{folder[:-1]} {name!r}: no such file {path}; known names: {known}") from None
    except (tomllib.TOMLDecodeError, ValueError) as error:
        raise UsageError(f"{path}: {error}") from None


def question_embedder(store: "Store", view: "FinishedRun", name: str | None = None) -> "QuestionEmbedder":
    """What embeds questions about the view of a run: the embedder that wrote it, loaded.

    `name`, a value of --embedder, is a profile to load that embedder from. JobError if it is another
    embedder.
    """
    from cluster.embed.questions import QuestionEmbedder, embedder_of
    from cluster.models.sources import ModelError

    try:
        return QuestionEmbedder(embedder_of(view.row, named_embedder(name)), store, view.run_id)
    except ModelError as error:
        raise JobError(str(error)) from error


def named_embedder(name: str | None) -> EmbedderProfile | None:
    """The profile of an option --embedder; None where it is not given."""
    return load_profile("embedders", name, EmbedderProfile) if name else None


def reranker_of(model: str | None) -> "Reranker | None":
    """The reranker of an option; None where none is named."""
    from cluster.models.reranker import Reranker

    return Reranker(absolute(model) if Path(model).is_dir() else model) if model else None


def absolute(path: str) -> str:
    """A local path as every worker must see it; a URI stays."""
    return path if "://" in path else str(Path(path).absolute())
