"""LightMem's memory manager over our profiles: point LightMem at it, and it extracts and decides with them.

    from jobs.common.lightmem import register
    register()                                    # once; then, in LightMem's configuration:
    {"memory_manager": {"model_name": "local_hf_lora", "configs": {
        "base_model": "Qwen/Qwen2.5-7B-Instruct", "adapter_path": "./adapters/lightmem_mem",
        "device_map": "auto", "torch_dtype": "bfloat16", "max_seq_len": 4096,
        "gen_kwargs": {"do_sample": False, "max_new_tokens": 512}}}}

What LightMem does when it is given nothing usable, it does silently. Here an answer is decoded under a JSON
schema, a cut answer is asked for again, and what still fails is logged as an error, kept in `failures`, and
never taken for "no facts" or "ignore".

Prompts are the profiles': an adapter must see those it was trained with. LightMem's own are not used, except
by `_call_update_llm(system_prompt, user_prompt)` with two texts, which asks exactly these.
"""

import json
import logging
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from jobs.common.lightmem_shapes import counted, no_usage, question_of, repair, sessions_of
from jobs.common.run import load_profile
from schemas.decision import InvalidDecision, decision_schema, parse_decision
from schemas.profiles.decider import DeciderProfile
from schemas.profiles.encoder import EncoderProfile
from schemas.settings import Settings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from cluster.models.asking import Engine

MODEL_NAME = "local_hf_lora"

ROLES = {
    "user_only": {"user"},
    "assistant_only": {"assistant"},
    "hybrid": {"user", "assistant"},
}

logger = logging.getLogger("slowwave.lightmem")


class GenKwargs(BaseModel):
    """Generation is greedy, so that a run can be repeated: with do_sample off, `transformers` ignores
    temperature, top_p and top_k, and so does this."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    do_sample: Literal[False] = False
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    max_new_tokens: int | None = Field(None, ge=32)
    repetition_penalty: float | None = Field(None, ge=1, le=2)


class LightMemConfig(Settings):
    """The keys of LightMem's `local_hf_lora` backend, and those that choose our profiles."""

    base_model: str | None = None
    """Hub id, local folder or `package:NAME`. Not given: the encoder profile's."""
    adapter_path: str | None = None
    """PEFT adapter for both calls, merged into the base. Not given: the encoder profile's."""
    device_map: Literal["auto", "cpu", "cuda"] = "auto"
    """The engine takes the GPU where there is one; cpu or cuda insists, and is refused where it is not so."""
    torch_dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """auto: the encoder profile's."""
    max_seq_len: int | None = Field(None, ge=256)
    """Tokens of prompt and answer together; conversations are cut into smaller segments to keep it."""
    gen_kwargs: GenKwargs = GenKwargs()
    encoder_profile: str = "default"
    """Prompt and limits of extraction: a name in cluster/profiles/encoders, or a TOML file."""
    decider_profile: str = "default"
    """Prompt and limits of decisions: a name in cluster/profiles/deciders, or a TOML file."""
    decider: Literal["model", "rules"] = "model"
    """rules: decisions by the deterministic rules of jobs.consolidate, without a model."""
    min_confidence: float = Field(0.5, ge=0, le=1)
    """Updates and deletes of which the model is less sure become `ignore`, with the reason."""

    @classmethod
    def read(cls, config: object) -> "LightMemConfig":
        """From a mapping, or from LightMem's config object, whose other attributes are not ours."""
        if isinstance(config, cls):
            return config
        if not isinstance(config, Mapping):
            config = {name: getattr(config, name) for name in cls.model_fields if hasattr(config, name)}
        return cls.model_validate(dict(config))


def register() -> None:
    """Make LightMem know the backend under its name. ImportError when LightMem is not installed."""
    from lightmem.configs.memory_manager.base import MemoryManagerConfig
    from lightmem.factory.memory_manager.factory import MemoryManagerFactory

    MemoryManagerFactory._MODEL_MAPPING[MODEL_NAME] = f"{__name__}.{LightMemManager.__name__}"
    if MODEL_NAME not in MemoryManagerConfig._model_list:
        MemoryManagerConfig._model_list.append(MODEL_NAME)


class LightMemManager:
    """A LightMem memory manager. The model is loaded with the first call that needs it.

    `failures` lists the calls that failed, each with its reason and raw answer.
    """

    def __init__(self, config: object = None, *, engine: "Engine | None" = None):
        """`engine` stands in for the loaded model: `tokenizer`, and `generate` as in
        cluster.backfill.encoder."""
        self.settings = LightMemConfig.read({} if config is None else config)
        # LightMem asks its manager's config for the model's name and passes it to a tokenizer.
        self.config = config if hasattr(config, "model") else self.settings
        self.encoder, self.decider = _profiles(self.settings)
        self.failures: list[dict] = []
        self._engine = engine
        # LightMem decides in threads; the engine answers one batch at a time.
        self._lock = threading.Lock()

    @property
    def engine(self) -> "Engine":
        if self._engine is None:
            self._engine = _load(self.encoder, self.settings.device_map)
        return self._engine

    @property
    def tokenizer(self) -> "PreTrainedTokenizerBase":
        """LightMem counts its buffer's tokens with it."""
        return self.engine.tokenizer

    # --- extraction -------------------------------------------------------------------------------------

    def meta_text_extract(
        self,
        extract_list: list,
        messages_use: Literal["user_only", "assistant_only", "hybrid"] = "user_only",
        topic_id_mapping: list | None = None,
        extraction_mode: str = "flat",
        custom_prompts: dict | None = None,
    ) -> list[dict | None]:
        """Facts of conversations: all calls, topics and segments in one batch.

        `extract_list`: calls of topics of messages `{role, content}`, as LightMem gives them, or one plain
        list of messages. Returns one result per call, `cleaned_result` with `{source_id, fact}` among its
        keys; None for a call that failed. ValueError for an argument that cannot work.
        """
        if messages_use not in ROLES:
            raise ValueError(f"messages_use={messages_use!r}: must be one of {', '.join(ROLES)}")
        if extraction_mode != "flat":
            raise ValueError(f"extraction_mode={extraction_mode!r}: this backend extracts flat facts only")
        if custom_prompts:
            logger.warning("custom_prompts: not used; the prompt is that of profile %r", self.encoder.name)
        if extract_list and isinstance(extract_list[0], Mapping):
            extract_list = [[extract_list]]
        with self._lock:
            return self._extract(extract_list, ROLES[messages_use])

    def _extract(self, calls: list, roles: set[str]) -> list[dict | None]:
        from cluster.backfill.cut_stage import segment_offsets
        from cluster.backfill.encoder import encode
        from cluster.backfill.segmenter import cut_session
        from cluster.models.prompt import PromptBuilder

        segments, owners = [], []
        for number, call in enumerate(calls):
            for session, source_ids in sessions_of(number, call, roles):
                cut = cut_session(session, segment_offsets(self.encoder), self.encoder)
                segments += cut
                owners += [(number, source_ids)] * len(cut)
        prompt = PromptBuilder(self.encoder, self.engine.tokenizer)
        # Who asks for the assistant's words alone wants the model to see them, whoever else is silent.
        profile = self.encoder if "user" in roles else self.encoder.model_copy(update={"required_role": None})
        encodings = encode(segments, self.engine.generate, prompt, profile)
        results: list[dict[str, Any]] = [
            {
                "input_prompt": [],
                "output_prompt": "",
                "cleaned_result": [],
                "usage": no_usage(),
                "entry_type": "factual",
            }
            for _ in calls
        ]
        failed = [0] * len(calls)
        for segment, encoding, (number, source_ids) in zip(segments, encodings, owners, strict=True):
            result = results[number]
            text = prompt.text(segment["context"], segment["current"], segment["session_time"])
            result["input_prompt"].append({"role": "user", "content": text})
            result["cleaned_result"] += [
                {
                    "source_id": source_ids[record["evidence_turns"][0]],
                    "fact": record["semantic_text"],
                    "entry_type": "factual",
                }
                for record in encoding.records
            ]
            counted(result["usage"], encoding)
            failed[number] += encoding.outcome == "rejected"
            for rejection in encoding.rejections:
                self._failed("meta_text_extract", rejection["reason"], rejection["raw"], call=number)
        for result in results:
            result["output_prompt"] = json.dumps({"data": result["cleaned_result"]}, ensure_ascii=False)
        return [
            None if num_failed and num_failed == len(result["input_prompt"]) else result
            for result, num_failed in zip(results, failed, strict=True)
        ]

    # --- decisions --------------------------------------------------------------------------------------

    def _call_update_llm(
        self, system_prompt: str, target_entry: dict | str, candidate_sources: list[dict] | None = None
    ) -> dict | None:
        """One update decision: `{action, new_memory?, usage}`; None if it failed.

        With LightMem's entries, only candidates later than the target may change it; an answer that was
        refused is `ignore` with the `reason`. With two texts, the model is asked exactly these.
        """
        with self._lock:
            if isinstance(target_entry, str):
                return self._decide_text(system_prompt, target_entry)
            return self._decide_entry(target_entry, candidate_sources or [])

    def _decide_entry(self, target: dict, candidates: list[dict]) -> dict | None:
        from cluster.consolidate.decider import DeciderPrompt, ask, guard
        from cluster.consolidate.rules import Rules

        question = question_of(target, candidates)
        if not question.sources:
            reason = "no candidate is later than the target"
            return {"action": "ignore", "reason": reason, "usage": no_usage()}
        if self.settings.decider == "rules":
            (verdict,) = Rules().decide([question])
        else:
            prompt = DeciderPrompt(self.decider, self.engine.tokenizer)
            (verdict,) = ask([question], self.engine.generate, prompt, self.decider)
        verdict = guard(question, verdict, min_confidence=self.settings.min_confidence)
        if verdict.outcome == "failed":
            self._failed("_call_update_llm", verdict.reason, verdict.raw, target=target["id"])
            return None
        usage = counted(no_usage(), verdict)
        if verdict.outcome == "refused":
            return {"action": "ignore", "reason": f"refused: {verdict.reason}", "usage": usage}
        rewritten = {"new_memory": verdict.text} if verdict.action == "update" else {}
        return {"action": verdict.action, **rewritten, "usage": usage}

    def _decide_text(self, system_prompt: str, user_prompt: str) -> dict | None:
        from cluster.models.asking import Request
        from cluster.models.prompt import Chat, as_prompt

        messages = [{"role": "system", "content": system_prompt}, {"role": "user", "content": user_prompt}]
        usage, reason, raw = no_usage(), "", ""
        # Greedy decoding would repeat itself: the second time the answer is asked for in other words.
        for retry in ("", "\n\nAnswer with one JSON object and nothing else."):
            messages[1]["content"] = user_prompt + retry
            ids = as_prompt(messages, self.tokenizer)
            assert not isinstance(ids, Chat)
            limit = self.encoder.max_model_len - self.encoder.max_tokens
            if len(ids) > limit:
                reason = f"prompt_too_long: {len(ids)} tokens, the limit is {limit}; raise max_seq_len"
                break
            schema = decision_schema(self.decider.limits)
            (reply,) = self.engine.generate([Request(ids, schema, self.decider.max_tokens)])
            counted(usage, reply)
            raw = reply.text
            try:
                decision = parse_decision(repair(raw))
            except InvalidDecision as error:
                reason = f"{'invalid' if reply.complete else 'cut'}_answer: {error}"
                continue
            rewritten = {"new_memory": decision.updated_text} if decision.action == "update" else {}
            return {"action": decision.action, **rewritten, "usage": usage}
        self._failed("_call_update_llm", reason, raw)
        return None

    def _failed(self, method: str, reason: str, raw: str, **where: object) -> None:
        self.failures.append({"method": method.removeprefix("_"), **where, "reason": reason, "raw": raw})
        shown = "".join(f" {name}={value}" for name, value in where.items())
        logger.error("%s%s: %s", method, shown, reason)


# --- profiles and engine --------------------------------------------------------------------------------


def _profiles(settings: LightMemConfig) -> tuple[EncoderProfile, DeciderProfile]:
    """Both profiles on one model, so that it is loaded once."""
    from cluster.models.resolve import resolve_decider, resolve_encoder

    encoder = load_profile("encoders", settings.encoder_profile, EncoderProfile)
    decider = load_profile("deciders", settings.decider_profile, DeciderProfile)
    changes: dict[str, Any] = {}
    wanted = settings.gen_kwargs
    if settings.base_model or settings.adapter_path:
        encoder = encoder.model_copy(update=encoder.WITHOUT_ADAPTER)
    if settings.base_model:
        changes |= {"base": settings.base_model, "base_revision": None, "adapter": None}
    if settings.adapter_path:
        changes |= {"adapter": settings.adapter_path, "adapter_revision": None}
    if settings.torch_dtype != "auto":
        changes["dtype"] = settings.torch_dtype
    if wanted.repetition_penalty:
        changes["repetition_penalty"] = wanted.repetition_penalty
    if wanted.max_new_tokens:
        changes["max_tokens"] = wanted.max_new_tokens
    encoder = EncoderProfile.model_validate(encoder.model_dump() | changes)
    if settings.max_seq_len and (surplus := encoder.max_model_len - settings.max_seq_len) > 0:
        context = min(surplus, encoder.max_context_tokens)
        current = encoder.max_current_tokens - (surplus - context)
        if current < 64:
            raise ValueError(
                f"max_seq_len={settings.max_seq_len}: profile {encoder.name!r} leaves no room for a "
                f"conversation; give at least {settings.max_seq_len + 64 - current}"
            )
        encoder = encoder.model_copy(
            update={
                "max_context_tokens": encoder.max_context_tokens - context,
                "max_current_tokens": current,
            }
        )
    encoder = resolve_encoder(encoder)
    same = ("base", "base_revision", "adapter", "adapter_revision", "adapter_mode", "dtype")
    decider = decider.model_copy(update={name: getattr(encoder, name) for name in (*same, "max_tokens")})
    return encoder, resolve_decider(decider)


def _load(encoder: EncoderProfile, device_map: str) -> "Engine":
    import torch

    from cluster.models.engine import VllmEngine

    found = "cuda" if torch.cuda.is_available() else "cpu"
    if device_map not in ("auto", found):
        raise ValueError(f"device_map={device_map!r}: the engine runs on {found} here; use auto")
    return VllmEngine(encoder)
