"""Teachers: segments in, candidate records out, as the JSON that a student is to write.

    rules   cluster.distill.extractor: deterministic, free, no model
    gold    memories that people wrote down for these sessions
    vllm    a profile on this cluster's actors, through the encoder, halving included
    openai  a profile's prompt, sent to an OpenAI-compatible endpoint, halving included

What costs goes through the ledger of cluster.models.paid_answers. Every teacher answers in the profile's
own terms: evidence counts the segment's current turns from 0.
"""

import datetime as dt
import functools
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pyarrow as pa

from cluster.backfill.encoder import Encoder, Encoding, encode
from cluster.backfill.staged import plan_path
from cluster.distill.asked import Counting, in_one_call
from cluster.distill.extractor import extract
from cluster.language.words import words
from cluster.models.asking import Answer, Request
from cluster.models.endpoint import EndpointConfig
from cluster.models.fingerprint import source_fingerprint
from cluster.models.paid_answers import Paid, Responses
from cluster.models.prompt import Chat, PromptBuilder
from cluster.store.files import Files
from schemas.profiles.encoder import EncoderProfile
from schemas.record import RECORD_FIELDS, answer_schema
from schemas.stage_items import Part, TaughtPart

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TAUGHT_SCHEMA = pa.schema(
    [
        ("segment_id", pa.string()),
        ("text", pa.string()),
        ("complete", pa.bool_()),
        ("prompt_tokens", pa.int32()),
        ("output_tokens", pa.int32()),
        ("refusal", pa.string()),
    ]
)


class Teacher(Counting, Protocol):
    """What every teacher has."""

    def teach(self, segments: list[dict]) -> Sequence[Answer | None]:
        """Answers in order; None where a cap left a segment open."""
        ...


class RulesTeacher:
    """The rule-based extractor, within the profile's limits."""

    def __init__(self, profile: EncoderProfile):
        self.counts: dict[str, int] = {}
        self._limits = {
            "max_records": profile.limits.max_records,
            "max_text_chars": profile.limits.max_text_chars,
        }

    def teach(self, segments: list[dict]) -> list[Answer]:
        found = (extract(segment, **self._limits) for segment in segments)
        return [Answer(json.dumps({"records": records}, ensure_ascii=False)) for records in found]


class GoldTeacher:
    """Memories of a file, each given with the segment in whose current turns the last of its evidence lies.

    `memories` are rows of memories.jsonl by session. The text learned is `said`, in the speaker's own words
    of time; the runtime computes the date. A piece of a turn gives what most of a memory's words stand in.
    """

    def __init__(self, memories: dict[str, list[dict]], profile: EncoderProfile):
        self.counts: dict[str, int] = {}
        self._memories, self._limits = memories, profile.limits

    def teach(self, segments: list[dict]) -> list[Answer]:
        return [Answer(json.dumps({"records": self._records(s)}, ensure_ascii=False)) for s in segments]

    def _records(self, segment: dict) -> list[dict]:
        parts, found = segment["current"], []
        for memory in self._memories.get(segment["session_id"], []):
            evidence = [i for i, part in enumerate(parts) if part["turn_index"] in memory["evidence_turns"]]
            if not evidence or parts[evidence[-1]]["turn_index"] != max(memory["evidence_turns"]):
                continue
            last = parts[evidence[-1]]
            wanted = words(memory["said"]) - _FRAME
            if _is_cut(segment, last) and 2 * len(wanted & words(last["text"])) < len(wanted):
                continue
            record = {name: memory[name] for name in RECORD_FIELDS} | {"semantic_text": memory["said"]}
            record["entities"] = record["entities"][: self._limits.max_items]
            found.append(record | {"evidence_turns": evidence})
        found.sort(key=lambda record: record["evidence_turns"][-1])
        return found[: self._limits.max_records]


_FRAME = frozenset("user users s is are was has have a an the of in at to and".split())  # noqa: SIM905
"""Words of a memory that its evidence need not have."""


def _is_cut(segment: dict, part: dict) -> bool:
    """Whether only a piece of the part's turn is in the segment."""
    begun = {turn["turn_index"]: turn["content"] for turn in segment["turns"]}
    return begun.get(part["turn_index"]) != part["text"]


def read_gold(path: str) -> dict[str, list[dict]]:
    """memories.jsonl of jobs.sample by session id."""
    memories: dict[str, list[dict]] = {}
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        memories.setdefault(row["session_id"], []).append(row)
    return memories


def rules_fingerprint() -> str:
    """16 hex digits over the extractor's source, and that of all it reads with."""
    return source_fingerprint("cluster.distill.extractor")


class VllmTeacher:
    """A profile's model on this actor. Answers are kept when their batch is done."""

    def __init__(self, profile: EncoderProfile, responses: Responses, engine: dict):
        self.counts = {"num_asked": 0}
        self._responses = responses
        self._load = functools.cache(functools.partial(Encoder, profile, **engine))

    def teach(self, segments: list[dict]) -> list[Answer]:
        answers = {s["segment_id"]: self._responses.get(s["segment_id"]) for s in segments}
        missing = [s for s in segments if answers[s["segment_id"]] is None]
        # Loading waits for work: a run that was answered before never loads a model.
        self.counts["num_asked"] += len(missing)
        for segment, encoding in zip(missing, self._load().encode(missing) if missing else [], strict=True):
            answer = _answer(segment, encoding)
            self._responses.put(segment["segment_id"], answer)
            answers[segment["segment_id"]] = answer
        return [found for segment in segments if (found := answers[segment["segment_id"]])]


def local_records(segment: dict, records: list[dict]) -> list[dict]:
    """Encoded records, whose evidence names turns of the session, in terms of the segment's current turns."""
    index_of: dict[int, int] = {}
    for index, part in enumerate(segment["current"]):
        index_of.setdefault(part["turn_index"], index)
    return [
        {name: record[name] for name in RECORD_FIELDS}
        | {"evidence_turns": [index_of[turn] for turn in record["evidence_turns"]]}
        for record in records
    ]


class _LeftOpen(Exception):
    """A cap or a failure left one of the halves without an answer."""


class OpenAITeacher:
    """An endpoint, asked with a profile's prompt and held to its schema.

    What it finds too long, or answers no further than its token limit, is halved as the encoder does it
    (`max_splits`), and asked about again. It is asked for what the user said: dates, names and gates are the
    student's runtime's and the verifier's, and a second look is for small models.
    """

    def __init__(
        self,
        profile: EncoderProfile,
        endpoint: Paid,
        tokenizer: "PreTrainedTokenizerBase | None" = None,
    ):
        """The tokenizer says what must not stand in a prompt's data; the endpoint renders the chat."""
        self._profile, self._endpoint = profile, endpoint
        self._prompt = PromptBuilder(profile, tokenizer)
        self._plain = profile.model_copy(update=_PLAIN)
        self._num_of_halves = 0

    @property
    def counts(self) -> dict[str, int]:
        """Those of the endpoint; requests about halves are counted apart from those about segments."""
        counts = dict(self._endpoint.counts)
        return counts | {
            "num_asked": counts["num_asked"] - self._num_of_halves,
            "num_halves_asked": self._num_of_halves,
        }

    def teach(self, segments: list[dict]) -> list[Answer | None]:
        answers = self._endpoint.ask([self._request(segment) for segment in segments])
        too_long = [
            (place, segments[place], answer)
            for place, answer in enumerate(answers)
            if answer and (answer.reason == "prompt_too_long" or not (answer.complete or answer.refusal))
        ]
        for (place, *_), answer in zip(too_long, self._in_halves(too_long), strict=True):
            answers[place] = answer
        return answers

    def _in_halves(self, too_long: list[tuple[int, dict, Answer]]) -> list[Answer | None]:
        """Answers put together of those to halves; the old one where a half has none that is whole."""
        known = [answer for *_, answer in too_long]
        # By no name: a record then tells of "User", as in the answers to whole segments.
        segments = [
            segment | {"current": [part | {"speaker": None} for part in segment["current"]]}
            for _, segment, _ in too_long
        ]

        def generate(requests: list[Request]) -> list[Answer]:
            nonlocal known
            # The first round asks about whole segments, whose answers are known.
            answers, known = known or self._ask_more(requests), []
            return answers

        if not too_long:
            return []
        try:
            encodings = encode(segments, generate, self._chat, self._plain)
        except _LeftOpen:
            return [None] * len(too_long)
        return [
            old if encoding.rejections else _answer(segment, encoding)
            for (_, segment, old), encoding in zip(too_long, encodings, strict=True)
        ]

    def _ask_more(self, requests: list[Request]) -> list[Answer]:
        num_before = self._endpoint.counts["num_asked"]
        answers = self._endpoint.ask(requests)
        self._num_of_halves += self._endpoint.counts["num_asked"] - num_before
        found = [answer for answer in answers if answer]
        if len(found) < len(answers):
            raise _LeftOpen
        return found

    def _chat(self, context: list[dict], current: list[dict], session_time: dt.datetime | None) -> Chat:
        return Chat(self._prompt.messages(context, current, session_time))

    def _request(self, segment: dict) -> Request:
        profile, current = self._profile, segment["current"]
        return Request(
            self._chat(segment["context"], current, segment["session_time"]),
            answer_schema(len(current), profile.limits, profile.fields, types=profile.memory_types),
            profile.max_tokens,
            key=segment["segment_id"],
        )


_PLAIN = {
    "required_role": None,
    "languages": (),
    "evidence_by": "model",
    "gates": (),
    "min_confidence": None,
    "dates": "model",
    "second_look": False,
}
"""Settings with which `encode` asks, halves and reads, and does nothing else."""


def _answer(segment: dict, encoding: Encoding) -> Answer:
    """What the encoder made of a segment, as an answer to it."""
    return Answer(
        text=json.dumps({"records": local_records(segment, encoding.records)}, ensure_ascii=False),
        complete=not encoding.rejections,
        prompt_tokens=encoding.prompt_tokens,
        output_tokens=encoding.output_tokens,
    )


def fingerprint(kind: str, profile: EncoderProfile, endpoint: EndpointConfig) -> str:
    """16 hex digits over everything that can change a paid teacher's answer to a segment."""
    parts = [kind, profile.fingerprint, endpoint.fingerprint if kind == "openai" else ""]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def taught_path(part_id: str) -> str:
    return f"taught/{part_id}.parquet"


class TeachStage:
    """Actor: plan/BATCH -> taught/PART, the answers to those of its segments that are wanted.

    `make` makes the teacher inside the actor. What a cap or a failure left open has no row.
    """

    def __init__(self, files: Files, make: Callable[[], Teacher]):
        self._files, self._make = files, make
        self._teacher: Teacher | None = None

    def __call__(self, part: Part) -> TaughtPart:
        return self.together([part])[0]

    def together(self, parts: Sequence[Part]) -> list[TaughtPart]:
        """The same of several parts, about whose segments the teacher is asked in one call. What was asked
        and what became of it stands with the first."""
        teacher = self._teacher = self._teacher or self._make()
        segments = [self._segments(part) for part in parts]
        asked = [segment for some in segments for segment in some]
        answers, counts, error = in_one_call(teacher.teach, asked, teacher)
        answer_of = dict(zip((segment["segment_id"] for segment in asked), answers, strict=True))
        taught: list[TaughtPart] = []
        for part, some in zip(parts, segments, strict=True):
            rows = [
                {"segment_id": segment["segment_id"], **answer.kept}
                for segment in some
                if (answer := answer_of[segment["segment_id"]]) is not None
            ]
            self._files.put_rows(path := taught_path(part.part_id), rows, TAUGHT_SCHEMA)
            taught.append(
                TaughtPart(
                    **vars(part),
                    taught=path,
                    num_left=len(some) - len(rows),
                    teach_counts={} if taught else counts,
                    error=error,
                )
            )
        return taught

    def _segments(self, part: Part) -> list[dict]:
        """The segments of a part, as they are staged."""
        wanted = set(part.segment_ids)
        plan = self._files.get_table(plan_path(part.batch_id)).to_pylist()
        return [segment for segment in plan if segment["segment_id"] in wanted]
