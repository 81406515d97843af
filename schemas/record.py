"""What the encoder answers: memory records as JSON, bounded so that a decoder can be held to them.

The field names and their order are those of the encoder_v0 model card; its adapter was trained on exactly
these keys. Bounds and date pattern are ours: without them a constrained decoder may run to its token limit
and the JSON is cut.
"""

import datetime as dt
import json
import operator
import re
from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal, Self, TypeGuard, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    create_model,
    field_validator,
    model_validator,
)

MemoryType = Literal[
    "fact",
    "preference",
    "event",
    "constraint",
    "procedure",
    "failure_pattern",
    "tool_affordance",
]
SourceRole = Literal["user", "assistant", "both", ""]
RecordField = Literal[
    "memory_type",
    "semantic_text",
    "entities",
    "temporal",
    "tags",
    "evidence_turns",
    "source_role",
]
MEMORY_TYPES: tuple[MemoryType, ...] = get_args(MemoryType)
"""Types that ship; an encoder's profile may name others in their place, in `memory_types`. To the store one
alone means something, `event`: what happens on its day, and is over then."""
SOURCE_ROLES: tuple[SourceRole, ...] = get_args(SourceRole)
RECORD_FIELDS: tuple[RecordField, ...] = get_args(RecordField)

TYPE_PATTERN = r"^[a-z][a-z0-9_]{0,31}$"
TypeName = Annotated[str, Field(pattern=TYPE_PATTERN)]
"""What a type of memories may be called: it stands in tables, prompts, and names of files."""


def is_type_name(value: object) -> TypeGuard[str]:
    """Whether a type of memories may be called so."""
    return isinstance(value, str) and re.fullmatch(TYPE_PATTERN, value) is not None


MAX_EXTRA_FIELDS = 8
"""Fields of its own that an encoder's records may have."""

MAX_VALUE_CHARS = 400
"""Characters of the longest value of one."""


class ExtraField(BaseModel):
    """A field that an encoder's records have beside those of all records. What it holds is text."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str
    """Small letters, digits and underscores, as in `place_of_event`."""
    description: str
    """What it holds, for the model: it stands behind the name in the prompt."""
    choices: tuple[str, ...] = ()
    """Its values, if it has no others."""
    max_length: int | None = Field(None, ge=1, le=MAX_VALUE_CHARS)
    """Most characters of a free value; 80 where it is not given."""

    @field_validator("name")
    @classmethod
    def _is_name(cls, name: str) -> str:
        if not is_type_name(name):
            raise ValueError(
                f"{name!r} is no name of a field; give at most 32 small letters, digits and underscores, the "
                "first a letter"
            )
        return name

    @field_validator("description", "choices")
    @classmethod
    def _is_one_line(cls, given: str | tuple[str, ...]) -> str | tuple[str, ...]:
        for text in (given,) if isinstance(given, str) else given:
            if not text or text != cleaned(text):
                raise ValueError(f"{text!r} is empty or has needless spaces; write it on one line")
        return given

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(set(self.choices)) < len(self.choices):
            raise ValueError(f"choices={list(self.choices)}: has one twice; name each once")
        if self.choices and self.max_length is not None:
            raise ValueError(f"max_length={self.max_length}: goes with a free value; leave it or choices out")
        return self

    @property
    def most_chars(self) -> int:
        """Characters at which the grammar ends a free value."""
        return self.max_length or 80

    @property
    def kind(self) -> Any:
        """What its values may be, for `answer_model`. Empty is what nobody says."""
        if self.choices:
            return Literal[(*self.choices, "")]
        return Annotated[str, Field(max_length=self.most_chars)]

    @property
    def instruction(self) -> str:
        """Its line in the prompt."""
        names = ", ".join(json.dumps(choice, ensure_ascii=False) for choice in self.choices)
        return f'- "{self.name}": {self.description}' + (f"; one of {names}" if names else "")


DATE_PATTERN = r"^(\d{4}-\d{2}-\d{2})?$"


class RecordLimits(BaseModel):
    """Upper bounds of one answer. They enter the JSON schema, and so the encoder's fingerprint."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    max_records: int = Field(16, ge=1, le=64)
    """Records per answer."""
    max_text_chars: int = Field(320, ge=16, le=4000)
    """Characters of `semantic_text`."""
    max_items: int = Field(8, ge=0, le=32)
    """Items of `entities` and of `tags`."""
    max_item_chars: int = Field(48, ge=4, le=200)
    """Characters of one entity or tag."""


class Temporal(BaseModel):
    """Dates as YYYY-MM-DD, or empty. `t_ref` is the day on which the information was produced."""

    t_ref: str = ""
    t_valid_from: str = ""
    t_valid_to: str = ""


class EncodedRecord(BaseModel):
    """One record as the encoder gives it. `evidence_turns` counts the segment's current turns from 0."""

    memory_type: TypeName
    semantic_text: str
    entities: list[str] = []
    temporal: Temporal = Temporal()
    tags: list[str] = []
    evidence_turns: list[int]
    source_role: SourceRole = ""
    extra: dict[str, str] = Field({}, exclude_if=operator.not_)
    """Values of the profile's extra fields, those that are not empty."""

    @field_validator("extra", mode="before")
    @classmethod
    def _kept(cls, values: object) -> dict[str, str]:
        return extra_of(values)


def answer_model(
    num_turns: int,
    limits: RecordLimits,
    fields: tuple[str, ...] = RECORD_FIELDS,
    min_records: int = 0,
    types: tuple[str, ...] = MEMORY_TYPES,
    extra_fields: tuple[ExtraField, ...] = (),
) -> type[BaseModel]:
    """The pydantic model of one answer to a segment of `num_turns` current turns.

    `fields` chooses and orders the keys that the model must write, before those of `extra_fields`; the others
    keep their defaults. Evidence indexes outside the segment, and types that are not among `types`, do not
    validate, and cannot be decoded under the schema made from this.
    """
    text = Annotated[str, Field(min_length=1, max_length=limits.max_text_chars)]
    item = Annotated[str, Field(min_length=1, max_length=limits.max_item_chars)]
    items = Annotated[list[item], Field(max_length=limits.max_items)]
    date = Annotated[str, Field(pattern=DATE_PATTERN)]
    # A Literal of the indexes rather than ge/le: every structured-output backend supports an enum.
    turn = Literal[tuple(range(num_turns))]  # type: ignore[valid-type]  # known at run time alone
    kinds: dict[str, Any] = {
        "memory_type": Literal[types],
        "semantic_text": text,
        "entities": items,
        "temporal": create_model(
            "Temporal", t_ref=(date, ...), t_valid_from=(date, ...), t_valid_to=(date, ...)
        ),
        "tags": items,
        "evidence_turns": Annotated[list[turn], Field(min_length=1, max_length=num_turns)],  # type: ignore[valid-type]
        "source_role": SourceRole,
    }
    required: dict[str, Any] = {name: (kinds[name], ...) for name in fields}
    # By an alias: pydantic has uses of its own for names such as `copy` and `schema`.
    required |= {f"extra_{one.name}": (one.kind, Field(alias=one.name)) for one in extra_fields}
    record = create_model("Record", **required)
    # Without a least number where it is 0: the schema is then what it always was.
    several = Field(min_length=min_records or None, max_length=limits.max_records)
    return create_model("Answer", records=(Annotated[list[record], several], ...))


def answer_schema(
    num_turns: int,
    limits: RecordLimits,
    fields: tuple[str, ...] = RECORD_FIELDS,
    min_records: int = 0,
    types: tuple[str, ...] = MEMORY_TYPES,
    extra_fields: tuple[ExtraField, ...] = (),
) -> str:
    """The JSON schema of `answer_model`, as a string: Arrow would unify nested dicts of different rows."""
    model = answer_model(num_turns, limits, fields, min_records, types, extra_fields)
    schema = model.model_json_schema()
    return json.dumps(_without_titles(schema), separators=(",", ":"))


def _without_titles(node: Any) -> Any:
    # Objects are closed as well: a backend that allows unknown keys would decode them for ever.
    if isinstance(node, list):
        return [_without_titles(item) for item in node]
    if not isinstance(node, dict):
        return node
    cleaned = {
        key: _without_titles(value)
        for key, value in node.items()
        if not (key == "title" and isinstance(value, str))
    }
    if cleaned.get("type") == "object":
        cleaned["additionalProperties"] = False
    return cleaned


class InvalidAnswer(ValueError):
    """The encoder's text is no complete answer. `records` holds what could be read of it all the same."""

    def __init__(self, message: str, records: list[EncodedRecord]):
        super().__init__(message)
        self.records = records


def parse_answer(
    text: str,
    num_turns: int,
    types: Collection[str] | None = MEMORY_TYPES,
    extra_fields: Collection[ExtraField] = (),
) -> list[EncodedRecord]:
    """Read a complete answer, or raise InvalidAnswer with the complete records before the break.

    `types` are those that a record may have; None: any. Of other keys the extra fields alone are read.

    Never returns an empty list for a broken answer: "no memories" is only what `{"records": []}` says.
    """
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: also integers too long for Python
        raise InvalidAnswer(f"not JSON: {error}", salvage(text, num_turns, types, extra_fields)) from None
    items = answer.get("records") if isinstance(answer, dict) else None
    if not isinstance(items, list):
        raise InvalidAnswer("no list under the key 'records'", salvage(text, num_turns, types, extra_fields))
    records, problem = [], None
    for item in items:
        try:
            records.append(read_record(item, num_turns, types, extra_fields))
        except ValueError as error:
            problem = problem or str(error)
    if problem:
        raise InvalidAnswer(f"invalid record: {problem}", records)
    return records


def salvage(
    text: str,
    num_turns: int,
    types: Collection[str] | None = MEMORY_TYPES,
    extra_fields: Collection[ExtraField] = (),
) -> list[EncodedRecord]:
    """The complete, valid records in a text that was cut, or that has prose around its JSON."""
    records: list[EncodedRecord] = []
    decoder = json.JSONDecoder()
    position = text.find("{")
    while position >= 0:
        try:
            item, end = decoder.raw_decode(text, position)
            records.append(read_record(item, num_turns, types, extra_fields))
        except (ValueError, RecursionError):
            # A cut or invalid record, a brace in prose, or the object around the records: look inside.
            end = position + 1
        position = text.find("{", end)
    return records


def read_record(
    item: object,
    num_turns: int,
    types: Collection[str] | None = MEMORY_TYPES,
    extra_fields: Collection[ExtraField] = (),
) -> EncodedRecord:
    """Validate one record; ValueError says what is wrong. An impossible date becomes empty, not a guess."""
    if isinstance(item, dict):
        item = item | {"extra": {one.name: item.get(one.name) for one in extra_fields}}
    try:
        record = EncodedRecord.model_validate(item)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    if problem := type_problem(record, types):
        raise ValueError(problem)
    text = cleaned(record.semantic_text)
    if not text:
        raise ValueError("semantic_text: empty")
    evidence = sorted(set(record.evidence_turns))
    if not evidence or evidence[0] < 0 or evidence[-1] >= num_turns:
        raise ValueError(f"evidence_turns={record.evidence_turns}: must lie in 0..{num_turns - 1}")
    return record.model_copy(
        update={
            "semantic_text": text,
            "entities": _distinct(record.entities),
            "tags": _distinct(record.tags),
            "evidence_turns": evidence,
            "temporal": Temporal(**{key: _valid_date(value) for key, value in record.temporal}),
        }
    )


def extra_of(values: object) -> dict[str, str]:
    """Values of extra fields as they are kept: those that have a name and a text. They come as an object, or
    as the column `extra` gives them: as pairs, or None."""
    pairs = values.items() if isinstance(values, dict) else values if isinstance(values, list) else ()
    return {
        pair[0]: text
        for pair in pairs
        if isinstance(pair, tuple) and is_type_name(pair[0]) and isinstance(pair[1], str)
        if (text := cleaned(pair[1]))
    }


def shown_extra(values: Mapping[str, str]) -> str:
    """Values of extra fields for a person; empty where there are none."""
    return ", ".join(f"{name}: {value}" for name, value in values.items())


def type_problem(record: EncodedRecord, types: Collection[str] | None) -> str:
    """What is wrong with a record's type; empty where it is among `types`, or these are None: any."""
    if types is None or record.memory_type in types:
        return ""
    return f"memory_type={record.memory_type!r}: must be one of {', '.join(types)}"


def cleaned(text: str) -> str:
    """A text as it is stored."""
    # JSON can escape half of a surrogate pair, which neither a hash nor Arrow can encode.
    return " ".join(text.encode(errors="replace").decode().split())


def normalized(memory_type: str, text: str) -> str:
    """The column `normalized_text`, as LycheeMem's tables have it."""
    return f"{memory_type}: {text}"


def _distinct(items: list[str]) -> list[str]:
    return list(dict.fromkeys(item for item in map(cleaned, items) if item))


def _valid_date(value: str) -> str:
    try:
        return dt.datetime.fromisoformat(value.strip()).date().isoformat()
    except ValueError:
        return ""
