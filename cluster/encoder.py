"""The encoder: segments in, memory records out, and nothing lost on the way.

`encode` holds the rules and knows no engine: it asks `generate` for answers, reads them, halves a segment
whose answer was cut and asks again, and turns what still fails into a rejection with the raw text. A cut or
invalid answer is never "no memories".

Two engines give answers: vLLM in this process (one code path on CPU and GPU), and transformers + outlines
one segment at a time, the reference that the other is compared with.
"""

import contextlib
import functools
import hashlib
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from cluster.confidence import Token, confidences, pieces
from cluster.dates import resolve
from cluster.gates import refusal, repeated
from cluster.models import adapter_folder, base_folder
from cluster.prompt import PromptBuilder
from schemas.identity import joined
from schemas.profile import EncoderProfile, ModelProfile
from schemas.record import EncodedRecord, InvalidAnswer, answer_model, answer_schema, parse_answer


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

MIN_HALF_CHARS = 80
"""A single turn whose half would be shorter is not halved."""


REPETITION = {"min_pattern_size": 12, "max_pattern_size": 120, "min_count": 2}
"""Tokens that come twice in a row: a record or two again, or a few words over and over. No true answer has
them; a small model that has begun does not stop before its last token. vLLM ends such an answer where the
profile has the gate `repeated`, which would refuse what comes twice."""

MAX_NAME_CHARS = 64
"""A longer name of a speaker is none."""

_USER = re.compile(r"\b(?:[Tt]he )?User\b|\b[Tt]he user\b")


@dataclass
class _Piece:
    """A segment, or a part of one after halving."""

    owner: int
    context: list[dict]
    current: list[dict]
    depth: int = 0


@dataclass(frozen=True)
class _Told:
    """A record of an answer, the parts whose indexes it cites, and its confidence where known."""

    record: EncodedRecord
    current: list[dict]
    confidence: float | None = None

    @property
    def turns(self) -> set[int]:
        """Indexes, in the session, of the turns that it rests on."""
        return {self.current[index]["turn_index"] for index in self.record.evidence_turns}


@dataclass
class Encoding:
    """A segment's answer: records of RECORD fields with absolute turn indexes, and how it came about."""

    outcome: str = "complete"
    """complete | split (halved, then complete) | partial (some part rejected) | rejected (nothing came) |
    skipped (the profile asks nothing about such segments)."""
    records: list[dict] = field(default_factory=list)
    """Where the profile sets `min_confidence` each has its `confidence` too, None if it is not known: for who
    chooses that bound. It is not staged, and so not stored."""
    rejections: list[dict] = field(default_factory=list)
    refusals: list[dict] = field(default_factory=list)
    """Records that a gate refused: its name as `reason`, `turns`, and the record as `raw`; `confidence` as
    above."""
    num_calls: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0


def encode(
    segments: list[dict], generate: Generate, prompt: Callable, profile: EncoderProfile
) -> list[Encoding]:
    """Rows of SEGMENT_SCHEMA -> their encodings, in order.

    `prompt(context, current, session_time)` gives token ids. Each round sends everything that is open as one
    batch: the segments first, then the halves of those that were cut.
    """
    max_prompt_tokens = profile.max_model_len - profile.max_tokens
    encodings = [Encoding() for _ in segments]
    found: list[list[_Told]] = [[] for _ in segments]
    open_pieces = [
        _Piece(i, segment["context"], segment["current"])
        for i, segment in enumerate(segments)
        if profile.asks_about(segment)
    ]
    while open_pieces:
        asked, requests, halves = [], [], []
        for piece in open_pieces:
            session_time = segments[piece.owner]["session_time"]
            ids = prompt(piece.context, piece.current, session_time)
            # Counted in parts the text fitted; joined it may not. The older context goes first.
            while piece.context and len(ids) > max_prompt_tokens:
                piece.context = piece.context[len(piece.context) // 2 + 1 :]
                ids = prompt(piece.context, piece.current, session_time)
            if len(ids) > max_prompt_tokens:
                halves += _halve_or_reject(piece, "prompt_too_long", "", encodings[piece.owner], profile)
            else:
                asked.append(piece)
                requests.append(Request(ids, len(piece.current)))
        for piece, reply in zip(asked, generate(requests) if requests else [], strict=True):
            encoding = encodings[piece.owner]
            encoding.num_calls += 1
            encoding.prompt_tokens += reply.prompt_tokens
            encoding.cached_tokens += reply.cached_tokens
            encoding.output_tokens += reply.output_tokens
            try:
                records = parse_answer(reply.text, len(piece.current))
            except InvalidAnswer as error:
                reason = "invalid_answer" if reply.complete else "cut_answer"
                smaller = []
                if not (reply.repeats and error.records):
                    smaller = _halve_or_reject(piece, reason, reply.text, encoding, profile)
                # Halves answer for themselves. A piece that cannot be halved keeps its complete records.
                records = [] if smaller else error.records
                halves += smaller
            if any(_at_bound(record, profile) for record in records):
                # The grammar ended the text, not the model.
                smaller = _halve_or_reject(piece, "text_at_bound", reply.text, encoding, profile)
                records = [] if smaller else [r for r in records if not _at_bound(r, profile)]
                halves += smaller
            if profile.evidence_by == "words":
                records = [_cite_by_words(record, piece.current, profile.required_role) for record in records]
            sure = confidences(reply.text, reply.tokens) if profile.min_confidence is not None else {}
            for record in records:
                one = _Told(record, piece.current, sure.get(record.semantic_text))
                if reason := _refusal(one, piece.context, profile):
                    encoding.refusals.append(_refused(reason, one, profile))
                else:
                    found[piece.owner].append(one)
        open_pieces = halves
    for segment, encoding, kept in zip(segments, encodings, found, strict=True):
        if "repeated" in profile.gates:
            again = repeated([(one.record.semantic_text, one.turns) for one in kept])
            encoding.refusals += [_refused("repeated", kept[number], profile) for number in sorted(again)]
            kept = [one for number, one in enumerate(kept) if number not in again]
        encoding.records = _rows(segment, kept, profile)
        if encoding.rejections:
            encoding.outcome = "partial" if encoding.records else "rejected"
        elif encoding.num_calls > 1:
            encoding.outcome = "split"
        elif not profile.asks_about(segment):
            encoding.outcome = "skipped"
    return encodings


def _at_bound(record: EncodedRecord, profile: EncoderProfile) -> bool:
    return len(record.semantic_text) >= profile.limits.max_text_chars


def _refusal(one: _Told, context: list[dict], profile: EncoderProfile) -> str:
    """Name of the gate that refuses the record; empty if none does."""
    if profile.gates:
        shown = [profile.shown(part["text"]) for part in context + one.current]
        evidence = [profile.shown(one.current[index]["text"]) for index in one.record.evidence_turns]
        speakers = [part["speaker"] or "" for part in context + one.current]
        if reason := refusal(one.record.semantic_text, evidence, [*shown, *speakers], profile.gates):
            return reason
    # Where nothing is known of it, a record passes.
    is_unsure = one.confidence is not None and one.confidence < profile.min_confidence
    return "unsure" if is_unsure else ""


def _refused(reason: str, one: _Told, profile: EncoderProfile) -> dict:
    refused = {"reason": reason, "turns": sorted(one.turns), "raw": one.record.model_dump_json()}
    return refused | _measured(one.confidence, profile)


def _measured(confidence: float | None, profile: EncoderProfile) -> dict:
    return {} if profile.min_confidence is None else {"confidence": confidence}


def _halve_or_reject(
    piece: _Piece, reason: str, raw: str, encoding: Encoding, profile: EncoderProfile
) -> list[_Piece]:
    halves = _halve(piece) if piece.depth < profile.max_splits else []
    if not halves:
        turns = sorted({part["turn_index"] for part in piece.current})
        encoding.rejections.append({"reason": reason, "turns": turns, "raw": raw})
    return halves


def _halve(piece: _Piece) -> list[_Piece]:
    current = piece.current
    if len(current) > 1:
        middle = len(current) // 2
        first, second = current[:middle], current[middle:]
    else:
        text = current[0]["text"]
        earliest = max(len(text) // 4, MIN_HALF_CHARS - 1)
        middle = text.rfind(" ", earliest, len(text) // 2 + 1) + 1 or len(text) // 2
        if middle < MIN_HALF_CHARS:
            return []
        first, second = [current[0] | {"text": text[:middle]}], [current[0] | {"text": text[middle:]}]
    # The second half sees the first in place of the older context, so that no prompt grows.
    return [
        _Piece(piece.owner, piece.context, first, piece.depth + 1),
        _Piece(piece.owner, first, second, piece.depth + 1),
    ]


def _cite_by_words(record: EncodedRecord, current: list[dict], role: str | None) -> EncodedRecord:
    """The record, resting on the part that shares most words with it; of equals what the model named."""
    wanted = words(record.semantic_text)
    spoken = [index for index, part in enumerate(current) if part["role"] == role] if role else []
    best = max(
        spoken or range(len(current)),
        key=lambda index: (len(wanted & words(current[index]["text"])), index in record.evidence_turns),
    )
    return record.model_copy(update={"evidence_turns": [best]})


def words(text: str) -> set[str]:
    """In lower case, numbers included."""
    return set(re.findall(r"\w+", text.casefold()))


def _rows(segment: dict, kept: list[_Told], profile: EncoderProfile) -> list[dict]:
    """Records with absolute turns, equal statements united, what the profile leaves out derived."""
    rows: dict[tuple[str, str], dict] = {}
    for one in kept:
        record, parts = one.record, [one.current[index] for index in one.record.evidence_turns]
        if profile.dates == "resolve":
            record = _dated(record, segment, parts)
        record = _by_name(record, parts)
        key = (record.memory_type, record.semantic_text)
        row = rows.get(key)
        if row is None:
            row = rows[key] = record.model_dump(exclude={"evidence_turns"}) | {"turns": set(), "roles": set()}
            row["confidence"] = one.confidence
        row["turns"].update(part["turn_index"] for part in parts)
        said = ("user", "assistant") if record.source_role == "both" else (record.source_role,)
        row["roles"].update(said if record.source_role else (part["role"] for part in parts))
    day = segment["session_time"].date().isoformat() if segment["session_time"] else ""
    return [
        {
            **{name: row[name] for name in ("memory_type", "semantic_text", "entities", "tags")},
            "record_id": record_id(segment, row["memory_type"], row["semantic_text"]),
            "evidence_turns": sorted(row["turns"]),
            "source_role": _source_role(row["roles"]),
            # t_ref is the day on which the information was produced, as encoder_v0 was trained.
            "temporal": row["temporal"] | {"t_ref": row["temporal"]["t_ref"] or day},
            **_measured(row["confidence"], profile),
        }
        for row in rows.values()
    ]


def _dated(record: EncodedRecord, segment: dict, parts: list[dict]) -> EncodedRecord:
    """The record with the dates that its words mean on the day on which it was said."""
    times = {turn["turn_index"]: turn["time"] for turn in segment["turns"]}
    said = [times[part["turn_index"]] for part in parts if times.get(part["turn_index"])]
    time = max(said) if said else segment["session_time"]
    found = resolve(record.semantic_text, time.date() if time else None)
    temporal = record.temporal.model_copy(
        update={"t_valid_from": found.valid_from, "t_valid_to": found.valid_to}
    )
    return record.model_copy(update={"semantic_text": found.text, "temporal": temporal})


def _by_name(record: EncodedRecord, parts: list[dict]) -> EncodedRecord:
    """The record, telling of "User" by the name of who said it, where its parts bear one."""
    names = {part["speaker"] for part in parts if part["role"] == "user"}
    name = " ".join((names.pop() or "").split()) if len(names) == 1 else ""
    if not name or len(name) > MAX_NAME_CHARS:
        return record
    return record.model_copy(update={"semantic_text": _USER.sub(lambda _: name, record.semantic_text)})


def _source_role(roles: set[str]) -> str:
    roles = roles & {"user", "assistant"}
    return "both" if len(roles) == 2 else next(iter(roles), "")


def record_id(segment: dict, memory_type: str, semantic_text: str) -> str:
    """32 hex digits. The same sentence of another user, session or segment is another record."""
    ids = (segment["user_id"], segment["session_id"], segment["segment_id"])
    content = joined(*ids, memory_type, semantic_text)
    return hashlib.sha256(content.encode()).hexdigest()[:32]


# --- engines ------------------------------------------------------------------------------------------


class Encoder:
    """A loaded profile. `encode(segments)` as above; `load_s` is the time that loading took."""

    def __init__(self, profile: EncoderProfile, **engine_options):
        started_s = time.monotonic()
        self.profile = profile
        engine = {"vllm": VllmEngine, "transformers": TransformersEngine}[profile.engine]
        self.engine = engine(profile, **engine_options)
        self.prompt = PromptBuilder(profile, self.engine.tokenizer)
        self.load_s = time.monotonic() - started_s

    def encode(self, segments: list[dict]) -> list[Encoding]:
        return encode(segments, self.engine.generate, self.prompt, self.profile)


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
