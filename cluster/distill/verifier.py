"""The verifier: what a teacher's records must be like before a student may learn from them.

`verify` looks at the records of one segment, one by one; the first rule that a record breaks is its reason.

| rule              | refuses a record                                                                      |
|-------------------|---------------------------------------------------------------------------------------|
| `invalid_record`  | that is no object with the keys and types of a record                                 |
| `evidence`        | without evidence, or with evidence outside the segment's current turns                |
| `dates`           | with a date that is not in the calendar, or a validity that ends before it begins     |
| `limits`          | longer than the profile lets its encoder write, or beyond its number of records       |
| `pronoun_opening` | whose text opens with a pronoun ("He moved to Lyon.")                                 |
| `self_contained`  | whose text needs another: first or second person, "as mentioned", fewer than three    |
|                   | words, or "yesterday" in a session without a date                                     |
| `secret`          | that holds a secret, or the marker that stands for one                                |
| `entities`        | with an entity that its evidence does not name                                        |
| `invented`        | whose text has a name or a number that neither evidence nor context has               |
| `duplicate`       | that repeats an earlier record of the segment                                         |

Whole segments are refused as well: `invalid_answer`, `cut_answer` and `refused` (no usable answer),
`nothing_left` (all records were refused), and `empty_but_stated` (no records, although a user states
something about himself: too uncertain to teach silence).
"""

import datetime as dt
import itertools
import json
import re
from dataclasses import dataclass

from pydantic import ValidationError

from cluster.backfill.redact import redact
from cluster.language.claims import statement_key
from cluster.language.numbers import NUMBER
from cluster.language.statements import statements
from schemas.profiles.encoder import EncoderProfile
from schemas.record import DATE_PATTERN, EncodedRecord, RecordLimits, type_problem

_PRONOUNS = frozenset(
    """he she it they this that these those his her hers its their theirs him them there here i we you my our
    your me us mine one""".split()  # noqa: SIM905 - a list of words is read more easily
)
_PERSON = re.compile(r"\b(?:I|I'(?:m|ve|d|ll)|[Mm]y|[Mm]e|[Mm]ine|[Mm]yself|[Ww]e|[Oo]ur|[Yy]our?s?)\b")
_DANGLING = re.compile(
    r"\b(?:as (?:mentioned|said|noted|above)|the (?:above|former|latter)\b(?! \w)|aforementioned"
    r"|above-mentioned|(?:mentioned|discussed) (?:above|earlier|before)|see (?:above|below))\b",
    re.IGNORECASE,
)
_RELATIVE = re.compile(
    r"\b(?:today|tonight|tomorrow|yesterday|(?:last|next|this) (?:week|month|year|night|weekend))\b", re.I
)
_QUOTED = re.compile(r"\"[^\"]*\"|“[^”]*”|'[^']*'(?!\w)")
_WORD = re.compile(r"[^\W_]+(?:['’.-][^\W_]+)*")
_ISO_DATE = re.compile(r"\b\d{4}-\d{2}-\d{2}\b")
_NUMERALS = dict(
    zip(
        """one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
        seventeen eighteen nineteen twenty""".split(),  # noqa: SIM905
        map(str, range(1, 21)),
        strict=True,
    )
)


@dataclass(frozen=True)
class Refusal:
    """A candidate that was refused: its JSON, the rule's name, and what exactly is wrong."""

    candidate: str
    reason: str
    detail: str
    scores: str | None = None
    """JSON of the judge's scores, where there was one."""


def verify(
    segment: dict, candidates: list[object], profile: EncoderProfile
) -> tuple[list[EncodedRecord], list[Refusal]]:
    """Records of one segment as a teacher gives them (evidence counts the current turns from 0).

    Returns those that keep all rules, in their order, and the others with the rule that they break.
    """
    evidence_of = Evidence(segment)
    kept: list[EncodedRecord] = []
    refused = []
    for candidate in candidates:
        reason, detail, record = "", "", None
        try:
            record = EncodedRecord.model_validate(candidate)
        except ValidationError as error:
            first = error.errors()[0]
            reason, detail = "invalid_record", f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        if record and (detail := type_problem(record, profile.memory_types)):
            reason, record = "invalid_record", None
        for name, rule in RULES.items():
            if record is None:
                break
            if detail := rule(record, evidence_of, profile.limits):
                reason = name
                break
        if not reason and len(kept) >= profile.limits.max_records:
            reason, detail = "limits", f"more than max_records={profile.limits.max_records}"
        if record and not reason and (twin := _twin(record, kept)):
            reason, detail = "duplicate", f"repeats {twin.semantic_text!r}"
        if reason or record is None:
            shown = redact(json.dumps(candidate, ensure_ascii=False, default=str)).text
            refused.append(Refusal(shown, reason, redact(detail).text))
        else:
            kept.append(record)
    return kept, refused


class Evidence:
    """What a segment's records can rest on, in lower case."""

    def __init__(self, segment: dict):
        self.turns = [part["text"] for part in segment["current"]]
        shown = [part["text"] for part in segment["context"]] + self.turns
        shown += [part["speaker"] or "" for part in segment["context"] + segment["current"]]
        self.has_date = segment["session_time"] is not None
        day = segment["session_time"].date().isoformat() if self.has_date else ""
        text = " ".join([*shown, day]).casefold()
        self.words = {_stem(word) for word in _WORD.findall(text)}
        # "A well-known Fox-Terrier" names a fox: parts of joined words count.
        self.words |= {_stem(part) for word in self.words for part in re.split(r"['’.-]", word)}
        self.numbers = set(NUMBER.findall(text)) | set(re.findall(r"\d+", text))
        self.numbers |= {_NUMERALS[word] for word in self.words & _NUMERALS.keys()}

    def of(self, record: EncodedRecord) -> str:
        """Text of the record's evidence turns, and who said it."""
        return " ".join(self.turns[index] for index in record.evidence_turns).casefold()


def states_something(segment: dict) -> str:
    """The first sentence of a user's current turns that says something about himself, and is neither question
    nor request; empty where there is none."""
    told = (statements(part["text"]) for part in segment["current"] if part["role"] == "user")
    return next(itertools.chain.from_iterable(told), "")


# --- the rules: each says what is wrong, or nothing -----------------------------------------------------


def _evidence(record: EncodedRecord, evidence: Evidence, limits: RecordLimits) -> str:
    num_turns = len(evidence.turns)
    if not record.evidence_turns or not all(0 <= index < num_turns for index in record.evidence_turns):
        return f"evidence_turns={record.evidence_turns}: must lie in 0..{num_turns - 1}"
    return ""


def _dates(record: EncodedRecord, evidence: Evidence, limits: RecordLimits) -> str:
    for name, value in record.temporal:
        try:
            valid = bool(re.fullmatch(DATE_PATTERN, value) and (not value or dt.date.fromisoformat(value)))
        except ValueError:
            valid = False
        if not (valid or value == ""):
            return f"temporal.{name}={value!r}: no date YYYY-MM-DD"
    start, end = record.temporal.t_valid_from, record.temporal.t_valid_to
    return f"t_valid_to={end} is before t_valid_from={start}" if start and end and end < start else ""


def _limits(record: EncodedRecord, evidence: Evidence, limits: RecordLimits) -> str:
    num_chars = len(record.semantic_text)
    if not record.semantic_text.strip() or num_chars > limits.max_text_chars:
        return f"semantic_text has {num_chars} characters, allowed are 1 to {limits.max_text_chars}"
    for name in ("entities", "tags"):
        items = getattr(record, name)
        if len(items) > limits.max_items:
            return f"{name} has {len(items)} items, allowed are {limits.max_items}"
        for item in items:
            if not item.strip() or len(item) > limits.max_item_chars:
                return f"{name}: {item!r} must have 1 to {limits.max_item_chars} characters"
    return ""


def _pronoun_opening(record: EncodedRecord, evidence: Evidence, limits: RecordLimits) -> str:
    first = next(iter(_WORD.findall(record.semantic_text)), "")
    return f"opens with {first!r}" if re.split(r"['’]", first)[0].casefold() in _PRONOUNS else ""


def _self_contained(record: EncodedRecord, evidence: Evidence, limits: RecordLimits) -> str:
    text = _QUOTED.sub(" ", record.semantic_text)
    if len(_WORD.findall(record.semantic_text)) < 3:
        return "fewer than three words say nothing alone"
    if match := _PERSON.search(text):
        return f"{match[0]!r} needs to know who speaks"
    if match := _DANGLING.search(text):
        return f"{match[0]!r} refers to another text"
    dates = [value for _, value in record.temporal if value]
    if not (evidence.has_date or dates) and (match := _RELATIVE.search(text)):
        return f"{match[0]!r} in a session without a date"
    return ""


def _secret(record: EncodedRecord, evidence: Evidence, limits: RecordLimits) -> str:
    for text in (record.semantic_text, *record.entities, *record.tags):
        if "[redacted:" in text:
            return "has the marker of a secret"
        if counts := redact(text).counts:
            return f"has a secret: {', '.join(counts)}"
    return ""


def _entities(record: EncodedRecord, evidence: Evidence, limits: RecordLimits) -> str:
    given = " ".join(_WORD.findall(evidence.of(record)))
    for entity in record.entities:
        if " ".join(_WORD.findall(entity.casefold())) not in given:
            return f"{entity!r} does not stand in the evidence"
    return ""


def _invented(record: EncodedRecord, evidence: Evidence, limits: RecordLimits) -> str:
    text = _ISO_DATE.sub(" ", record.semantic_text)
    for number in NUMBER.findall(text):
        if number not in evidence.numbers:
            return f"the number {number} stands nowhere in the segment"
    for index, word in enumerate(_WORD.findall(text)):
        if index and word[0].isupper() and _stem(word) not in evidence.words | {"user"}:
            return f"the name {word!r} stands nowhere in the segment"
    return ""


RULES = {
    "evidence": _evidence,
    "dates": _dates,
    "limits": _limits,
    "pronoun_opening": _pronoun_opening,
    "self_contained": _self_contained,
    "secret": _secret,
    "entities": _entities,
    "invented": _invented,
}


def _twin(record: EncodedRecord, kept: list[EncodedRecord]) -> EncodedRecord | None:
    key, words = statement_key(record.semantic_text), set(_WORD.findall(record.semantic_text.casefold()))
    for other in kept:
        others = set(_WORD.findall(other.semantic_text.casefold()))
        nearly = len(words & others) >= 0.9 * len(words | others)
        same_numbers = set(NUMBER.findall(record.semantic_text)) == set(NUMBER.findall(other.semantic_text))
        if key == statement_key(other.semantic_text) or (nearly and same_numbers):
            return other
    return None


def _stem(word: str) -> str:
    return re.sub(r"['’]s?$", "", word.casefold())
