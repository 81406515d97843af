"""Task `evolvable`: questions whose evidence turns are known become samples for an evolvable embedder.

The sessions that one question is asked of, or several, make one conversation in time order, which is cut to a
number of exchanges with all evidence kept. Each question then is a sample: the conversation, and it as the
last turn. Questions that share a conversation are candidates for each other, and cost jobs.train one reading
of it. Questions to one user share that user's conversation; users with one question, of whom LongMemEval
makes one for each, are put together.

`part_tokens` makes a set that cannot be learned without a memory: the end of a long message hardly says what
it is about, and is to be found by questions about it all the same. So does a dialogue of short messages;
`context_turns` keeps what was said before.
"""

import functools
import itertools
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from cluster.backfill.archive import ArchiveError, read_sessions
from cluster.backfill.redact import redact
from cluster.backfill.segmenter import Offsets, split_text, tokenizer_offsets
from cluster.evolvable.tokens import Exchange
from cluster.evolvable.turns import exchanges_of_turns, session_order
from jobs.common.cli import UsageError
from jobs.common.questions import Question, read_questions
from jobs.distill.config import EvolvableSetConfig
from jobs.distill.leaks import Leaks
from jobs.distill.sets import Candidates, draw, rejection


class Asked(NamedTuple):
    """A question with what it is asked of."""

    question: Question
    sessions: list[dict]
    """The user's archive rows, oldest first."""
    company: str
    """Questions with the same may share a conversation."""

    @property
    def evidence(self) -> list[dict]:
        """Sessions with evidence."""
        marked = self.question.evidence
        return [
            row
            for row in self.sessions
            if any((row["session_id"], index) in marked for index in range(len(row["turns"])))
        ]

    @property
    def source(self) -> dict:
        return {
            "source_id": self.question.question_id,
            "user_id": self.question.user_id,
            "session_id": None,
        }


def candidates(config: EvolvableSetConfig, leaks: Leaks) -> Candidates:
    """Questions -> samples; those of `validation_questions`, or else a share by hash, are for validation."""
    from transformers import AutoTokenizer

    from cluster.models.sources import model_folder

    tokenizer, found = AutoTokenizer.from_pretrained(model_folder(config.base, None)), Candidates()
    offsets = tokenizer_offsets(tokenizer.backend_tokenizer)

    @functools.cache
    def num_tokens(text: str) -> int:
        return len(tokenizer(text, add_special_tokens=False)["input_ids"])

    parts = read(config)
    kept_apart = {
        (asked.company, row["session_id"]) for asked in parts["validation"] for row in asked.evidence
    }
    found.coverage = {f"{part}_questions": len(questions) for part, questions in parts.items()}
    for part, questions in parts.items():
        usable = []
        for asked in questions:
            if reason := refused(asked, leaks, kept_apart if part == "train" else set()):
                found.rejected.append(rejection(asked.source, asked.question.text, *reason))
            else:
                usable.append(asked)
        for variant in range(config.num_variants if part == "train" else 1):
            for group in grouped(usable, config, variant):
                for example in samples(group, config, variant, offsets, found):
                    counts = {
                        "prompt_tokens": sum(map(num_tokens, example["meta"]["turns"])),
                        "completion_tokens": num_tokens(example["completion"]),
                    }
                    found.examples.append(example | counts | {"part": part})
    return found


def parts_of(found: Candidates) -> dict[str, list[dict]]:
    """train and validation, questions to one conversation beside each other."""
    return {p: [e for e in found.examples if e["part"] == p] for p in ("train", "validation")}


def read(config: EvolvableSetConfig) -> dict[str, list[Asked]]:
    """The questions of each part, with the sessions of their users."""
    given = {"validation": (config.validation_questions, "--validation-questions")}
    given["train"] = (config.questions, "--questions")
    questions = {part: read_questions(path, option=option) for part, (path, option) in given.items() if path}
    assert config.archive is not None
    sessions = sessions_of(config.archive, {one.user_id for part in questions.values() for one in part})
    parts: dict[str, list[Asked]] = {"validation": [], "train": []}
    for part, found in questions.items():
        num_asked = Counter(question.user_id for question in found)
        if missing := sorted(set(num_asked) - set(sessions)):
            path, option = given[part]
            raise UsageError(
                f"{option} {path}: archive {config.archive} has no sessions of {len(missing)} of its users "
                f"({', '.join(missing[:3])}); ingest what the questions are asked of"
            )
        for question in found:
            user_id = question.user_id
            company = user_id if num_asked[user_id] > 1 else ""
            parts[part].append(Asked(question, sessions[user_id], company))
    return parts if config.validation_questions else by_hash(parts["train"], config)


def sessions_of(archive: str, user_ids: set[str]) -> dict[str, list[dict]]:
    """user id -> sessions, oldest first; those users who have any."""
    found: dict[str, list[dict]] = {}
    try:
        for row in read_sessions(archive):
            if row["user_id"] in user_ids:
                found.setdefault(row["user_id"], []).append(row)
    except ArchiveError as error:
        raise UsageError(str(error)) from None
    return {user_id: sorted(rows, key=session_order) for user_id, rows in found.items()}


def by_hash(questions: list[Asked], config: EvolvableSetConfig) -> dict[str, list[Asked]]:
    parts: dict[str, list[Asked]] = {"validation": [], "train": []}
    for asked in questions:
        is_validation = draw(asked.question.user_id, config.seed) < config.validation_fraction
        parts["validation" if is_validation else "train"].append(asked)
    return parts


def refused(asked: Asked, leaks: Leaks, kept_apart: set[tuple]) -> tuple[str, str] | None:
    """Name and detail of the rule that a question breaks."""
    if not asked.evidence:
        return "no_evidence", "none of its turns is marked as evidence"
    if not (asked.question.text.strip() and asked.question.answer.strip()):
        return "no_text", "question or answer is empty"
    for row in asked.evidence:
        if (asked.company, row["session_id"]) in kept_apart:
            return "evidence_of_validation", f"session {row['session_id']}"
        if reason := leaks(row):
            return reason, f"session {row['session_id']}"
    return None


def grouped(questions: list[Asked], config: EvolvableSetConfig, variant: int) -> Iterator[list[Asked]]:
    """Questions that will share a conversation: drawn anew for each variant."""

    def place(asked: Asked) -> tuple:
        return asked.company, draw(f"{variant} {asked.question.question_id}", config.seed)

    size = config.conversation_questions
    for _, asked in itertools.groupby(sorted(questions, key=place), key=lambda asked: asked.company):
        company = list(asked)
        for start in range(0, len(company), size):
            yield company[start : start + size]


@functools.cache
def redacted(text: str) -> str:
    """A turn as it is learned. Every group that has its conversation asks for it again."""
    return redact(text).text


def identity(row: dict) -> tuple[str, str]:
    """A session that is in two haystacks stands once."""
    return row["session_id"], row["turns"][0]["content"]


def samples(
    group: list[Asked], config: EvolvableSetConfig, variant: int, offsets: Offsets, found: Candidates
) -> Iterator[dict]:
    """One example a question, all with the same conversation."""
    sessions = {identity(row): row for asked in group for row in asked.sessions}
    turns = {
        (key, index): {
            **turn,
            "content": redacted(turn["content"]),
            "session_id": row["session_id"],
            "session_time": row["session_time"],
        }
        for key, row in sorted(sessions.items(), key=lambda session: session_order(session[1]))
        for index, turn in enumerate(row["turns"])
    }
    exchanges, numbers = exchanges_of_turns(list(turns.values()))
    number_of = dict(zip(turns, numbers, strict=True))
    wanted = {
        asked.question.question_id: {
            number_of[identity(row), index]
            for row in asked.evidence
            for index in range(len(row["turns"]))
            if (row["session_id"], index) in asked.question.evidence
        }
        for asked in group
    }
    needed = set().union(*wanted.values())
    kept = cut(len(exchanges), needed, config, f"{variant} {group[0].question.question_id}")
    # (exchange, part of it): the turns of the conversation.
    told = [(number, part) for number in kept for part in split(exchanges[number], offsets, config)]
    messages = []
    for _, part in told:
        messages.append({"role": "user", "content": part.user})
        if part.assistant:
            messages.append({"role": "assistant", "content": part.assistant})
    texts = [part.text for _, part in told]
    for asked in group:
        question = asked.question
        source = asked.source | {"source_id": f"{question.question_id}#{variant}"}
        if len(needed) > (config.max_turns or len(needed)):
            detail = f"{len(needed)} evidence turns in its conversation, max_turns={config.max_turns}"
            found.rejected.append(rejection(source, question.text, "too_much_evidence", detail))
            continue
        last = [
            {"role": "user", "content": question.text},
            {"role": "assistant", "content": question.answer},
        ]
        answering = wanted[question.question_id]
        evidence = [index for index, (number, _) in enumerate(told) if number in answering]
        yield source | {
            "task": "evolvable",
            "messages": [*messages, *last],
            "meta": {"turns": [*texts, question.text], "evidence_turns": evidence},
            "completion": question.answer,
            "label": question.question_type,
            "kinds": [f"{len(evidence)} evidence turns"],
            "origin": "labels",
        }


def split(exchange: Exchange, offsets: Offsets, config: EvolvableSetConfig) -> list[Exchange]:
    """An exchange as the turns that it is read as: itself, or its parts."""
    limit = config.part_tokens
    sides = list(exchange)
    tokens = offsets(sides)
    if not limit or sum(map(len, tokens)) <= limit:
        return [exchange]
    user, assistant = (
        [piece.strip() for piece, _ in split_text(text, spans, limit) if piece.strip()]
        for text, spans in zip(sides, tokens, strict=True)
    )
    found = [exchange._replace(user=piece, assistant="") for piece in user]
    found += [exchange._replace(user="", assistant=piece) for piece in assistant]
    return found[: config.max_parts]


def cut(num_turns: int, needed: set[int], config: EvolvableSetConfig, name: str) -> list[int]:
    """Numbers of the exchanges that stay, ascending: all evidence, and others drawn by hash, each with
    `context_turns` before it."""
    others = sorted(set(range(num_turns)) - needed, key=lambda number: draw(f"{name} {number}", config.seed))
    steps = range(config.context_turns + 1)
    context = (number - step for step in steps for number in sorted(needed))
    more = (number - step for number in others for step in steps)
    # Numbers are not taken twice, and there are none before the first.
    wanted = dict.fromkeys(number for number in itertools.chain(context, more) if number >= 0)
    return sorted(itertools.islice(wanted, max(config.max_turns or num_turns, len(needed))))
