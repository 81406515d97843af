"""The decider that asks a model, and the guards that stand behind every decider.

The other decider, which needs no model, is cluster.consolidate.rules. `ModelDecider` asks a language model
under a constrained schema, through the engines that the encoder uses. A verdict that cannot be had is
`failed`, is retried by the next run, and is never taken for "ignore".
"""

import re
import time
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from cluster.consolidate.fold import Question, Verdict
from cluster.models.asking import Answer, Generate, Request
from cluster.models.engine import make_engine
from cluster.models.paid_answers import CapReached
from cluster.models.prompt import Prompt, as_prompt, control_pattern, num_tokens
from cluster.store.crash_markers import WorkerSick
from schemas.decision import InvalidDecision, decision_schema, parse_decision
from schemas.profiles.decider import DeciderProfile

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# --- guards -------------------------------------------------------------------------------------------

_NUMBER = re.compile(r"\d+(?:[.,:/-]\d+)*")
_WORD = re.compile(r"[^\W\d_]+(?:[-'][^\W\d_]+)*")
_NUMBER_WORDS = frozenset(
    """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
    seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million
    once twice first second third""".split()  # noqa: SIM905 - a list of words is read more easily
)
_DATE_WORDS = frozenset(
    """january february march april june july august september october november december monday tuesday
    wednesday thursday friday saturday sunday today tomorrow yesterday""".split()  # noqa: SIM905
)
_OPENERS = frozenset(
    """user users the a an he she they it his her their its as in on at for from since until after before when
    while and but both this that these those there now currently previously""".split()  # noqa: SIM905
)
"""Words that may open a sentence of a rewritten memory without standing in what it was made from."""


def invented(text: str, question: Question) -> list[str]:
    """Numbers, names and dates of a rewritten text that stand neither in the target nor in a source.

    Names are words with a capital. Case and possessive endings do not count, nor do the words that open a
    sentence; dates of the sources themselves may be used, the prompt shows them.
    """
    memories = [question.target, *(source.memory for source in question.sources)]
    given = " ".join(
        [memory.text for memory in memories]
        + [wording for source in question.sources for wording in source.wordings]
        + [memory.session_time[:10] for memory in memories]
        + [date for memory in memories for date in memory.temporal]
    )
    numbers = set(_NUMBER.findall(given)) | set(re.findall(r"\d+", given))
    words = {_stem(word) for word in _WORD.findall(given)}
    found = [number for number in _NUMBER.findall(text) if number not in numbers]
    opens = True
    for match in re.finditer(rf"{_WORD.pattern}|[.!?]", text):
        word = match[0]
        if word in ".!?":
            opens = True
            continue
        must_stand = word[0].isupper() or word.lower() in _NUMBER_WORDS | _DATE_WORDS
        if must_stand and _stem(word) not in words and not (opens and _stem(word) in _OPENERS):
            found.append(word)
        opens = False
    return found


def _stem(word: str) -> str:
    return re.sub(r"['’]s?$", "", word.casefold())


def guard(question: Question, verdict: Verdict, *, min_confidence: float) -> Verdict:
    """The verdict, or its refusal with the reason."""
    if verdict.outcome != "applied" or verdict.action == "ignore":
        return verdict
    reason = ""
    if verdict.confidence < min_confidence:
        reason = f"confidence {verdict.confidence} is below min_confidence={min_confidence}"
    elif verdict.action == "update" and (words := invented(verdict.text, question)):
        reason = f"invented: {', '.join(words[:5])} stand in neither target nor sources"
    elif verdict.action == "update" and verdict.text == question.target.text:
        reason = "unchanged: the updated text is the target's own"
    return Verdict(**(vars(verdict) | {"outcome": "refused", "reason": reason})) if reason else verdict


def guarded(questions: list[Question], verdicts: list[Verdict], *, min_confidence: float) -> list[Verdict]:
    """The verdicts on the questions, each as `guard` lets it pass."""
    return [
        guard(question, verdict, min_confidence=min_confidence)
        for question, verdict in zip(questions, verdicts, strict=True)
    ]


# --- model --------------------------------------------------------------------------------------------


class DeciderPrompt:
    """A question as the model's prompt: the target, then the sources from old to new, each with its date.

    Memories are data: what in them looks like a control token or a tag of the template is broken up.
    """

    def __init__(self, profile: DeciderProfile, tokenizer: "PreTrainedTokenizerBase"):
        self._profile, self._tokenizer = profile, tokenizer
        self._control = control_pattern(tokenizer, profile.system_prompt + profile.user_template)

    def __call__(self, question: Question, num_sources: int | None = None) -> Prompt:
        """As the engine takes it; with `num_sources`, only that many of the newest sources are shown."""
        return as_prompt(self.messages(question, num_sources), self._tokenizer)

    def text(self, question: Question, num_sources: int | None = None) -> str:
        """The prompt as text, chat template applied."""
        messages = self.messages(question, num_sources)
        return self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)

    def messages(self, question: Question, num_sources: int | None = None) -> list[dict]:
        """The prompt as chat messages `{role, content}`, the last the user's."""
        sources = question.sources[-num_sources:] if num_sources else question.sources
        lines = [
            f"{number}. {self._dated(source.memory.session_time, source.memory.text)}"
            for number, source in enumerate(sources, 1)
        ]
        target = self._dated(question.target.session_time, question.target.text)
        messages = [{"role": "system", "content": self._profile.system_prompt}]
        for example in self._profile.examples:
            shown = self._user(example.target, example.sources)
            messages += [{"role": "user", "content": shown}, {"role": "assistant", "content": example.answer}]
        return [*messages, {"role": "user", "content": self._user(target, "\n".join(lines))}]

    def _user(self, target: str, sources: str) -> str:
        values = {"{target}": target.strip(), "{sources}": sources.strip()}
        # One pass: a brace in somebody's memory is no field.
        return re.sub(r"\{target\}|\{sources\}", lambda match: values[match[0]], self._profile.user_template)

    def _dated(self, session_time: str, text: str) -> str:
        if self._control:
            text = self._control.sub(lambda match: f"{match[0][0]} {match[0][1:]}", text)
        return f"({session_time[:10] or 'date unknown'}) {text}"


class ModelDecider:
    """A loaded profile. `decide(questions)` sends one batch; `load_s` is the time that loading took, and
    `num_calls` how many prompts were sent, second tries included."""

    def __init__(self, profile: DeciderProfile, **engine_options: Any):
        started_s = time.monotonic()
        self.profile, self.fingerprint = profile, profile.fingerprint
        self.engine = make_engine(profile, **engine_options)
        self.prompt = DeciderPrompt(profile, self.engine.tokenizer)
        self.load_s = time.monotonic() - started_s
        self.num_calls = 0

    def decide(self, questions: list[Question]) -> list[Verdict]:
        return ask(questions, self._generate, self.prompt, self.profile)

    def _generate(self, requests: list[Request]) -> list[Answer]:
        self.num_calls += len(requests)
        return self.engine.generate(requests)


PROMPT_CHARS_A_TOKEN = 3.5
"""For estimates without a tokenizer; English text has about four."""


def expected_tokens(profile: DeciderProfile, question: Question) -> int:
    """Tokens of prompt and answer that a question will about cost; answers are half of the longest."""
    shown = [question.target, *(source.memory for source in question.sources)]
    chars = profile.fixed_chars + sum(len(memory.text) + 16 for memory in shown)
    return int(chars / PROMPT_CHARS_A_TOKEN + profile.max_tokens / 2)


def ask(
    questions: list[Question],
    generate: Generate,
    prompt: Callable[..., Prompt],
    profile: DeciderProfile,
) -> list[Verdict]:
    """Questions -> verdicts, in order. Pure but for `generate`.

    Too long a prompt loses its oldest sources. A cut or invalid answer is asked for once more with the newest
    source alone, which is what most often decides; what fails again is `failed`, with the raw text. An engine
    that raises fails the question that makes it raise, not its neighbours; CapReached, and WorkerSick where
    the engine can answer nobody, are raised.
    """
    verdicts: list[Verdict | None] = [None] * len(questions)
    tokens = [[0, 0, 0] for _ in questions]
    limit, schema = profile.max_model_len - profile.max_tokens, decision_schema(profile.limits)
    open_ones = [(number, len(question.sources)) for number, question in enumerate(questions)]
    for is_last in (False, True):
        asked, requests = [], []
        for number, num_sources in open_ones:
            asks = prompt(questions[number], num_sources)
            while num_tokens(asks) > limit and num_sources > 1:
                num_sources = (num_sources + 1) // 2
                asks = prompt(questions[number], num_sources)
            if num_tokens(asks) > limit:
                reason = f"prompt_too_long: {num_tokens(asks)} tokens, the limit is {limit}"
                verdicts[number] = Verdict("", "failed", reason=reason)
                continue
            asked.append((number, num_sources))
            requests.append(Request(asks, schema, profile.max_tokens))
        open_ones = []
        for (number, _), answer in zip(asked, _generate(generate, requests), strict=True):
            if isinstance(answer, Exception):
                verdicts[number] = Verdict("", "failed", reason=f"{type(answer).__name__}: {answer}")
                continue
            spent = (answer.prompt_tokens, answer.cached_tokens, answer.output_tokens)
            tokens[number] = [sum(pair) for pair in zip(tokens[number], spent, strict=True)]
            try:
                if answer.refusal:
                    raise InvalidDecision
                decision = parse_decision(answer.text)
            except InvalidDecision as error:
                kind = "invalid_answer" if answer.complete else "cut_answer"
                reason = f"{answer.reason}: {answer.refusal}" if answer.refusal else f"{kind}: {error}"
                verdicts[number] = Verdict("", "failed", reason=reason, raw=answer.text)
                if not is_last:
                    open_ones.append((number, 1))
                continue
            verdicts[number] = Verdict(
                decision.action, text=decision.updated_text, confidence=decision.confidence, raw=answer.text
            )
    names = ("prompt_tokens", "cached_tokens", "output_tokens")
    return [
        Verdict(**(vars(verdict) | dict(zip(names, spent, strict=True))))
        for verdict, spent in zip(verdicts, tokens, strict=True)
    ]


def _generate(generate: Generate, requests: list[Request]) -> Sequence[Answer | Exception]:
    if not requests:
        return []
    try:
        return generate(requests)
    except (CapReached, WorkerSick):
        raise
    except Exception:
        traceback.print_exc()
    answers: list[Answer | Exception] = []
    for request in requests:
        try:
            answers += generate([request])
        except (CapReached, WorkerSick):
            raise
        except Exception as error:
            answers.append(error)
    return answers
