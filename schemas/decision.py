"""What a decider answers: one update decision as JSON, bounded so that a decoder can be held to it.

A decision is about one memory, the *target*, in the light of newer memories of the same user, its *sources*.
An answer that cannot be read is an error and never "ignore": silence would look like a decision.
"""

import json
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

Action = Literal["update", "delete", "ignore"]
ACTIONS: tuple[Action, ...] = get_args(Action)


class DecisionLimits(BaseModel):
    """Upper bounds of one answer. They enter the JSON schema, and so the decider's fingerprint."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    max_text_chars: int = Field(320, ge=16, le=4000)
    """Characters of `updated_text`."""


class Decision(BaseModel):
    """One decision. `updated_text` is the rewritten memory, empty unless the action is update."""

    model_config = ConfigDict(frozen=True)

    action: Action
    updated_text: str = ""
    confidence: float = Field(1.0, ge=0, le=1)
    """What the decider thinks of its own answer, 0 to 1."""


class InvalidDecision(ValueError):
    """The decider's text is no decision. The message says what is wrong with it."""


def decision_schema(limits: DecisionLimits) -> str:
    """The JSON schema of an answer, as a string. The action stands first: the text depends on it."""
    return json.dumps(
        {
            "type": "object",
            "properties": {
                "action": {"type": "string", "enum": list(ACTIONS)},
                "updated_text": {"type": "string", "maxLength": limits.max_text_chars},
                # An enum rather than a number: every backend decodes it in one or two tokens.
                "confidence": {"enum": [0.1, 0.3, 0.5, 0.7, 0.9]},
            },
            "required": ["action", "updated_text", "confidence"],
            "additionalProperties": False,
        },
        separators=(",", ":"),
    )


def parse_decision(text: str) -> Decision:
    """Read an answer, or raise InvalidDecision. `new_memory` is read as `updated_text` (LightMem's name)."""
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidDecision(f"not JSON: {error}") from None
    if not isinstance(answer, dict):
        raise InvalidDecision(f"not an object but {type(answer).__name__}")
    values = {name: answer[name] for name in ("action", "updated_text", "confidence") if name in answer}
    if not values.get("updated_text"):
        values["updated_text"] = answer.get("new_memory") or ""
    try:
        decision = Decision.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidDecision(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    updated = " ".join(decision.updated_text.encode(errors="replace").decode().split())
    if decision.action == "update" and not updated:
        raise InvalidDecision("updated_text: empty, but the action is update")
    return decision.model_copy(update={"updated_text": updated if decision.action == "update" else ""})
