"""Training examples: a segment and what a teacher said of it become what a student sees and has to answer.

The prompt is the one that the profile gives its model when it encodes, and the answer is spelt as a decoder
under the profile's schema spells it: a student must not have to learn another form than it will be held to.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from cluster.backfill.archive import Unit
from cluster.backfill.cut_stage import cut_unit
from cluster.backfill.encoder import skipped
from cluster.backfill.ledger import Ledger
from cluster.backfill.staged import plan_path
from cluster.distill.derivable import derivable
from cluster.distill.extractor import asking
from cluster.distill.near_duplicates import signature
from cluster.distill.verifier import Refusal, states_something, verify
from cluster.language.content import share_told
from cluster.language.statements import sentences, statements
from cluster.models.prompt import PromptBuilder
from cluster.models.sources import tokenizer_folder
from cluster.store.files import Files
from schemas.profiles.encoder import EncoderProfile
from schemas.record import EncodedRecord
from schemas.stage_items import CheckedPart, ShownSegments, ShownUnit, TaughtPart
from schemas.store import RECORD_TYPE, SEGMENTS_SCHEMA
from schemas.training import MESSAGE_TYPE

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CHECKED_SCHEMA = pa.schema(
    [
        ("segment_id", pa.string()),
        ("user_id", pa.string()),
        ("session_id", pa.string()),
        ("verdict", pa.string()),
        ("messages", pa.list_(MESSAGE_TYPE)),
        ("completion", pa.string()),
        ("records", pa.list_(RECORD_TYPE)),
        ("memory_types", pa.list_(pa.string())),
        ("num_turns", pa.int32()),
        ("num_turns_cited", pa.int32()),
        ("prompt_tokens", pa.int32()),
        ("completion_tokens", pa.int32()),
        (
            "refusals",
            pa.list_(
                pa.struct(
                    [(name, pa.string()) for name in ("candidate", "reason", "detail")]
                    + [("scores", pa.string())]
                )
            ),
        ),
    ]
)
"""A segment after the verifier, which gold passes by. `verdict`: records | empty | asking | alone (of a
sentence), or why it teaches nothing. `records` has all keys, for the judge; `completion` has those that the
student writes."""


def completion(records: list[EncodedRecord], fields: Sequence[str]) -> str:
    """The answer as the profile's decoder spells it: its keys in its order, `, ` and `: ` between."""
    rows = [record.model_dump() for record in records]
    written = [{name: row[name] for name in fields} for row in rows]
    return json.dumps({"records": written}, ensure_ascii=False)


def examine(
    segment: dict, text: str, complete: bool, refusal: str, profile: EncoderProfile
) -> tuple[str, list[EncodedRecord], list[Refusal]]:
    """A teacher's answer to a segment -> verdict, the records to be learned, what was refused and why."""
    whole = {"refused": refusal, "cut_answer": "" if complete else "the answer reached its token limit"}
    for reason, detail in whole.items():
        if detail:
            return reason, [], [Refusal(text, reason, detail)]
    try:
        candidates = json.loads(text)["records"]
        if not isinstance(candidates, list):
            raise ValueError("records is no list")
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        detail = f"no JSON object with a list of records: {error}"
        return "invalid_answer", [], [Refusal(text, "invalid_answer", detail)]
    records, refused = verify(segment, candidates, profile)
    if records:
        return "records", records, refused
    if refused:
        return "nothing_left", [], refused
    if said_so := states_something(segment):
        detail = f"no records, but a user says: {said_so[:200]}"
        return "empty_but_stated", [], [Refusal(text, "empty_but_stated", detail)]
    return "empty", [], []


def cut_for_student(
    unit: Unit,
    *,
    archive: str,
    profile: EncoderProfile,
    batch_size: int,
    files: Files,
    leave_out: Callable[[dict], str],
) -> ShownUnit:
    """Stage: `cut_unit` of everything, and signatures of the segments that the student is shown."""
    result = cut_unit(
        unit,
        archive=archive,
        profile=profile,
        ledger=Ledger.of(SEGMENTS_SCHEMA.empty_table()),
        batch_size=batch_size,
        files=files,
        leave_out=leave_out,
    )
    shown = []
    for batch in result.batches:
        segments = files.get_table(plan_path(batch.batch_id)).to_pylist()
        segments = [segment for segment in segments if not skipped(segment, profile)]
        ids = tuple(segment["segment_id"] for segment in segments)
        signatures = np.array([signature(said(segment)) for segment in segments], "i4")
        shown.append(ShownSegments(batch.batch_id, ids, signatures.tobytes()))
    num_cut = sum(batch.num_segments for batch in result.batches)
    return ShownUnit(result, tuple(shown), num_cut - sum(len(batch.segment_ids) for batch in shown))


class CheckStage:
    """Actor: plan/BATCH and its answers -> checked/PART, rows of CHECKED_SCHEMA."""

    def __init__(self, profile: EncoderProfile, files: Files, is_gold: bool = False):
        from transformers import AutoTokenizer

        self._profile, self._files, self._is_gold = profile, files, is_gold
        self._tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder(profile))
        self._prompt = PromptBuilder(profile, self._tokenizer)

    def __call__(self, part: TaughtPart) -> CheckedPart:
        answers = {answer["segment_id"]: answer for answer in self._files.get_table(part.taught).to_pylist()}
        plan = self._files.get_table(plan_path(part.batch_id)).to_pylist()
        rows = []
        for segment in plan:
            if segment["segment_id"] in answers:
                rows.append(self._example(segment, answers[segment["segment_id"]]))
                if self._is_gold:
                    rows += self._alone(segment, answers[segment["segment_id"]])
                elif advice := asking(segment):
                    rows.append(self._row(advice, "asking", [], []))
        self._files.put_rows(path := f"checked/{part.part_id}.parquet", rows, CHECKED_SCHEMA)
        num_to_judge = sum(found["verdict"] == "records" for found in rows)
        return CheckedPart(**vars(part), checked=path, num_to_judge=num_to_judge)

    def _example(self, segment: dict, answer: dict) -> dict:
        if self._is_gold:
            # People who wrote it down have checked it; the rules would refuse much that they resolved.
            records, not_shown = derivable_records(_records(answer), segment)
            refused = [Refusal(text, "not_shown", "a name or number stands elsewhere") for text in not_shown]
            return self._row(segment, "records" if records else "empty", records, refused)
        verdict, records, refused = examine(
            segment, answer["text"], answer["complete"], answer["refusal"], self._profile
        )
        return self._row(segment, verdict, records, refused)

    def _alone(self, segment: dict, answer: dict) -> list[dict]:
        if not self._profile.second_look:
            return []
        return [
            self._row(one, "alone", records, [])
            for one, records in sentences_alone(segment, _records(answer))
        ]

    def _row(self, segment: dict, verdict: str, records: list, refused: list[Refusal]) -> dict:
        messages = self._prompt.messages(segment["context"], segment["current"], segment["session_time"])
        text = completion([self._as_shown(record) for record in records], self._profile.fields)
        shown = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return {
            **{name: segment[name] for name in ("segment_id", "user_id", "session_id")},
            "verdict": verdict,
            "messages": messages,
            "completion": text,
            "records": [record.model_dump() for record in records],
            "memory_types": [record.memory_type for record in records],
            "num_turns": len(segment["current"]),
            "num_turns_cited": len({index for record in records for index in record.evidence_turns}),
            "prompt_tokens": num_tokens(self._tokenizer, shown),
            "completion_tokens": num_tokens(self._tokenizer, text),
            "refusals": [vars(refusal) for refusal in refused],
        }

    def _as_shown(self, record: EncodedRecord) -> EncodedRecord:
        text, names = self._profile.shown(record.semantic_text), map(self._profile.shown, record.entities)
        return record.model_copy(update={"semantic_text": text, "entities": list(names)})


def _records(answer: dict) -> list[EncodedRecord]:
    return [EncodedRecord.model_validate(item) for item in json.loads(answer["text"])["records"]]


def derivable_records(records: list[EncodedRecord], segment: dict) -> tuple[list[EncodedRecord], list[str]]:
    """Records as a segment tells them, and the texts of those that it cannot tell."""
    shown = [part["text"] for part in segment["context"] + segment["current"]]
    found = [(record, derivable(record, shown)) for record in records]
    return [known for _, known in found if known], [
        record.semantic_text for record, known in found if not known
    ]


def sentences_alone(
    segment: dict, records: list[EncodedRecord]
) -> Iterator[tuple[dict, list[EncodedRecord]]]:
    """Each sentence in which a user states something, as an encoder's second look asks about it, with the
    records that it tells. A sentence that tells a record in part teaches nothing, and is left out, as is one
    that tells a record without its names and numbers."""
    for index, part in enumerate(segment["current"]):
        if part["role"] != "user" or len(sentences(part["text"])) < 2:
            continue
        resting = [record for record in records if record.evidence_turns == [index]]
        for sentence in statements(part["text"]):
            shares = [share_told(record.semantic_text, sentence) for record in resting]
            if any(TOLD_IN_PART <= share < TOLD for share in shares):
                continue
            told = [
                record.model_copy(update={"evidence_turns": [0]})
                for record, share in zip(resting, shares, strict=True)
                if share >= TOLD
            ]
            one = segment | {"context": [], "current": [part | {"text": sentence}]}
            told, not_shown = derivable_records(told, one)
            if not not_shown:
                yield one, told


TOLD, TOLD_IN_PART = 0.6, 0.34
"""Shares of a record's content words that stand in a sentence that tells it, and in one that tells of it."""


def num_tokens(tokenizer: "PreTrainedTokenizerBase", text: str) -> int:
    """Tokens of a text in which control tokens count as one."""
    return len(tokenizer(text, add_special_tokens=False)["input_ids"])


def said(segment: dict) -> str:
    """The current turns as one text, which makes two segments the same for a student."""
    return "\n".join(f"{part['role']}: {part['text']}" for part in segment["current"])
