"""Deciders: questions in, verdicts out. Two kinds, and the guards that stand behind both.

`Rules` is deterministic and needs no model: it reads target and sources with cluster.consolidation.grammar.
`ModelDecider` asks a language model under a constrained schema, through the engine that the encoder uses.
A verdict that cannot be had is `failed`, is retried by the next run, and is never taken for "ignore".
"""

import re
import time
import traceback
from collections.abc import Callable

from cluster.consolidation.claims import Claim, relation
from cluster.consolidation.fold import Question, Source, Verdict
from cluster.consolidation.grammar import read
from cluster.encoder import Reply, Request
from schemas.decision import InvalidDecision, decision_schema, parse_decision
from schemas.profile import DeciderProfile

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


# --- rules --------------------------------------------------------------------------------------------


class Rules:
    """Deterministic decisions from the wording alone; the reading itself is described in
    cluster.consolidation.grammar.

    Each clause of the target is compared with the sources, newest first; the first source that bears on it
    decides what happens to the clause:
      replaced   the same attribute has another value now, or the value is denied
      restated   the same value in other words, or a more exact one
    All clauses replaced: delete. All restated by one source: update to its words, which unites the two. Some
    replaced: update to the clauses that stand. Otherwise: ignore.

    Tags must agree: two memories that both have tags and share none are about different things. Where the
    words alone do not name the attribute ("now has ...", "prefers ... when ..."), two memories must share
    a tag, or where one has none, be similar: MIN_LOOSE and MIN_CHOICE, cosines of all-MiniLM-L6-v2.
    """

    fingerprint = "rules-1"
    """Raised with every change of the rules: the ledger knows decisions by it."""

    MIN_LOOSE = 0.45
    MIN_CHOICE = 0.5

    load_s = 0.0
    num_calls = 0

    def decide(self, questions: list[Question]) -> list[Verdict]:
        return [self.judge(question) for question in questions]

    def judge(self, question: Question) -> Verdict:
        target = read(question.target.text)
        by_clause: dict[int, list[Claim]] = {}
        for claim in target.claims:
            by_clause.setdefault(claim.clause, []).append(claim)
        fates: dict[int, tuple[str, Source]] = {}
        for clause, claims in by_clause.items():
            for source in reversed(question.sources):
                if found := self._fate(claims, question, source):
                    fates[clause] = found, source
                    break
        num_clauses = len(target.clauses)
        if not fates:
            return Verdict("ignore")
        if len(fates) < num_clauses:
            kept = [
                clause
                for number, clause in enumerate(target.clauses)
                if number not in fates or fates[number][0] == "restated"
            ]
            if len(kept) == num_clauses:
                return Verdict("ignore")
            newest = fates[min(fates)][1].memory.record_id
            return Verdict("update", text=f"{' and '.join(kept)}.", reason=f"in part replaced by {newest}")
        sources = {source.memory.record_id: source for _, source in fates.values()}
        if {fate for fate, _ in fates.values()} == {"restated"}:
            if len(sources) > 1:
                return Verdict("ignore", reason="restated by several memories, in parts")
            (record_id, source), *_ = sources.items()
            return Verdict("update", text=source.memory.text, reason=f"restated by {record_id}")
        return Verdict("delete", reason=f"replaced by {', '.join(sorted(sources))}")

    def _fate(self, claims: list[Claim], question: Question, source: Source) -> str:
        tags, others = set(question.target.tags), set(source.memory.tags)
        if tags and others and not tags & others:
            return ""
        for text in (source.memory.text, *source.wordings):
            for newer in read(text).claims:
                for older in claims:
                    if not (found := relation(older, newer)):
                        continue
                    least = self._least_similarity(older, newer)
                    if tags & others or source.score >= least:
                        return "replaced" if found == "replaces" else "restated"
        return ""

    def _least_similarity(self, older: Claim, newer: Claim) -> float:
        if newer.is_denied or older.value == newer.value:
            return -1.0
        if not newer.is_exclusive:
            return self.MIN_LOOSE
        return self.MIN_CHOICE if newer.kind == "choice" and not newer.is_change else -1.0


# --- model --------------------------------------------------------------------------------------------


class DeciderPrompt:
    """A question as the model's prompt: the target, then the sources from old to new, each with its date.

    Memories are data: what in them looks like a control token or a tag of the template is broken up.
    """

    def __init__(self, profile: DeciderProfile, tokenizer):
        from cluster.prompt import control_pattern

        self._profile, self._tokenizer = profile, tokenizer
        self._control = control_pattern(tokenizer, profile.system_prompt + profile.user_template)

    def __call__(self, question: Question, num_sources: int | None = None) -> list[int]:
        """Token ids; with `num_sources`, only that many of the newest sources are shown."""
        text = self.text(question, num_sources)
        return self._tokenizer(text, add_special_tokens=False)["input_ids"]

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

    def __init__(self, profile: DeciderProfile, **engine_options):
        from cluster.encoder import VllmEngine

        started_s = time.monotonic()
        self.profile, self.fingerprint = profile, profile.fingerprint
        schemas = {0: decision_schema(profile.limits)}
        self.engine = VllmEngine(profile, schemas=schemas, **engine_options)
        self.prompt = DeciderPrompt(profile, self.engine.tokenizer)
        self.load_s = time.monotonic() - started_s
        self.num_calls = 0

    def decide(self, questions: list[Question]) -> list[Verdict]:
        return ask(questions, self._generate, self.prompt, self.profile)

    def _generate(self, requests: list[Request]) -> list[Reply]:
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
    generate: Callable[[list[Request]], list[Reply]],
    prompt: Callable[..., list[int]],
    profile: DeciderProfile,
) -> list[Verdict]:
    """Questions -> verdicts, in order. Pure but for `generate`.

    Too long a prompt loses its oldest sources. A cut or invalid answer is asked for once more with the newest
    source alone, which is what most often decides; what fails again is `failed`, with the raw text. An engine
    that raises fails the question that makes it raise, not its neighbours.
    """
    verdicts: list[Verdict | None] = [None] * len(questions)
    tokens = [[0, 0, 0] for _ in questions]
    limit = profile.max_model_len - profile.max_tokens
    open_ones = [(number, len(question.sources)) for number, question in enumerate(questions)]
    for is_last in (False, True):
        asked, requests = [], []
        for number, num_sources in open_ones:
            ids = prompt(questions[number], num_sources)
            while len(ids) > limit and num_sources > 1:
                num_sources = (num_sources + 1) // 2
                ids = prompt(questions[number], num_sources)
            if len(ids) > limit:
                reason = f"prompt_too_long: {len(ids)} tokens, the limit is {limit}"
                verdicts[number] = Verdict("", "failed", reason=reason)
                continue
            asked.append((number, num_sources))
            requests.append(Request(ids, 0))
        open_ones = []
        for (number, _), reply in zip(asked, _generate(generate, requests), strict=True):
            if isinstance(reply, Exception):
                verdicts[number] = Verdict("", "failed", reason=f"{type(reply).__name__}: {reply}")
                continue
            spent = (reply.prompt_tokens, reply.cached_tokens, reply.output_tokens)
            tokens[number] = [sum(pair) for pair in zip(tokens[number], spent, strict=True)]
            try:
                decision = parse_decision(reply.text)
            except InvalidDecision as error:
                reason = f"{'invalid' if reply.complete else 'cut'}_answer: {error}"
                verdicts[number] = Verdict("", "failed", reason=reason, raw=reply.text)
                if not is_last:
                    open_ones.append((number, 1))
                continue
            verdicts[number] = Verdict(
                decision.action, text=decision.updated_text, confidence=decision.confidence, raw=reply.text
            )
    names = ("prompt_tokens", "cached_tokens", "output_tokens")
    return [
        Verdict(**(vars(verdict) | dict(zip(names, spent, strict=True))))
        for verdict, spent in zip(verdicts, tokens, strict=True)
    ]


def _generate(generate, requests: list[Request]) -> list[Reply | Exception]:
    if not requests:
        return []
    try:
        return generate(requests)
    except Exception:
        traceback.print_exc()
    replies = []
    for request in requests:
        try:
            replies += generate([request])
        except Exception as error:
            replies.append(error)
    return replies
