"""A segment becomes the encoder's prompt.

Conversation text is data: whatever in it looks like a control token of the model or a tag of the template is
broken up in the prompt (never in what is stored), so that hostile text cannot close its own block.
"""

import datetime as dt
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from schemas.profiles.encoder import EncoderProfile

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Chat:
    """A prompt as messages `{role, content}`, for an engine behind which somebody else renders them."""

    messages: list[dict]


Prompt = list[int] | Chat
"""What an engine is given: token ids, the chat template applied, or the messages."""


def as_prompt(messages: list[dict], tokenizer: "PreTrainedTokenizerBase | None") -> Prompt:
    """Messages as token ids; as they are where the engine has no tokenizer."""
    if tokenizer is None:
        return Chat(messages)
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def num_tokens(prompt: Prompt) -> int:
    """Tokens of a prompt; 0 for a chat, which its engine alone can count."""
    return 0 if isinstance(prompt, Chat) else len(prompt)


FOREIGN_CONTROL = (
    r"<\|[^|<>\s]{1,40}\|>",
    r"<｜[^｜<>\s]{1,40}｜>",
    r"</?s>",
    r"\[/?INST\]",
    r"<</?SYS>>",
    r"<(?:bos|eos|pad|start_of_turn|end_of_turn)>",
)
"""How the control tokens of common models look, for prompts to a model whose tokenizer is not here."""


def control_pattern(tokenizer: "PreTrainedTokenizerBase | None", template: str) -> re.Pattern | None:
    """What must not stand in a prompt's data: the tokenizer's control tokens and the template's own tags."""
    tags = {f"<{slash}{name}>" for name in re.findall(r"</?([A-Za-z]\w*)>", template) for slash in ("", "/")}
    if tokenizer is None:
        return re.compile("|".join([*map(re.escape, sorted(tags)), *FOREIGN_CONTROL]), re.IGNORECASE)
    # The tokenizer reads more as control tokens than those that have a role in its configuration.
    special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    control = sorted({*tags, *special, *tokenizer.all_special_tokens}, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, control)), re.IGNORECASE) if control else None


class PromptBuilder:
    """Builds prompts for one profile and the tokenizer of its engine, None where that takes messages."""

    def __init__(self, profile: EncoderProfile, tokenizer: "PreTrainedTokenizerBase | None"):
        self._profile = profile
        self._tokenizer = tokenizer
        self._system = profile.instructions
        self._user = profile.user_template
        self._control = control_pattern(tokenizer, self._user + self._system + profile.session_date_template)

    def __call__(self, context: list[dict], current: list[dict], session_time: dt.datetime | None) -> Prompt:
        """The prompt for parts `{role, text}`."""
        return as_prompt(self.messages(context, current, session_time), self._tokenizer)

    def text(self, context: list[dict], current: list[dict], session_time: dt.datetime | None) -> str:
        """The prompt as text, chat template applied."""
        messages = self.messages(context, current, session_time)
        assert self._tokenizer is not None
        return self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)

    def messages(
        self, context: list[dict], current: list[dict], session_time: dt.datetime | None
    ) -> list[dict]:
        """The prompt as chat messages `{role, content}`, the last the user's."""
        date = ""
        if session_time is not None and self._profile.session_date_template:
            day = session_time.date().isoformat()
            date = self._profile.session_date_template.replace("{date}", day)
        previous = "\n".join(
            self._turn(index, part, "{role}: {content}") for index, part in enumerate(context)
        )
        lines = [self._turn(index, part, self._profile.turn_template) for index, part in enumerate(current)]
        messages = [{"role": "system", "content": self._system}]
        for example in self._profile.examples:
            shown = self._user_message("", "", example.current.strip())
            messages.append({"role": "user", "content": shown})
            messages.append({"role": "assistant", "content": example.answer.strip()})
        messages.append({"role": "user", "content": self._user_message(date, previous, "\n".join(lines))})
        return messages

    def _user_message(self, date: str, previous: str, current: str) -> str:
        values = {
            "{session_date}": date,
            "{previous}": previous or self._profile.no_previous,
            "{current}": current,
        }
        # One pass, not str.format nor one replace after the other: a brace in somebody's text is no field.
        return re.sub("|".join(map(re.escape, values)), lambda match: values[match[0]], self._user)

    def _turn(self, index: int, part: dict, template: str) -> str:
        text = self._profile.shown(part["text"])
        if self._control:
            text = self._control.sub(lambda match: f"{match[0][0]} {match[0][1:]}", text)
        return (
            template.replace("{index}", str(index))
            .replace("{role}", part["role"])
            .replace("{content}", text, 1)
        )
