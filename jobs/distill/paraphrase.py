"""Other phrasings of a question, by an endpoint: templates alone teach a student the templates.

Phrasings are checked: a question, none of those that are there, every name and number of the original in it,
and never the answer.
"""

import json
import re

from cluster.models.asking import Request, request_key
from cluster.models.paid_answers import Paid
from cluster.models.prompt import Chat

SYSTEM = (
    "You are given a question that a person asks their assistant about themselves. Write {count} other ways "
    "in which people would ask it, in the first person, each with the same meaning and with all its names "
    "and numbers. Do not answer the question. Answer in JSON."
)

MAX_CHARS = 160

_NAME = re.compile(r"(?<!^)\b[A-Z][\w'-]+|\d+")


def ask_for(question: str, count: int) -> Request:
    """The request for phrasings of one question."""
    messages = [
        {"role": "system", "content": SYSTEM.format(count=count)},
        {"role": "user", "content": question},
    ]
    items = {"type": "string", "maxLength": MAX_CHARS}
    schema = {
        "type": "object",
        "properties": {"questions": {"type": "array", "items": items, "minItems": 1, "maxItems": count}},
        "required": ["questions"],
        "additionalProperties": False,
    }
    key = request_key("paraphrase", messages)
    return Request(Chat(messages), json.dumps(schema), 40 * count + 20, key)


def phrasings(endpoint: Paid, asked: list[tuple[str, str]], count: int) -> list[list[str] | None]:
    """For each (question, answer) the phrasings that pass; None where a cap or a failure left it open."""
    answers = endpoint.ask([ask_for(question, count) for question, _ in asked])
    return [
        None if reply is None else accepted(reply.text, question, answer)
        for reply, (question, answer) in zip(answers, asked, strict=True)
    ]


def accepted(text: str, question: str, answer: str) -> list[str]:
    """The phrasings of a reply that may be asked in place of the question."""
    try:
        found = json.loads(text)["questions"]
    except (ValueError, KeyError, TypeError):
        return []
    names = set(_NAME.findall(question))
    kept: list[str] = []
    for item in found if isinstance(found, list) else []:
        item = " ".join(item.split()) if isinstance(item, str) else ""
        says_answer = re.search(rf"(?<!\w){re.escape(answer.rstrip('.'))}(?!\w)", item, re.IGNORECASE)
        if not item.endswith("?") or len(item) > MAX_CHARS or says_answer:
            continue
        if names <= set(_NAME.findall(f"x {item}")) and item not in (question, *kept):
            kept.append(item)
    return kept
