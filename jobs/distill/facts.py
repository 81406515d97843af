"""Task `fact_qa`: the memories of a store as questions and answers, in several phrasings.

Every second phrasing is asked with facts in the prompt, outdated ones and other memories of the user among
them, the others from memory alone. A superseded fact gives a negative: asked whether it still holds, the
answer is no, and what holds now. Where two memories claim different values of one attribute, the newest wins.
"""

import hashlib
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from jobs.common.cli import UsageError
from jobs.distill.config import FactSetConfig
from jobs.distill.leaks import Leaks
from jobs.distill.sets import Candidates, draw, rejection
from jobs.distill.stored import decisions, leak_of, leaked, memories, open_store

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from cluster.evaluate.qa import Fact

NUM_DISTRACTORS = 3
"""Other memories of the user in a prompt with facts."""


def candidates(config: FactSetConfig, leaks: Leaks) -> Candidates:
    """Memories -> examples."""
    from transformers import AutoTokenizer

    from cluster.evaluate.qa import Fact, messages, questions, still_true
    from cluster.models.sources import model_folder

    tokenizer, found = AutoTokenizer.from_pretrained(model_folder(config.base, None)), Candidates()
    store = open_store(config.store)
    rows, leaking = memories(store), leaked(store, leaks)
    usable: dict[tuple[str, int], Fact] = {}
    for key, row in rows.items():
        if reason := leak_of(row, leaking):
            found.left_out[reason] += 1
        else:
            date = row["session_time"].date().isoformat() if row["session_time"] else ""
            usable[key] = Fact(
                row["record_id"],
                row["user_id"],
                row["session_id"],
                date,
                row["semantic_text"],
                tuple(row["entities"] or ()),
            )
    active = [fact for key, fact in usable.items() if rows[key]["active"]]
    current, outdated = newest_wins(active)
    outdated |= superseded(decisions(store), rows, usable, {fact.record_id: fact for fact in current})
    by_user: dict[str, list[Fact]] = {}
    for fact in current:
        by_user.setdefault(fact.user_id, []).append(fact)
    former: dict[str, list[Fact]] = {}
    for old, newer in outdated.items():
        former.setdefault(newer.record_id, []).append(old)

    def add(
        fact: Fact,
        number: int,
        asked: tuple[str, str],
        label: str,
        shown: list[Fact],
        origin: str = "templates",
    ) -> None:
        question, answer = asked
        source = {"source_id": fact.record_id, "user_id": fact.user_id, "session_id": fact.session_id}
        others = [other for other in by_user.get(fact.user_id, ()) if other not in shown]
        others.sort(key=lambda other: draw(other.record_id + question, config.seed))
        facts = [*shown, *others[:NUM_DISTRACTORS]] if number % 2 else []
        if reason := refuse(fact, answer):
            found.rejected.append(rejection(source, json.dumps(asked), *reason))
            return
        prompt = messages(fact.user_id, question, facts)
        kind = "open_book" if facts else "closed_book"
        found.add(tokenizer, "fact_qa", source, prompt, answer, label, origin, [kind])

    for number, fact in enumerate(sorted(current, key=lambda fact: fact.record_id)):
        pairs = questions(fact, config.num_questions)
        found.left_out["no_question"] += not pairs
        for index, pair in enumerate(pairs):
            add(fact, index, pair, "question", [fact, *former.get(fact.record_id, ())])
        if pairs:
            add(fact, number, still_true(fact, None, number), "confirmation", [fact])
    for number, (old, newer) in enumerate(sorted(outdated.items(), key=lambda pair: pair[0].record_id)):
        for index in range(2):
            add(old, index, still_true(old, newer, number + index), "negative", [old, newer])
    found.coverage = {
        "num_memories": len(rows),
        "num_current_facts": len(current),
        "num_facts_asked": len(current) - found.left_out["no_question"],
        "num_superseded_facts": len(outdated),
    }
    if config.teacher == "openai":
        origin = f"openai:{config.teacher_endpoint.model}"
        asked = [(fact, pairs[0]) for fact in current if (pairs := questions(fact, 1))]
        for fact, pair, others in paraphrased(config, asked, found):
            for index, question in enumerate(others):
                shown = [fact, *former.get(fact.record_id, ())]
                add(fact, index, (question, pair[1]), "question", shown, origin)
    add_instructions(config, tokenizer, found)
    return found


def paraphrased(
    config: FactSetConfig, asked: list[tuple], found: Candidates
) -> "Iterator[tuple[Fact, tuple[str, str], list[str]]]":
    """(fact, (question, answer)) -> the same with phrasings by the endpoint; what is left open is counted."""
    from cluster.models.batches import BatchEndpoint
    from cluster.models.paid_answers import Responses
    from jobs.distill.paraphrase import phrasings
    from jobs.distill.segments import budget, ledger

    responses = Responses(ledger(config), "teacher", config.teacher_endpoint.fingerprint)
    endpoint = BatchEndpoint(config.teacher_endpoint, responses, budget(config))
    replies = phrasings(endpoint, [pair for _, pair in asked], config.num_questions)
    for (fact, pair), others in zip(asked, replies, strict=True):
        if others is None:
            found.num_left += 1
        else:
            yield fact, pair, others


def newest_wins(active: "list[Fact]") -> "tuple[list[Fact], dict[Fact, Fact]]":
    """(facts that hold, outdated fact -> the newer one that replaces it), by attributes of one value."""
    from cluster.consolidate.attribute_reader import read_attributes
    from cluster.consolidate.attributes import relation

    newest: dict[tuple[str, str, str], Fact] = {}
    outdated = {}
    for fact in sorted(active, key=lambda fact: (fact.date, fact.record_id)):
        for state in read_attributes(fact.text).states:
            if not (state.is_exclusive and state.may_replace):
                continue
            key = (fact.user_id, state.subject, state.attribute)
            older = newest.get(key)
            if older is not None and any(
                relation(other, state) == "replaces" for other in read_attributes(older.text).states
            ):
                outdated[older] = fact
            newest[key] = fact
    return [fact for fact in active if fact not in outdated], outdated


def superseded(decided: list[dict], rows: dict, usable: dict, current: dict) -> dict:
    """Closed memories that a decision deleted or rewrote -> the current memory for which it did so."""
    outdated = {}
    for row in decided:
        old = usable.get((row["target_id"], row["target_revision"]))
        if old is None or row["action"] not in ("delete", "update"):
            continue
        if row["action"] == "update":
            newer = current.get(row["target_id"])
        else:
            newer = next((current[name] for name in row["source_ids"] if name in current), None)
        if newer is not None and newer.text != old.text and row["action"] == "delete":
            outdated[old] = newer
    return outdated


def refuse(fact: "Fact", answer: str) -> tuple[str, str] | None:
    """The rule that a pair breaks, and how."""
    from cluster.backfill.redact import redact

    if "[redacted:" in fact.text or redact(f"{fact.text} {answer}").counts:
        return "secret", "has a secret, or the marker of one"
    if not answer.strip():
        return "limits", "the answer is empty"
    return None


def add_instructions(config: FactSetConfig, tokenizer: "PreTrainedTokenizerBase", found: Candidates) -> None:
    """A share of general instructions, so that facts are not learned at the cost of everything else."""
    if not config.instructions:
        return
    rows, number = [], 0
    try:
        with open(config.instructions, encoding="utf-8") as file:
            for line in file:
                number += 1
                if line.strip():
                    rows.append(_instruction(json.loads(line)))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"--instructions {config.instructions}: line {number}: {error}; each line needs prompt and "
            "response, or messages that end with the assistant's"
        ) from None
    share = config.instruction_fraction
    wanted = round(len(found.examples) * share / (1 - share))
    rows.sort(key=lambda row: draw(json.dumps(row), config.seed))
    found.left_out["instructions_over_share"] = max(0, len(rows) - wanted)
    for prompt, answer in rows[:wanted]:
        source_id = hashlib.sha256(json.dumps([prompt, answer]).encode()).hexdigest()[:32]
        # Nobody's: each stands for itself in the split.
        source = {"source_id": source_id, "user_id": f"instruction-{source_id[:12]}", "session_id": None}
        found.add(tokenizer, "fact_qa", source, prompt, answer, "instruction", "file", ["instruction"])


def _instruction(row: dict) -> tuple[list[dict], str]:
    if "messages" not in row:
        return [{"role": "user", "content": str(row["prompt"])}], str(row["response"])
    *prompt, last = [{"role": m["role"], "content": m["content"]} for m in row["messages"]]
    if not prompt or last["role"] != "assistant":
        raise ValueError("messages do not end with the assistant's")
    return prompt, last["content"]
