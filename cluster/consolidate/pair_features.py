"""What the pair model sees of an older and a newer memory: names of features, from the wording alone.

Names, dates and numbers are features as such ("another number"), never by their value, so that what is
learned of one person holds for others. The lists say what a word does, not whether that replaces anything:
this is learned.
"""

import functools
import re
from dataclasses import dataclass
from itertools import product

from cluster.language.people import RELATIONS

_TOKEN = re.compile(r"\d{4}-\d{2}-\d{2}|\d+(?:[.,:/-]\d+)*|[^\W\d_]+(?:[-'’][^\W\d_]+)*")
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]+")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}$")

_STOP = frozenset(
    """a an the of in on at to for from with by as and or but is are was were be been being has have had do
    does did will would his her their its it he she they this that these those him them who
    which there very also
    user users user's about into up out off over than then so because since until while after before per one
    on each every some any all own too only just s t""".split()  # noqa: SIM905 - a list of words
)

_CUES = {
    "end": r"no longer|not any ?more|n't any ?more|any longer|never again|stopped|stops|quit|quits|"
    r"gave up|given up|gives up|giving up|dropped out|resigned|retired|left|fired|laid off|let go|dismissed|"
    r"sold|died|dead|passed away|divorced|split up|broke up|broken up|separated|broke off|fallen out|"
    r"cancelled|canceled|called off|abandoned|ended|over|closed|closing|finished|completed|went missing|"
    r"moved out|gave away|give .* away|stepped down|handed .* over|without|deleted|got rid|"
    r"不再|离职|辞职|退休|戒|取消|分手|离婚|去世|卖|退了|放弃|停|不去|没",
    "change": r"now|nowadays|new|newly|instead|moved|moves|changed|switched|switching|replaced|migrated|"
    r"raised|increased|reduced|cut|went up|went down|down to|up to|became|become|started|starts|has taken|"
    r"again|back|from now on|rather than|postponed|put off|adjourned|rescheduled|rebooked|extended|"
    r"another|meanwhile|since|turned|latest|promoted|现在|换|改|搬|转|涨|降|新|又|从",
    "done": r"passed|failed|bought|got|adopted|has been to|went|ran|gave birth|born|married|signed|handed in|"
    r"won|published|elected|chose|chosen|decided|received|arrived|returned|visited|opened|began|learned|"
    r"graduated|submitted|repaired|fixed|healed|recovered|paid|delivered|taken in|found|booked|"
    r"考上|找到|领养|生了|出院|通过|买了|回来|结婚|上小学",
    "correct": r"not on|not at|not in|corrected|mistake|mistaken|misunderstanding|never|wrong|actually|"
    r"after all|更正|不是|其实|误会",
    "negated": r"not|no|never|none|cannot|can't|won't|doesn't|don't|didn't|isn't|nobody|nothing|不|没|未",
    "plan": r"plans?|planning|wants?|would like|intends?|hopes?|going to|has to|must|needs to|thinking of|"
    r"considers?|considering|looking for|waiting for|saving for|trying|tries|may|might|appointment|"
    r"training for|preparing|is on \d{4}|by \d{4}|before|dreams|打算|准备|想|约|计划|考虑",
    "offer": r"offered|asked|recommended|suggested|thinking|dreams|would|might|heard|read about|建议",
    "past": r"in (?:19|20)\d\d|was|were|as a student|used to|former|年",
    "own": r"has|have|owns|keeps|有|养",
    "called": r"called|name is|named|叫",
    "like": r"likes?|loves?|prefers?|enjoys?|dislikes?|hates?|favourite|favorite|喜欢|爱",
    "live": r"lives?|living|resides?|based|address|住",
    "work": r"works?|working|job|employed|teaches|drives|manages|工作",
    "sick": r"ill|sick|cold|flu|broken|pregnant|hospital|headache|感冒|住院|怀孕",
}
_CUE_WORDS = frozenset(
    """longer anymore stop quit gav given drop resign retir left fir sold di pass divorc split brok end clos
    finish now new instead mov chang switch becam becom start again back since turn lat also still already
    got has have""".split()  # noqa: SIM905
)
"""Stems of cues: what is said of something else, not what it is said of."""

_WEAK = _CUE_WORDS | frozenset(
    """play liv work run want tak lik go goe went mak us eat plan com giv put keep see need think year month
    day week time hom hous user call nam man""".split()  # noqa: SIM905
)
"""Stems that say too little for two memories to be about one thing because both have them."""

_CUE_PATTERNS = {
    name: re.compile(
        "|".join(
            part if _CJK.search(part) else rf"(?<!\w)(?:{part})(?!\w)" for part in pattern.split("|") if part
        )
    )
    for name, pattern in _CUES.items()
}


@dataclass(frozen=True)
class _Said:
    """One memory read."""

    subject: str
    """user | person | thing | other."""
    who: frozenset[str]
    """Relation and name of the subject, where it is somebody else's."""
    stems: frozenset[str]
    names: frozenset[str]
    numbers: frozenset[str]
    dates: frozenset[str]
    cues: frozenset[str]
    is_cjk: bool


@functools.lru_cache(maxsize=65_536)
def _read(text: str) -> _Said:
    lower = text.casefold()
    tokens = _TOKEN.findall(text)
    dates = {token for token in tokens if _DATE.match(token)}
    numbers = {token for token in tokens if token[0].isdigit()} - dates
    is_cjk = bool(_CJK.search(text))
    if is_cjk:
        subject, who, rest = _chinese_subject(text)
        stems = {run[i : i + 2] for run in _CJK.findall(rest) for i in range(max(1, len(run) - 1))}
        names = {token for token in tokens if token[0].isascii() and token[0].isalpha()}
    else:
        subject, who = _subject(tokens)
        names = {token for token in tokens[1:] if token[0].isupper() and not token.startswith("User")}
        stems = {
            stem(token.casefold())
            for token in tokens
            if not token[0].isdigit() and token not in names and token.casefold() not in _STOP
        }
    return _Said(
        subject,
        frozenset(who),
        frozenset(stems),
        frozenset(re.sub(r"['’]s?$", "", name) for name in names),
        frozenset(numbers),
        frozenset(dates),
        _cues(lower),
        is_cjk,
    )


def _cues(lower: str) -> frozenset[str]:
    return frozenset(name for name, pattern in _CUE_PATTERNS.items() if pattern.search(lower))


def _subject(tokens: list[str]) -> tuple[str, set[str]]:
    first = tokens[0] if tokens else ""
    if first == "User":
        return "user", set()
    if first in ("User's", "User’s"):
        words = [re.sub(r"['’]s?$", "", token) for token in tokens[1:5]]
        for number, word in enumerate(words[:3]):
            if word.casefold() in RELATIONS:
                after = words[number + 1 : number + 2]
                return "person", {word.casefold(), *(name for name in after if name[0].isupper())}
        return "thing", {stem(word.casefold()) for word in words[:2]}
    return "other", {re.sub(r"['’]s?$", "", first)}


_CHINESE_PERSON = re.compile(
    "用户的?(同事|朋友|邻居|妻子|丈夫|妈妈|爸爸|母亲|父亲|儿子|女儿|哥哥|弟弟|姐姐|妹妹|"
    "奶奶|爷爷|外婆|外公|表妹|表弟|孩子|老板|房东)"
)


def _chinese_subject(text: str) -> tuple[str, set[str], str]:
    if found := _CHINESE_PERSON.match(text):
        return "person", {found[1]}, text[found.end() :]
    if text.startswith("用户"):
        return ("thing" if text[2:3] == "的" else "user"), set(), text[2:]
    return "other", {text[:2]}, text


def stem(word: str) -> str:
    """A word without its commonest English endings."""
    word = re.sub(r"['’]s?$", "", word)
    for ending in ("ing", "ied", "ies", "ed", "es", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            word = word[: -len(ending)] + ("y" if ending in ("ied", "ies") else "")
            break
    return word.rstrip("e") if len(word) > 3 else word


def whose(older: str, newer: str) -> str:
    """Whether two memories are about one: same | named | other | unclear."""
    first, second = _read(older), _read(newer)
    kinds = {first.subject, second.subject}
    if kinds == {"user"}:
        return "same"
    if "person" in kinds and len(kinds) == 1:
        relations = [{word for word in said.who if word.islower()} for said in (first, second)]
        is_one = bool(relations[0] & relations[1]) and not _differs(first, second)
        if not relations[0] or not relations[1]:
            is_one = bool(first.who & second.who)
        return "same" if is_one else "other"
    if first.subject == second.subject:
        return "same" if first.who & second.who else "unclear"
    # The one that it is about, not a place that both name.
    if kinds & {"other", "person"} and (
        first.who & (second.who | second.names) or second.who & (first.who | first.names)
    ):
        return "named"
    return "other" if "person" in kinds and kinds & {"user", "other"} else "unclear"


def _differs(first: _Said, second: _Said) -> bool:
    """Two sons, each with his name, are two people."""
    names = [{name for name in said.who if name[0].isupper()} for said in (first, second)]
    if names[0] and names[1]:
        return not names[0] & names[1]
    return False


_PAST = re.compile(
    r"^(?:user|用户|[^\W\d_]+)(?:['’]s(?: [^\W\d_]+){1,3})? (?:(?!need|feed|heed)[a-z]+ed|was in|went|"
    r"ran|won|lost|met|saw|read|had|got|gave|bought|sold|broke|taught|told|took|came|left|found|made|"
    r"wrote|sang|flew|drove|spent)\b",
    re.IGNORECASE,
)


_MOVED = re.compile(r"\b(?:mov(?:e|ed|es|ing)|settled|relocated|evicted|left|died)\b|搬|离开")


def may_replace(older: str, newer: str) -> bool:
    """Whether the newer memory can end the older one at all: it is about the same person, an event that has
    happened is only taken back by a correction, and both name one thing. What has another value in words of
    its own ("lives in Oslo", "moved to Bergen") is for the rules to see."""
    if whose(older, newer) == "other":
        return False
    old, new = _read(older), _read(newer)
    # The month is no "may" of a plan, though the model has learned it as one.
    is_open = _cues(older.replace(" May", " ").casefold()) & {"plan", "live"}
    if _PAST.match(older) and not is_open and "correct" not in new.cues:
        return False
    if "live" in old.cues and not new.cues & {"live", "correct"} and not _MOVED.search(newer):
        return False
    if not old.is_cjk and not new.is_cjk:
        return bool((old.stems & new.stems) - _WEAK or (old.names | old.who) & (new.names | new.who))
    return True


def is_contained(older: str, newer: str) -> bool:
    """Whether the newer text says all that the older does: its names, numbers, dates and most of its words,
    and denies nothing that the older one affirms."""
    old, new = _read(older), _read(newer)
    if not (old.names <= new.names | new.who and old.numbers <= new.numbers and old.dates <= new.dates):
        return False
    if ("negated" in old.cues) != ("negated" in new.cues) or "end" in new.cues - old.cues:
        return False
    return len(old.stems - new.stems) <= 1 if len(old.stems) > 1 else old.stems <= new.stems


def likeness(older: str, newer: str) -> float:
    """Share of words and names that two memories have in common, 0 to below 1."""
    old, new = _read(older), _read(newer)
    old_all, new_all = old.stems | old.names, new.stems | new.names
    return len(old_all & new_all) / (1 + min(len(old_all), len(new_all)))


def features(older: str, newer: str) -> list[str]:
    """Names of what holds of the pair, in no order; each counts once."""
    old, new = _read(older), _read(newer)
    about = whose(older, newer)
    shared, old_only, new_only = old.stems & new.stems, old.stems - new.stems, new.stems - old.stems
    least = min(len(old.stems), len(new.stems)) or 1
    share = min(4, int(4 * len(shared) / least))
    # How much of what either one is about the other names as well.
    old_about, new_about = ((said.stems - _CUE_WORDS) | said.names for said in (old, new))
    both = len(old_about & new_about)
    of_old, of_new = (min(4, int(4 * both / (len(one) or 1))) for one in (old_about, new_about))
    names = "same" if old.names & new.names else "other" if old.names and new.names else "none"
    numbers = _compare(old.numbers, new.numbers)
    dates = _compare(old.dates, new.dates)
    base = {
        f"about={about}",
        f"share={share}",
        f"num_shared={min(4, len(shared))}",
        f"of_old={of_old}",
        f"of_new={of_new}",
        f"of={of_old}/{of_new}/{about}",
        f"names={names}",
        f"numbers={numbers}",
        f"dates={dates}",
        f"subjects={old.subject},{new.subject}",
        f"old_left={min(4, len(old_only))}",
        f"new_left={min(6, len(new_only))}",
        f"all_said={not old_only and old.names <= new.names and old.numbers <= new.numbers}",
    }
    cues = {f"old:{cue}" for cue in old.cues} | {f"new:{cue}" for cue in new.cues - old.cues}
    cues |= {f"both:{cue}" for cue in old.cues & new.cues}
    found = base | cues
    frame = {f"about={about}", f"share={share}", f"{about}/{share}", f"names={names}/{about}"}
    frame |= {f"numbers={numbers}/{share}", f"dates={dates}/{share}"}
    frame |= {f"of_new={of_new}/{about}", f"of_old={of_old}/{about}", f"of={of_old}/{of_new}"}
    found |= frame
    found |= {f"{cue}&{part}" for cue, part in product(cues, frame)}
    found |= {
        f"old:{a}&new:{b}&{about}&{min(1, len(shared))}" for a, b in product(old.cues, new.cues - old.cues)
    }
    words = {f"o:{word}" for word in old_only} | {f"n:{word}" for word in new_only}
    words |= {f"s:{word}" for word in shared}
    found |= words | {f"{word}&{about}" for word in words}
    found |= {f"n:{word}&{about}/{min(1, len(shared))}" for word in new_only}
    if about != "other":
        found |= {f"{a}>{b}" for a, b in product(old.stems, new_only)}
    if old.is_cjk or new.is_cjk:
        found.add(f"cjk&{about}/{share}")
    return sorted(found)


def _compare(old: frozenset[str], new: frozenset[str]) -> str:
    if not old or not new:
        return "none" if not old and not new else "old" if old else "new"
    return "same" if old == new else "some" if old & new else "other"
