"""Task `decider`: the decisions of a consolidation, replayed as the prompts that a decider sees.

Only what was applied is learned. Decisions from elsewhere come as JSON lines, one an object:
    {"user_id", "target": {"text", "date"}, "sources": [{"text", "date"}, ...], "action", "updated_text"}
`new_memory`, LightMem's name, is read for `updated_text`; one name is written.
"""

import contextlib
import hashlib
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from jobs.common.cli import UsageError
from jobs.distill.config import DeciderSetConfig
from jobs.distill.leaks import Leaks, text_key
from jobs.distill.sets import Candidates, rejection
from jobs.distill.stored import decisions, leak_of, leaked, memories, open_store
from schemas.audit import AUDIT
from schemas.decision import Decision, InvalidDecision, parse_decision
from schemas.profiles.decider import DeciderProfile
from schemas.store import BY_HAND

if TYPE_CHECKING:
    from cluster.consolidate.fold import Question

RULES_CONFIDENCE = 0.9
"""What a student is to say where the decider that it learns from does not say how sure it was."""


def candidates(config: DeciderSetConfig, profile: DeciderProfile, leaks: Leaks) -> Candidates:
    """Decisions of the store and of files -> examples."""
    from transformers import AutoTokenizer

    from cluster.consolidate.decider import DeciderPrompt
    from cluster.models.sources import tokenizer_folder

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder(profile))
    prompt, found = DeciderPrompt(profile, tokenizer), Candidates()
    seen: dict[str, str] = {}
    asked = [*_of_store(config, leaks, found), *_of_files(config, leaks, found)]
    for source, question, decision, origin in asked:
        messages = prompt.messages(question)
        completion = answer(decision)
        if refusal := refuse(question, decision, profile):
            found.rejected.append(rejection(source, completion, *refusal))
            continue
        shown = json.dumps(messages)
        if shown in seen:
            if seen[shown] == completion:
                found.left_out["duplicate_prompt"] += 1
            else:
                found.rejected.append(
                    rejection(source, completion, "contradiction", "another answer to the same")
                )
            continue
        seen[shown] = completion
        found.add(
            tokenizer, "decider", source, messages, completion, decision.action, origin, [decision.action]
        )
    found.coverage["num_decisions"] = len(asked)
    return found


def answer(decision: Decision) -> str:
    """The answer as a decider under its schema spells it."""
    return json.dumps(
        {
            "action": decision.action,
            "updated_text": decision.updated_text,
            "confidence": _step(decision.confidence),
        },
        ensure_ascii=False,
    )


def _step(confidence: float) -> float:
    return min((0.1, 0.3, 0.5, 0.7, 0.9), key=lambda step: abs(step - confidence))


def refuse(question: "Question", decision: Decision, profile: DeciderProfile) -> tuple[str, str] | None:
    """The rule that a decision breaks, and how: `order`, `limits`, `secret`, `unchanged`, `invented`."""
    from cluster.backfill.redact import redact
    from cluster.consolidate.decider import invented

    target, text = question.target, decision.updated_text
    if target.session_time and any(
        source.memory.session_time and source.memory.session_time < target.session_time
        for source in question.sources
    ):
        return "order", "a source is older than the target"
    if len(text) > profile.limits.max_text_chars:
        return (
            "limits",
            f"updated_text has {len(text)} characters, allowed are {profile.limits.max_text_chars}",
        )
    shown = " ".join([target.text, text, *(source.memory.text for source in question.sources)])
    if counts := redact(shown).counts:
        return "secret", f"has a secret: {', '.join(counts)}"
    if decision.action == "update" and text == target.text:
        return "unchanged", "the updated text is the target's own"
    if decision.action == "update" and (words := invented(text, question)):
        return "invented", f"{', '.join(words[:5])} stand in neither target nor sources"
    return None


def _of_store(config: DeciderSetConfig, leaks: Leaks, found: Candidates) -> Iterator[tuple]:
    from cluster.consolidate.fold import PINNED, UNITE, Memory, Question, Source
    from cluster.consolidate.plan import dates_of

    if not config.store:
        return
    store = open_store(config.store)
    rows, leaking = memories(store), leaked(store, leaks)

    def memory(row: dict) -> Memory:
        time = row["session_time"]
        turns = tuple((turn["session_id"], turn["turn_index"]) for turn in row["evidence"] or ())
        return Memory(
            record_id=row["record_id"],
            revision=row["revision"],
            user_id=row["user_id"],
            session_time=time.isoformat() if time else "",
            session_id=row["session_id"],
            turn=min((turn for _, turn in turns), default=0),
            text=row["semantic_text"],
            temporal=dates_of(row["temporal"]),
            evidence=turns,
        )

    unasked = {
        UNITE: "united_without_a_question",
        PINNED: "kept_as_pinned",
        AUDIT: "closed_by_audit",
        BY_HAND: "edited_by_hand",
    }
    for row in decisions(store):
        if reason := unasked.get(row["decider"]):
            found.left_out[reason] += 1
            continue
        keys = [(row["target_id"], row["target_revision"])]
        keys += zip(row["source_ids"], row["source_revisions"], strict=True)
        parties = [rows[key] for key in keys if key in rows]
        if len(parties) < len(keys):
            found.left_out["memory_is_gone"] += 1
            continue
        if reason := next((reason for party in parties if (reason := leak_of(party, leaking))), ""):
            found.left_out[reason] += 1
            continue
        confidence = RULES_CONFIDENCE
        if row["raw"]:
            with contextlib.suppress(InvalidDecision):
                confidence = parse_decision(row["raw"]).confidence
        target, *sources = map(memory, parties)
        sources.sort(key=lambda source: source.order)
        question = Question(target, tuple(Source(source, 1.0) for source in sources))
        decision = Decision(
            action=row["action"],
            updated_text=(row["text"] or "") if row["action"] == "update" else "",
            confidence=confidence,
        )
        source = {"source_id": row["decision_id"], "user_id": row["user_id"], "session_id": target.session_id}
        origin = "rules" if row["decider"].startswith("rules") else f"model:{row['decider']}"
        yield source, question, decision, origin


def _of_files(config: DeciderSetConfig, leaks: Leaks, found: Candidates) -> Iterator[tuple]:
    from cluster.backfill.redact import redact
    from cluster.consolidate.fold import Memory, Question, Source

    for path in config.decisions:
        for number, line in _lines(path):
            where = f"--decisions {path}:{number}"
            try:
                row = json.loads(line)
                decision = parse_decision(line)
                user_id = str(row["user_id"])
                shown = [row["target"], *row["sources"]]
                parts = [
                    Memory(
                        f"{where}/{i}",
                        1,
                        user_id,
                        str(part.get("date") or ""),
                        "",
                        i,
                        redact(part["text"]).text,
                    )
                    for i, part in enumerate(shown)
                ]
            except (KeyError, TypeError, AttributeError, ValueError) as error:
                raise UsageError(
                    f"{where}: {type(error).__name__}: {error}; see jobs/distill/replay.py"
                ) from None
            if any(text_key(part.text) in leaks.texts for part in parts):
                found.left_out["leaked_turn_text"] += 1
                continue
            question = Question(parts[0], tuple(Source(part, 1.0) for part in parts[1:]))
            source_id = hashlib.sha256(line.encode()).hexdigest()[:32]
            yield {"source_id": source_id, "user_id": user_id, "session_id": None}, question, decision, "file"


def _lines(path: str) -> Iterator[tuple[int, str]]:
    try:
        with open(path, encoding="utf-8") as file:
            yield from ((number, line) for number, line in enumerate(file, 1) if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: {error}; give a readable JSON lines file") from None
