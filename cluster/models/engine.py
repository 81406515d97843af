"""Engines: prompts in, answers out. Whoever asks a model asks it through one of them.

    vllm          VllmEngine: vLLM in this process, one code path on CPU and GPU
    transformers  TransformersEngine: transformers and outlines, one request at a time, the reference that the
                  other is compared with
    openai        OpenAIEngine: an OpenAI-compatible endpoint, with a ledger of paid answers

All have `generate(requests) -> replies`, in order, and `tokenizer`, by which `cluster.models.prompt` makes
their prompts: None where the engine takes chat messages. SHARED names those that several threads may ask at
a time.
"""

import contextlib
import functools
import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from cluster.models.confidence import Token, pieces
from cluster.models.endpoint import (
    TOO_LONG,
    Ask,
    Budget,
    CapReached,
    Endpoint,
    EndpointError,
    is_about_request,
)
from cluster.models.paid_answers import Answer, Responses, request_key
from cluster.models.prompt import Chat, Prompt
from cluster.models.sources import adapter_folder, base_folder
from cluster.models.stepping import Stepper
from cluster.runtime import tick
from cluster.store.files import Files
from schemas.profile import AskedProfile, EncoderProfile, ModelProfile

if TYPE_CHECKING:
    from vllm import LLM


@dataclass(frozen=True)
class Request:
    """One call."""

    prompt: Prompt
    schema: str | None
    """JSON schema that the answer is held to; None for plain text."""


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
    refusal: str = ""
    """`REASON: text` where the request itself was refused, so that there is no answer: `prompt_too_long`, or
    `refused`."""


Generate = Callable[[list[Request]], list[Reply]]


class Engine(Protocol):
    """What every engine has."""

    tokenizer: object | None

    def generate(self, requests: list[Request]) -> list[Reply]: ...


def make_engine(profile: AskedProfile, **options: Any) -> Engine:
    """The engine that the profile names. Options are the engine's own: see its class."""
    engines = {"vllm": VllmEngine, "transformers": TransformersEngine, "openai": OpenAIEngine}
    if profile.engine == "openai" and "files" not in options:
        raise ValueError(
            f"profile {profile.name!r}: its model is behind an endpoint, which this job does not ask; name a "
            "profile with another engine"
        )
    return engines[profile.engine](profile, **options)


SHARED = frozenset({"vllm"})
"""Engines that several threads may ask at a time, and that answer faster so. `openai` sends as many requests
side by side as its endpoint takes, with one budget in one event loop; `transformers` takes one after the
other."""


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
        def params(schema: str | None) -> SamplingParams:
            return SamplingParams(
                temperature=0.0,
                max_tokens=profile.max_tokens,
                repetition_penalty=profile.repetition_penalty,
                structured_outputs=StructuredOutputsParams(json=schema) if schema else None,
                output_kind=RequestOutputKind.FINAL_ONLY,
                **asked,
            )

        self._params = params

    @property
    def llm(self) -> "LLM":
        """What may be asked directly, while nobody else asks."""
        return self._stepper.llm

    def generate(self, requests: list[Request]) -> list[Reply]:
        from vllm.inputs import tokens_input

        outputs = self._stepper.answers(
            [
                {
                    "prompt": tokens_input(request.prompt),
                    "params": self._params(request.schema),
                    "lora_request": self._lora,
                }
                for request in requests
            ]
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

    def _tokens(self, output: Any) -> list[Token]:
        answer = output.outputs[0]
        backend = self.tokenizer.backend_tokenizer
        found = pieces(backend, output.prompt_token_ids, answer.token_ids)
        # One position after the other; the chosen token's is the first of each.
        logprobs = [answer.logprobs.logprobs[index] for index in answer.logprobs.start_indices]
        return list(zip(found, logprobs, strict=True))


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

    def generate(self, requests: list[Request]) -> list[Reply]:
        replies = []
        for request in requests:
            replies.append(self._one(request))
            tick()
        return replies

    def _one(self, request: Request) -> Reply:
        assert not isinstance(request.prompt, Chat)
        options: dict[str, float] = {"max_new_tokens": self._profile.max_tokens, "do_sample": False}
        if self._profile.repetition_penalty != 1.0:
            options["repetition_penalty"] = self._profile.repetition_penalty
        text = self._generator(request.schema)(
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


_FENCED = re.compile(r"\s*```\w*\s*\n(.*?)\n\s*```\s*", re.DOTALL)


class Unanswered(RuntimeError):
    """The endpoint fails at a request, while it answers others."""


class OpenAIEngine:
    """The model behind a profile's endpoint. No answer is paid twice: it lies in `files` under `role`.

    CapReached when no more may be spent; EndpointError (a WorkerSick) when the endpoint is gone or refuses
    all; Unanswered when it fails at a request. What else was answered is kept then too.
    """

    tokenizer = None

    def __init__(self, profile: AskedProfile, *, files: Files, role: str, max_cost: float | None = None):
        config, responses = profile.endpoint, Responses(files, role, profile.fingerprint)
        assert config is not None
        self._has_answered = responses.num_answers > 0
        # What killed runs have paid counts: this one goes on from their answers.
        budget = Budget(max_cost=max_cost, cost=responses.cost(config))
        self._endpoint = Endpoint(config, responses, budget)
        self._max_tokens = profile.max_tokens

    def generate(self, requests: list[Request]) -> list[Reply]:
        num_capped = self._endpoint.counts["num_capped"]
        answers = self._endpoint.ask([ask_of(request, self._max_tokens) for request in requests])
        refusals = [answer.refusal for answer in answers if answer and not answer.prompt_tokens]
        self._has_answered |= any(answer and not answer.refusal for answer in answers)
        config = self._endpoint.config
        if None in answers:
            if self._endpoint.counts["num_capped"] > num_capped:
                raise CapReached(
                    f"max_cost: {self._endpoint.budget.cost:.6g} are spent, and no further request fits"
                )
            raise (EndpointError if self._endpoint.is_unavailable else Unanswered)(self._endpoint.last_error)
        odd = [refusal for refusal in refusals if not is_about_request(refusal)]
        if odd and not self._has_answered:
            raise EndpointError(
                f"{config.base_url}, model {config.model!r}: it refuses what is asked, with {odd[0]}; check "
                "model, response_format, schema_bounds, token_limit_field and extra_body of [endpoint]"
            )
        return [self._reply(answer) for answer in answers if answer is not None]

    @staticmethod
    def _reply(answer: Answer) -> Reply:
        reply, fenced = reply_of(answer), _FENCED.fullmatch(answer.text)
        return replace(reply, text=fenced[1]) if fenced else reply


def ask_of(request: Request, max_tokens: int) -> Ask:
    """A call of chat messages, as an endpoint is asked, under a key of its own."""
    assert isinstance(request.prompt, Chat)
    messages = request.prompt.messages
    schema = json.loads(request.schema) if request.schema else None
    return Ask(request_key(messages, schema, max_tokens), messages, schema, max_tokens)


def is_too_long(answer: Answer) -> bool:
    """Whether an endpoint refused the request for its length."""
    return bool(answer.refusal and not answer.prompt_tokens and TOO_LONG.search(answer.refusal))


def reply_of(answer: Answer) -> Reply:
    """An endpoint's answer as that of any engine."""
    reason = "prompt_too_long" if is_too_long(answer) else "refused"
    return Reply(
        text=answer.text,
        complete=answer.complete,
        prompt_tokens=answer.prompt_tokens,
        cached_tokens=0,
        output_tokens=answer.output_tokens,
        refusal=f"{reason}: {answer.refusal}" if answer.refusal else "",
    )
