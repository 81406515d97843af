"""Questions about memories, by templates, and the prompt in which they are asked.

A statement is read by cluster.evaluate.claims; where it names an attribute, the attribute has its own
questions ("Where do I live?"), and the answer is the value in the statement's own spelling. What claims
nothing is asked for by its entities, and answered with the statement.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from cluster.evaluate.claims import Claim, read

SYSTEM = (
    "You are the assistant of user {user_id} and answer questions about this user. Answer as shortly as you "
    "can. Where facts contradict each other, the newest holds. If you do not know the answer, say: I do not "
    "know."
)

FACTS = "Known facts, oldest first:\n{facts}\n\nQuestion: {question}"

_OF_SLOT = {
    "residence": (
        "Where do I live?",
        "In which place do I live?",
        "What is my place of residence?",
        "Where is my home?",
        "Can you remind me where I live?",
        "Do you know where I am living at the moment?",
    ),
    "employer": (
        "Where do I work?",
        "Who do I work for?",
        "What is the name of my employer?",
        "Which organisation employs me?",
        "Can you remind me who my employer is?",
        "Do you know where I work at the moment?",
    ),
    "occupation": (
        "What do I work as?",
        "What is my occupation?",
        "What is my job?",
        "What do I do for a living?",
        "Can you remind me what my profession is?",
        "Which job did I tell you I have?",
    ),
    "diet": (
        "What is my diet?",
        "Which diet do I follow?",
        "How do I eat?",
        "What did I tell you about my diet?",
        "Can you remind me which diet I keep to?",
        "Is there a diet that I follow, and which?",
    ),
}
_NAME = (
    "What is {thing} called?",
    "What is the name of {thing}?",
    "Which name does {thing} have?",
    "Can you remind me what {thing} is called?",
    "What did I say {thing} is called?",
    "Do you know the name of {thing}?",
)
_WHO_OR_WHAT = (
    "Who or what is {thing}?",
    "What did I tell you about {thing}?",
    "Can you remind me of {thing}?",
    "What do you know about {thing}?",
    "Do you remember {thing}?",
    "What was it about {thing}?",
)
_WHEN = (
    "When is my {thing}?",
    "On which date is my {thing}?",
    "What is the date of my {thing}?",
    "Can you remind me when my {thing} is?",
    "Which day is my {thing} on?",
    "Do you know when my {thing} takes place?",
)
_PREFERENCE = (
    "What do I prefer {context}?",
    "Which do I like best {context}?",
    "What is my preference {context}?",
    "What would I choose {context}?",
    "Can you remind me what I prefer {context}?",
    "What did I say I prefer {context}?",
)
_VERB = (
    "What do I {verb}?",
    "What did I tell you that I {verb}?",
    "Can you remind me what I {verb}?",
    "What is it that I {verb}?",
    "Do you know what I {verb}?",
    "Which thing do I {verb}?",
)
_ENTITY = (
    "What do you know about me and {entity}?",
    "What did I tell you about {entity}?",
    "What do I have to do with {entity}?",
    "Can you remind me what I said about {entity}?",
    "What does {entity} have to do with me?",
    "Which fact about me has {entity} in it?",
)
_STILL = (
    'Is this still true: "{text}"?',
    'Does this still hold: "{text}"?',
    'Can I rely on this: "{text}"?',
    'Is this up to date: "{text}"?',
)
_VERBS = frozenset(
    [
        "drive",
        "own",
        "ride",
        "play",
        "study",
        "speak",
        "drink",
        "eat",
        "use",
        "read",
        "teach",
        "rent",
        "collect",
        "follow",
        "grow",
    ]
)


@dataclass(frozen=True)
class Fact:
    """A memory that can be asked about."""

    record_id: str
    user_id: str
    session_id: str
    date: str
    """YYYY-MM-DD, empty where unknown."""
    text: str
    entities: tuple[str, ...] = ()

    @property
    def dated(self) -> str:
        return f"({self.date or 'date unknown'}) {self.text}"


def questions(fact: Fact, num_questions: int) -> list[tuple[str, str]]:
    """Up to `num_questions` (question, answer); none where the fact can only be quoted."""
    for claim in read(fact.text):
        if templates := _templates(claim):
            # The value in the statement's own spelling.
            match = re.search(rf"(?<!\w){re.escape(claim.value)}(?!\w)", fact.text, re.IGNORECASE)
            if match:
                return [(question, match[0]) for question in templates[:num_questions]]
            break
    for entity in fact.entities:
        return [(template.format(entity=entity), fact.text) for template in _ENTITY[:num_questions]]
    return []


def _templates(claim: Claim) -> list[str]:
    subject, slot = claim.subject, claim.slot
    thing = re.sub(r"^user's ", "my ", subject)
    if subject == "user" and slot in _OF_SLOT:
        return list(_OF_SLOT[slot])
    if slot == "name" and subject.startswith("user's "):
        return [template.format(thing=thing) for template in _NAME]
    if subject == "user" and slot.startswith("date of "):
        return [template.format(thing=slot.removeprefix("date of ")) for template in _WHEN]
    if subject == "user" and slot.startswith("prefer "):
        return [template.format(context=slot.removeprefix("prefer ")) for template in _PREFERENCE]
    if subject == "user" and slot in _VERBS:
        return [template.format(verb=slot) for template in _VERB]
    if subject == "user" and claim.is_one_name and re.fullmatch(r"[a-z]+(?: [a-z]+)?", slot):
        return [template.format(thing=f"my {slot}") for template in _WHO_OR_WHAT]
    return []


def still_true(fact: Fact, newer: Fact | None, number: int) -> tuple[str, str]:
    """Whether a fact still holds: yes, or no and what holds now. `number` picks the phrasing."""
    question = _STILL[number % len(_STILL)].format(text=fact.text)
    if newer is None:
        return question, "Yes."
    since = f"since {newer.date}" if newer.date else "now"
    return question, f"No, {since}: {newer.text}"


def messages(user_id: str, question: str, facts: Sequence[Fact] = ()) -> list[dict]:
    """The prompt: closed book without facts, open book with them, oldest first."""
    asked = question
    if facts:
        lines = "\n".join(fact.dated for fact in sorted(facts, key=lambda fact: (fact.date, fact.record_id)))
        asked = FACTS.replace("{facts}", lines).replace("{question}", question)
    return [
        {"role": "system", "content": SYSTEM.replace("{user_id}", user_id)},
        {"role": "user", "content": asked},
    ]
