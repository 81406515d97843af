"""Pools of actors that jobs share."""

from pydantic import Field

from cluster.runtime import PoolConfig


class EnginePool(PoolConfig):
    """Actors that run a language model. One is enough for an endpoint, which answers many at a time."""

    max_num_seqs: int = Field(64, ge=1)
    """Prompts that vLLM decodes side by side."""
    kv_cache_gib: int = Field(2, ge=1)
    """Memory of the key-value cache on a CPU."""
    gpu_memory: float = Field(0.85, gt=0, le=1)
    """Share of a GPU's memory that vLLM takes."""

    @property
    def engine(self) -> dict:
        """Options of an engine on these actors."""
        return self.model_dump(include=set(EnginePool.model_fields.keys() - PoolConfig.model_fields.keys()))
