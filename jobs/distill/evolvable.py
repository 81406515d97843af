"""Task `evolvable`: questions whose evidence turns are known become samples for an evolvable embedder.

Reads LongMemEval's form: a question, its haystack of sessions, `has_answer` on the turns that answer it. The
sessions of one question, or of several, make one conversation in time order, which is cut to a number of
exchanges with all evidence kept. Each question then is a sample: the conversation, and it as the last turn.
Questions that share a conversation are candidates for each other, and cost jobs.train one reading of it.

`part_tokens` makes a set that cannot be learned without a memory: the end of a long message hardly says what
it is about, and is to be found by questions about it all the same.
"""

import functools
import re
from collections.abc import Iterator
from typing import NamedTuple

from cluster.evolvable.tokens import Exchange, exchanges_of
from cluster.segmenter import Offsets, split_text, tokenizer_offsets
from jobs.cli import UsageError
from jobs.distill.config import DistillConfig
from jobs.distill.leaks import Leaks, read_items
from jobs.distill.sets import Candidates, draw, rejection


class Asked(NamedTuple):
    """A question with its haystack."""

    question_id: str
    kind: str
    text: str
    answer: str
    sessions: list[tuple[tuple[int, ...], str, list[dict]]]
    """(date, session id, turns), oldest first."""


def candidates(config: DistillConfig, leaks: Leaks) -> Candidates:
    """Questions -> samples; those of `validation_questions`, or else a share by hash, are for validation."""
    from transformers import AutoTokenizer

    from cluster.models import model_folder

    tokenizer, found = AutoTokenizer.from_pretrained(model_folder(config.base, None)), Candidates()
    offsets = tokenizer_offsets(tokenizer.backend_tokenizer)

    @functools.cache
    def num_tokens(text: str) -> int:
        return len(tokenizer(text, add_special_tokens=False)["input_ids"])

    parts = {"validation": [], "train": list(read(config.questions, "--questions"))}
    if config.validation_questions:
        parts["validation"] = list(read(config.validation_questions, "--validation-questions"))
    else:
        parts = by_hash(parts["train"], config)
    kept_apart = {session_id for asked in parts["validation"] for _, session_id, _ in evidence_of(asked)}
    found.coverage = {f"{part}_questions": len(questions) for part, questions in parts.items()}
    for part, questions in parts.items():
        usable = []
        for asked in questions:
            if reason := refused(asked, leaks, kept_apart if part == "train" else set()):
                found.rejected.append(rejection(source_of(asked), asked.text, *reason))
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


def read(path: str, option: str) -> Iterator[Asked]:
    """The questions of a file."""
    for number, item in enumerate(read_items(path, option), 1):
        try:
            lists = (item["haystack_dates"], item["haystack_session_ids"], item["haystack_sessions"])
            sessions = [(date_of(date), str(name), turns) for date, name, turns in zip(*lists, strict=True)]
            for _, _, turns in sessions:
                for turn in turns:
                    turn["role"], turn["content"]
            yield Asked(
                str(item["question_id"]),
                str(item.get("question_type", "")),
                item["question"],
                str(item["answer"]),
                sorted(sessions, key=lambda session: session[0]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UsageError(
                f"{option} {path}: item {number} is no question of LongMemEval "
                f"({type(error).__name__}: {error}); give a file whose turns bear has_answer"
            ) from None


def date_of(text: str) -> tuple[int, ...]:
    """2023/05/20 (Sat) 02:21 -> (2023, 5, 20, 2, 21)."""
    numbers = tuple(int(number) for number in re.findall(r"\d+", text))
    if len(numbers) != 5:
        raise ValueError(f"haystack_dates: {text!r} must be a date like '2023/05/20 (Sat) 02:21'")
    return numbers


def by_hash(questions: list[Asked], config: DistillConfig) -> dict[str, list[Asked]]:
    parts: dict[str, list[Asked]] = {"validation": [], "train": []}
    for asked in questions:
        is_validation = draw(asked.question_id, config.seed) < config.validation_fraction
        parts["validation" if is_validation else "train"].append(asked)
    return parts


def evidence_of(asked: Asked) -> list[tuple]:
    """Sessions with evidence."""
    return [session for session in asked.sessions if any(turn.get("has_answer") for turn in session[2])]


def refused(asked: Asked, leaks: Leaks, kept_apart: set[str]) -> tuple[str, str] | None:
    """Name and detail of the rule that a question breaks."""
    sessions = evidence_of(asked)
    if not sessions:
        return "no_evidence", "none of its turns has has_answer"
    if not (asked.text.strip() and asked.answer.strip()):
        return "no_text", "question or answer is empty"
    for _, session_id, turns in sessions:
        if session_id in kept_apart:
            return "evidence_of_validation", f"session {session_id}"
        row = {"session_id": session_id, "user_id": asked.question_id, "turns": turns}
        if reason := leaks(row):
            return reason, f"session {session_id}"
    return None


def grouped(questions: list[Asked], config: DistillConfig, variant: int) -> Iterator[list[Asked]]:
    """Questions that will share a conversation: drawn anew for each variant."""
    ordered = sorted(questions, key=lambda asked: draw(f"{variant} {asked.question_id}", config.seed))
    for start in range(0, len(ordered), config.conversation_questions):
        yield ordered[start : start + config.conversation_questions]


def samples(
    group: list[Asked], config: DistillConfig, variant: int, offsets: Offsets, found: Candidates
) -> Iterator[dict]:
    """One example a question, all with the same conversation."""
    # A session that is in two haystacks stands once.
    sessions = {session[1]: session for asked in group for session in asked.sessions}
    turns = {
        (session_id, index): turn
        for _, session_id, turns in sorted(sessions.values(), key=lambda session: session[:2])
        for index, turn in enumerate(turns)
        if (turn["content"] or "").strip()
    }
    exchanges, numbers = exchanges_of(turns.values())
    number_of = dict(zip(turns, numbers, strict=True))
    wanted = {
        asked.question_id: {
            number_of[session_id, index]
            for _, session_id, turns in asked.sessions
            for index, turn in enumerate(turns)
            if turn.get("has_answer") and (session_id, index) in number_of
        }
        for asked in group
    }
    needed = set().union(*wanted.values())
    kept = cut(len(exchanges), needed, config.max_turns, f"{variant} {group[0].question_id}", config.seed)
    # (exchange, part of it): the turns of the conversation.
    told = [(number, part) for number in kept for part in split(exchanges[number], offsets, config)]
    messages = []
    for _, part in told:
        messages.append({"role": "user", "content": part.user})
        if part.assistant:
            messages.append({"role": "assistant", "content": part.assistant})
    texts = [part.text for _, part in told]
    for asked in group:
        source = source_of(asked) | {"source_id": f"{asked.question_id}#{variant}"}
        if len(needed) > (config.max_turns or len(needed)):
            detail = f"{len(needed)} evidence turns in its conversation, max_turns={config.max_turns}"
            found.rejected.append(rejection(source, asked.text, "too_much_evidence", detail))
            continue
        last = [{"role": "user", "content": asked.text}, {"role": "assistant", "content": asked.answer}]
        answering = wanted[asked.question_id]
        evidence = [index for index, (number, _) in enumerate(told) if number in answering]
        yield source | {
            "task": "evolvable",
            "messages": [*messages, *last],
            "meta": {"turns": [*texts, asked.text], "evidence_turns": evidence},
            "completion": asked.answer,
            "label": asked.kind,
            "kinds": [f"{len(evidence)} evidence turns"],
            "origin": "labels",
        }


def split(exchange: Exchange, offsets: Offsets, config: DistillConfig) -> list[Exchange]:
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


def cut(num_turns: int, needed: set[int], max_turns: int | None, name: str, seed: int) -> list[int]:
    """Numbers of the exchanges that stay, ascending: all evidence, and others drawn by hash."""
    others = sorted(set(range(num_turns)) - needed, key=lambda number: draw(f"{name} {number}", seed))
    num_others = max(0, (max_turns or num_turns) - len(needed))
    return sorted([*needed, *others[:num_others]])


def source_of(asked: Asked) -> dict:
    return {"source_id": asked.question_id, "user_id": asked.question_id, "session_id": None}
