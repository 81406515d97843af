"""What a memory's own words, and the turns that it rests on, say against it. Pure; rules for English.

| kind           | a memory                                                                              |
|----------------|---------------------------------------------------------------------------------------|
| `echo`         | that repeats a prompt, the assistant's instructions or pasted data, or rests on what  |
|                | is quoted, played or only asked                                                       |
| `transient`    | of the moment: what the user just asked, what a machine was doing                     |
| `fragment`     | that is no statement: one word, cut off, or about "she" whom nobody names             |
| `other_person` | that says of the user what its turns say of somebody else                             |
| `undated`      | with "tomorrow" or "last week", of which nobody knows when it was said                |

Precision comes first: what no rule matches stays. Text in another language is only ever a fragment.
"""

import datetime as dt
import re
from collections.abc import Sequence
from dataclasses import dataclass

from cluster.backfill.gates import clauses_that_tell, refusal
from cluster.backfill.non_speech import shorten
from cluster.language.dates import resolve
from cluster.language.identify import other_language
from schemas.audit import Kind


@dataclass(frozen=True)
class Stated:
    """A memory as the rules see it."""

    text: str
    is_dated: bool
    """Whether anybody knows when it was said, or when it holds."""
    evidence: tuple[tuple[str, str], ...] = ()
    """(role, text) of the turns that it rests on, as far as the store has them."""


@dataclass(frozen=True)
class Fault:
    """What is wrong with a memory."""

    kind: Kind
    reason: str


def faults(memory: Stated, kinds: Sequence[Kind]) -> list[Fault]:
    """The faults of these kinds that a memory has, at most one a kind, in the order of `kinds`."""
    found = ((kind, RULES[kind](memory)) for kind in kinds if kind in RULES)
    return [Fault(kind, reason) for kind, reason in found if reason]


_OF_USER = re.compile(r"^\W*(?:the )?user(?!['’]s)\b", re.IGNORECASE)
"""How a statement about the user opens."""


# --- echo ---------------------------------------------------------------------------------------------

_WHO = r"(?:the )?(?:(?:ai|virtual|helpful|coding|chat) )?(?:assistant|agent|model|chat ?bot|bot|llm|ai)"
_INSTRUCTION = re.compile(
    r"^\W*(?:you are|you['’]re|act as|pretend to be|behave as) (?:an? |the |now )?(?:[\w-]+ ){0,4}?"
    r"(?:assistant|agent|model|bot|chatbot|expert|persona|ai)\b"
    rf"|^\W*(?:{_WHO}|you) (?:must|should|shall|may|can(?:not)?|will|always|never|do(?:es)? not)\b"
    rf"|^\W*{_WHO} (?:is|was|has been) (?:instructed|told|required|configured|designed|trained|expected)\b"
    rf"|^\W*{_WHO} has access to\b"
    r"|^\W*(?:user(?:['’]s name)? is|i am|i['’]m) (?:an? |the )?(?:[\w-]+ ){0,2}?(?:ai"
    r"|language model|ai assistant)\b"
    r"|^\W*(?:always|never|do not|don['’]t|please|only) (?:respond|reply|answer|reveal|mention"
    r"|disclose|output|use"
    r" (?:markdown|emojis?|tools?))\b"
    r"|^\W*(?:respond|reply|answer|output)\b.{0,30}\b(?:json|markdown|xml|yaml|format)\b",
    re.IGNORECASE,
)
_OF_PROMPTS = re.compile(
    r"\b(?:system (?:prompt|message|instructions?)|developer message|knowledge cut-?off|context window"
    r"|(?:SOUL|AGENTS?|MEMORY|CLAUDE|TOOLS|HEARTBEAT|IDENTITY|BOOTSTRAP|USER)\.md)\b"
    r"|<\|?(?:im_start|system|user|assistant|/?tool_call|/?think)|\[/?INST\]|^#+ ?(?:instructions?|system)\b",
    re.IGNORECASE,
)
_SAID_BY_PROGRAMS = ("system", "tool", "developer")


def _echo(memory: Stated) -> str:
    text, said = memory.text, [text for role, text in memory.evidence if role == "user"]
    if not said:
        # What a user asks of the assistant is the user's word; without one it is a prompt's.
        if _OF_PROMPTS.search(text) and not _OF_USER.search(text):
            return "names a prompt or its files, and no turn of the user says so"
        if _INSTRUCTION.search(text):
            return "is an instruction to the assistant, and no turn of the user gives it"
    if memory.evidence and all(role in _SAID_BY_PROGRAMS for role, _ in memory.evidence):
        return "rests on turns of the system or of tools alone"
    if shorten(text).text != text:
        return "holds pasted data"
    if len(said) < len(memory.evidence):
        return ""  # what the assistant answered may state it
    gate = refusal(text, said, said, ("not_speech", "nothing_said"))
    if gate and other_language("\n".join(said), ("en",)):
        return ""
    return {
        "not_speech": "its turns quote, paste, play or imagine it",
        "nothing_said": "its turns only ask, and state nothing",
    }.get(gate, "")


# --- transient ----------------------------------------------------------------------------------------

_USER = r"^\W*(?:the )?user (?:has )?(?:is |was )?(?:just |now |currently |also )?"
_OF_THE_MOMENT = re.compile(
    rf"{_USER}(?:ask(?:s|ed|ing)? (?:the (?:assistant|ai|agent|bot)|you|about|how|what|why|when"
    rf"|where|whether|if"
    r"|for (?:help|assistance|advice|clarification|an? (?:[\w-]+ ){0,2}?(?:summary|translation"
    r"|explanation|list|example"
    r"|recipe|recommendation|joke|poem|answer))|to (?:translate|summari[sz]e|explain|rewrite"
    r"|proof-?read|format"
    r"|generate|list|fix))"
    r"|want(?:s|ed) to know|inquir(?:es|ed|ing) (?:about|whether)|wonder(?:s|ed|ing) (?:about"
    r"|how|what|why|if|whether)"
    r"|request(?:s|ed|ing) (?:help|assistance|information|an? (?:[\w-]+ ){0,2}?(?:summary"
    r"|translation|explanation"
    r"|list|example|recommendation))"
    r"|(?:greet(?:s|ed|ing)|thank(?:s|ed|ing)) (?:the (?:assistant|ai|agent|bot)|you)"
    r"|(?:says?|said|saying) (?:hello|hi|hey|thanks|thank you|goodbye|bye|ok(?:ay)?"
    r"|good (?:morning|night|evening))\b"
    r"|(?:typing|waiting for (?:an? |the )?(?:answer|reply|response|build|test|download|result))"
    r"|(?:debugging|looking at|viewing|scrolling|trying to (?:fix|run|open|install|log ?in)))"
    r"|^\W*(?:the )?user is (?:now |currently |still )?(?:tired|hungry|thirsty|bored|busy|awake"
    r"|asleep|online|offline"
    r"|away|back|here|ready)(?: (?:now|today|tonight|right now|at the moment))?\W*$",
    re.IGNORECASE,
)
_OF_MACHINES = re.compile(
    r"\bheartbeat(?:_ok| (?:ok|check|received|sent))\b|\bcron ?job (?:ran|run|fired|started"
    r"|finished|failed)\b"
    r"|^\W*(?:there (?:are|were|is) )?no (?:new|unread) (?:messages?|e-?mails?|notifications?|tasks?)\b"
    r"|^\W*(?:the )?(?:build|tests?|deployment|pipeline|process|server|script|download|upload"
    r"|session|conversation"
    r"|task|job) (?:is|are|was|were|has|have)? ?(?:now |just |currently |still )?(?:running"
    r"|failing|failed|passing"
    r"|passed|green|red|pending|started|starting|ended|finished|completed?|in progress|queued)\b"
    r"|^\W*(?:the )?(?:current (?:time|date)|time now) is\b|^\W*today is\b",
    re.IGNORECASE,
)


def _transient(memory: Stated) -> str:
    if _OF_THE_MOMENT.search(memory.text):
        return "tells what the user asked or did at one moment"
    return "tells the state of a machine at one moment" if _OF_MACHINES.search(memory.text) else ""


# --- fragment -----------------------------------------------------------------------------------------

_LETTERS = re.compile(r"[^\W\d_]")
_WORD = re.compile(r"\w+(?:['’.-]\w+)*")
_WITHOUT_SPACES = re.compile(r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_OPEN_END = re.compile(
    r"(?:\b(?:a|an|the|and|or|but|of|to|with|from|because|that|which|who|whose|is|are|was|were"
    r"|has|their|his|her|my"
    r"|user['’]s|than|into|about)|\.\.\.|…|[,:;(–—-])\s*$",
    re.IGNORECASE,
)
_NOBODY = re.compile(r"^\W*(?:he|she|they|it|this|that|these|those|his|her|their|its)\b", re.IGNORECASE)
_MARKER = re.compile(r"\[(?:redacted:[\w-]+|forgotten|image|audio|video|file)[^\]]*\]", re.IGNORECASE)


def _fragment(memory: Stated) -> str:
    told = _MARKER.sub(" ", memory.text)
    if not _LETTERS.search(told):
        return "has no words"
    if not _WITHOUT_SPACES.search(told) and len(_WORD.findall(told)) < 2:
        return "is one word"
    if _OPEN_END.search(told):
        return "is cut off"
    is_of_user = re.search(r"\buser\b", told, re.IGNORECASE)
    return "opens with a pronoun, and names nobody" if _NOBODY.search(told) and not is_of_user else ""


# --- somebody else's ----------------------------------------------------------------------------------

_KIN = (
    r"mother|mum|mom|father|dad|parents?|brother|sister|sibling|wife|husband|spouse|partner"
    r"|fianc[ée]e?|boyfriend"
    r"|girlfriend|ex|son|daughter|child|kids?|baby|aunt|uncle|niece|nephew|cousin|gran\w*|friend"
    r"|mate|buddy|colleague"
    r"|co-?worker|boss|manager|neighbou?r|flatmate|roommate|housemate|landlord|teacher|client"
    r"|customer|patient|doctor"
)
_ANY_KIN = re.compile(rf"\b(?:{_KIN})\b", re.IGNORECASE)
_FIRST = re.compile(r"\b(?:i|i['’](?:m|ve|d|ll)|im|ive|we|we['’](?:re|ve|d|ll)|me|us)\b", re.IGNORECASE)
_BY_ANOTHER = re.compile(
    rf"^\W*(?:(?:and|but|so|well|oh|yes|yeah|no|hey|hi|ok|okay|also|then|because|btw)\W+)*"
    rf"(?:(?:my|our|his|her|their) (?:[\w-]+ ){{0,2}}?(?:{_KIN})|(?:he|she))\b(?!['’]s\b (?:{_KIN}))",
    re.IGNORECASE,
)


def _other_person(memory: Stated) -> str:
    said = [text for role, text in memory.evidence if role == "user"]
    if not said or not _OF_USER.search(memory.text) or _ANY_KIN.search(memory.text):
        return ""
    telling = clauses_that_tell(memory.text, said)
    if telling and all(_BY_ANOTHER.search(one) and not _FIRST.search(one) for one in telling):
        return "its turns say it of somebody else"
    return ""


# --- undated ------------------------------------------------------------------------------------------

RELATIVE = re.compile(
    r"\b(?:today|tonight|tomorrow|yesterday|ago|(?:next|last|this|coming) \w+"
    r"|in (?:\w+ ){1,3}(?:days?|weeks?|months?"
    r"|years?)|(?:from|later) (?:now|today))\b",
    re.IGNORECASE,
)
_ONE_DAY, _ANOTHER_DAY = dt.date(2021, 3, 9), dt.date(2022, 5, 20)


def _undated(memory: Stated) -> str:
    if memory.is_dated or not RELATIVE.search(memory.text):
        return ""
    # "Last name" is no time: what is means another day when it is said on another day.
    if resolve(memory.text, _ONE_DAY) == resolve(memory.text, _ANOTHER_DAY):
        return ""
    return "has a relative date, and nobody knows when it was said"


RULES = {
    "echo": _echo,
    "transient": _transient,
    "fragment": _fragment,
    "other_person": _other_person,
    "undated": _undated,
}
