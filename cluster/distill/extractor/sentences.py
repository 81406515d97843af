"""From what somebody typed to single clauses: sentences, without greetings, asides and trailing requests."""

import re

_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`", re.S)
_LINK = re.compile(r"https?://\S+|!\[[^\]]*\]\([^)]*\)")
_BULLET = re.compile(r"^\s*(?:[-*•–]|\d{1,2}[.)]|#{1,6}|[a-z]\))\s+")
_ABBREVIATED = re.compile(
    r"(?:\b(?:mr|mrs|ms|dr|prof|st|mt|vs|jr|sr|inc|ltd|co|no|approx|e\.g|i\.e|etc|a\.m|p\.m|u\.s|"
    r"u\.k)|\b[A-Z])\.$",
    re.I,
)
_END = re.compile(r"""[.!?…]+["')\]]*(?=\s+["'(\[]?[A-Z0-9])|[!?]+["')\]]*(?=\s)""")
_ASIDE = re.compile(
    r"[\s,;.–—-]*\b(?:(?:oh|and|but|so),? )*(?:by the way|btw|speaking of which)\b[\s,;:–—-]*", re.I
)

_ASKING = (
    r"(?:I was|I'm|I am|we were) (?:also |just |actually |now )*(?:wondering|curious)|I wonder\b|"
    r"(?:can|could|would|will|do|did|have|are|should) you\b|(?:do|should|can|could|would|will|am|"
    r"did) (?:I|we)\b|"
    r"(?:what|how|which|where|who|why|when) (?:is|are|do|does|did|can|could|should|would|will|about|"
    r"much|many|"
    r"kind|type|sort|else|other|long|often)\b|what's\b|how's\b|is (?:it|that|there|this)\b|"
    r"are (?:there|these|they)\b|"
    r"would (?:it|that|this|there)\b|(?:do )?any (?:other |more |good )?(?:suggestions|tips|ideas|"
    r"recommendations|advice|thoughts)|(?:please|kindly)\b|let me know\b|tell me\b|give me\b|help me\b|"
    r"maybe you\b|perhaps you\b|I(?:'d| would) (?:really |also )?(?:love|like|"
    r"appreciate) (?:to (?:hear|know|see)|"
    r"your|some|any|it if|if you)\b|I (?:need|want|would like) you to\b|thanks\b|thank you\b"
)
_TAIL = re.compile(
    rf"(?:\s*[,;:–—]\s*|\s+-+\s+|\s+)(?:(?:and|but|so|or)\b,?\s+)(?:{_ASKING})"
    rf"|(?:\s*[,;:–—]\s*|\s+-+\s+)(?:{_ASKING})",
    re.I,
)
ASKS = re.compile(rf"(?:(?:and|but|so|or|also|then)\b,? )*(?:{_ASKING})", re.I)

_LEAD = re.compile(
    r"""(?:
    (?:oh|ah|well|hmm+|wow|ya|yeah|yes|yep|no|nope|okay|ok|sure|great|cool|perfect|awesome|nice|hi|hello|hey|
      thanks?(?:\ you)?(?:\ so\ much|\ a\ lot|\ again)?(?:\ for\ [^,.!?]{1,80})?|
      also|additionally|plus|besides|
      actually|really|anyways?|in\ fact|in\ addition|honestly|to\ be\ (?:honest|fair)|
      you\ know(?:\ what)?|I\ mean|
      speaking\ of\ [^,]{1,80}|talking\ about\ [^,]{1,60}|now\ that\ you\ mention\ it|
      (?:as|like)\ I\ (?:mentioned|said)(?:\ (?:earlier|before|previously))?|
      for\ (?:example|instance|context|reference|now|me|what\ it's\ worth)|
      (?:one|another)\ (?:more\ |last\ )?thing|meanwhile|lastly|finally|
      first(?:ly)?|second(?:ly)?|first\ of\ all|
      unfortunately|luckily|fortunately|sadly|that\ said|having\ said\ that|of\ course|interestingly|
      funny\ enough|on\ (?:an?other|a\ \w+)\ note|to\ start|
      as\ for\ me|ps|p\.s\.|other\ than\ that|apart\ from\ that|so\ far\ so\ good|surprisingly|basically)
    \s*[,:!.–—-]+\s*
    |(?:and|but|so|or|also|plus|actually|well|oh|just|yeah|then)\s+
    )(?=\S)""",
    re.I | re.X,
)
_REPORT = re.compile(
    r"I(?:'m|'ve| have| was)?(?: (?:also|just|actually|now|do|did|really|still|recently|even|pretty|quite))* "
    r"(?:think|believe|guess|suppose|figured?|remember|recall|reali[sz]ed?|noticed|noticing|been noticing|"
    r"mentioned|should mention|forgot to mention|must say|have to say|know|(?:was |been )?thinking|"
    r"(?:pretty )?sure|"
    r"found(?: out)?|learned|feel(?: like)?|must admit|have to admit|see)(?: that| about how)?,? "
    r"(?=(?:I|my|we|our|I'[a-z]+|we'[a-z]+)\b)"
)
_AS = re.compile(r"As (an? [^,]{3,60}), (?=I\b|my\b)")
_BECAUSE = re.compile(
    r"(?:Since|Because|As|Now that|Given that|Although|Though|Even though|Considering(?: that)?|Seeing as) "
    r"(?=(?:I|my|we|our)\b)(?P<first>[^,]{8,}), (?P<second>.*)",
    re.S | re.I,
)


def sentences(text: str) -> list[str]:
    """The sentences of a normalised text; code, links, headings' marks and bullets are left out."""
    text = _LINK.sub(" ", _CODE.sub("\n", text))
    found = []
    for line in text.split("\n"):
        line = " ".join(_BULLET.sub("", line.replace("**", "").replace("__", "")).split())
        start = 0
        for match in _END.finditer(line):
            if _ABBREVIATED.search(line[start : match.end()][-8:]):
                continue
            found.append(line[start : match.end()].strip())
            start = match.end()
        found.append(line[start:].strip())
    return [sentence for sentence in found if sentence]


def clauses(sentence: str) -> list[str]:
    """A sentence -> its statements in order: cut at asides, requests cut off, lead words taken away.

    A clause that ends in a question mark is a question.
    """
    found = []
    for piece in _ASIDE.split(sentence):
        piece = without_lead(piece)
        if match := _AS.match(piece):
            found.append(f"I am {match[1]}")
            piece = piece[match.end() :]
        if match := _BECAUSE.match(piece):
            found += [match["first"], *_without_request(match["second"])]
        else:
            found += _without_request(piece)
    return [clause for clause in map(without_lead, found) if clause]


def without_lead(clause: str) -> str:
    """Take away "Oh, and", "Actually,", "I remember that" ... from the front."""
    while True:
        shorter = clause.lstrip(" ,;:-–—")
        if match := _LEAD.match(shorter) or _REPORT.match(shorter):
            shorter = shorter[match.end() :]
        if shorter == clause:
            return clause
        clause = shorter


def _without_request(piece: str) -> list[str]:
    if ASKS.match(piece):
        return [piece if piece.rstrip().endswith("?") else f"{piece}?"]
    match = _TAIL.search(piece)
    if not match or match.start() < 8:
        return [piece]
    return [piece[: match.start()], piece[match.start() :].lstrip(" ,;:-–—").rstrip("?") + "?"]
