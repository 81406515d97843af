"""Engines on this worker, and the one that a profile names.

    vllm          VllmEngine: vLLM in this process, one code path on CPU and GPU
    transformers  TransformersEngine: transformers and outlines, one request at a time, the reference that the
                  other is compared with
    openai        an Endpoint within Paid: an OpenAI-compatible endpoint, with a ledger of paid answers

How they are asked: cluster.models.asking. SHARED names those that several threads may ask at a time.
"""

import contextlib
import functools
import json
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cluster.models.asking import Answer, Engine, Request
from cluster.models.confidence import Token, pieces
from cluster.models.endpoint import Endpoint
from cluster.models.paid_answers import Budget, Paid, Responses
from cluster.models.prompt import Chat, as_prompt
from cluster.models.sources import adapter_folder, base_folder
from cluster.models.stepping import Stepper
from cluster.runtime import tick
from cluster.store.files import Files
from schemas.profiles.encoder import EncoderProfile
from schemas.profiles.model import AskedProfile, ModelProfile

if TYPE_CHECKING:
    from vllm import LLM


def make_engine(profile: AskedProfile, **options: Any) -> Engine:
    """The engine that the profile names. Options are the engine's own: see its class."""
    if profile.engine == "openai":
        if "files" not in options:
            raise ValueError(
                f"profile {profile.name!r}: its model is behind an endpoint, which this job does not ask; "
                "name a profile with another engine"
            )
        return _paid_endpoint(profile, **options)
    return {"vllm": VllmEngine, "transformers": TransformersEngine}[profile.engine](profile, **options)


def _paid_endpoint(profile: AskedProfile, *, files: Files, role: str, max_cost: float | None = None) -> Paid:
    """The model behind a profile's endpoint; its answers lie in `files` under `role`."""
    assert profile.endpoint is not None
    responses = Responses(files, role, profile.fingerprint)
    # What killed runs have paid counts: this one goes on from their answers.
    budget = Budget(max_cost=max_cost, cost=responses.cost(profile.endpoint))
    return Paid(Endpoint(profile.endpoint), responses, budget)


class Later:
    """An engine that is loaded when it is asked first."""

    def __init__(self, load: Callable[[], Engine]):
        self._load = functools.cache(load)

    @property
    def tokenizer(self) -> Any:
        return self._load().tokenizer

    def generate(self, requests: list[Request]) -> list[Answer]:
        return self._load().generate(requests)


SHARED = frozenset({"vllm"})
"""Engines that several threads may ask at a time, and that answer faster so. `openai` sends as many requests
side by side as its endpoint takes; `transformers` takes one after the other."""


REPETITION = {"min_pattern_size": 12, "max_pattern_size": 120, "min_count": 2}
"""Tokens that come twice in a row: a record or two again, or a few words over and over. No true answer has
them; a small model that has begun does not stop before its last token. vLLM ends such an answer where the
profile has the gate `repeated`, which would refuse what comes twice."""


class VllmEngine:
    """vLLM in this process. On a CPU `kv_cache_gib` bounds the cache; on a GPU `gpu_memory` is a share.

    Several threads may ask at a time: all that they ask is decoded side by side.

    Where an encoder's profile sets `min_confidence` replies have their `tokens`. vLLM masks what the
    grammar forbids before it takes the logarithms, and applies a repetition penalty after: they are of the
    model's distribution over what the grammar allows at that place. Within a text that is nearly everything;
    where the grammar leaves no choice they are 0.
    """

    def __init__(
        self,
        profile: ModelProfile,
        *,
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
        from vllm.sampling_params import (
            RepetitionDetectionParams,
            RequestOutputKind,
            StructuredOutputsParams,
        )

        on_gpu = torch.cuda.is_available()
        backend = profile.structured_backend
        per_request = profile.adapter is not None and profile.adapter_mode == "per_request"
        options = {"gpu_memory_utilization": gpu_memory} if on_gpu else {"enforce_eager": True}
        load = functools.partial(
            LLM,
            str(base_folder(profile)),
            dtype=profile.dtype,
            max_model_len=profile.max_model_len,
            max_num_seqs=max_num_seqs,
            enable_prefix_caching=True,
            use_tqdm_on_load=False,
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
        self._measures = getattr(profile, "min_confidence", None) is not None
        # Of a token's rank, which comes with its log-probability, vLLM compiles the count. On a CPU nothing
        # else is compiled, and this would need a C++ compiler.
        eager = functools.partial(torch.compiler.set_stance, "force_eager")
        self._stepper = Stepper(load, eager if self._measures and not on_gpu else contextlib.nullcontext)
        self.tokenizer = self.llm.get_tokenizer()
        self._lora = LoRARequest("adapter", 1, str(adapter_folder(profile))) if per_request else None
        # 0: the chosen tokens alone.
        asked = {"logprobs": 0, "flat_logprobs": True} if self._measures else {}
        if "repeated" in getattr(profile, "gates", ()):
            asked["repetition_detection"] = RepetitionDetectionParams(**REPETITION)

        @functools.cache
        def params(schema: str | None, max_tokens: int) -> SamplingParams:
            return SamplingParams(
                temperature=0.0,
                max_tokens=max_tokens,
                repetition_penalty=profile.repetition_penalty,
                structured_outputs=StructuredOutputsParams(json=schema) if schema else None,
                output_kind=RequestOutputKind.FINAL_ONLY,
                **asked,
            )

        self._params, self._max_model_len = params, profile.max_model_len

    @property
    def llm(self) -> "LLM":
        """What may be asked directly, while nobody else asks."""
        return self._stepper.llm

    def generate(self, requests: list[Request]) -> list[Answer]:
        calls = [self._call(request) for request in requests]
        outputs = iter(self._stepper.answers([call for call in calls if call]))
        too_long = Answer("", refusal=f"the prompt is too long: max_model_len={self._max_model_len}")
        return [self._answer(next(outputs)) if call else too_long for call in calls]

    def _call(self, request: Request) -> dict[str, Any] | None:
        """What vLLM is given; None where there is no room for prompt and answer."""
        from vllm.inputs import tokens_input

        ids = _ids(request, self.tokenizer)
        if len(ids) + request.max_tokens > self._max_model_len:
            return None
        return {
            "prompt": tokens_input(ids),
            "params": self._params(request.schema, request.max_tokens),
            "lora_request": self._lora,
        }

    def _answer(self, output: Any) -> Answer:
        answer = output.outputs[0]
        return Answer(
            text=answer.text,
            complete=answer.finish_reason == "stop",
            prompt_tokens=len(output.prompt_token_ids),
            output_tokens=len(answer.token_ids),
            cached_tokens=output.num_cached_tokens or 0,
            tokens=self._tokens(output) if self._measures else (),
            repeats=answer.finish_reason == "repetition",
        )

    def _tokens(self, output: Any) -> list[Token]:
        answer = output.outputs[0]
        backend = self.tokenizer.backend_tokenizer
        found = pieces(backend, output.prompt_token_ids, answer.token_ids)
        # One position after the other; the chosen token's is the first of each.
        logprobs = [answer.logprobs.logprobs[index] for index in answer.logprobs.start_indices]
        return list(zip(found, logprobs, strict=True))


def _ids(request: Request, tokenizer: Any) -> list[int]:
    """The prompt as token ids."""
    prompt = request.prompt
    if isinstance(prompt, Chat):
        prompt = as_prompt(prompt.messages, tokenizer)
    assert not isinstance(prompt, Chat), "the tokenizer has made token ids"
    return prompt


def _lora_rank(profile: ModelProfile) -> int:
    return json.loads((adapter_folder(profile) / "adapter_config.json").read_text())["r"]


class TransformersEngine:
    """transformers + peft + outlines, one segment at a time: the recipe of the encoder_v0 model card."""

    def __init__(self, profile: EncoderProfile, **_: object):
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

        @functools.cache
        def generator(schema: str) -> Any:
            return outlines.Generator(outlines_model, outlines.json_schema(schema))

        self._generator = generator

    def generate(self, requests: list[Request]) -> list[Answer]:
        answers = []
        for request in requests:
            answers.append(self._answer(request))
            tick()
        return answers

    def _answer(self, request: Request) -> Answer:
        ids = _ids(request, self.tokenizer)
        options: dict[str, float] = {"max_new_tokens": request.max_tokens, "do_sample": False}
        if self._profile.repetition_penalty != 1.0:
            options["repetition_penalty"] = self._profile.repetition_penalty
        text = self._generator(request.schema)(
            self.tokenizer.decode(ids, clean_up_tokenization_spaces=False), **options
        )
        num_tokens = len(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        return Answer(
            text,
            complete=num_tokens < request.max_tokens,
            prompt_tokens=len(ids),
            output_tokens=num_tokens,
        )
