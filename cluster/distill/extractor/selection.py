"""Which clauses are worth remembering: those in which somebody tells something of themselves.

A clause is judged by its frame (its first words) and by what it tells behind it. Replies to the assistant
("I like that idea") and opinions on the world tell nothing; requests and intentions to follow advice ("I'm
looking for tips on ...", "I'll try ...") count only if they tell something else on the way ("... for my new
tripod"); plans, habits, possessions, tastes and events always do. Of a question only its asides count: "the
necklace I got in March", "..., since I work at night".
"""

import re

from cluster.distill.extractor.person import is_adverb, is_past, mentions_speaker
from cluster.language.words import listed


def _framed(*phrases: str) -> re.Pattern:
    """A clause whose speaker does one of these: "I", an auxiliary, adverbs, a phrase."""
    return re.compile(f"{_I}(?:{'|'.join(phrases)})", re.I)


_ADVERB = (
    r"(?:(?:also|just|still|even|now|always|so|very|quite|maybe|never|only|do|did|not|too|more|a bit|"
    r"a little|"
    r"kind of|sort of|pretty|super|most|[a-z]+ly) )*"
)
_I = (
    r"(?:I|[Ww]e)(?:'m| am| was|'re| are| were|'ve been| have been|'ve| have|'d| would|'ll| will|"
    r" can| could| might)? " + _ADVERB
)
_ADVICE = (
    r"(?:ideas?|suggestions?|recommendations?|tips|options?|advice|concept|plan|thought|examples?|approach|"
    r"resources?|recipes?|steps|techniques|strategies|articles?|brands?|apps?|places|books|methods|list|info|"
    r"information|links?|exercises|tools)"
)
_REPLY = _framed(
    r"(?:agree|understand|appreciate|g[eo]t it(?=[.,!]|$)|hope|wonder|curious|sorry|assume|doubt|disagree)\b",
    r"(?:suppose|guess|knew|thought|realized|wondered|imagine|help but|argue|say|bet|hear you|"
    r"tell you|mean)\b",
    r"(?:ask|asked|asking|impressed|amazed|surprised|intrigued|skeptical|unsure|wait|believe it)\b",
    r"see\b(?! (?:my|a|an|our)\b)",
    r"(?:glad|happy|grateful|thankful) (?:(?:that )?you|to (?:hear|help|see|know)|(?:that )?there|"
    r"for (?:your|the|"
    r"this|that|all))",
    r"(?:think|believe|feel)(?: like)?(?: that)? (?!I\b|my\b|we\b|our\b|about\b)",
    r"(?:think|believe|guess)$",
    r"didn't (?:know|realize|realise|think|mean|expect)",
    r"don't (?:know|understand|think|see|care|get|mind|want to (?:bother|sound))",
    r"had no idea|not sure|in awe|blown away|inspired by (?:this|that|these)|concerned about (?!my|"
    r"our)|in need of",
    r"can't (?:[a-z]+ly )?(?:wait|help|believe|imagine|agree|hear|see|tell|think)\b|find (?:it|that|this)\b",
    r"heard (?:of|about|that|some|great|good|amazing|they|it|the|a lot|so many|many|mixed|so much)",
    rf"(?:like|love|liked|loved) (?:the|that|this|these|those|your|how|all|"
    rf"both) (?:\w+ ){{0,5}}?(?:{_ADVICE}|sound|way you)\b",
    r"(?:like|love|loved|liked) (?:it|that|this|these|those|them|how)\b",
    r"(?:looking|look) forward to (?:hearing|trying|your|seeing|reading|learning|exploring)",
    r"(?:excited|eager|thrilled|ready|interested|curious) to "
    r"(?:see (?:how|what|if)\b|(?!.*(?:\b(?:my|our|next|this)\b|\d)|.*(?-i: in [A-Z])))",
    r"(?:want|need) you|(?:would )?like you to|like to (?:know|hear|see)|love to (?:know|hear|see)",
    r"(?:have|had) (?:a|another|one|some|few|a few|one more|two) (?:\w+ )?questions?",
)
_WILL = re.compile(
    r"(?:I|[Ww]e)(?:'ll| will|'m going to| am going to|'m definitely going to| might| may| could|"
    r" can| should|"
    r"'d better) "
)
_REQUEST = _framed(
    r"(?:(?:looking|look|searching) for|in search of|open to|need|want|stuck|looking (?:to|at|into)|"
    r"adding)\b",
    r"trying to (?:find|figure|understand|decide|get|determine|see)\b",
    r"like to (?:learn|explore|find|get|ask|focus|start|try|discuss|talk|request|use|make|create|add|"
    r"include)\b",
    r"interested in (?:learning|knowing|hearing|finding|exploring|seeing|understanding|trying|more)\b",
    r"hoping (?:you|to (?:get|find|learn))\b|love to (?:learn|explore|find|get|try|check|see|visit|know)\b",
    r"having trouble (?:understanding|finding)\b",
)
_VAGUE = re.compile(
    rf"\b(?:these|those|that|this) (?:\w+ )?(?:{_ADVICE}|sounds?|is|are|was|would|makes?|seems?|looks?)\b|"
    r"\byou(?:'ve)? (?:mentioned|suggested|said|provided|recommended|listed|gave|shared|described|"
    r"are|were|wrote)\b"
    r"|\byour\b|\b(?:some|all|one|any|to|with|of) (?:of )?(?:these|those)\b",
    re.I,
)
_NOT_SAID = re.compile(
    r"(?:If|Unless|Should|Let's|Let us|Imagine|Suppose|Assum(?:e|ing)|Pretend|Act|How|What|Why|Which|"
    r"You|Your|You're|"
    r"Please|Continue|Write|Create|Make|Remember|Give|Use|Using|Provide|List|Show|Include|Mention|"
    r"Tell|Explain|Help|Add|"
    r"Find|Generate|Come|Ask|Answer|Rewrite|Change|Put|Start|Suggest|Describe|Compare|Respond|Reply|"
    r"Send|No wonder|"
    r"Only)\b",
    re.I,
)
_ON_ADVICE = re.compile(rf"(?:These|Those|This|That|The) (?:\w+ )?(?:{_ADVICE}|sounds?)\b", re.I)
_MARKUP = re.compile(r"\",\"|\":|[{}<>|]|\\_")
_VERB = re.compile(
    r"(?:'s|'re|n't|\b(?:is|are|was|were|has|have|had|will|would|can|could|should|may|might|must|"
    r"does|do|did|loves?|"
    r"likes?|works?|lives?|goes|gets?|keeps?|needs?|wants?|says?|takes?|makes?|helps?|visits?|plays?|"
    r"comes?|seems?|"
    r"tends?|feels?|starts?|includes?|costs?|looks?|runs?|uses?|gives?|hates?|prefers?|sleeps?|eats?))\b"
)
_BREAK = re.compile(
    r"(?:[,;:] | - | )(?:and |but |so |especially |particularly )*"
    r"(?:since |because |as |when |considering |that )?(?=(?:I|[Mm]y|[Ww]e|[Oo]ur)\b)"
)
_ROLE = re.compile(
    r"\s*(?:(?:please |now )?(?:ignore (?:all|any) previous|act as|pretend|imagine you|roleplay|"
    r"you are (?:an?|the|now)\b|you will (?:be|act)|your (?:task|job|role)|"
    r"I want you to (?:act|pretend|be|become|respond|reply|only)|from now on|summari[sz]e|translate|"
    r"proofread|"
    r"rewrite|rephrase|paraphrase|transcript|title:))",
    re.I,
)
_EDITING = re.compile(
    r"\b(?:rewrite|revise|summari[sz]e|translate|proofread|paraphrase|rephrase|shorten|edit) (?:this|"
    r"the|it|these|that|any)\b",
    re.I,
)
_I_WORD = re.compile(r"\b(?:I|[Mm]y|[Mm]e)\b")
_LONG_CHARS = 1200
_MIN_I_SHARE = 0.035
_MANY_LINES = 8

_IDIOM = re.compile(
    r"\b(?:my|our) (?:questions?|mind|opinion|point|knowledge|understanding|requests?|query|prompt|"
    r"god|goodness|bad|"
    r"(?:last|previous|next|first|multiple) (?:message|question|prompt|suggestion)s?|planet|society|world|"
    r"environment|lives|oceans|communities|climate|future|ancestors|human|species|attention|thoughts|"
    r"way|best|"
    r"options|part|side|needs|concerns?|list|research|collective|healthcare|country|visit|experience|"
    r"understanding|culture|economy)\b",
    re.I,
)
_OWN = re.compile(r"\b(?:my|our|mine)\b", re.I)
_SUBJECT = re.compile(
    r"\b(?:I|[Ww]e)(?P<tail>'(?:m|ve|d|re|ll))?(?=(?P<words>(?:\s+[A-Za-z'-]+){1,8}))(?!\w)"
)
_GENERIC_WE = re.compile(
    r"\b(?:can|could|do|should|would|must) we\b|"
    r"\b[Ww]e(?: all)?(?:'ve all| can| can't| cannot| could| need| should| must| have to| all| as|"
    r" live| often| tend|"
    r" never| don't| do| know| think| see| still)\b"
)
_EMPTY_STATE = listed(
    """wondering looking curious sure interested glad happy excited sorry asking just so able afraid aware
    certain hoping impressed amazed surprised intrigued heard seen noticed seeing hearing noticing no
    concerned skeptical frustrated tired told said thinking trying going wanting open"""
)
"""What "I'm ..." and "I've ..." may be followed by without telling anything yet."""
_PLAN = listed("thinking interested trying going excited looking happy tired open glad")
"""Those that begin a plan or a taste: something, unless the frame is a request."""
_EMPTY_VERB = listed(
    """think know see wonder guess hope mean believe understand agree appreciate feel say suppose can could
    would should will might may must do did does find get want need like love imagine assume bet doubt
    hear ask wish thought wondered meant guessed knew heard realized realised said asked mentioned told
    felt noticed figured hoped assumed expected wanted needed saw imagined believed understood forgot
    didn't couldn't shouldn't wouldn't and or to in of with as at the a it is that if for on but not am
    are was were have had"""
)


def telling(clause: str) -> str | None:
    """The part of a normalised clause (see `sentences.clauses`) that tells of the speaker, or None."""
    if clause.rstrip().endswith("?"):
        return _aside(clause.rstrip("? "))
    if not mentions_speaker(clause) or len(clause.split()) < 3:
        return None
    if _NOT_SAID.match(clause) or _ON_ADVICE.match(clause) or _MARKUP.search(clause) or not _has_verb(clause):
        return None
    if _REPLY.match(clause):
        # "I love these ideas, especially since I just moved in": the reply goes, the rest may stay.
        rest = _BREAK.search(clause)
        return telling(clause[rest.end() :]) if rest else None
    if not _I_WORD.search(clause) and (_GENERIC_WE.search(clause) or clause.startswith(("It", "That"))):
        return None
    is_framed = _WILL.match(clause) or _REQUEST.match(clause) or _VAGUE.search(clause)
    return clause if _tells(clause, is_framed=bool(is_framed)) else _aside(clause)


def is_pasted(text: str) -> bool:
    """Whether a text is material (an article, a transcript, a prompt) rather than somebody's own words."""
    if _ROLE.match(text) or _EDITING.search(text[:300]):
        return True
    lines = [line for line in text.split("\n") if line.strip()]
    if len(lines) >= _MANY_LINES and sum(line[0].islower() for line in lines) > len(lines) / 2:
        return True
    return len(text) >= _LONG_CHARS and len(_I_WORD.findall(text)) < len(text.split()) * _MIN_I_SHARE


def _has_verb(clause: str) -> bool:
    """Whether a clause that begins with a possession says something of it: "my old bike" alone does not."""
    if not re.match(r"(?:my|our)\b", clause, re.I):
        return True
    return bool(_VERB.search(clause)) or any(is_past(word) for word in re.findall(r"[A-Za-z]+", clause))


def _tells(clause: str, is_framed: bool) -> bool:
    """An event, habit, state or possession of the speaker; behind a frame, its own verb does not count."""
    plain = _IDIOM.sub(" ", clause)
    if _OWN.search(plain) or (is_framed and re.search(r"\d", plain)):
        return True
    subjects = list(_SUBJECT.finditer(plain))[1 if is_framed else 0 :]
    return any(
        _is_telling(match["tail"] or "", match["words"].lower().split(), is_framed) for match in subjects
    )


def _is_telling(tail: str, words: list[str], is_framed: bool) -> bool:
    words = _after_adverbs(words)
    if not words or tail == "'ll":
        return False
    if tail == "'d":
        return words[:2] in (["like", "to"], ["love", "to"], ["prefer", "to"], ["rather", "not"])
    if tail or words[0] in ("am", "are", "have", "was", "were", "had"):
        state = _after_adverbs([word for word in (words if tail else words[1:]) if word != "been"])
        return bool(state) and (state[0] not in _EMPTY_STATE or (not is_framed and state[0] in _PLAN))
    if words[0] in ("like", "love"):
        return len(words) > 1 and words[1] not in (
            "the",
            "that",
            "this",
            "these",
            "those",
            "it",
            "how",
            "your",
        )
    if words[0] in ("don't", "can't", "haven't", "didn't", "need", "want"):
        return not is_framed
    return words[0] not in _EMPTY_VERB


def _after_adverbs(words: list[str]) -> list[str]:
    start = 0
    while start < len(words) and is_adverb(words[start]):
        start += 1
    return words[start:]


# --- facts inside a question ----------------------------------------------------------------------------

_REASON = re.compile(
    r",? (?:considering|since|because|given|now that|especially since|as)(?: that)? (?=(?:I|[Mm]y|"
    r"[Ww]e|[Oo]ur)\b)"
)
_LITTLE = (
    r"(?:and|or|on|in|at|of|for|with|to|from|is|are|was|if|my|our|the|an?|some|that|which|I|we|by|about|"
    r"like|you)"
)
_RELATIVE = re.compile(
    rf"\b(?P<thing>(?:[Mm]y|[Oo]ur|[Tt]he|an?|some)(?: (?!{_LITTLE}\b)[\w'$.-]+){{1,6}}),? (?:that |which )?"
    r"I(?P<tail>'ve| have(?= [a-z]+(?:ed|en|de|t|d)\b))? (?P<verb>(?:[a-z]+ly |just |already |"
    r"also )*[a-z]+(?: (?:to|from|for|at|in)(?= (?:at|on|in|for|from)\b))?)"
    r"(?P<rest>[^?]*)"
)


def _aside(question: str) -> str | None:
    """What a question tells on the way, as a statement of its own."""
    if match := _REASON.search(question):
        return telling(question[match.end() :])
    match = _RELATIVE.search(question)
    if not match:
        return None
    verb = _after_adverbs(match["verb"].split())
    if not verb or not (
        is_past(verb[0]) or match["tail"] or verb[0] in ("have", "own", "use") or "ly" in match["verb"]
    ):
        return None
    if (verb[0] in _EMPTY_VERB and verb[0] != "have") or len(match["rest"].split()) < 2:
        return None
    return f"I{match['tail'] or ''} {match['verb']} {match['thing']}{match['rest']}".rstrip(" ,")
