"""Engines: prompts in, answers out. Whoever asks a model on this machine asks it through one of them.

`VllmEngine` is vLLM in this process, one code path on CPU and GPU. `TransformersEngine` is transformers and
outlines, one request at a time, the reference that the other is compared with.
"""

import contextlib
import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cluster.models.confidence import Token, pieces
from cluster.models.sources import adapter_folder, base_folder
from schemas.profile import EncoderProfile, ModelProfile
from schemas.record import answer_model, answer_schema


@dataclass(frozen=True)
class Request:
    """One call: prompt token ids, and how many current turns the answer may cite (0 for a decision)."""

    prompt: list[int]
    num_turns: int


@dataclass(frozen=True)
class Reply:
    """What the engine answered. `complete` is False when the token limit cut the text."""

    text: str
    complete: bool
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    tokens: Sequence[Token] = ()
    """The text's tokens with their log-probabilities, where the engine was asked for them."""
    repeats: bool = False
    """The model said the same over and over, and was stopped: what came before is all that it had to say."""


Generate = Callable[[list[Request]], list[Reply]]

REPETITION = {"min_pattern_size": 12, "max_pattern_size": 120, "min_count": 2}
"""Tokens that come twice in a row: a record or two again, or a few words over and over. No true answer has
them; a small model that has begun does not stop before its last token. vLLM ends such an answer where the
profile has the gate `repeated`, which would refuse what comes twice."""


class VllmEngine:
    """vLLM in this process. On a CPU `kv_cache_gib` bounds the cache; on a GPU `gpu_memory` is a share.

    `schemas` are JSON schemas by `Request.num_turns`, None for plain text; not given, those of an encoder's
    answers. Where an encoder's profile sets `min_confidence` replies have their `tokens`. vLLM masks what the
    grammar forbids before it takes the logarithms, and applies a repetition penalty after: they are of the
    model's distribution over what the grammar allows at that place. Within a text that is nearly everything;
    where the grammar leaves no choice they are 0.
    """

    def __init__(
        self,
        profile: ModelProfile,
        *,
        schemas: dict[int, str | None] | None = None,
        max_num_seqs: int = 64,
        kv_cache_gib: int = 2,
        gpu_memory: float = 0.85,
    ):
        # In-process: the default engine process polls its queue and takes half a core from the model.
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", str(kv_cache_gib))
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        import torch
        from vllm import LLM, SamplingParams
        from vllm.lora.request import LoRARequest
        from vllm.sampling_params import RepetitionDetectionParams, StructuredOutputsParams

        on_gpu = torch.cuda.is_available()
        backend = profile.structured_backend
        per_request = profile.adapter is not None and profile.adapter_mode == "per_request"
        options = {"gpu_memory_utilization": gpu_memory} if on_gpu else {"enforce_eager": True}
        self.llm = LLM(
            str(base_folder(profile)),
            dtype=profile.dtype,
            max_model_len=profile.max_model_len,
            max_num_seqs=max_num_seqs,
            enable_prefix_caching=True,
            generation_config="vllm",
            seed=0,
            structured_outputs_config={
                "backend": backend,
                # White space between tokens is an endless choice for a small model; outlines has no switch.
                "disable_any_whitespace": backend != "outlines",
            },
            enable_lora=per_request,
            **({"max_lora_rank": _lora_rank(profile)} if per_request else {}),
            **options,
        )
        self.tokenizer = self.llm.get_tokenizer()
        self._lora = LoRARequest("adapter", 1, str(adapter_folder(profile))) if per_request else None
        if schemas is None:
            schemas = {
                num_turns: answer_schema(num_turns, profile.limits, profile.fields)
                for num_turns in range(1, profile.max_turns + 1)
            }
        self._measures = getattr(profile, "min_confidence", None) is not None
        # Of a token's rank, which comes with its log-probability, vLLM compiles the count. On a CPU nothing
        # else is compiled, and this would need a C++ compiler.
        eager = functools.partial(torch.compiler.set_stance, "force_eager")
        self._stance = eager if self._measures and not on_gpu else contextlib.nullcontext
        # 0: the chosen tokens alone.
        asked = {"logprobs": 0, "flat_logprobs": True} if self._measures else {}
        if "repeated" in getattr(profile, "gates", ()):
            asked["repetition_detection"] = RepetitionDetectionParams(**REPETITION)
        self._params = {
            num_turns: SamplingParams(
                temperature=0.0,
                max_tokens=profile.max_tokens,
                repetition_penalty=profile.repetition_penalty,
                structured_outputs=StructuredOutputsParams(json=schema) if schema else None,
                **asked,
            )
            for num_turns, schema in schemas.items()
        }

    def generate(self, requests: list[Request]) -> list[Reply]:
        with self._stance():
            outputs = self.llm.generate(
                [{"prompt_token_ids": request.prompt} for request in requests],
                [self._params[request.num_turns] for request in requests],
                lora_request=self._lora,
                use_tqdm=False,
            )
        return [
            Reply(
                text=output.outputs[0].text,
                complete=output.outputs[0].finish_reason == "stop",
                prompt_tokens=len(output.prompt_token_ids),
                cached_tokens=output.num_cached_tokens or 0,
                output_tokens=len(output.outputs[0].token_ids),
                tokens=self._tokens(output) if self._measures else (),
                repeats=output.outputs[0].finish_reason == "repetition",
            )
            for output in outputs
        ]

    def _tokens(self, output) -> list[Token]:
        answer = output.outputs[0]
        backend = self.tokenizer.backend_tokenizer
        found = pieces(backend, output.prompt_token_ids, answer.token_ids)
        # One position after the other; the chosen token's is the first of each.
        logprobs = [answer.logprobs.logprobs[index] for index in answer.logprobs.start_indices]
        return list(zip(found, logprobs, strict=True))


def _lora_rank(profile: ModelProfile) -> int:
    import json

    return json.loads((adapter_folder(profile) / "adapter_config.json").read_text())["r"]


class TransformersEngine:
    """transformers + peft + outlines, one segment at a time: the recipe of the encoder_v0 model card."""

    def __init__(self, profile: EncoderProfile, **_):
        import outlines
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        folder = base_folder(profile)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, profile.dtype))
        if profile.adapter and profile.adapter_mode == "per_request":
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, adapter_folder(profile))
        if torch.cuda.is_available():
            model = model.cuda()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self._profile = profile
        outlines_model = outlines.from_transformers(model.eval(), self.tokenizer)
        self._generators = {
            num_turns: outlines.Generator(
                outlines_model, answer_model(num_turns, profile.limits, profile.fields)
            )
            for num_turns in range(1, profile.max_turns + 1)
        }

    def generate(self, requests: list[Request]) -> list[Reply]:
        return [self._one(request) for request in requests]

    def _one(self, request: Request) -> Reply:
        options = {"max_new_tokens": self._profile.max_tokens, "do_sample": False}
        if self._profile.repetition_penalty != 1.0:
            options["repetition_penalty"] = self._profile.repetition_penalty
        text = self._generators[request.num_turns](
            self.tokenizer.decode(request.prompt, clean_up_tokenization_spaces=False), **options
        )
        num_tokens = len(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        return Reply(
            text,
            complete=num_tokens < self._profile.max_tokens,
            prompt_tokens=len(request.prompt),
            cached_tokens=0,
            output_tokens=num_tokens,
        )
