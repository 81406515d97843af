"""The rules of encoding, with scripted answers: what is cut is halved, what fails is kept."""

import dataclasses
import json
import math
import re

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.backfill.cited import record_id
from cluster.backfill.encode_stage import encoded_row
from cluster.backfill.encoder import MIN_HALF_CHARS, encode
from cluster.backfill.entailment import Claim
from cluster.models.asking import Answer
from cluster.runtime import report_to, tick
from schemas.profiles.encoder import EncoderProfile
from schemas.record import ExtraField, answer_schema
from schemas.store import encoded_schema
from tests.unit.cluster.backfill.answers import DAY, a_segment, answer, cut, said, texts_of

PROFILE = EncoderProfile(
    name="test", base="x/y", system_prompt="", user_template="{previous}{current}", max_tokens=100
)


class Script:
    """A prompt that only names its parts, and an engine that answers by the texts of the current parts."""

    def __init__(self, answers: dict[tuple[str, ...], str] | None = None, default: str = answer()):
        self.answers, self.default = answers or {}, default
        self.rounds: list[list[tuple[str, ...]]] = []
        self.contexts: list[tuple[str, ...]] = []
        self.times = []
        self.least: list[int] = []
        """Records that the answers of the last round must have."""
        self.profile = PROFILE

    def prompt(self, context, current, session_time):
        self.times.append(session_time)
        texts = [tuple(part["text"] for part in parts) for parts in (context, current)]
        return [texts]

    def generate(self, requests):
        texts = [request.prompt[0] for request in requests]
        self.contexts += [context for context, _ in texts]
        self.rounds.append([current for _, current in texts])
        self.least = [json.loads(one.schema)["properties"]["records"].get("minItems", 0) for one in requests]
        for request, least in zip(requests, self.least, strict=True):
            num_turns = len(request.prompt[0][1])
            own = (self.profile.limits, self.profile.fields, least, self.profile.memory_types)
            own += (self.profile.extra_fields,)
            assert request.schema == answer_schema(num_turns, *own)
        return [self.reply(current) for _, current in texts]

    def reply(self, current):
        text = self.answers.get(current, self.default)
        return Answer(text, text.endswith("]}"), prompt_tokens=100, cached_tokens=60, output_tokens=7)

    def encode(self, *segments, profile=PROFILE, calibration=None):
        self.profile = profile
        return encode(list(segments), self.generate, self.prompt, profile, calibration)


# --- outcomes -------------------------------------------------------------------------------------------


def test_a_complete_answer_is_one_call():
    script = Script({("tea", "ok"): answer(said("Likes tea.", 0))})
    [encoding] = script.encode(a_segment("tea", "ok"))
    assert (encoding.outcome, texts_of(encoding), encoding.rejections) == ("complete", ["Likes tea."], [])
    assert (encoding.num_calls, encoding.prompt_tokens, encoding.cached_tokens, encoding.output_tokens) == (
        (1, 100, 60, 7)
    )
    assert script.times == [DAY]


def test_no_memories_is_an_answer_and_no_rejection():
    [encoding] = Script().encode(a_segment("hi"))
    assert (encoding.outcome, encoding.records, encoding.rejections) == ("complete", [], [])


def test_records_have_the_types_of_the_profile_and_no_others():
    profile = PROFILE.model_copy(update={"memory_types": ("fact", "allergy"), "max_splits": 0})
    both = [said("Must not eat nuts.", memory_type="allergy"), said("Met Tom.", memory_type="event")]
    [encoding] = Script(default=answer(*both)).encode(a_segment("nuts"), profile=profile)
    assert [record["memory_type"] for record in encoding.records] == ["allergy"]
    assert [rejection["reason"] for rejection in encoding.rejections] == ["invalid_answer"]


def test_no_segments_is_no_call():
    script = Script()
    assert script.encode() == []
    assert script.rounds == []


def test_a_cut_answer_is_halved_and_then_complete():
    script = Script(
        {
            ("a", "b", "c"): cut(said("Half read.", 0)),
            ("a",): answer(said("A.", 0)),
            ("b", "c"): answer(said("B.", 0), said("C.", 1)),
        }
    )
    [encoding] = script.encode(a_segment("a", "b", "c", first_turn=10, context=("before",)))
    assert (encoding.outcome, encoding.rejections, encoding.num_calls) == ("split", [], 3)
    # The halves answer for themselves: what was read of the cut answer is not counted twice.
    assert texts_of(encoding) == ["A.", "B.", "C."]
    assert [record["evidence_turns"] for record in encoding.records] == [[10], [11], [12]]
    assert (encoding.prompt_tokens, encoding.cached_tokens, encoding.output_tokens) == (300, 180, 21)
    # The second half is read with the first in view.
    assert script.contexts == [("before",), ("before",), ("a",)]


def test_truncated_json_is_a_rejection_with_its_raw_text_and_its_complete_records():
    """The old writer took a cut answer for an empty list and went on: the memory was lost for ever."""
    script = Script(default=cut(said("A.", 0)))
    [encoding] = script.encode(a_segment("tea"))
    assert encoding.outcome == "partial"
    assert encoding.rejections == [{"reason": "cut_answer", "turns": [0], "raw": cut(said("A.", 0))}]
    assert texts_of(encoding) == ["A."]


def test_an_answer_cut_before_its_first_record_is_rejected():
    [encoding] = Script(default='{"records": [').encode(a_segment("tea"))
    assert (encoding.outcome, encoding.records) == ("rejected", [])
    assert encoding.rejections == [{"reason": "cut_answer", "turns": [0], "raw": '{"records": ['}]


def test_halving_ends_and_every_part_that_fails_is_named():
    script = Script(default=cut())
    [encoding] = script.encode(a_segment(*"abcdefgh"), profile=PROFILE.model_copy(update={"max_splits": 2}))
    assert [len(batch) for batch in script.rounds] == [1, 2, 4]
    assert encoding.num_calls == 7
    assert [rejection["turns"] for rejection in encoding.rejections] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert encoding.outcome == "rejected"


def test_without_splits_a_cut_answer_is_rejected_at_once():
    script = Script(default=cut(said("A.", 1)))
    [encoding] = script.encode(a_segment("a", "b"), profile=PROFILE.model_copy(update={"max_splits": 0}))
    assert (encoding.num_calls, encoding.outcome, texts_of(encoding)) == (1, "partial", ["A."])


def test_one_failing_half_does_not_cost_the_other():
    script = Script({("a", "b"): cut(), ("a",): answer(said("A.", 0)), ("b",): cut()})
    [encoding] = script.encode(a_segment("a", "b"))
    assert (encoding.outcome, texts_of(encoding)) == ("partial", ["A."])
    assert [rejection["turns"] for rejection in encoding.rejections] == [[1]]


def test_an_answer_that_ends_and_is_invalid_is_named_so():
    """Constrained decoding holds the shape only: an index outside the segment is no memory."""
    bad = answer(said("A.", 0), said("B.", 1))
    [encoding] = Script(default=bad).encode(a_segment("a"))
    assert encoding.rejections == [{"reason": "invalid_answer", "turns": [0], "raw": bad}]
    assert (encoding.outcome, texts_of(encoding)) == ("partial", ["A."])


@pytest.mark.parametrize("text", ["", "No memories.", "[]", '{"records": [{}]}', 'Sure: {"records": []}'])
def test_prose_is_never_no_memories(text):
    [encoding] = Script(default=text).encode(a_segment("a"))
    assert encoding.outcome == "rejected"
    assert encoding.rejections[0]["raw"] == text


def test_an_answer_that_is_whole_at_the_token_limit_counts():
    """The limit may fall on the last bracket."""

    def generate(requests):
        return [Answer(answer(said("A.")), False, 1, 1) for _ in requests]

    [encoding] = encode([a_segment("a")], generate, Script().prompt, PROFILE)
    assert (encoding.outcome, texts_of(encoding)) == ("complete", ["A."])


def test_segments_of_a_batch_do_not_mix():
    script = Script({("a", "b"): cut(), ("a",): answer(said("A.")), ("b",): answer(said("B."))})
    segments = [a_segment("x"), a_segment("a", "b", segment_id="t"), a_segment("y")]
    script.answers |= {("x",): answer(said("X.")), ("y",): '{"records'}
    encodings = script.encode(*segments)
    assert [encoding.outcome for encoding in encodings] == ["complete", "split", "rejected"]
    assert [texts_of(encoding) for encoding in encodings] == [["X."], ["A.", "B."], []]
    assert [encoding.num_calls for encoding in encodings] == [1, 3, 1]
    # Halves of all segments are one batch.
    assert [len(batch) for batch in script.rounds] == [3, 2]


def test_an_engine_that_leaves_a_reply_out_is_not_believed():
    with pytest.raises(ValueError, match="shorter"):
        encode([a_segment("a"), a_segment("b")], lambda requests: [], Script().prompt, PROFILE)


# --- the second look --------------------------------------------------------------------------------------

CAREFUL = PROFILE.model_copy(update={"second_look": True})


def test_what_a_user_states_and_no_record_tells_is_asked_about_alone():
    told = "I live in Oslo. I have a cat, Mia. How old do cats get? Rain again."
    whole = (told, "I see. I am a bot.")
    script = Script(
        {
            whole: answer(said("User lives in Oslo.", 0)),
            ("I have a cat, Mia.",): answer(said("User has a cat, Mia.", 0)),
        }
    )
    [encoding] = script.encode(a_segment(*whole, first_turn=6, context=("before",)), profile=CAREFUL)
    assert script.rounds == [[whole], [("I have a cat, Mia.",)]]
    assert script.contexts == [("before",), ()]
    assert texts_of(encoding) == ["User lives in Oslo.", "User has a cat, Mia."]
    assert [record["evidence_turns"] for record in encoding.records] == [[6], [6]]
    assert (encoding.outcome, encoding.num_calls, encoding.prompt_tokens) == ("complete", 2, 200)
    script.rounds.clear()
    script.encode(a_segment(*whole))
    assert script.rounds == [[whole]]


def test_a_second_look_that_fails_costs_what_it_would_have_found_and_nothing_else():
    told = ("I live in Oslo. I have a cat. My dog is Bo.",)
    script = Script(
        {
            told: answer(said("User lives in Oslo.")),
            ("I have a cat.",): cut(said("User has a cat.")),
            ("My dog is Bo.",): "no JSON",
        }
    )
    [encoding] = script.encode(a_segment(*told), profile=CAREFUL)
    assert texts_of(encoding) == ["User lives in Oslo.", "User has a cat."]
    assert (encoding.outcome, encoding.rejections) == ("complete", [])


def test_a_segment_counts_once_in_the_progress_however_often_it_is_asked_about():
    script, counted = Script(), []

    def generate(requests):
        for _ in requests:
            tick()
        return script.generate(requests)

    segments = [a_segment("I live in Oslo. I have a cat."), a_segment("My dog is Bo.")]
    script.profile = CAREFUL
    with report_to(counted.append):
        encode(segments, generate, script.prompt, CAREFUL)
        tick()
    assert len(script.rounds) == 2
    assert sum(counted) == 3


def test_a_turn_of_one_sentence_has_no_second_look():
    script = Script()
    script.encode(a_segment("I live in Oslo, which has 1.5 million people."), profile=CAREFUL)
    assert len(script.rounds) == 1


def test_a_second_look_that_must_speak_is_asked_of_every_sentence_that_no_record_tells():
    """Also of a turn of one sentence; of what no user states nothing is asked."""
    must_speak = CAREFUL.model_copy(update={"second_look_min_records": 1})
    script = Script({("My name is Anna.",): answer()})
    script.encode(a_segment("My name is Anna."), profile=must_speak)
    assert script.rounds == [[("My name is Anna.",)], [("My name is Anna.",)]] and script.least == [1]
    script.rounds.clear()
    script.encode(a_segment("Thanks!"), profile=must_speak)
    assert script.rounds == [[("Thanks!",)]] and script.least == [0]


# --- halving a single turn ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ["word " * 60, "x" * 300, "a " + "x" * 300, "你" * 161, " " * 300, "x" * 2 * MIN_HALF_CHARS],
    ids=["words", "no space", "a space only at its beginning", "Chinese", "blank", "shortest"],
)
def test_a_long_turn_is_halved_within(text):
    """With its only space at the beginning, a long turn was rejected and not halved."""
    script = Script({(text,): cut()})
    [encoding] = script.encode(a_segment(text, first_turn=3))
    assert encoding.outcome == "split"
    (first,), (second,) = script.rounds[1]
    assert first + second == text
    assert min(len(first), len(second)) >= MIN_HALF_CHARS
    assert script.contexts[-1] == (first,)


def test_a_short_turn_is_not_halved():
    text = "x" * (2 * MIN_HALF_CHARS - 1)
    [encoding] = Script(default=cut()).encode(a_segment(text))
    assert (encoding.num_calls, encoding.outcome) == (1, "rejected")


def test_both_halves_of_a_turn_cite_the_turn():
    text = "I like tea. " * 20
    script = Script({(text,): cut()}, default=answer(said("Likes tea.")))
    [encoding] = script.encode(a_segment(text, first_turn=3))
    [record] = encoding.records
    assert record["evidence_turns"] == [3]


# --- prompts that are too long ---------------------------------------------------------------------------


def word_prompt(context, current, session_time):
    return [word for part in context + current for word in part["text"].split()]


def test_context_that_does_not_fit_is_dropped_and_nothing_is_rejected():
    """Many short turns as context are longer joined than counted; the segment was rejected for ever."""
    room = PROFILE.max_model_len - PROFILE.max_tokens
    asked = []

    def generate(requests):
        asked.extend(requests)
        return [Answer(answer(said("A.", 0)), True, 1, 1) for _ in requests]

    context = tuple(f"c{i}" for i in range(room))
    segment = a_segment("w " * 20, context=context)
    [encoding] = encode([segment], generate, word_prompt, PROFILE)
    assert (encoding.outcome, encoding.num_calls) == ("complete", 1)
    [request] = asked
    assert len(request.prompt) <= room
    # What is left is the end of it.
    assert request.prompt[0] != "c0"
    assert request.prompt[-21] == context[-1]
    assert len(segment["context"]) == room


def test_a_prompt_that_is_too_long_is_halved_without_a_call():
    room = PROFILE.max_model_len - PROFILE.max_tokens
    script = Script(default=answer(said("A.", 0)))

    def prompt(context, current, session_time):
        return [*script.prompt(context, current, session_time), *word_prompt(context, current, None)[1:]]

    segment = a_segment("w " * room, "v")
    [encoding] = encode([segment], script.generate, prompt, PROFILE)
    assert script.rounds == [[("w " * room,), ("v",)]]
    assert (encoding.outcome, encoding.num_calls) == ("split", 2)


def test_a_prompt_that_stays_too_long_is_rejected_with_its_turns():
    script = Script()
    [encoding] = encode([a_segment("x" * 50, first_turn=7)], script.generate, lambda *_: [0] * 9999, PROFILE)
    assert script.rounds == []
    assert encoding.rejections == [{"reason": "prompt_too_long", "turns": [7], "raw": ""}]
    assert (encoding.outcome, encoding.num_calls) == ("rejected", 0)


# --- rows -----------------------------------------------------------------------------------------------


def test_the_same_statement_twice_is_one_record_with_the_evidence_of_both():
    """Two rows with one id in a batch become duplicate rows of a vector store."""
    first = said("Likes tea.", 0, entities=["tea"])
    script = Script(default=answer(first, said("Likes  tea.", 2, 1), said("Likes tea.", memory_type="event")))
    [encoding] = script.encode(a_segment("a", "b", "c", first_turn=5))
    assert [(r["memory_type"], r["evidence_turns"]) for r in encoding.records] == [
        ("fact", [5, 6, 7]),
        ("event", [5]),
    ]
    assert encoding.records[0]["entities"] == ["tea"]
    assert len({record["record_id"] for record in encoding.records}) == 2


@pytest.mark.parametrize(
    ("roles", "evidence", "written", "derived"),
    [
        (["user"], [0], "", "user"),
        (["assistant"], [0], "", "assistant"),
        (["user", "assistant"], [0, 1], "", "both"),
        (["user", "tool"], [0, 1], "", "user"),
        (["system"], [0], "", ""),
        (["user"], [0], "assistant", "assistant"),
        (["user"], [0], "both", "both"),
    ],
)
def test_source_role_is_the_model_s_word_or_the_roles_of_the_evidence(roles, evidence, written, derived):
    segment = a_segment(*("x" for _ in roles))
    for part, role in zip(segment["current"], roles, strict=True):
        part["role"] = role
    [encoding] = Script(default=answer(said("A.", *evidence, source_role=written))).encode(segment)
    assert encoding.records[0]["source_role"] == derived


def test_source_role_of_a_statement_of_both_is_both():
    """The first record's word stood for the statement, whoever else had said it."""
    records = said("A.", 0, source_role="user"), said("A.", 1, source_role="assistant")
    [encoding] = Script(default=answer(*records)).encode(a_segment("x", "y"))
    assert [record["source_role"] for record in encoding.records] == ["both"]


@pytest.mark.parametrize(
    ("time", "written", "t_ref"),
    [(DAY, "", "2024-05-01"), (DAY, "2020-02-02", "2020-02-02"), (DAY, "soon", "2024-05-01"), (None, "", "")],
)
def test_t_ref_is_the_day_on_which_the_information_was_produced(time, written, t_ref):
    record = said("A.", temporal={"t_ref": written, "t_valid_from": "2024-06-01", "t_valid_to": ""})
    [encoding] = Script(default=answer(record)).encode(a_segment("x", session_time=time))
    expected = {"t_ref": t_ref, "t_valid_from": "2024-06-01", "t_valid_to": ""}
    assert encoding.records[0]["temporal"] == expected


def test_a_record_has_the_keys_of_the_store():
    [encoding] = Script(default=answer(said("A."))).encode(a_segment("x"))
    assert encoding.records[0].keys() == {
        "record_id",
        "memory_type",
        "semantic_text",
        "entities",
        "temporal",
        "tags",
        "evidence_turns",
        "source_role",
    }


@pytest.mark.parametrize("key", ["user_id", "session_id", "segment_id"])
def test_the_same_sentence_elsewhere_is_another_record(key):
    """Ids were a hash of the sentence alone: in a second session it overwrote the first one's evidence."""
    segments = [a_segment("x"), a_segment("x", **{key: "other"})]
    encodings = Script(default=answer(said("A."))).encode(*segments)
    assert len({encoding.records[0]["record_id"] for encoding in encodings}) == 2


@given(st.lists(st.tuples(*[st.text(st.sampled_from("ab:"), max_size=3)] * 5), unique=True, max_size=20))
def test_record_ids_do_not_run_together(keys):
    ids = {
        record_id({"user_id": user, "session_id": session, "segment_id": segment}, kind, text)
        for user, session, segment, kind, text in keys
    }
    assert len(ids) == len(keys)


def test_record_ids_stay_as_they_are():
    assert record_id(a_segment("x"), "fact", "Likes tea.") == "daebff5936b5525a20d03b3f47357b1f"


# --- what holds for every script --------------------------------------------------------------------------

numbered = st.lists(st.integers(1, 3), min_size=1, max_size=6)


@settings(max_examples=60)
@given(sizes=numbered, seed=st.randoms(use_true_random=False), max_splits=st.integers(0, 3))
def test_every_turn_is_answered_for_once_or_rejected(sizes, seed, max_splits):
    """Whatever is cut, and however often: a turn's memory comes through, or a rejection names the turn."""
    segments, turn = [], 0
    for number, size in enumerate(sizes):
        texts = [f"t{turn + i} " + "x" * seed.choice([1, 400]) for i in range(size)]
        segments.append(a_segment(*texts, first_turn=turn, segment_id=str(number)))
        turn += size
    cache = {}

    def reply(current):
        if current not in cache:
            records = [said(text[:20], index) for index, text in enumerate(current)]
            cache[current] = Answer(
                text=seed.choice([answer(*records), answer(*records), cut(), "{"]),
                complete=seed.choice([True, False]),
                prompt_tokens=1,
                cached_tokens=0,
                output_tokens=1,
                repeats=seed.choice([True, False]),
            )
        return cache[current]

    script = Script()
    script.reply = reply
    profile = PROFILE.model_copy(update={"max_splits": max_splits})
    encodings = script.encode(*segments, profile=profile)
    for segment, encoding in zip(segments, encodings, strict=True):
        turns = {part["turn_index"] for part in segment["current"]}
        answered = {index for record in encoding.records for index in record["evidence_turns"]}
        rejected = {index for rejection in encoding.rejections for index in rejection["turns"]}
        assert answered | rejected == turns
        assert (encoding.outcome in ("partial", "rejected")) == bool(encoding.rejections)
    assert sum(encoding.num_calls for encoding in encodings) == sum(map(len, script.rounds))
    again = Script()
    again.reply = reply
    assert again.encode(*segments, profile=profile) == encodings


def test_a_segment_in_which_the_required_role_does_not_speak_costs_no_call():
    profile, script = PROFILE.model_copy(update={"required_role": "user"}), Script(default=answer(said("A.")))
    advice = a_segment("Boil it for six minutes.")
    advice["current"][0]["role"] = "assistant"
    told, skipped = script.encode(a_segment("I live in Lyon.", "Nice."), advice, profile=profile)
    assert (told.outcome, told.num_calls, len(told.records)) == ("complete", 1, 1)
    assert (skipped.outcome, skipped.num_calls, skipped.records, skipped.prompt_tokens) == (
        "skipped",
        0,
        [],
        0,
    )
    assert script.rounds == [[("I live in Lyon.", "Nice.")]]
    assert script.encode(advice)[0].outcome == "complete"


SPANISH = "Vivo en Sevilla y trabajo de camarero."


def test_a_segment_in_a_language_that_the_profile_does_not_read_costs_no_call_and_is_kept_aside():
    profile = PROFILE.model_copy(update={"required_role": "user", "languages": ("en",)})
    script = Script(default=answer(said("A.")))
    foreign = a_segment(SPANISH, "Noted.", first_turn=4)
    told, skipped = script.encode(a_segment("I live in Lyon.", SPANISH), foreign, profile=profile)
    assert (told.outcome, told.num_calls, told.refusals) == ("complete", 1, [])
    assert (skipped.outcome, skipped.num_calls, skipped.records) == ("skipped", 0, [])
    assert skipped.refusals == [{"reason": "language", "turns": [4, 5], "raw": "es"}]
    assert script.rounds == [[("I live in Lyon.", SPANISH)]]
    for languages in ((), ("es",), ("en", "es")):
        read = profile.model_copy(update={"languages": languages})
        assert script.encode(foreign, profile=read)[0].outcome == "complete"


def test_where_no_role_is_required_all_that_is_said_decides_about_the_language():
    profile, script = PROFILE.model_copy(update={"languages": ("en",)}), Script(default=answer(said("A.")))
    answered, alone = a_segment(SPANISH, "You live in Seville, then."), a_segment(SPANISH)
    outcomes = [one.outcome for one in script.encode(answered, alone, profile=profile)]
    assert outcomes == ["complete", "skipped"]


def test_a_short_message_is_read_in_the_light_of_what_was_said_before():
    profile = PROFILE.model_copy(update={"required_role": "user", "languages": ("en",)})
    script = Script(default=answer(said("A.")))
    asked = a_segment("buena idea", first_turn=2)
    outcomes = [
        one.outcome
        for one in script.encode(
            asked,
            asked
            | {"context": a_segment(f"{SPANISH} ¿Qué me recomiendas para el fin de semana?")["current"]},
            profile=profile,
        )
    ]
    assert outcomes == ["complete", "skipped"]


def test_evidence_by_words_is_the_user_s_turn_that_says_it():
    profile = PROFILE.model_copy(update={"required_role": "user", "evidence_by": "words"})
    segment = a_segment(
        "Hi, how do I boil an egg?", "I live in Lyon, says the egg.", "I live in Lyon.", "Nice."
    )
    script = Script(default=answer(said("User lives in Lyon.", 1), said("User asks how to boil an egg.", 3)))
    (encoding,) = script.encode(segment, profile=profile)
    assert [record["evidence_turns"] for record in encoding.records] == [[2], [0]]
    assert {record["source_role"] for record in encoding.records} == {"user"}
    (as_named,) = script.encode(segment)
    assert [record["evidence_turns"] for record in as_named.records] == [[1], [3]]


def test_evidence_by_words_of_equals_is_what_the_model_named():
    profile = PROFILE.model_copy(update={"evidence_by": "words"})
    segment = a_segment("Lyon.", "Lyon.", "Lyon.")
    (encoding,) = Script(default=answer(said("User lives in Lyon.", 1))).encode(segment, profile=profile)
    assert encoding.records[0]["evidence_turns"] == [1]


# --- who says it ----------------------------------------------------------------------------------------


def dialogue(**names) -> dict:
    segment = a_segment("I got a dog.", "I got a cat.")
    for part, speaker in zip(segment["current"], ("Ann", names.get("second", "Bob \\1")), strict=True):
        part.update(role="user", speaker=speaker)
    return segment


@pytest.mark.parametrize(
    ("text", "turns", "stored"),
    [
        ("User got a dog, and User's cat likes it.", [0], "Ann got a dog, and Ann's cat likes it."),
        ("The user got a cat.", [1], "Bob \\1 got a cat."),
        ("Superuser got a dog with a user manual.", [0], "Superuser got a dog with a user manual."),
        ("User got animals.", [0, 1], "User got animals."),
    ],
)
def test_in_a_dialogue_of_several_people_a_record_says_whose_it_is(text, turns, stored):
    script = Script(default=answer(said(text, *turns)))
    [encoding] = script.encode(dialogue())
    assert texts_of(encoding) == [stored]


@pytest.mark.parametrize("name", [None, "", " ", "A" * 65])
def test_without_a_name_the_user_stays_the_user(name):
    script = Script(default=answer(said("User got a cat.", 1)))
    [encoding] = script.encode(dialogue(second=name))
    assert texts_of(encoding) == ["User got a cat."]


def test_the_same_sentence_of_two_people_is_two_records():
    script = Script(default=answer(said("User got a pet.", 0), said("User got a pet.", 1)))
    [encoding] = script.encode(dialogue(second="Bob"))
    assert [(r["semantic_text"], r["evidence_turns"]) for r in encoding.records] == [
        ("Ann got a pet.", [0]),
        ("Bob got a pet.", [1]),
    ]


# --- confidence -----------------------------------------------------------------------------------------


class Unsure(Script):
    """An engine that is as sure of every token as `sure` says of the first text that stands in it, else 1."""

    def __init__(self, *args, sure: dict[str, float], **kwargs):
        super().__init__(*args, **kwargs)
        self.sure = sure

    def reply(self, current):
        reply = super().reply(current)
        chance = {text: probability for text, probability in self.sure.items() if text in reply.text}
        pieces = (
            re.split("(" + "|".join(map(re.escape, chance)) + ")", reply.text) if chance else [reply.text]
        )
        tokens = [(piece, math.log(chance.get(piece, 1.0))) for piece in pieces]
        return dataclasses.replace(reply, tokens=tokens)


def gated(**values) -> EncoderProfile:
    return EncoderProfile.model_validate(PROFILE.model_dump() | values)


def test_a_record_of_which_the_model_was_not_sure_is_refused_and_kept():
    answers = {("tea",): answer(said("Likes tea."), said("Likes coffee."))}
    script = Unsure(answers, sure={"Likes tea.": 0.9, "Likes coffee.": 0.3})
    [encoding] = script.encode(a_segment("tea"), profile=gated(min_confidence=0.5))
    assert [(r["semantic_text"], r["confidence"]) for r in encoding.records] == [
        ("Likes tea.", pytest.approx(0.9))
    ]
    [refused] = encoding.refusals
    assert (refused["reason"], refused["turns"], refused["confidence"]) == ("unsure", [0], pytest.approx(0.3))
    assert json.loads(refused["raw"])["semantic_text"] == "Likes coffee."
    assert encoding.outcome == "complete"


class ByLength:
    """A Rater that believes short texts, and remembers what it was shown."""

    def __init__(self):
        self.shown = []

    def probabilities(self, records):
        self.shown += records
        return [0.9 if len(one.claim.text) < 12 else 0.1 for one in records]


def test_a_calibration_rates_a_record_by_what_it_rests_on_and_the_gate_goes_by_that():
    answers = {("tea",): answer(said("Likes tea."), said("Likes much coffee."))}
    script, rater = Unsure(answers, sure={"Likes tea.": 0.3, "Likes much coffee.": 0.9}), ByLength()
    [encoding] = script.encode(a_segment("tea"), profile=gated(min_confidence=0.5), calibration=rater)
    assert [(r["semantic_text"], r["confidence"]) for r in encoding.records] == [("Likes tea.", 0.9)]
    assert [(r["reason"], r["confidence"]) for r in encoding.refusals] == [("unsure", 0.1)]
    claim, evidence, confidence = rater.shown[0]
    assert (claim.text, evidence, confidence.mean) == ("Likes tea.", [("user", "tea")], pytest.approx(0.3))


def test_without_probabilities_a_calibration_is_not_asked():
    script, rater = Script({("tea",): answer(said("Likes tea."))}), ByLength()
    [encoding] = script.encode(a_segment("tea"), profile=gated(min_confidence=0.5), calibration=rater)
    assert encoding.records[0]["confidence"] is None and rater.shown == []


def test_what_another_gate_refuses_keeps_that_reason_and_has_its_confidence():
    script = Unsure(default=answer(said("Likes Ulm.")), sure={"Likes Ulm.": 0.3})
    profile = gated(gates=["invented"], min_confidence=0.5)
    [encoding] = script.encode(a_segment("tea"), profile=profile)
    assert [(r["reason"], r["confidence"]) for r in encoding.refusals] == [("invented", pytest.approx(0.3))]


def test_without_a_bound_nothing_is_measured():
    script = Unsure(default=answer(said("Likes tea.")), sure={"Likes tea.": 0.1})
    [encoding] = script.encode(a_segment("tea"))
    assert texts_of(encoding) == ["Likes tea."]
    assert "confidence" not in encoding.records[0]


def test_with_a_bound_of_0_all_is_measured_and_nothing_refused():
    script = Unsure(default=answer(said("Likes tea.")), sure={"Likes tea.": 0.1})
    [encoding] = script.encode(a_segment("tea"), profile=gated(min_confidence=0))
    assert encoding.records[0]["confidence"] == pytest.approx(0.1)
    assert encoding.refusals == []


def test_a_record_of_which_nothing_is_known_passes():
    [encoding] = Script(default=answer(said("Likes tea."))).encode(
        a_segment("tea"), profile=gated(min_confidence=0.5)
    )
    assert [(r["semantic_text"], r["confidence"]) for r in encoding.records] == [("Likes tea.", None)]


def test_confidence_of_a_dated_and_renamed_record_is_that_of_the_words_written():
    script = Unsure(default=answer(said("User moved yesterday.")), sure={"User moved yesterday.": 0.7})
    segment = dialogue() | {"turns": []}
    [encoding] = script.encode(segment, profile=gated(dates="resolve", min_confidence=0))
    [record] = encoding.records
    assert record["semantic_text"] != "User moved yesterday."
    assert record["confidence"] == pytest.approx(0.7)


def test_a_model_that_repeats_itself_is_not_asked_again():
    """Regression: each such answer was halved and asked again, which took minutes."""
    text = cut(said("Likes tea."))
    asked = []

    def generate(requests):
        asked.extend(requests)
        return [Answer(text, False, 1, 1, repeats=True) for _ in requests]

    [encoding] = encode([dialogue()], generate, lambda *_: [1], gated())
    assert len(asked) == 1
    assert (encoding.outcome, texts_of(encoding), encoding.rejections) == ("complete", ["Likes tea."], [])


def test_confidence_is_not_staged():
    script = Unsure(
        default=answer(said("Likes tea."), said("Likes coffee.")),
        sure={"Likes tea.": 0.9, "Likes coffee.": 0.3},
    )
    [encoding] = script.encode(a_segment("tea"), profile=gated(min_confidence=0.5))
    table = pa.Table.from_pylist([vars(encoding)], schema=encoded_schema())
    [row] = table.to_pylist()
    assert [record["semantic_text"] for record in row["records"]] == ["Likes tea."]
    assert "confidence" not in str(row)
    assert [refusal["reason"] for refusal in row["refusals"]] == ["unsure"]


def test_a_calibration_is_shown_the_whole_turn_and_the_one_before_of_a_sentence_that_was_asked_about():
    answers = {
        ("I moved. I live in Oslo.",): answer(),
        ("I live in Oslo.",): answer(said("User lives in Oslo.")),
    }
    script, rater = Unsure(answers, sure={"User lives in Oslo.": 0.8}), ByLength()
    segment = a_segment("I moved. I live in Oslo.", context=("Where are you?",))
    script.encode(segment, profile=gated(min_confidence=0.0, second_look=True), calibration=rater)
    claims = [claim for claim, _, _ in rater.shown]
    assert claims == [Claim("User lives in Oslo.", ("I moved. I live in Oslo.",), "Where are you?")]
    assert [evidence for _, evidence, _ in rater.shown] == [[("user", "I live in Oslo.")]]


# --- extra fields ---------------------------------------------------------------------------------------

EXTRA = (
    ExtraField(name="mood", description="how the user feels", choices=("good", "bad")),
    ExtraField(name="place", description="where", max_length=20),
)
WITH_EXTRA = PROFILE.model_copy(update={"extra_fields": EXTRA, "gates": ("unsupported",)})
HARBOUR = "I had a swim at the old harbour"


def test_values_of_extra_fields_are_kept_with_their_record():
    script = Script(default=answer(said("User swims at the harbour.", 0, mood="good", place="old harbour")))
    [encoding] = script.encode(a_segment(HARBOUR), profile=WITH_EXTRA)
    assert [record["extra"] for record in encoding.records] == [{"mood": "good", "place": "old harbour"}]
    assert encoding.refusals == []
    # They can be staged, and come back.
    places = dict.fromkeys(("first_turn", "last_turn", "start_char", "end_char"), 0)
    segment = a_segment(HARBOUR) | {"conversation_id": None, "turns": [], **places}
    table = pa.Table.from_pylist([encoded_row(segment, encoding)], encoded_schema())
    [record] = table.to_pylist()[0]["records"]
    assert dict(record["extra"]) == encoding.records[0]["extra"]


@pytest.mark.parametrize("value", ["Copenhagen", "at the harbour of the"[:20]])
def test_a_value_that_nobody_said_or_the_grammar_ended_is_left_out_and_its_record_stays(value):
    script = Script(default=answer(said("User swims at the harbour.", 0, mood="good", place=value)))
    [encoding] = script.encode(a_segment(HARBOUR, first_turn=3), profile=WITH_EXTRA)
    assert [record["extra"] for record in encoding.records] == [{"mood": "good"}]
    assert encoding.refusals == [{"reason": "extra_value", "turns": [3], "raw": json.dumps({"place": value})}]


def test_without_a_gate_no_value_is_looked_at_by_its_words_but_a_choice_stays_one():
    profile = WITH_EXTRA.model_copy(update={"gates": ()})
    script = Script(default=answer(said("User swims.", 0, mood="so so", place="Copenhagen")))
    [encoding] = script.encode(a_segment(HARBOUR), profile=profile)
    assert [record["extra"] for record in encoding.records] == [{"place": "Copenhagen"}]


def test_equal_statements_unite_the_values_of_their_extra_fields():
    both = said("User swims.", 0, mood="good", place=""), said("User swims.", 1, mood="bad", place="harbour")
    profile = WITH_EXTRA.model_copy(update={"gates": ()})
    [encoding] = Script(default=answer(*both)).encode(a_segment("swim", "harbour"), profile=profile)
    assert [record["extra"] for record in encoding.records] == [{"mood": "good", "place": "harbour"}]


def test_records_of_a_profile_without_extra_fields_have_no_such_key():
    script = Script(default=answer(said("User swims.", 0, mood="good")))
    [encoding] = script.encode(a_segment("swim"))
    assert [record.keys() & {"extra", "mood"} for record in encoding.records] == [set()]
