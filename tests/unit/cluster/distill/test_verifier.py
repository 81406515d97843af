"""Every rule of the verifier refuses what it is there for, and nothing of what is right."""

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.distill import verifier
from cluster.distill.verifier import RULES, states_something, verify
from jobs.common.run import load_profile
from schemas.profiles.encoder import EncoderProfile

PROFILE = load_profile("encoders", "extractor-135m", EncoderProfile)


def segment(*turns: str, time: bool = True) -> dict:
    """Turns of the user, except those that begin with `assistant:`."""
    current = [
        {
            "turn_index": index,
            "role": "assistant" if text.startswith("assistant:") else "user",
            "speaker": None,
            "text": text.removeprefix("assistant:").strip(),
        }
        for index, text in enumerate(turns)
    ]
    day = dt.datetime(2024, 5, 20, tzinfo=dt.UTC) if time else None
    return {"current": current, "context": [], "session_time": day}


SEGMENT = segment(
    "I live in Lyon with my brother Tom, who is 34. My key is fine.",
    "assistant: Nice! Is Dr. Meyer your doctor?",
    "Yes, yesterday I saw her and got three pills.",
)


def record(text: str = "User lives in Lyon.", **changes) -> dict:
    return {"memory_type": "fact", "semantic_text": text, "entities": [], "evidence_turns": [0]} | changes


def reason(*candidates: object, of: dict = SEGMENT) -> str:
    kept, refused = verify(of, list(candidates), PROFILE)
    assert len(kept) + len(refused) == len(candidates)
    assert all(refusal.detail for refusal in refused)
    return refused[-1].reason if refused else ""


@pytest.mark.parametrize(
    "candidate",
    [
        record(entities=["Lyon"]),
        record("User's brother Tom is 34.", entities=["Tom"]),
        record("User got 3 pills from Dr. Meyer.", evidence_turns=[1, 2], entities=["Dr. Meyer"]),
        record("User saw a doctor on 2024-05-19.", evidence_turns=[2]),
        record("User saw a doctor yesterday.", evidence_turns=[2]),
        record('User\'s motto is "I live where my brother lives".'),
        record("User hung a picture above the bed of Tom."),
        record(temporal={"t_ref": "2024-05-20", "t_valid_from": "", "t_valid_to": ""}),
    ],
    ids=lambda candidate: candidate["semantic_text"],
)
def test_what_is_right_passes(candidate):
    assert reason(candidate) == ""


def test_types_are_those_of_the_student_s_profile():
    profile = PROFILE.model_copy(update={"memory_types": ("home",)})
    kept, refused = verify(SEGMENT, [record(memory_type="home"), record("User's key is fine.")], profile)
    assert [one.memory_type for one in kept] == ["home"]
    assert [(one.reason, one.detail) for one in refused] == [
        ("invalid_record", "memory_type='fact': must be one of home")
    ]


@pytest.mark.parametrize(
    ("expected", "candidate"),
    [
        ("invalid_record", "User lives in Lyon."),
        ("invalid_record", record(memory_type="thought")),
        ("invalid_record", record(evidence_turns="0")),
        ("evidence", record(evidence_turns=[])),
        ("evidence", record(evidence_turns=[3])),
        ("evidence", record(evidence_turns=[-1])),
        ("dates", record(temporal={"t_ref": "2024-02-30"})),
        ("dates", record(temporal={"t_ref": "May"})),
        ("dates", record(temporal={"t_valid_from": "2024-05-20", "t_valid_to": "2024-05-01"})),
        ("limits", record("")),
        ("limits", record("User lives in Lyon " * 20)),
        ("limits", record(entities=["Lyon"] * 9)),
        ("limits", record(entities=["Lyon " * 30])),
        ("pronoun_opening", record("He is 34.")),
        ("pronoun_opening", record("That's where User lives.")),
        ("self_contained", record("Lyon.")),
        ("self_contained", record("User lives with my brother.")),
        ("self_contained", record("User lives as mentioned in Lyon.")),
        ("entities", record(entities=["Tom"], evidence_turns=[2])),
        ("entities", record(entities=["Paris"])),
        ("invented", record("User lives in Paris.")),
        ("invented", record("User's brother is 35.")),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_breaks_a_rule_is_refused_by_its_name(expected, candidate):
    assert reason(candidate) == expected


def test_a_secret_is_refused_and_not_shown():
    secret = "ghp_" + "a1B2c3D4e5F6" * 3
    told = segment(f"My token is {secret}")
    _, (refused,) = verify(told, [record(f"User has the token {secret}.")], PROFILE)
    assert refused.reason == "secret"
    assert secret not in refused.candidate + refused.detail
    assert reason(record("User has the token [redacted:api_key].")) == "secret"


def test_a_repeat_is_refused_and_another_number_is_no_repeat():
    told = segment("I have 2 cats and my sister Ann has 3 cats in the old house by the river near Lyon.")
    assert reason(record("User has 2 cats."), record("User has 2 cats"), of=told) == "duplicate"
    long = "User's sister Ann has {} cats in the old house by the river near Lyon."
    assert reason(record(long.format(3)), record(long.format(3).replace("old ", "")), of=told) == "duplicate"
    assert reason(record(long.format(2)), record(long.format(3)), of=told) == ""


def test_records_over_the_profile_s_number_are_refused():
    things = ("car", "boat", "bike", "house", "lamp", "tent", "kite")
    told = segment(" ".join(f"I own a {thing}." for thing in things))
    kept, refused = verify(told, [record(f"User owns a {thing}.") for thing in things], PROFILE)
    assert len(kept) == PROFILE.limits.max_records == 6
    assert [refusal.reason for refusal in refused] == ["limits"]


def test_yesterday_needs_a_date():
    candidate = record("User saw a doctor yesterday.")
    assert reason(candidate, of=segment("Yesterday I saw a doctor.")) == ""
    assert reason(candidate, of=segment("Yesterday I saw a doctor.", time=False)) == "self_contained"


@pytest.mark.parametrize(
    ("turns", "says"),
    [
        (["How long should I boil an egg?"], ""),
        (["Can you write me a poem about my cat. Thanks!"], ""),
        (["Thanks, that helps. What else could I do?"], ""),
        (["assistant: I think my advice is good."], ""),
        (["How long? I am allergic to eggs."], "I am allergic to eggs."),
        (["Thanks! By the way, my brother visits us in May."], "By the way, my brother visits us in May."),
    ],
)
def test_a_statement_is_told_from_a_question_and_a_request(turns, says):
    assert states_something(segment(*turns)) == says


def test_the_table_of_rules_names_every_rule():
    documented = {line.split("`")[1] for line in verifier.__doc__.splitlines() if line.startswith("| `")}
    assert documented == {*RULES, "invalid_record", "duplicate"}


@given(
    st.lists(
        st.one_of(
            st.none(),
            st.text(max_size=20),
            st.fixed_dictionaries(
                {"memory_type": st.just("fact"), "semantic_text": st.text(max_size=60)},
                optional={
                    "evidence_turns": st.lists(st.integers(-5, 5), max_size=4),
                    "entities": st.lists(st.text(max_size=8), max_size=4),
                    "temporal": st.dictionaries(
                        st.sampled_from(["t_ref", "t_valid_to"]), st.text(max_size=12)
                    ),
                },
            ),
        ),
        max_size=6,
    )
)
def test_whatever_a_teacher_answers_each_candidate_is_kept_or_refused(candidates):
    kept, refused = verify(SEGMENT, candidates, PROFILE)
    assert len(kept) + len(refused) == len(candidates)
    assert all(set(record.evidence_turns) <= {0, 1, 2} and record.evidence_turns for record in kept)
