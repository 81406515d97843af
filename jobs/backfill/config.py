"""Settings of a backfill, and of the consolidation that may follow it."""

from typing import Literal

from pydantic import Field, field_validator

from jobs.common.choice import check_added
from jobs.common.endpoints import at_endpoint
from jobs.common.forgotten import ForgetKeyConfig
from jobs.common.pools import EnginePool
from jobs.common.run import StagesConfig, WriterConfig, load_profile
from jobs.common.turns import TurnsPool
from jobs.common.update_config import UpdateConfig, UpdateSettings
from schemas.endpoint import EndpointConfig
from schemas.profiles.decider import DeciderProfile


class EncoderPool(EnginePool):
    """Actors that run the encoder."""

    batch_size: int = Field(64, ge=1)
    """Segments per batch: an actor encodes one batch per call, and a crash can cost it."""
    in_flight: int = Field(2, ge=1)
    """Batches that an actor works on at a time, so that vLLM does not wait for the last answers of one batch
    before it begins the next. With other engines, and without Ray, it is one."""


class BackfillConfig(ForgetKeyConfig, WriterConfig, StagesConfig):
    """Settings of a backfill."""

    archive: str
    """Folder or object-store URI of the archive."""
    store: str
    """Folder or object-store URI of the store; created if it does not exist."""
    profile: str | None = None
    """Encoder profile: a name in cluster/profiles/encoders, or a TOML file. Not given: the one that wrote the
    store; for a new store `default`."""
    embedder: str | None = None
    """Embedder profile: a name in cluster/profiles/embedders, or a TOML file. One with `turns` reads the
    turns of each user in order, with a memory that the store keeps. Not given: the one that wrote the
    store; for a new one `default`, or `minilm` where the default's package is not installed."""
    limit_sessions: int | None = Field(None, ge=1)
    """Read only the archive's first sessions, each in its newest version."""
    dry_run: bool = False
    """Cut and count; encode nothing, and write nothing that a reader sees."""
    on_encoder_change: Literal["fail", "keep", "reencode"] = "fail"
    """When another encoder wrote the store: fail, keep its memories and encode only what is new, or reencode
    everything."""
    mask_contacts: bool = False
    """Replace phone numbers and mail addresses by markers, as is always done with secrets."""
    redaction_rules: dict[str, str] = Field(default_factory=dict)
    """Kind -> regular expression: what it finds is replaced by `[redacted:KIND]` as well."""
    retry_rejected: bool = False
    """Encode again the segments that were rejected before."""
    include_rolled_back: bool = False
    """Bring back what jobs.rollback took out, if the archive still has it."""
    max_rejected_fraction: float = Field(0.05, ge=0, le=1)
    """The run fails when a larger share of sessions, of segments, or of users is rejected."""
    max_input_tokens: int | None = Field(None, ge=1)
    """The run fails before any encoder call when it would read more tokens of conversation than this."""
    max_cost: float | None = Field(None, ge=0)
    """Cap on the cost of an encoder behind an endpoint, in the currency of its prices, including what killed
    runs paid. A run that reaches it publishes nothing and ends as `stopped`; with a higher cap it goes on."""
    consolidate: bool = False
    """Afterwards compare the new memories with the older ones, as jobs.consolidate does."""
    consolidation: UpdateSettings = UpdateSettings()
    """Settings of this consolidation."""
    endpoint: EndpointConfig = EndpointConfig()
    """Settings that override the encoder profile's own, if its model is behind an endpoint."""
    encoder_pool: EncoderPool = EncoderPool()
    embedder_pool: TurnsPool = TurnsPool()

    @field_validator("redaction_rules")
    @classmethod
    def _check_rules(cls, rules: dict[str, str]) -> dict[str, str]:
        from cluster.backfill.redact import compiled

        # Compiling rules imports the detectors, which takes a while: only if there are rules.
        if rules:
            compiled(rules)
        return rules


def consolidation_of(config: BackfillConfig, kind: type[UpdateConfig] = UpdateConfig) -> UpdateConfig:
    """The settings of the consolidation that follows. A decider behind an endpoint uses the encoder's
    endpoint, unless there is a table [consolidation.endpoint]. UsageError for a decider that is named and
    cannot be used."""
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
