"""Conversations as the evolvable model reads them: exchanges, and their token ids.

An exchange is a user's message with what was answered to it; it is what the published model calls a turn.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from cluster.models.sources import ModelError, model_folder
from schemas.archive import spoken
from schemas.evolvable import EvolvableConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MARKS = tuple(f"mark{number}mark" for number in range(3))


class Exchange(NamedTuple):
    """Either side may be empty, not both."""

    user: str
    assistant: str

    @property
    def text(self) -> str:
        """As the retriever reads it."""
        sides = (("User", self.user), ("Assistant", self.assistant))
        return "\n".join(f"{name}: {content}" for name, content in sides if content)


def exchanges_of(messages: Iterable[dict]) -> tuple[list[Exchange], list[int]]:
    """Messages (`role`, `content`, perhaps `speaker`) -> exchanges, and each message's exchange by number.

    A user's message opens an exchange; what is not a user's joins the one before it, and so does what
    another person says to that user.
    """
    sides: list[tuple[list[str], list[str]]] = []
    numbers = []
    opened_by = None
    for message in messages:
        speaker = message.get("speaker")
        is_another = bool(opened_by and speaker and speaker != opened_by)
        opens = message["role"] == "user" and not is_another
        if opens or not sides:
            sides.append(([], []))
            opened_by = speaker if opens else None
        sides[-1][0 if opens else 1].append(spoken(message))
        numbers.append(len(sides) - 1)
    return [Exchange("\n".join(user), "\n".join(rest)) for user, rest in sides], numbers


class Tokens:
    """A base's tokenizer and chat template, as the model needs them. Every id comes from the tokenizer."""

    def __init__(self, config: EvolvableConfig, tokenizer: "PreTrainedTokenizerBase"):
        """`tokenizer`: of transformers, with a chat template. ModelError when it cannot serve."""
        self.config, self.tokenizer, self._backend = config, tokenizer, tokenizer.backend_tokenizer
        self._backend.no_truncation()
        self._backend.no_padding()
        if not tokenizer.chat_template:
            raise ModelError(
                f"base {config.base!r}: its tokenizer has no chat template; take an instruct base"
            )
        self.end_id = tokenizer.get_vocab().get(config.end_of_text)
        if self.end_id is None:
            raise ModelError(
                f"end_of_text={config.end_of_text!r}: not a token of base {config.base!r}; name one that is"
            )
        self._find_frame()
        (self._instruction,) = self._ids([config.query_instruction])
        self.insert_at = len(self._ids([self._opening])[0])
        """Length of the header of a user's message, 3 with ChatML."""

    @classmethod
    def of_base(cls, config: EvolvableConfig) -> "Tokens":
        """The tokenizer of the configured base."""
        from transformers import AutoTokenizer

        folder = model_folder(config.base, config.base_revision)
        return cls(config, AutoTokenizer.from_pretrained(folder))

    # --- ids ------------------------------------------------------------------------------------------

    def memory_ids(self, exchanges: Sequence[Exchange], *, first: bool = True) -> list[list[int]]:
        """As the memory generator reads each of them: the chat template's rendering of the exchange.

        `first`: they open the conversation, and so have what the template puts there (a system message).
        """
        texts = [self._rendered(exchange, first and not n) for n, exchange in enumerate(exchanges)]
        limit, closing = self.config.max_turn_tokens, self._closing_ids
        return [
            ids if len(ids) <= limit else ids[: limit - len(closing)] + closing for ids in self._ids(texts)
        ]

    def document_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """As the retriever reads exchanges, each as its `Exchange.text`."""
        return [[*ids[: self.config.max_turn_tokens - 1], self.end_id] for ids in self._ids(texts)]

    def query_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """As the retriever reads questions, under the configured instruction."""
        return [self._instruction + ids for ids in self.document_ids(texts)]

    def answer_ids(self, exchange: Exchange, *, first: bool) -> tuple[list[int], list[int], int]:
        """For the language-model loss: ids of the exchange, positions of what the assistant says (up to and
        with the token that ends its turn), and the position before which the queue stands."""
        text = self._rendered(exchange, first)
        body, said = text.removesuffix(self._closing), exchange.assistant.strip()
        start = body.rfind(said)
        if start < 0 or body[start:].rstrip() != said:
            raise ModelError(f"base {self.config.base!r}: its chat template rewrites what was answered")
        before, answer = self._ids([text[:start], text[start:]])
        # Of the closing, only the token that ends the turn is said; line breaks behind it are layout.
        num_said = len(answer) - len(self._closing_ids) + 1
        return before + answer, list(range(len(before), len(before) + num_said)), self.insert_at

    # --- template -------------------------------------------------------------------------------------

    def _find_frame(self) -> None:
        """Learn from the template what surrounds an exchange within a conversation.

        An exchange is rendered with another one before and a question behind it, because templates treat
        the first message (system text) and the last exchange (reasoning) in their own ways.
        """
        user, assistant, question = _MARKS
        pair = Exchange(user, assistant)
        alone = self._render([pair])
        within = self._render([pair], question)
        try:
            self._closing = alone[alone.rindex(assistant) + len(assistant) :]
            end = within.index(assistant) + len(assistant) + len(self._closing)
            self._before, self._behind = within[:end], within[end:]
            self._opening = self._behind[: self._behind.index(question)]
        except ValueError:
            raise ModelError(f"base {self.config.base!r}: its chat template does not show messages") from None
        (self._closing_ids,) = self._ids([self._closing])
        if not self._before.endswith(assistant + self._closing) or not self._opening or not self._closing_ids:
            raise ModelError(f"base {self.config.base!r}: its chat template does not delimit messages")

    def _rendered(self, exchange: Exchange, first: bool) -> str:
        before = [] if first else [Exchange(*_MARKS[:2])]
        text = self._render([*before, exchange], _MARKS[2])
        return text.removeprefix("" if first else self._before).removesuffix(self._behind)

    def _render(self, exchanges: Sequence[Exchange], question: str | None = None) -> str:
        messages = []
        for exchange in exchanges:
            messages.append({"role": "user", "content": exchange.user})
            messages.append({"role": "assistant", "content": exchange.assistant})
        if question is not None:
            messages.append({"role": "user", "content": question})
        return self.tokenizer.apply_chat_template(messages, tokenize=False)

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        # Not by calling the tokenizer, which makes offsets as well and takes twice as long.
        found = self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in found]
