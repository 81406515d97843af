"""Records of an answer become rows: with the turns of the session that they cite, their dates, names and ids.

What an encoder's profile leaves out of the answer is filled in here.
"""

import hashlib
import re
from collections.abc import Collection
from dataclasses import dataclass, replace

from cluster.backfill.gates import is_told
from cluster.language.dates import resolve
from cluster.language.words import words
from schemas.identity import joined
from schemas.profiles.encoder import EncoderProfile
from schemas.record import EncodedRecord

MAX_NAME_CHARS = 64
"""Longer speaker names are ignored."""

_USER = re.compile(r"\b(?:[Tt]he )?User\b|\b[Tt]he user\b")


@dataclass(frozen=True)
class CitedRecord:
    """A record of an answer, with the parts that its `evidence_turns` index, and its confidence if known."""

    record: EncodedRecord
    current: list[dict]
    confidence: float | None = None

    @property
    def turns(self) -> set[int]:
        """Indexes, in the session, of the turns that it rests on."""
        return {self.current[index]["turn_index"] for index in self.record.evidence_turns}

    def without_values(self, names: Collection[str]) -> "CitedRecord":
        """The same without its values of these extra fields."""
        extra = {name: value for name, value in self.record.extra.items() if name not in names}
        return replace(self, record=self.record.model_copy(update={"extra": extra}))


def untold_values(one: CitedRecord, profile: EncoderProfile) -> dict[str, str]:
    """Values of extra fields that a record is to be kept without: those that are no choice, those that the
    grammar ended, and those of which no word was said, if the profile has a gate that looks for words."""
    evidence = [profile.shown(one.current[index]["text"]) for index in one.record.evidence_turns]
    has_gate = not {"invented", "unsupported"}.isdisjoint(profile.gates)
    untold = {}
    for extra in profile.extra_fields:
        value = one.record.extra.get(extra.name, "")
        if extra.choices:
            is_kept = value in ("", *extra.choices)
        else:
            is_kept = len(value) < extra.most_chars and (not has_gate or is_told(value, evidence))
        if not is_kept:
            untold[extra.name] = value
    return untold


def cite_by_words(record: EncodedRecord, current: list[dict], role: str | None) -> EncodedRecord:
    """The record, citing the part that shares most words with it; among equals one that the model cited."""
    wanted = words(record.semantic_text)
    spoken = [index for index, part in enumerate(current) if part["role"] == role] if role else []
    best = max(
        spoken or range(len(current)),
        key=lambda index: (len(wanted & words(current[index]["text"])), index in record.evidence_turns),
    )
    return record.model_copy(update={"evidence_turns": [best]})


def rows_of(segment: dict, kept: list[CitedRecord], profile: EncoderProfile) -> list[dict]:
    """Records with turn indexes of the session; equal statements are united, fields that the profile omits
    are derived."""
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
            row["extra"] = {}
        row["extra"] = record.extra | row["extra"]
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
            **({"extra": row["extra"]} if row["extra"] else {}),
            **measured(row["confidence"], profile),
        }
        for row in rows.values()
    ]


def _dated(record: EncodedRecord, segment: dict, parts: list[dict]) -> EncodedRecord:
    """The record with the dates that its words mean, counted from the day on which it was said."""
    times = {turn["turn_index"]: turn["time"] for turn in segment["turns"]}
    said = [times[part["turn_index"]] for part in parts if times.get(part["turn_index"])]
    time = max(said) if said else segment["session_time"]
    found = resolve(record.semantic_text, time.date() if time else None)
    temporal = record.temporal.model_copy(
        update={"t_valid_from": found.valid_from, "t_valid_to": found.valid_to}
    )
    return record.model_copy(update={"semantic_text": found.text, "temporal": temporal})


def _by_name(record: EncodedRecord, parts: list[dict]) -> EncodedRecord:
    """The record with "User" replaced by the speaker's name, if its parts have one."""
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


def measured(confidence: float | None, profile: EncoderProfile) -> dict:
    """`confidence` of a row, where the profile sets `min_confidence`: for who chooses that bound."""
    return {} if profile.min_confidence is None else {"confidence": confidence}
