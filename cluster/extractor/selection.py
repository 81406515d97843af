"""Which clauses are worth remembering: those in which somebody tells something of themselves.

A clause is judged by its frame (its first words) and by what it tells behind it. Replies to the assistant
("I like that idea", "I'll check it out") and opinions on the world tell nothing; requests and intentions to
follow advice ("I'm looking for tips on ...", "I think I'll try ...") count only if they tell something else
on the way ("... for my new tripod"); plans, habits, possessions, tastes and events always do.
"""

import re

from cluster.extractor.person import PAST, is_adverb, is_past, mentions_speaker

_ADV = r"(?:also |really |just |definitely |still |actually |now |totally |certainly |currently |always |so |very |quite |particularly |especially |probably |maybe |mostly |never |only |even |do |did |not |a bit |a little |kind of |sort of |recently |pretty )*"
_I = rf"(?:I|we)(?:'m| am|'re| are|'ve been| have been|'d| would|'ll| will| was| were| can| can't|'ve| have)? {_ADV}"
_PRAISE = (
    r"(?:great|good|nice|amazing|awesome|wonderful|interesting|helpful|perfect|fantastic|fascinating|true)"
)

_REPLY = re.compile(
    _I
    + r"""(?x:
    agree|see\b(?!\ (?:my|a|an|our)\b)|understand|appreciate|get\ it|got\ it|hope|wish\ you|wonder|wondering|glad\ (?:you|that\ you|to\ hear)|grateful\ for|thankful\ for|
    curious|sorry|assume|bet\b|doubt|disagree|hear\ you|suppose|guess|
    (?:think|believe|feel)(?:\ like)?(?:\ that)?\ (?!I\b|my\b|we\b|our\b|about\b)|
    (?:think|believe|guess|mean)$|
    didn't\ (?:know|realize|realise|think|mean|expect)|don't\ (?:know|understand|think|see|care|get|mind|want\ to\ (?:bother|sound))|
    knew|thought|realized|wondered|had\ no\ idea|imagine|help\ but|believe|argue|say\b|tell\ you|
    heard\ (?:of|about|that|some|great|good|amazing|they|it|the|a\ lot|so\ many|many|mixed)|
    (?:like|love|liked|loved)\ (?:the|that|this|these|those|your|how|all)\ (?:\w+\ ){0,4}?(?:ideas?|suggestions?|
      recommendations?|tips|options?|sound|advice|concept|plan|thought|examples?|way\ you|approach)\b|
    (?:like|love)\ (?:it|that|this|these|those|them)\b|
    (?:look|looking)\ forward\ to\ (?:hearing|trying|your|seeing\ your|reading\ your)|
    (?:want|need)\ you|would\ like\ you|like\ you\ to|excited\ to\ (?:try|give|see|start|check|hear|explore|learn)|
    (?:have|had)\ (?:a|another|one|some|few|another|a\ few|one\ more|two)\ (?:more\ |other\ |quick\ |follow-up\ )*questions?|
    not\ sure|unsure|happy\ to\ hear|in\ awe|impressed|amazed|surprised\ (?:that|by|to)|blown\ away|intrigued|fascinated|
    ask(?:ed|ing)?\b|interested\ to\ (?:know|see|hear)|like\ to\ (?:know|hear|see)|love\ to\ (?:know|hear|see)|
    ready\ to\ (?:start|begin|play)|struggling\ to\ (?:see|understand)|can't\ (?:wait|help|believe|imagine))"""
)
_WILL = re.compile(
    rf"{_I}(?:make sure|check|keep|look|consider|give|take|go with|be sure|start|try|use|add|let|explore|remember|"
    r"stick|reach out|have to|need to|get|do|see|share|ask|read|think|update|follow|implement|include|"
    r"put|write|work|go|definitely|research|prepare|set|call|contact|bring|be|create|buy|pick|visit|watch|mention)\b"
)
_WILL_START = re.compile(
    rf"(?:I|we)(?:'ll| will|'m going to| am going to| might| may| could| can| should|'d better) {_ADV}"
)
_REQUEST = re.compile(
    rf"{_I}(?:looking for|look for|searching for|in search of|need|want|trying to (?:find|figure|understand|decide|get|determine)|"
    r"like to (?:learn|explore|find|get|ask|focus|start|try|understand|discuss|talk|request|use|make|create|add|include|schedule|book|see)|"
    r"interested in (?:learning|knowing|hearing|finding|exploring|seeing|understanding|trying)|hoping (?:you|to (?:get|find))|"
    r"love to (?:learn|explore|find|get|try|check|see|visit)|open to|having trouble (?:understanding|finding)|"
    r"looking (?:to|at|into)|want to (?:know|make sure|learn|understand|see|find|ask))\b"
)
_VAGUE = re.compile(
    r"\b(?:these|those|that|this) (?:\w+ )?(?:ideas?|suggestions?|tips|recommendations?|options?|resources?|"
    r"recipes?|steps|techniques|strategies|advice|articles?|brands?|apps?|places|books|examples|methods|"
    r"sounds?|is|are|was|would|makes?|seems?|looks?)\b|"
    r"\byou(?:'ve)? (?:mentioned|suggested|said|provided|recommended|listed|gave|shared|described|are|were|wrote)\b|\byour\b",
    re.I,
)
_ROLE = re.compile(
    r"\s*(?:(?:please |now )?(?:ignore (?:all|any) previous|act as|pretend|imagine you|roleplay|you are (?:an?|the|now)\b|"
    r"you will (?:be|act)|your (?:task|job|role)|I want you to (?:act|pretend|be|become|respond|reply|only)|"
    r"from now on|summari[sz]e (?:the|this)|translate|proofread|rewrite|rephrase|paraphrase|transcript|title:))",
    re.I,
)
_I_WORD = re.compile(r"\b(?:I|[Mm]y|[Mm]e)\b")
_LONG_CHARS = 1200
_MIN_I_SHARE = 0.03
_IDIOMS = re.compile(
    r"\b(?:my|our) (?:questions?|mind|opinion|point|knowledge|understanding|requests?|query|prompt|god|goodness|"
    r"bad|last (?:message|question|prompt)|previous (?:message|question|prompt)|planet|society|world|environment|"
    r"lives|oceans|communities|climate|future|ancestors|human|species|country's|attention|thoughts|"
    r"(?:own )?experiences? with (?:this|that)|way|best|options|part|side|needs|concerns?|list)\b",
    re.I,
)
_BREAK = re.compile(
    r"(?:[,;:] | - | )(?:and |but |so |especially |particularly )*(?:since |because |as |when |considering |that )?"
    r"(?=(?:I|[Mm]y|[Ww]e|[Oo]ur)\b)"
)
_NOT_SAID = re.compile(
    r"(?:If|Unless|Should|Let's|Let us|Imagine|Suppose|Assume|Pretend|Act|Continue|Write|How|What|Why)\b",
    re.I,
)
_OWN = re.compile(r"\b(?:my|our|mine)\b", re.I)
_SUBJECT = re.compile(
    r"\b(?:I|[Ww]e)(?P<tail>'m|'ve|'d|'re)?(?P<words>(?:\s+[A-Za-z']+(?:-[a-z]+)?){1,6})(?![\w'])"
)
_TELLING = frozenset(
    """live work own use play prefer enjoy hate study teach run drive ride collect eat drink cook bake watch
    listen attend practice practise struggle tend speak visit volunteer commute travel train wear suffer
    start finish manage exercise swim bike walk sleep wake sing paint knit sew garden hike camp fish spend
    earn pay save smoke love like have am identify belong feed raise grow keep take suffer usually go plan""".split()
)
_MENTAL_PAST = frozenset(
    """thought wondered meant guessed knew heard realized realised said asked mentioned told felt noticed
    figured hoped assumed expected wanted needed liked loved saw imagined believed understood forgot did
    was were had""".split()
)
_DULL_PARTICIPLE = frozenset(
    """wondering looking curious sure interested glad happy excited sorry asking thinking not just going so
    trying able afraid aware certain hoping impressed amazed surprised intrigued heard seen noticed seeing
    hearing reading learned noticing no""".split()
)


def telling(clause: str) -> str | None:
    """The part of a normalised clause (see `sentences.clauses`) that tells something of the speaker, or None."""
    if clause.rstrip().endswith("?") or not mentions_speaker(clause) or len(clause.split()) < 3:
        return None
    if _NOT_SAID.match(clause):
        return None
    if _REPLY.match(clause):
        # "I love these ideas, especially since I just moved in": the reply goes, the rest may stay.
        rest = _BREAK.search(clause)
        return telling(clause[rest.end() :]) if rest else None
    is_framed = _WILL_START.match(clause) or _REQUEST.match(clause) or _VAGUE.search(clause)
    return clause if _tells(clause, skip_first=bool(is_framed)) else None


def is_pasted(text: str) -> bool:
    """Whether a long text is material (an article, a transcript, a prompt) rather than somebody's own words."""
    if _ROLE.match(text):
        return True
    if len(text) < _LONG_CHARS:
        return False
    words = len(text.split())
    return len(_I_WORD.findall(text)) < words * _MIN_I_SHARE


def _tells(clause: str, skip_first: bool = False) -> bool:
    """An event, habit, state or possession of the speaker; `skip_first` leaves out the frame's own verb."""
    plain = _IDIOMS.sub(" ", clause)
    if _OWN.search(plain):
        return True
    for number, match in enumerate(_SUBJECT.finditer(plain)):
        if number == 0 and skip_first:
            continue
        words = [word.lower() for word in match["words"].split()]
        while words and is_adverb(words[0]):
            words.pop(0)
        if not words:
            continue
        if match["tail"] in ("'m", "'re", "'ve") or words[0] in ("am", "are", "have", "was", "were", "had"):
            rest = words if match["tail"] in ("'m", "'re", "'ve") else words[1:]
            while rest and (is_adverb(rest[0]) or rest[0] == "been"):
                rest = rest[1:]
            if rest and rest[0] not in _DULL_PARTICIPLE:
                return True
            if (
                rest
                and rest[0]
                in ("thinking", "interested", "trying", "going", "happy", "excited", "looking", "reading")
                and not skip_first
            ):
                return True
        elif words[0] in _TELLING or words[0] in ("can't", "cannot", "don't", "need", "want", "buy", "plan"):
            return True
        elif is_past(words[0]) and words[0] not in _MENTAL_PAST:
            return True
        elif match["tail"] == "'d" and words[:2] in (["like", "to"], ["love", "to"], ["prefer", "to"]):
            return True
    return False
