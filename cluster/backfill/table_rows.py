"""Makes rows of the store's tables, from segments with their answers and from bad rows of the archive."""

import hashlib
import re

from cluster.backfill.encoder import EXTRA_VALUE, OTHER_LANGUAGE
from cluster.backfill.redact import Rules, redact
from schemas.identity import joined
from schemas.record import normalized
from schemas.stage_items import BadRow

MAX_RAW_CHARS = 20_000
"""Characters of a rejected row's raw text that are kept."""

_ESCAPED_SPACE = re.compile(r"\\(?:[nrtvf]|x[0-2][0-9a-f]|x[7-9a][0-9a-f]|u20[0-9a-f]{2}|u3000|ufeff)")

_KEYS = ("segment_id", "user_id", "conversation_id", "session_id", "session_time")


def turn_row(segment: dict, turn: dict) -> dict:
    """A row of the table `turns`; its id stays when the turn's text is edited."""
    identity = joined(segment["user_id"], segment["session_id"], str(turn["turn_index"]))
    return {"turn_id": hashlib.sha256(identity.encode()).hexdigest()[:32], **_keys(segment), **turn}


def record_row(segment: dict, record: dict) -> dict:
    """A row of the table `records`, first revision."""
    evidence = [
        {"session_id": segment["session_id"], "turn_index": index} for index in record["evidence_turns"]
    ]
    return {
        **_keys(segment),
        **{name: value for name, value in record.items() if name != "evidence_turns"},
        "revision": 1,
        "normalized_text": normalized(record["memory_type"], record["semantic_text"]),
        "evidence": evidence,
    }


def ledger_row(segment: dict) -> dict:
    """A row of the table `segments`, which the ledger is read from."""
    names = (
        "first_turn last_turn start_char end_char outcome num_calls prompt_tokens cached_tokens output_tokens"
    )
    return {
        **_keys(segment),
        **{name: segment[name] for name in names.split()},
        "num_records": len(segment["records"]),
    }


def _keys(segment: dict) -> dict:
    return {name: segment[name] for name in _KEYS}


# --- rejections ---------------------------------------------------------------------------------------


def rejection_row(bad: BadRow, rules: Rules = ()) -> dict:
    """A row of REJECTIONS_SCHEMA. Raw text is redacted like every other text, then shortened."""
    raw = _redact_shown(bad.raw.encode("utf-8", "backslashreplace").decode(), rules)[:MAX_RAW_CHARS]
    content = joined(bad.source, bad.reason, raw)
    return {
        "rejection_id": hashlib.sha256(content.encode()).hexdigest()[:32],
        "stage": "archive",
        "source": bad.source,
        "user_id": bad.user_id,
        "session_id": bad.session_id,
        "reason": bad.reason,
        "detail": _redact_shown(bad.detail, rules),
        "raw": raw,
    }


def _redact_shown(text: str, rules: Rules) -> str:
    # In a repr a line break is `\n`, whose n would glue to the secret behind it and hide it.
    spaced = _ESCAPED_SPACE.sub(lambda escape: "\n" if escape[0] == r"\n" else " ", text)
    return redact(spaced, rules=rules).text


def segment_rejections(segment: dict) -> list[dict]:
    """Rows of the table `rejections`: parts of a segment that gave no complete answer, records that a gate
    refused, and the segment itself where its language is not read."""
    unread = "turns {turns} gave no complete answer; retry with --retry-rejected"
    return [
        *_kept_aside(segment, segment["rejections"], "encoder", unread),
        *_kept_aside(segment, segment.get("refusals") or [], "gate", "a record of turns {turns} was refused"),
    ]


_DETAILS = {
    OTHER_LANGUAGE: "turns {turns} are in {raw!r}, a language that the encoder does not read",
    EXTRA_VALUE: "a record of turns {turns} is kept without these values of extra fields",
}
"""What is said of a reason, where it is not what the stage says of all."""


def _kept_aside(segment: dict, found: list[dict], stage: str, detail: str) -> list[dict]:
    prefix = "" if stage == "encoder" else f"{stage} "
    return [
        {
            "rejection_id": hashlib.sha256(f"{segment['segment_id']}\0{prefix}{index}".encode()).hexdigest()[
                :32
            ],
            "stage": stage,
            "source": segment["segment_id"],
            "user_id": segment["user_id"],
            "session_id": segment["session_id"],
            "reason": rejection["reason"],
            "detail": _DETAILS.get(rejection["reason"], detail).format(**rejection),
            "raw": rejection["raw"][:MAX_RAW_CHARS],
        }
        for index, rejection in enumerate(found)
    ]
