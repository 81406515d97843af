"""Which encoder, embedder and decider a run uses: those that its options name; else those that wrote the
store, so that a release with other defaults changes no store by itself; else the defaults, for a new store.
"""

import importlib.metadata
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar

from cluster.profiles import SHIPPED
from cluster.runtime.entry_points import DECIDERS, names
from jobs.common.cli import JobError, UsageError, say
from jobs.common.endpoints import at_endpoint
from jobs.common.manifest import get_run
from jobs.common.run import Profile, load_profile
from schemas.endpoint import EndpointConfig
from schemas.profiles.decider import DeciderProfile
from schemas.profiles.embedder import EmbedderProfile
from schemas.profiles.encoder import EncoderProfile
from schemas.profiles.model import ModelProfile

if TYPE_CHECKING:
    from cluster.store.runs import FinishedRun
    from cluster.store.store import Store

Read = TypeVar("Read")

DEFAULT = "default"
"""Name of the profile of each kind that a new store gets."""

WITHOUT_PACKAGE = "minilm"
"""The embedder that a new store gets where the default's package is not installed: it is not made for every
machine."""

WITHOUT_MODEL = ("rules", "pairs", "crosspairs", *names(DECIDERS))
"""Names of the deciders that have no profile, those of other distributions included."""

if TYPE_CHECKING:
    DeciderWithoutModel = str
else:
    DeciderWithoutModel = Literal[WITHOUT_MODEL]

DEFAULT_DECIDER = "crosspairs"

WITHOUT_READER = "pairs"
"""The decider of a first consolidation where the package that `crosspairs` reads with is not installed."""

NO_ENDPOINT = EndpointConfig()


class DeciderSettings(Protocol):
    """What a config says of the decider, see jobs.common.update_config."""

    @property
    def decider(self) -> str | None: ...

    @property
    def decider_profile(self) -> str | None: ...

    @property
    def endpoint(self) -> EndpointConfig: ...

    @property
    def max_cost(self) -> float | None: ...


def choose_encoder(
    name: str | None,
    store: "Store | None",
    endpoint: EndpointConfig = NO_ENDPOINT,
    max_cost: float | None = None,
) -> EncoderProfile:
    """The encoder, resolved; without a store, a new one's. JobError when the one that wrote the store can
    no longer be had."""
    from cluster.models.resolve import hashed_encoder, resolve_encoder

    last = store.run() if store else None
    if name or store is None or last is None:
        profile = load_profile("encoders", name or DEFAULT, EncoderProfile)
        return resolve_encoder(at_endpoint(profile, endpoint, max_cost))
    runs = [run for run in store.runs() if run.encoder == last.encoder]
    known = _candidates("encoders", EncoderProfile, store, runs, "encoder", "profile")
    if found := _first(known, last.encoder, hashed_encoder):
        _say_kept("encoder", found, "--profile")
        return resolve_encoder(at_endpoint(found, endpoint, max_cost))
    raise JobError(
        f"encoder {last.encoder}: it wrote this store, no --profile names another, and its profile or its "
        "models are not to be found as they were; restore them, or go on with another by --profile NAME "
        "--on-encoder-change keep (encode only what is new) or reencode (encode everything again)"
    )


def choose_embedder(name: str | None, store: "Store | None") -> EmbedderProfile:
    """The embedder, resolved; without a store, a new one's. JobError when the one that wrote the store can
    no longer be had."""
    from cluster.models.resolve import resolve_embedder

    last = store.run() if store else None
    if name or last is None:
        return resolve_embedder(load_profile("embedders", name or default_embedder(), EmbedderProfile))
    written = last.profile
    known = [*_shipped("embedders", EmbedderProfile), written]
    if found := _first(known, last.embedder, resolve_embedder):
        _say_kept("embedder", found, "--embedder")
        return resolve_embedder(found)
    raise JobError(
        f"embedder {written.name!r} ({last.embedder}): it wrote this store, no --embedder names another, "
        f"and {written.model}, or what is made of a turn, is no longer as it was; restore it, name a "
        "profile that has it with --embedder, or make the vectors anew with jobs.reembed"
    )


def embedder_of(name: str | None, store: "Store") -> EmbedderProfile:
    """`choose_embedder` for a job that adds vectors to those of a store. JobError for another embedder."""
    last, profile = store.run(), choose_embedder(name, store)
    if last and last.embedder != profile.fingerprint:
        raise JobError(
            f"--embedder {name} ({profile.fingerprint}): the store's vectors are of embedder "
            f"{last.embedder}; leave the option out, or change them with jobs.reembed"
        )
    return profile


def choose_decider(config: DeciderSettings, store: "Store") -> tuple[str, DeciderProfile | None]:
    """One of WITHOUT_MODEL and None, or `model` and its profile, resolved."""
    from cluster.models.resolve import resolve_decider

    runs = [run for run in store.runs() if run.job == "consolidate"]
    kind = config.decider
    if kind is None:
        before = runs[-1].config.get("decider") if runs else None
        kind = before or default_decider()
        if before:
            say(f"[decider] {kind}, as in the last consolidation of this store; --decider names another")
    if kind != "model":
        if config.endpoint.model_fields_set or config.max_cost is not None:
            raise UsageError(f"[endpoint], max_cost: decider {kind!r} asks no model; pass --decider model")
        if config.decider_profile is not None:
            raise UsageError(
                f"decider_profile={config.decider_profile!r}: decider {kind!r} asks no model; pass --decider "
                "model, or leave the profile out"
            )
        check_decider(kind)
        return kind, None
    asked = [run for run in runs if run.config.get("decider") == "model"]
    if config.decider_profile is None and asked:
        fingerprint = str(asked[-1].summary.get("decider"))
        known = _candidates("deciders", DeciderProfile, store, asked, "decider", "decider_profile")
        if found := _first(known, fingerprint, resolve_decider):
            _say_kept("decider", found, "--decider-profile")
            return kind, resolve_decider(at_endpoint(found, config.endpoint, config.max_cost))
        say(f"[decider] {fingerprint}, of the last consolidation by a model, is not to be found as it was")
    name = config.decider_profile or DEFAULT
    profile = load_profile("deciders", name, DeciderProfile)
    return kind, resolve_decider(at_endpoint(profile, config.endpoint, config.max_cost))


def check_there(kinds: Collection[str]) -> None:
    """EntryPointError, JobError or ModelError where one of these deciders, or what it loads, is not on this
    machine. Names of profiles are passed over."""
    for kind in kinds:
        check_added(kind)
    if "crosspairs" not in kinds:
        return
    from cluster.consolidate import crosspairs
    from cluster.models.sources import model_folder

    model_folder(crosspairs.BASE, None)
    if not (weights := crosspairs.SHIPPED / crosspairs.WEIGHTS_FILE).is_file():
        raise JobError(
            f"decider 'crosspairs': no such file {weights}; make it with python -m jobs.train.pairs "
            f"--decider crosspairs --output DIR, or name the decider {WITHOUT_READER!r}"
        )


def check_decider(kind: str) -> None:
    """EntryPointError, JobError or ModelError if this is not one of WITHOUT_MODEL, as one that decided a
    consolidation may no longer be, or cannot be had on this machine."""
    if kind not in WITHOUT_MODEL:
        raise JobError(
            f"decider {kind!r}: no installed distribution adds it; install the one that did, or name another "
            "with --decider"
        )
    check_there([kind])


def check_added(kind: str) -> None:
    """EntryPointError where another distribution adds this decider, and not as it must."""
    from cluster.consolidate import without_model

    without_model.WITHOUT_MODEL.check(kind)
    without_model.WITHOUT_MODEL.get(kind)


def default_decider() -> str:
    """Name of the decider of a store's first consolidation on this machine."""
    from cluster.models.sources import ModelError

    try:
        check_there([DEFAULT_DECIDER])
    except (JobError, ModelError) as error:
        say(f"[decider] {WITHOUT_READER}: {DEFAULT_DECIDER} cannot be had on this machine ({error})")
        return WITHOUT_READER
    return DEFAULT_DECIDER


def default_embedder() -> str:
    """Name of the embedder that a new store gets on this machine."""
    package = load_profile("embedders", DEFAULT, EmbedderProfile).model.removeprefix("package:")
    try:
        importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        say(f"[embedder] {WITHOUT_PACKAGE}: the default's package {package} is not installed on this machine")
        return WITHOUT_PACKAGE
    return DEFAULT


def _candidates(
    folder: str, kind: type[Profile], store: "Store", runs: "list[FinishedRun]", key: str, setting: str
) -> Iterator[Profile]:
    """Profiles that may have been used in these runs: what ships, what manifests keep under `key`, and what
    their `setting` named. Ships first, because that says its name of today."""
    from cluster.store.files import Files

    yield from _shipped(folder, kind)
    manifests = Files(store.uri, "runs")
    for run in reversed(runs):
        manifest = _read(get_run, manifests, run.run_id)
        written = manifest.profiles.get(key) if manifest else None
        if isinstance(written, dict) and (read := _read(kind.model_validate, written)):
            yield read
    for name in dict.fromkeys(run.config.get(setting) for run in reversed(runs)):
        if name and (read := _read(load_profile, folder, name, kind)):
            yield read


def _shipped(folder: str, kind: type[Profile]) -> Iterator[Profile]:
    """Profiles that need no model hub to be looked at."""
    for path in sorted((SHIPPED / folder).glob("*.toml")):
        profile = load_profile(folder, path.stem, kind)
        where = getattr(profile, "model" if kind is EmbedderProfile else "base")
        if where.startswith("package:"):
            yield profile


def _read(read: Callable[..., Read], *arguments: object) -> Read | None:
    """A profile or a manifest; None for one that this release cannot read."""
    try:
        return read(*arguments)
    except (ValueError, UsageError):
        return None


def _first(profiles: Iterable[Profile], fingerprint: str, resolve: Callable) -> Profile | None:
    """The first profile that has this fingerprint now; None where none has."""
    from cluster.models.sources import ModelError

    for profile in profiles:
        try:
            if resolve(profile).fingerprint == fingerprint:
                return profile
        except ModelError:
            continue
    return None


def _say_kept(what: str, profile: ModelProfile | EmbedderProfile, option: str) -> None:
    say(f"[{what}] {profile.name}, which wrote this store; {option} names another")
