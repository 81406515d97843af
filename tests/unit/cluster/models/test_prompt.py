"""Prompts: encoder_v0's bytes as it was trained on them, and conversation text that stays in its block."""

import datetime as dt
import re
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.models.prompt import PromptBuilder
from schemas.profiles.encoder import EncoderProfile, Example

PROFILES = Path(__file__).parents[4] / "cluster" / "profiles" / "encoders"


class FakeTokenizer:
    """Characters as tokens; a chat template that shows where each message begins and ends."""

    all_special_tokens = ("<|im_start|>", "<|im_end|>")
    added_tokens_decoder = {  # noqa: RUF012
        1: SimpleNamespace(content="<|im_start|>", special=True),
        2: SimpleNamespace(content="<|im_end|>", special=True),
        3: SimpleNamespace(content="<file_sep>", special=True),
        4: SimpleNamespace(content="    ", special=False),
    }

    def __call__(self, text, add_special_tokens):
        assert not add_special_tokens
        return {"input_ids": [ord(char) for char in text]}

    def apply_chat_template(self, messages, tokenize, add_generation_prompt):
        assert not tokenize
        shown = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages)
        return shown + "<|im_start|>assistant\n" * add_generation_prompt


TAGGED = EncoderProfile(
    name="tagged",
    base="x/y",
    system_prompt="Write JSON about <CURRENT_TURNS>.",
    user_template=(
        "{session_date}<PREVIOUS_TURNS>\n{previous}\n</PREVIOUS_TURNS>\n\n"
        "<CURRENT_TURNS>\n{current}\n</CURRENT_TURNS>"
    ),
    turn_template="[{index}] {role}: {content}",
    session_date_template="<SESSION_DATE>{date}</SESSION_DATE>\n",
)
DAY = dt.datetime(2024, 5, 1, 23, 30, tzinfo=dt.UTC)


def parts(*texts: str) -> list[dict]:
    return [{"role": ("user", "assistant")[i % 2], "text": text} for i, text in enumerate(texts)]


def user_message(profile: EncoderProfile, context: list[dict], current: list[dict], time=None) -> str:
    text = PromptBuilder(profile, FakeTokenizer()).text(context, current, time)
    return text.split("<|im_start|>user\n")[-1].removesuffix("<|im_end|>\n<|im_start|>assistant\n")


# --- layout -------------------------------------------------------------------------------------------


def encoder_v0() -> EncoderProfile:
    """As resolved, but with another system prompt: the real one stays in its wheel."""
    values = tomllib.loads((PROFILES / "encoder_v0.toml").read_text())
    del values["system_prompt_in_wheel"]
    values |= {"system_prompt": "S\n", "user_template": values["user_template"].strip("\n")}
    return EncoderProfile.model_validate(values)


def test_encoder_v0_sees_the_user_message_that_it_was_trained_on():
    context, current = parts("Hi {name}", "Hello"), parts("I like tea.\nA lot.", "Noted.")
    assert user_message(encoder_v0(), context, current, DAY) == (
        "<PREVIOUS_TURNS>\n"
        "user: Hi {name}\n"
        "assistant: Hello\n"
        "</PREVIOUS_TURNS>\n"
        "\n"
        "<CURRENT_TURNS>\n"
        "user: I like tea.\nA lot.\n"
        "assistant: Noted.\n"
        "</CURRENT_TURNS>"
    )


def test_encoder_v0_without_previous_turns():
    message = user_message(encoder_v0(), [], parts("Hi"), None)
    assert message.startswith("<PREVIOUS_TURNS>\n(no previous turns)\n</PREVIOUS_TURNS>\n\n<CURRENT_TURNS>\n")


def test_the_whole_prompt():
    """The system prompt reaches the model to the byte, its trailing newline included."""
    builder = PromptBuilder(encoder_v0(), FakeTokenizer())
    text = builder.text([], parts("Hi"), None)
    assert text.startswith("<|im_start|>system\nS\n<|im_end|>\n<|im_start|>user\n<PREVIOUS_TURNS>")
    assert text.endswith("</CURRENT_TURNS><|im_end|>\n<|im_start|>assistant\n")
    assert builder([], parts("Hi"), None) == [ord(char) for char in text]


def test_current_turns_are_numbered_from_0_and_context_is_not():
    message = user_message(TAGGED, parts("a", "b"), parts("c", "d", "e"))
    assert "<PREVIOUS_TURNS>\nuser: a\nassistant: b\n</PREVIOUS_TURNS>" in message
    assert "<CURRENT_TURNS>\n[0] user: c\n[1] assistant: d\n[2] user: e\n</CURRENT_TURNS>" in message


def test_the_session_date_is_a_day_and_left_out_where_there_is_none():
    dated, undated = (user_message(TAGGED, [], parts("a"), time) for time in (DAY, None))
    assert dated == "<SESSION_DATE>2024-05-01</SESSION_DATE>\n" + undated


def test_a_brace_in_the_date_s_template_is_text():
    profile = TAGGED.model_copy(update={"session_date_template": "{{date}} {today}\n"})
    assert user_message(profile, [], parts("a"), DAY).startswith("{2024-05-01} {today}\n")


def test_examples_stand_before_the_segment_as_an_exchange():
    example = Example(current="\n[0] user: x\n", answer='\n{"records": []}\n')
    profile = TAGGED.model_copy(update={"examples": (example,)})
    text = PromptBuilder(profile, FakeTokenizer()).text(parts("p"), parts("c"), DAY)
    shown = user_message(TAGGED, [], parts("x"))
    assert f'user\n{shown}<|im_end|>\n<|im_start|>assistant\n{{"records": []}}<|im_end|>\n' in text
    assert text.index('{"records": []}') < text.index("[0] user: c")


# --- hostile text -------------------------------------------------------------------------------------

CONTROL = [
    "<|im_end|>",
    "<|im_start|>",
    "<file_sep>",
    "</CURRENT_TURNS>",
    "<CURRENT_TURNS>",
    "</PREVIOUS_TURNS>",
    "</SESSION_DATE>",
]
fragments = st.sampled_from(
    [
        *CONTROL,
        *(tag.lower() for tag in CONTROL),
        "</Current_Turns>",
        "<|IM_END|>",
        *"<>|/ \n",
        "im_end",
        "{current}",
        "{previous}",
        "{session_date}",
        "{content}",
        "{role}",
        "{index}",
        "{",
        "}",
        r"\g<0>",
        "\\1",
        "%s",
    ]
)
hostile = st.lists(fragments, max_size=12).map("".join)


@given(st.lists(hostile, min_size=1, max_size=3), st.lists(hostile, max_size=3))
def test_hostile_text_cannot_close_its_block(current, context):
    tags = re.compile("|".join(map(re.escape, CONTROL)), re.IGNORECASE)
    builder = PromptBuilder(TAGGED, FakeTokenizer())
    texts = (current, context), (["a"] * len(current), ["b"] * len(context))
    found, expected = (
        tags.findall(builder.text(parts(*previous), parts(*now), DAY)) for now, previous in texts
    )
    assert found == expected


@given(st.lists(hostile, min_size=1, max_size=3), st.lists(hostile, max_size=3))
def test_text_stands_in_its_own_block_and_whole_but_for_spaces(current, context):
    """A `{current}` said in an earlier turn was filled with the current turns."""
    message = user_message(TAGGED, parts(*context), parts(*current))
    before, _, now = message.removeprefix("<PREVIOUS_TURNS>\n").partition("\n</PREVIOUS_TURNS>\n\n")
    now = now.removeprefix("<CURRENT_TURNS>\n").removesuffix("\n</CURRENT_TURNS>")
    said = [f"{part['role']}: {part['text']}" for part in parts(*context)] or ["(no previous turns)"]
    assert before.replace(" ", "") == "\n".join(said).replace(" ", "")
    said = [f"[{i}] {part['role']}: {part['text']}" for i, part in enumerate(parts(*current))]
    assert now.replace(" ", "") == "\n".join(said).replace(" ", "")


def test_control_tokens_without_a_role_in_the_configuration_are_broken_up_too():
    """SmolLM2 has 17 control tokens, three of which its configuration names."""
    assert "<file_sep>" not in user_message(TAGGED, [], parts("a <file_sep> b"))


def test_white_space_that_is_a_token_of_its_own_is_left_alone():
    assert "a    b" in user_message(TAGGED, [], parts("a    b"))


@pytest.mark.parametrize("text", ["a < b", "<b>bold</b>", "x = {y: 1}", "50% </div>", "1 <2> 3"])
def test_ordinary_text_is_not_changed(text):
    assert f"[0] user: {text}\n" in user_message(TAGGED, [], parts(text))


def test_the_parts_themselves_are_not_changed():
    current = parts("</CURRENT_TURNS>")
    user_message(TAGGED, [], current)
    assert current == parts("</CURRENT_TURNS>")


def test_characters_are_shown_as_the_profile_says():
    profile = TAGGED.model_copy(update={"shown_as": (('"', "'"),)})
    assert "I read 'Emma' {again}." in user_message(profile, [], parts('I read "Emma" {again}.'))
