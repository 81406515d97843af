"""Segmentation: nothing of a session is left out, nothing stands twice, and what was cut stays cut."""

import datetime as dt
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.backfill.segmenter import cut_session, split_text, tokenizer_offsets
from schemas.profiles.encoder import EncoderProfile


def a_profile(**values) -> EncoderProfile:
    return EncoderProfile(
        name="test", base="x/y", system_prompt="", user_template="{previous}{current}", **values
    )


def a_session(*contents: str, **values) -> dict:
    turns = [
        {"role": ("user", "assistant")[index % 2], "content": text, "speaker": None, "time": None}
        for index, text in enumerate(contents)
    ]
    ids = {"user_id": "u", "conversation_id": None, "session_id": "s", "session_time": None}
    return ids | {"turns": turns} | values


def word_offsets(texts: list[str]) -> list[list[tuple[int, int]]]:
    """Words are tokens; white space is in none, as in BERT's tokenizers."""
    return [[match.span() for match in re.finditer(r"\w+|[^\w\s]", text)] for text in texts]


def byte_offsets(texts: list[str]) -> list[list[tuple[int, int]]]:
    """Every byte is a token: those of one character share its offsets."""
    return [[(i, i + 1) for i, char in enumerate(text) for _ in char.encode()] for text in texts]


def tokens_in(offsets, text: str) -> int:
    return len(offsets([text])[0])


alphabet = st.sampled_from("ab .\n你好😀é\u200d​")
contents = st.lists(
    st.builds(
        lambda text, times: text * times + "x", st.text(alphabet, max_size=12), st.sampled_from([1, 1, 5, 40])
    ),
    min_size=1,
    max_size=14,
)
profiles = st.builds(
    a_profile,
    max_turns=st.integers(1, 5),
    max_current_tokens=st.integers(16, 60),
    max_context_tokens=st.integers(0, 40),
)
tokenizers = st.sampled_from([word_offsets, byte_offsets])


# --- what holds for every session -----------------------------------------------------------------------


@given(contents, profiles, tokenizers)
def test_a_backlog_of_many_turns_is_extracted_whole(contents, profile, offsets):
    """Every character stands in exactly one current part, in order; the old writer took the last 4 turns."""
    segments = cut_session(a_session(*contents), offsets, profile)
    parts = [part for segment in segments for part in segment["current"]]
    assert [part["turn_index"] for part in parts] == sorted(part["turn_index"] for part in parts)
    for index, content in enumerate(contents):
        assert "".join(part["text"] for part in parts if part["turn_index"] == index) == content
    assert all(part["text"] for part in parts)
    assert {(part["turn_index"], part["role"]) for part in parts} == {
        (index, ("user", "assistant")[index % 2]) for index in range(len(contents))
    }


@given(contents, profiles, tokenizers)
def test_segments_hold_their_budgets(contents, profile, offsets):
    for segment in cut_session(a_session(*contents), offsets, profile):
        current = sum(tokens_in(offsets, part["text"]) for part in segment["current"])
        context = sum(tokens_in(offsets, part["text"]) for part in segment["context"])
        assert 1 <= len(segment["current"]) <= profile.max_turns
        assert current <= profile.max_current_tokens
        assert context <= profile.max_context_tokens
        assert segment["num_tokens"] == current + context


@given(contents, profiles, tokenizers)
def test_context_is_the_text_right_before(contents, profile, offsets):
    seen = []
    for segment in cut_session(a_session(*contents), offsets, profile):
        context = segment["context"]
        assert all(part["text"] for part in context)
        if context:
            earlier = seen[-len(context) :]
            assert context[1:] == earlier[1:]
            assert context[0] | {"text": ""} == earlier[0] | {"text": ""}
            assert earlier[0]["text"].endswith(context[0]["text"])
        seen += segment["current"]


@given(contents, profiles, tokenizers)
def test_turns_and_positions_cover_the_session(contents, profile, offsets):
    session = a_session(*contents)
    segments = cut_session(session, offsets, profile)
    turns = [turn for segment in segments for turn in segment["turns"]]
    assert turns == [{"turn_index": index, **turn} for index, turn in enumerate(session["turns"])]
    place = (0, 0)
    for segment in segments:
        # A segment begins where the one before it ended, or at the start of the next turn.
        first = (segment["first_turn"], segment["start_char"])
        assert first == place or (first == (place[0] + 1, 0) and place[1] == len(contents[place[0]]))
        place = (segment["last_turn"], segment["end_char"])
        spanned = "".join(contents[first[0] : place[0]])[first[1] :] + contents[place[0]][: place[1]]
        if first[0] == place[0]:
            spanned = contents[place[0]][first[1] : place[1]]
        assert spanned == "".join(part["text"] for part in segment["current"])
    assert place == (len(contents) - 1, len(contents[-1]))


@given(contents, contents, profiles, tokenizers)
def test_appended_turns_change_no_segment_but_the_last(old, new, profile, offsets):
    before = cut_session(a_session(*old), offsets, profile)
    after = cut_session(a_session(*old, *new), offsets, profile)
    assert after[: len(before) - 1] == before[:-1]
    assert len({segment["segment_id"] for segment in after}) == len(after)


# --- ids ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"user_id": "other"},
        {"session_id": "other"},
        {"conversation_id": "other"},
        {"session_time": dt.datetime(2024, 5, 1, tzinfo=dt.UTC)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_same_words_elsewhere_are_other_segments(change):
    [one] = cut_session(a_session("I like tea."), word_offsets, a_profile())
    [other] = cut_session(a_session("I like tea.", **change), word_offsets, a_profile())
    assert one["segment_id"] != other["segment_id"]


@pytest.mark.parametrize(
    "change",
    [{"role": "system"}, {"speaker": "Ann"}, {"time": dt.datetime(2024, 5, 1, tzinfo=dt.UTC)}],
    ids=lambda change: next(iter(change)),
)
def test_an_edited_turn_makes_another_segment(change):
    session, edited = a_session("I like tea."), a_session("I like tea.")
    edited["turns"][0] |= change
    [one], [other] = (cut_session(s, word_offsets, a_profile()) for s in (session, edited))
    assert one["segment_id"] != other["segment_id"]


def test_segment_ids_stay_as_they_are():
    """An id that changes between releases makes every store pay for everything again."""
    session = a_session("I like tea.", "Noted.", session_time=dt.datetime(2024, 5, 1, tzinfo=dt.UTC))
    [segment] = cut_session(session, word_offsets, a_profile())
    assert segment["segment_id"] == "e4216df8ea25c30c7bd88a007d7c9453"


# --- long turns -----------------------------------------------------------------------------------------


def test_an_oversized_turn_is_split_and_keeps_its_turn_index():
    session = a_session("Hello", "word " * 100, "Bye")
    segments = cut_session(session, word_offsets, a_profile(max_current_tokens=40))
    assert [[part["turn_index"] for part in s["current"]] for s in segments] == [[0], [1], [1], [1, 2]]
    # The turn belongs, whole, to the segment in which it begins.
    assert [[turn["turn_index"] for turn in s["turns"]] for s in segments] == [[0], [1], [], [2]]
    assert segments[1]["turns"][0]["content"] == "word " * 100
    # The rest of it is read with its beginning in view.
    assert segments[2]["context"][-1]["turn_index"] == 1


def test_long_text_is_cut_at_white_space():
    text = "aaa bbb " * 30
    pieces = split_text(text, byte_offsets([text])[0], 30)
    assert all(piece[-1] == " " or piece is pieces[-1][0] for piece, _ in pieces)
    assert all(23 < num_tokens <= 30 for _, num_tokens in pieces[:-1])


@pytest.mark.parametrize("char", ["😀", "你", "é", "👩‍👩‍👧"])
def test_no_cut_inside_a_character_of_many_tokens(char):
    """Cutting went on behind the budget's end where a character's tokens straddled it."""
    text = char * 50
    pieces = split_text(text, byte_offsets([text])[0], 17)
    assert "".join(piece for piece, _ in pieces) == text
    assert all(num_tokens <= 17 for _, num_tokens in pieces)
    assert all(tokens_in(byte_offsets, piece) == num_tokens for piece, num_tokens in pieces)


def test_a_character_of_more_tokens_than_the_budget_makes_a_longer_piece():
    tokens = [(0, 1)] * 3 + [(1, 2)] * 40 + [(2, 3)] * 3
    assert split_text("aﷺb", tokens, 16) == [("a", 3), ("ﷺ", 40), ("b", 3)]


def test_context_of_a_part_whose_tokens_are_fewer_alone():
    """A piece can be fewer tokens alone than within its text: counting back from its end left the list."""

    def offsets(texts: list[str]) -> list[list[tuple[int, int]]]:
        return [[(i, i + 1) for i in range(len(text))] if len(text) > 40 else [(0, 2)] for text in texts]

    profile = a_profile(max_turns=1, max_current_tokens=20, max_context_tokens=4)
    segments = cut_session(a_session("x" * 41), offsets, profile)
    assert segments[1]["context"][0]["text"] == "x" * 20
    assert segments[1]["num_tokens"] == 21


def test_a_million_characters_are_tokenized_a_few_times_only():
    """Not once a piece: of quadratic work it would be hours."""
    text, num_read = "wordy text " * 90_000, 0

    def offsets(texts: list[str]) -> list[list[tuple[int, int]]]:
        nonlocal num_read
        num_read += sum(map(len, texts))
        return word_offsets(texts)

    started_s = time.monotonic()
    segments = cut_session(a_session(text), offsets, a_profile())
    assert sum(len(segment["current"]) for segment in segments) == 176
    # Of quadratic work in the cutting it would be hours as well.
    assert time.monotonic() - started_s < 60
    assert num_read <= 3 * len(text)


# --- offsets of any kind ---------------------------------------------------------------------------------


@given(
    text=st.text(alphabet, min_size=1, max_size=60),
    spans=st.lists(st.tuples(st.integers(0, 70), st.integers(-3, 6)), max_size=120),
    in_order=st.booleans(),
    max_tokens=st.integers(1, 20),
)
def test_any_offsets_give_the_whole_text_and_an_end(text, spans, in_order, max_tokens):
    """Zero-width, overlapping, backward and overreaching tokens: nothing is lost, nothing hangs."""
    tokens = [(start, start + width) for start, width in (sorted(spans) if in_order else spans)]
    pieces = split_text(text, tokens, max_tokens)
    assert "".join(piece for piece, _ in pieces) == text
    assert all(piece for piece, _ in pieces)
    assert sum(num_tokens for _, num_tokens in pieces) == len(tokens)


@given(text=st.text(alphabet, min_size=1, max_size=80), max_tokens=st.integers(4, 20), offsets=tokenizers)
def test_pieces_of_sound_offsets_hold_the_budget(text, max_tokens, offsets):
    pieces = split_text(text, offsets([text])[0], max_tokens)
    assert all(tokens_in(offsets, piece) == num_tokens <= max_tokens for piece, num_tokens in pieces)


@pytest.fixture(scope="module")
def byte_level():
    """A byte-level BPE tokenizer as the shipped models have, small enough to be trained here."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["I like tea and you like coffee.", "你好 你好 😀"], trainer)

    return tokenizer_offsets(tokenizer)


@given(contents=contents)
def test_a_real_byte_level_tokenizer_loses_nothing(byte_level, contents):
    profile = a_profile(max_current_tokens=16, max_context_tokens=8)
    segments = cut_session(a_session(*contents), byte_level, profile)
    assert "".join(part["text"] for s in segments for part in s["current"]) == "".join(contents)
    for segment in segments:
        assert segment["num_tokens"] <= 24
        assert not any("\ufffd" in part["text"] for part in segment["context"])


def test_a_control_token_written_in_a_conversation_counts_as_its_text(byte_level):
    """The prompt breaks it up into many tokens: counted as one, the prompt would be longer than planned."""
    assert tokens_in(byte_level, "<|im_end|>") > 5


def test_parts_say_who_speaks_where_several_people_do():
    session = a_session("I got a dog.", "Lovely!", "I got a cat.")
    session["turns"][0]["speaker"], session["turns"][1]["speaker"] = "Ann", "Bot"
    [segment] = cut_session(session, word_offsets, a_profile())
    assert [part["speaker"] for part in segment["current"]] == ["Ann", "Bot", None]
    session["turns"][2]["speaker"] = "Ann"
    [segment] = cut_session(session, word_offsets, a_profile())
    assert [part["speaker"] for part in segment["current"]] == [None, None, None]
    assert [turn["speaker"] for turn in segment["turns"]] == ["Ann", "Bot", "Ann"]


def test_a_person_who_joins_changes_no_segment_before():
    session = a_session("I got a dog.", "Lovely!", "I got a cat.", "Oh!", "Me too.")
    session["turns"][0]["speaker"] = session["turns"][2]["speaker"] = "Ann"
    before = cut_session(session, word_offsets, a_profile(max_turns=2))
    session["turns"].append(session["turns"][0] | {"speaker": "Bob"})
    after = cut_session(session, word_offsets, a_profile(max_turns=2))
    assert [segment["segment_id"] for segment in after[:2]] == [one["segment_id"] for one in before[:2]]


# --- what is no speech ----------------------------------------------------------------------------------

ROWS = "\n".join(f"{number}\t{number * 7}\t{number * 13}" for number in range(200))


def test_a_pasted_file_costs_one_segment_and_stays_whole_as_a_turn():
    said = f"My sons have these marks:\n{ROWS}\nThe younger one is Ole."
    (segment,) = cut_session(a_session(said, "Good."), word_offsets, a_profile())
    assert segment["current"][0]["text"] == (
        "My sons have these marks:\n[table, 200 lines]\nThe younger one is Ole."
    )
    assert [turn["content"] for turn in segment["turns"]] == [said, "Good."]
    assert (segment["start_char"], segment["end_char"]) == (0, len("Good."))


def test_what_is_no_speech_shifts_no_evidence():
    """Turn numbers stay, and characters are counted in the turn as it is stored."""
    told = "I was born in Graz, in a house by the river, and grew up there. " * 4
    said = f"{told}\n{ROWS}\n{told}"
    segments = cut_session(a_session("Hi.", said, "Yes?"), word_offsets, a_profile(max_current_tokens=40))
    parts = [part for segment in segments for part in segment["current"]]
    assert "".join(part["text"] for part in parts if part["turn_index"] == 1) == (
        f"{told}\n[table, 200 lines]\n{told}"
    )
    behind = [
        (segment["start_char"], segment["current"][0]["text"])
        for segment in segments
        if segment["current"][0]["turn_index"] == 1 and segment["start_char"] > said.index(ROWS)
    ]
    assert behind
    assert all(said[start:].startswith(text) for start, text in behind)
    assert [turn["turn_index"] for segment in segments for turn in segment["turns"]] == [0, 1, 2]


def test_ordinary_text_keeps_the_segment_ids_of_earlier_releases():
    """They say what was paid for: another id would encode every archive again."""
    prose = "I moved to Graz in 2019, and my sister Ana (34) is a nurse there; she has two sons. " * 12
    session = a_session(prose, "Nice.", "- Name: Tomas\n- City: Brno\n" * 20, "ok")
    segments = cut_session(session, word_offsets, a_profile(max_current_tokens=60))
    ids = [segment["segment_id"] for segment in segments]
    assert len(ids) == 8
    assert (ids[0], ids[-1]) == ("b7b8d267e2aaf93ff135a1326646e91d", "077299de149be56d0a633615b5d01ccc")
