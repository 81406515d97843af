"""What counts as an answer, what is saved from a broken one, and what the schema lets a decoder write."""

import hashlib
import json
import re

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.record import (
    MEMORY_TYPES,
    RECORD_FIELDS,
    SOURCE_ROLES,
    ExtraField,
    InvalidAnswer,
    RecordLimits,
    answer_model,
    answer_schema,
    is_type_name,
    parse_answer,
    read_record,
    salvage,
)

LIMITS = RecordLimits(max_records=3, max_text_chars=20, max_items=2, max_item_chars=5)
NUM_TURNS = 4


def a_record(**changes) -> dict:
    return {
        "memory_type": "fact",
        "semantic_text": "Ann likes tea.",
        "entities": ["Ann"],
        "temporal": {"t_ref": "2024-05-01", "t_valid_from": "", "t_valid_to": ""},
        "tags": [],
        "evidence_turns": [0],
        "source_role": "user",
    } | changes


# Text that tempts a reader who looks for brackets, quotes and fences.
hostile_text = st.text(st.sampled_from('{}[]",:\\`\n ab:é😀\ud800'), max_size=12) | st.sampled_from(
    ['{"records": []}', json.dumps(a_record()), "```json", '"records": [', "}]}"]
)
dates = st.sampled_from(["", "2024-02-29"])
records = st.fixed_dictionaries(
    {
        "memory_type": st.sampled_from(MEMORY_TYPES),
        "semantic_text": hostile_text.map(lambda text: text + "x"),
        "entities": st.lists(hostile_text, max_size=2),
        "temporal": st.fixed_dictionaries({"t_ref": dates, "t_valid_from": dates, "t_valid_to": dates}),
        "tags": st.lists(hostile_text, max_size=2),
        "evidence_turns": st.lists(st.integers(0, NUM_TURNS - 1), min_size=1, max_size=NUM_TURNS),
        "source_role": st.sampled_from(SOURCE_ROLES),
    }
)
prose = st.text(st.sampled_from('{}[]": \n`ajson'), max_size=12)


def serialise(items: list[dict], indent: int | None = None) -> tuple[str, list[int]]:
    """An answer, and for each of its records the position behind its closing brace."""
    text, ends = '{"records": [', []
    for index, item in enumerate(items):
        text += (", " if index else "") + json.dumps(item, indent=indent)
        ends.append(len(text))
    return text + "]}", ends


# --- the schema ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"evidence_turns": [NUM_TURNS]},
        {"evidence_turns": [-1]},
        {"evidence_turns": []},
        {"evidence_turns": [0, 1, 2, 3, 0]},
        {"evidence_turns": ["0"]},
        {"semantic_text": ""},
        {"semantic_text": "x" * 21},
        {"entities": ["a", "b", "c"]},
        {"entities": ["abcdef"]},
        {"tags": [""]},
        {"memory_type": "opinion"},
        {"source_role": "system"},
        {"temporal": {"t_ref": "yesterday", "t_valid_from": "", "t_valid_to": ""}},
        {"temporal": {"t_ref": ""}},
        {"note": "one key more"},
    ],
    ids=lambda change: json.dumps(change),
)
def test_schema_forbids_what_is_out_of_bounds(change):
    schema = json.loads(answer_schema(NUM_TURNS, LIMITS))
    jsonschema.validate({"records": [a_record()]}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"records": [a_record(**change)]}, schema)


@pytest.mark.parametrize("answer", [{"records": [a_record()] * 4}, {}, {"records": [], "more": 1}, []])
def test_schema_bounds_the_answer(answer):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(answer, json.loads(answer_schema(NUM_TURNS, LIMITS)))


@pytest.mark.parametrize("types", [("fact", "recipe"), ("recipe",)])
def test_a_profile_s_own_types_are_what_a_decoder_may_write_and_what_is_read(types):
    schema = json.loads(answer_schema(NUM_TURNS, LIMITS, types=types))
    recipe = a_record(memory_type="recipe")
    jsonschema.validate({"records": [recipe]}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"records": [a_record(memory_type="event")]}, schema)
    text = json.dumps({"records": [recipe, a_record(memory_type="event")]})
    with pytest.raises(InvalidAnswer, match=r"memory_type='event': must be one of .*recipe") as caught:
        parse_answer(text, NUM_TURNS, types)
    assert [record.memory_type for record in caught.value.records] == ["recipe"]
    assert [record.memory_type for record in salvage(text[:-2], NUM_TURNS, types)] == ["recipe"]
    assert [record.memory_type for record in parse_answer(text, NUM_TURNS, None)] == ["recipe", "event"]
    with pytest.raises(InvalidAnswer):
        parse_answer(text, NUM_TURNS)


@pytest.mark.parametrize("name", ["", "Fact", "a b", "a/b", "1a", "a" * 33, "a\n", None, 1])
def test_a_type_has_a_name_for_tables_prompts_and_files(name):
    assert is_type_name("failure_pattern") and not is_type_name(name)
    with pytest.raises(ValueError, match="memory_type"):
        read_record(a_record(memory_type=name), 1, types=None)


@pytest.mark.parametrize("num_turns", [1, 2, 32])
def test_schema_bounds_every_list_and_string(num_turns):
    """Nothing in an answer is without an end: a decoder held to the schema must come to its close."""
    schema = json.loads(answer_schema(num_turns, LIMITS))

    def nodes(node):
        yield node
        for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else []:
            yield from nodes(child)

    typed = [node for node in nodes(schema) if isinstance(node, dict) and "type" in node]
    assert {node["type"] for node in typed} == {"object", "array", "string", "integer"}
    for node in typed:
        bounds = {
            "object": {"additionalProperties"},
            "array": {"maxItems"},
            "string": {"maxLength", "pattern", "enum"},
            "integer": {"enum", "const"},
        }[node["type"]]
        assert bounds & node.keys(), node


def test_schema_holds_the_profile_s_fields_in_its_order():
    fields = ("evidence_turns", "semantic_text", "memory_type")
    schema = json.loads(answer_schema(2, LIMITS, fields))
    record = schema["$defs"]["Record"]
    assert tuple(record["properties"]) == tuple(record["required"]) == fields
    full = json.loads(answer_schema(2, LIMITS))["$defs"]["Record"]
    assert tuple(full["properties"]) == RECORD_FIELDS


@given(st.lists(records, max_size=3))
def test_every_answer_of_the_answer_model_parses(items):
    limits = RecordLimits(max_text_chars=4000, max_item_chars=200)
    model = answer_model(NUM_TURNS, limits)
    kept = [
        item | {"entities": [e for e in item["entities"] if 0 < len(e) <= 200], "tags": []} for item in items
    ]
    # Half a surrogate pair: JSON has it as an escape, pydantic's own reader does not take it.
    text = json.dumps({"records": kept}).replace("\\ud800", "?")
    answer = model.model_validate_json(text)
    parsed = parse_answer(answer.model_dump_json(), NUM_TURNS)
    assert [record.memory_type for record in parsed] == [item["memory_type"] for item in kept]
    assert [record.evidence_turns for record in parsed] == [sorted({*i["evidence_turns"]}) for i in kept]


# --- reading ------------------------------------------------------------------------------------------


@given(records)
def test_a_record_is_read_as_it_was_written(item):
    record = read_record(json.loads(json.dumps(item)), NUM_TURNS)
    assert record.memory_type == item["memory_type"]
    assert record.source_role == item["source_role"]
    assert record.temporal.model_dump() == item["temporal"]
    assert record.evidence_turns == sorted(set(item["evidence_turns"]))
    assert record.semantic_text == " ".join(item["semantic_text"].replace("\ud800", "?").split())
    assert len(set(record.entities)) == len(record.entities)
    assert all(entity.strip() for entity in record.entities)


def test_half_a_surrogate_pair_does_not_reach_the_store():
    """A decoder can write the escape; no hash and no Arrow column can encode it."""
    answer = r'{"records": [{"memory_type": "fact", "semantic_text": "a \ud83d b", "entities": ["\ude00"], '
    [record] = parse_answer(answer + '"evidence_turns": [0]}]}', 1)
    assert (record.semantic_text, record.entities) == ("a ? b", ["?"])
    record.model_dump_json().encode()


def test_only_an_empty_list_means_no_memories():
    assert parse_answer('{"records": []}', 1) == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "{",
        "[]",
        "null",
        "{}",
        "No memories.",
        '{"records": null}',
        '{"records": {}}',
        '{"records": [',
        '{"records": []',
        '{"records": [{}]}',
        '{"records": [[]]}',
        '{"records": [null]}',
        '{"memories": []}',
        '{"records": []} Done.',
        '```json\n{"records": []}\n```',
        '{"records": [' + json.dumps(a_record())[:-1],
        '{"records": [' + json.dumps(a_record(semantic_text=" \n")) + "]}",
        '{"records": [' + json.dumps(a_record(evidence_turns=[])) + "]}",
        '{"records": [' + json.dumps(a_record(evidence_turns=[4])) + "]}",
        '{"records": [' + json.dumps(a_record(evidence_turns=[-1])) + "]}",
        '{"records": [], "n": ' + "1" * 5000 + "}",
        "[" * 100_000,
        '{"records":' * 2_000,
    ],
    ids=lambda text: repr(text[:40]),
)
def test_truncated_or_prose_prefixed_json_is_never_an_empty_list(text):
    with pytest.raises(InvalidAnswer) as caught:
        parse_answer(text, NUM_TURNS)
    assert caught.value.records == []


@given(st.lists(records, max_size=3), st.integers(0, 2000))
def test_a_cut_answer_is_never_an_answer(items, cut):
    text, _ = serialise(items)
    with pytest.raises(InvalidAnswer):
        parse_answer(text[: min(cut, len(text) - 1)], NUM_TURNS)


def test_an_impossible_evidence_index_is_refused_and_the_other_records_are_kept():
    bad = a_record(evidence_turns=[1, NUM_TURNS])
    text = json.dumps({"records": [a_record(), bad, a_record(semantic_text="Ann is 40.")]})
    with pytest.raises(InvalidAnswer, match=re.escape("evidence_turns=[1, 4]: must lie in 0..3")) as caught:
        parse_answer(text, NUM_TURNS)
    assert [record.semantic_text for record in caught.value.records] == ["Ann likes tea.", "Ann is 40."]


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("2024-02-29", "2024-02-29"),
        ("2024-02-29T23:59:00Z", "2024-02-29"),
        ("2023-02-29", ""),
        ("2024-13-01", ""),
        ("0000-00-00", ""),
        ("2024-05", ""),
        ("2024-05-011", ""),
        ("2024-05-01 or later", ""),
        ("٢٠٢٤-٠٥-٠١", ""),
        ("\ud800", ""),
        ("tomorrow", ""),
    ],
)
def test_an_impossible_date_becomes_empty_and_not_a_guess(written, read):
    temporal = {"t_ref": written, "t_valid_from": written, "t_valid_to": "2024-05-01"}
    record = read_record(a_record(temporal=temporal), 1)
    assert record.temporal.model_dump() == {"t_ref": read, "t_valid_from": read, "t_valid_to": "2024-05-01"}


def test_keys_that_the_profile_leaves_out_keep_their_defaults():
    record = read_record({"memory_type": "fact", "semantic_text": "x", "evidence_turns": [1, 0, 1]}, 2)
    assert (record.entities, record.tags, record.source_role) == ([], [], "")
    assert record.temporal.model_dump() == {"t_ref": "", "t_valid_from": "", "t_valid_to": ""}
    assert record.evidence_turns == [0, 1]


def test_entities_and_tags_are_distinct_and_not_blank():
    record = read_record(a_record(entities=["New  York", " ", "New York", ""], tags=["a", "a"]), 1)
    assert (record.entities, record.tags) == (["New York"], ["a"])


# --- salvage ------------------------------------------------------------------------------------------


@given(
    items=st.lists(records, max_size=4),
    cut=st.integers(0, 3000),
    before=prose,
    fence=st.sampled_from(["", "```json\n", "```\n", 'The "records": [] follow.\n']),
    indent=st.sampled_from([None, 2]),
)
def test_salvage_gives_exactly_the_records_before_the_cut(items, cut, before, fence, indent):
    text, ends = serialise(items, indent)
    start = before + fence
    cut = min(cut, len(text))
    whole = [
        read_record(json.loads(json.dumps(item)), NUM_TURNS)
        for item, end in zip(items, ends, strict=True)
        if end <= cut
    ]
    assert salvage(start + text[:cut], NUM_TURNS) == whole


@given(items=st.lists(records, max_size=3), before=prose, after=prose)
def test_salvage_looks_through_prose_around_the_json(items, before, after):
    text, _ = serialise(items)
    whole = [read_record(json.loads(json.dumps(item)), NUM_TURNS) for item in items]
    assert salvage(f"{before}```json\n{text}\n```{after}", NUM_TURNS) == whole


def test_salvage_leaves_an_invalid_record_out_and_goes_on():
    text = json.dumps([a_record(memory_type="opinion"), a_record(), {"a": {"b": "{"}}, a_record()])
    assert len(salvage(text, 1)) == 2


def test_salvage_reads_every_answer_of_a_model_that_does_not_stop():
    """A second object behind the first was taken for one big invalid record, and its records were lost."""
    one, two = (json.dumps({"records": [a_record(semantic_text=text)]}) for text in ("One.", "Two."))
    assert [record.semantic_text for record in salvage(one + two, 1)] == ["One.", "Two."]
    assert [record.semantic_text for record in salvage(f'"records": [] is wrong: {two}', 1)] == ["Two."]


# --- extra fields ---------------------------------------------------------------------------------------

SPHERE = ExtraField(name="sphere", description="which part of life", choices=("home", "work"))
COPY = ExtraField(name="copy", description="the words", max_length=8)
"""Pydantic has a use of its own for such a name."""


def test_without_extra_fields_the_schema_is_to_the_byte_what_it_was():
    """Paid answers are known by it."""
    schema = answer_schema(4, RecordLimits())
    assert hashlib.sha256(schema.encode()).hexdigest()[:16] == "d490fbf921ea79da"
    assert answer_schema(4, RecordLimits(), extra_fields=()) == schema


def test_extra_fields_are_keys_that_a_decoder_must_write_behind_the_others():
    schema = json.loads(answer_schema(2, LIMITS, extra_fields=(SPHERE, COPY)))
    record = schema["$defs"]["Record"]
    assert tuple(record["properties"]) == tuple(record["required"]) == (*RECORD_FIELDS, "sphere", "copy")
    assert record["properties"]["sphere"]["enum"] == ["home", "work", ""]
    assert record["properties"]["copy"] == {"maxLength": 8, "type": "string"}
    jsonschema.validate({"records": [a_record(sphere="", copy="")]}, schema)
    for wrong in ({"sphere": "garden", "copy": ""}, {"sphere": "home", "copy": "x" * 9}, {"sphere": "home"}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({"records": [a_record(**wrong)]}, schema)


def test_values_of_extra_fields_are_read_and_what_is_empty_or_unknown_is_not():
    given = a_record(sphere="home", copy=" two  words ", other="x", extra={"other": "y"})
    assert read_record(given, 1, extra_fields=(SPHERE, COPY)).extra == {"sphere": "home", "copy": "two words"}
    [record] = parse_answer(json.dumps({"records": [given | {"copy": ""}]}), 1, extra_fields=(SPHERE, COPY))
    assert record.extra == {"sphere": "home"}
    assert read_record(given | {"sphere": 3, "copy": None}, 1, extra_fields=(SPHERE, COPY)).extra == {}


@pytest.mark.parametrize("value", [None, "x", 3, ["x"], {"a": 1}])
def test_a_key_extra_of_an_answer_says_nothing_and_hurts_nothing(value):
    record = read_record(a_record(extra=value), 1)
    assert record == read_record(a_record(), 1)
    assert "extra" not in record.model_dump() and "extra" not in record.model_dump_json()
