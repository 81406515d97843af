"""From the first person to the third: "I live in Lyon with my wife" -> "User lives in Lyon with their wife".

The first mention becomes "User" (or "User's"), later ones become they, them, their: after "they" an English
verb keeps the form that it had after "I", so that only the first verb has to be conjugated. What stands in
quotation marks is a title or somebody's words and stays as it is.
"""

import re

from cluster.language.words import listed

ADVERBS = listed(
    """also just never always still even often already ever not rarely sometimes once first then now only
    almost currently soon too very kinda both all pretty quite seldom hardly mostly maybe perhaps somehow
    again later recently usually really actually definitely finally currently"""
)
_LY_VERBS = listed("reply apply rely fly supply imply multiply comply bully ally tally rally")
MODALS = listed("can could will would should may might must shall cannot ought")
_SAME_PAST = listed("read put set cut let hit cost quit bet spread split shut hurt beat")
_HABIT = re.compile(r"\b(?:usually|always|often|sometimes|typically|generally|normally|every|daily)\b", re.I)
PAST = listed(
    """was were had did went got bought made took came saw gave found told said thought knew felt left kept
    began brought built caught chose drove ate fell flew forgot grew heard held learnt lost met paid ran sang
    sat sold sent slept spent spoke stood swam taught threw tried understood woke won wore wrote drank broke
    dealt drew fought hid hung led lent meant rode rose shook shot showed sought stole struck stuck swept
    swore tore became dug fed bent blew bit froze lit laid rang sank shrank slid spun sprang wound withdrew
    underwent overcame ended planned snuck dove sewed knelt lay burnt dreamt spilt overheard oversaw
    rebuilt redid"""
)
_ED_PRESENT = listed("need feed speed embed proceed succeed exceed breed bleed shed wed heed weed")
_PRESENT = listed(
    """live work own use play love like enjoy prefer hate have need want study teach run go drive ride keep
    collect eat drink cook bake read write watch listen attend practice practise make take do struggle tend
    try speak know plan spend grow sell visit volunteer feel get commute travel train hope"""
)
_NO_VERB = listed(
    "and or but to in of on at with as for from by the a an it is that this if not are has does who"
)
_AFTER_VERB = (
    r"(?=\s+(?:a|an|the|my|our|at|as|in|on|for|to|with|it|them|some|any|about|from|out|up|had|been|no|"
    r"not|\d))"
)

_CONTRACTED = (
    (re.compile(r"[‘’ʼ`´]"), "'"),
    (re.compile(r"[“”]"), '"'),
    (re.compile(r"\bi(?=(?:'|\s+[a-z]))"), "I"),
    (re.compile(r"\bim(?=\s)", re.I), "I'm"),
    (re.compile(r"\bive(?=\s)", re.I), "I've"),
    (re.compile(r"\b(do|does|did|ca|wo|have|has|is|are|was)nt\b", re.I), r"\1n't"),
)
_HALF_PAIR = re.compile(r"[\ud800-\udfff]")
_QUOTED = re.compile(r'"[^"]{1,120}"|(?<!\w)\'[A-Z][^\']{0,80}\'(?!\w)')
_PAIR = re.compile(
    r"\b(?:[Mm]y ((?:(?!is |was |has |had )[\w-]+ )?[\w-]+) and I|I and my (\w+)|[Mm]e and my (\w+))(?![\w'])"
)
_FIRST = re.compile(
    # Not the numeral of "World War I".
    r"(?<!Part )(?<!War )(?<!Type )(?<!Phase )(?<!Book )(?<!Stage )(?<!Level )"
    r"\b(?:I(?:'(?P<tail>m|ve|d|ll|re))?|(?P<we>[Ww]e)(?:'(?P<wetail>re|ve|d|ll))?|"
    r"(?P<own>[Mm]y|[Oo]ur)|(?P<mine>[Mm]ine|[Oo]urs)|(?P<self>[Mm]yself|[Oo]urselves)|(?P<me>[Mm]e|[Uu]s))"
    r"(?![\w'])"
)

_WORD = re.compile(r"\s+([A-Za-z]+(?:'t|-[a-z]+)?),?(?![\w'])")
_PLURAL_BE = {"am": "are", "was": "were", "wasn't": "were not"}
_NEGATED = {"don't": "does not", "haven't": "has not", "can't": "cannot", "won't": "will not"}
_COORDINATED = re.compile(
    # Not behind "to" or another verb's subject: "likes to cook and bake" stays.
    r"^((?:(?!\bto\b)[^,.;:!?\ue000]){0,60}?,? and (?:also |then )?)"
    rf"({'|'.join(sorted(_PRESENT))}){_AFTER_VERB}"
)


def normalise(text: str) -> str:
    """One kind of apostrophe and quotation mark, I with a capital, "dont" with an apostrophe, valid UTF-8."""
    text = _HALF_PAIR.sub("\ufffd", text)
    for pattern, replacement in _CONTRACTED:
        text = pattern.sub(replacement, text)
    return text


def mentions_speaker(text: str) -> bool:
    """Whether a normalised text speaks of I, we, me, my ... outside of quotation marks."""
    return bool(_FIRST.search(_QUOTED.sub("", text)))


def is_past(verb: str) -> bool:
    verb = verb.lower()
    return verb in PAST or (len(verb) > 3 and verb.endswith("ed") and verb not in _ED_PRESENT)


def is_adverb(word: str) -> bool:
    word = word.lower().strip(",")
    return word in ADVERBS or (len(word) > 4 and word.endswith("ly") and word not in _LY_VERBS)


def third_person(text: str) -> str:
    """Rewrite a normalised clause. Text without a first person comes back unchanged."""
    quoted: list[str] = []

    def keep(match: re.Match) -> str:
        quoted.append(match[0])
        return f"\ue000{len(quoted) - 1}\ue001"

    rest = _QUOTED.sub(keep, text.translate({0xE000: None, 0xE001: None}))
    done, mentioned = "", False
    pair = _PAIR.search(rest)
    if pair and not _FIRST.search(rest[: pair.start()]):
        done = f"{rest[: pair.start()]}User and their {pair[1] or pair[2] or pair[3]}"
        rest, mentioned = rest[pair.end() :], True
    while match := _FIRST.search(rest):
        done += rest[: match.start()]
        new, rest = _mention(match, rest[match.end() :], mentioned)
        done += new
        mentioned = True
    return re.sub("\ue000(\\d+)\ue001", lambda match: quoted[int(match[1])], done + rest)


def _mention(match: re.Match, rest: str, mentioned: bool) -> tuple[str, str]:
    """What to write for one first-person word, and the text behind it, its verb conjugated."""
    if match["own"]:
        return ("their" if mentioned else "User's"), rest
    if match["mine"]:
        return ("theirs" if mentioned else "User's"), rest
    if match["self"]:
        return "themselves", rest
    if match["me"]:
        return ("them" if mentioned else "User"), rest
    plural = mentioned or bool(match["we"])
    subject = "they" if mentioned else "User and others" if plural else "User"
    if tail := match["tail"] or match["wetail"]:
        auxiliary = _auxiliary(tail, rest, plural)
        return f"{subject} {auxiliary}", _coordinated(rest) if auxiliary in ("is", "has") else rest
    return subject, _conjugate_first(rest, plural)


def _auxiliary(tail: str, rest: str, plural: bool) -> str:
    if tail == "ll":
        return "will"
    if tail == "d":
        words = [word for word in re.findall(r"[A-Za-z]+", rest[:40]) if not is_adverb(word)]
        had = bool(words) and (words[0] in ("been", "better") or is_past(words[0]))
        return "had" if had else "would"
    return {"m": ("is", "are"), "re": ("is", "are"), "ve": ("has", "have")}[tail][plural]


def _conjugate_first(rest: str, plural: bool) -> str:
    """Text behind a subject -> the same with its first verb in the third person."""
    position = 0
    while match := _WORD.match(rest, position):
        if not is_adverb(match[1]):
            break
        position = match.end()
    if not match:
        return rest
    verb, tail = match[1], rest[match.end() :]
    changed = _PLURAL_BE.get(verb) if plural else _singular(verb, rest)
    if not plural and verb not in MODALS and verb not in ("do", "did") and not verb.endswith("n't"):
        tail = _coordinated(tail)
    if changed is None:
        changed = verb
    return f"{rest[: match.start(1)]}{changed}{tail}"


def _coordinated(tail: str) -> str:
    """The second verb of "I live in Lyon and work as a nurse"."""
    return _COORDINATED.sub(lambda found: f"{found[1]}{conjugated(found[2])}", tail, count=1)


def _singular(verb: str, rest: str) -> str | None:
    """The third person singular of a verb behind "I"; None where it keeps its form, or is no verb."""
    if verb in _NEGATED:
        return _NEGATED[verb]
    if verb.endswith("n't"):
        return f"{verb[:-3]} not"
    if not verb.islower() or verb in MODALS or verb in _NO_VERB or is_past(verb) or len(verb) < 2:
        return None
    if verb in _SAME_PAST and not _HABIT.search(rest[:80]):
        return None
    return conjugated(verb)


def conjugated(verb: str) -> str:
    """live -> lives."""
    if verb in ("am", "have"):
        return {"am": "is", "have": "has"}[verb]
    if verb.endswith(("s", "sh", "ch", "x", "z", "o")):
        return f"{verb}es"
    if verb.endswith("y") and verb[-2:-1] not in ("", "a", "e", "o", "u"):
        return f"{verb[:-1]}ies"
    return f"{verb}s"
