"""Redact secrets in the text of a turn, before anything is stored.

`redact` replaces each secret by a marker, `[redacted:KIND]`, and leaves the words around it alone:

kind         | what is replaced                                                 | found by
-------------|------------------------------------------------------------------|--------------------------
private_key  | a whole PEM, PGP or PuTTY private key, truncated too; seed words | own regex, .numbers
url_password | the password in front of the @ in a URL                          | own regex
bearer_token | the value of an Authorization header, JSON Web Tokens            | own regex
api_key      | provider tokens; what is assigned to an API key, token or secret; | betterleaks, .tokens
             | signatures, session cookies                                      | detect-secrets, .carriers
password     | passwords, passcodes and PINs in prose of ten languages, forms,  | detect-secrets, own regex,
             | code and command lines                                           | .carriers, .languages
card_number  | payment card numbers whose brand, length and check digit agree   | python-stdnum
iban         | account numbers with right check digits                          | python-stdnum
national_id  | national ids with right check digits, or told as one             | python-stdnum, .numbers
one_time_code | codes of a text message, backup codes                           | .numbers
phone_number | where `contacts` asks for it; email_address too                  | .contacts

What else is no one's business here, `rules` name: kinds of one's own, each with its regular expression.

`redact_turns` does a whole session, and so finds what one turn announces and the next one says. What begins
with a dot is in cluster.secrets.

detect-secrets was made for source files, so its detectors get one word or one assignment at a time: on long
lines they are quadratic, and of two passwords on a line they report one. Left out are the entropy detectors
(they cannot tell a checksum from a secret), the one for JSON Web Tokens (misses truncated ones, recurses
without limit into a hostile payload), and those for URLs and OpenAI keys (miss punctuation, newer keys).
"""

import functools
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations, pairwise
from typing import Any, TypeVar

from detect_secrets.core.plugins.initialize import from_plugin_classname
from detect_secrets.filters.heuristic import is_templated_secret
from detect_secrets.plugins.base import RegexBasedDetector
from detect_secrets.plugins.keyword import DENYLIST, KeywordDetector
from stdnum import luhn

from cluster.secrets import Span, carriers, languages, numbers, tokens
from cluster.secrets.announced import announced
from cluster.secrets.contacts import find_contacts

KINDS = (
    *("private_key", "url_password", "bearer_token", "api_key", "password", "card_number"),
    *("iban", "national_id", "one_time_code", "phone_number", "email_address"),
)

Value = TypeVar("Value")

Rules = tuple[tuple[str, re.Pattern], ...]
"""Kinds beside KINDS and what is replaced by their markers; see `compiled`."""

_KIND = re.compile(r"[a-z][a-z0-9_]{0,31}")


def compiled(rules: Mapping[str, str]) -> Rules:
    """Rules out of a config: kind -> regular expression. ValueError names the one that is none."""
    found = []
    for kind, pattern in rules.items():
        if not _KIND.fullmatch(kind) or kind in KINDS:
            raise ValueError(
                f"kind {kind!r}: a kind of one's own has up to 32 of a-z, 0-9 and _, a letter first, and is "
                f"none of {', '.join(KINDS)}"
            )
        try:
            made = re.compile(pattern)
        except re.error as error:
            raise ValueError(f"{kind}={pattern!r}: no regular expression: {error}") from None
        if made.search("") or made.search(f"[redacted:{kind}]"):
            raise ValueError(
                f"{kind}={pattern!r}: it is found in an empty text or in its own marker; make it narrower"
            )
        found.append((kind, made))
    return tuple(found)


MAX_PASSES = 4
"""A marker can change what its neighbours look like, so passes repeat until one finds nothing: two nearly
always. The limit keeps the time linear on text made to defeat that."""

MAX_JUDGED_CHARS = 40
"""A word is judged by its beginning: in a megabyte of "password:" every one of them starts a long word."""


@dataclass(frozen=True)
class Redacted:
    text: str = field(repr=False)
    """The text with markers. Out of the repr: it is still somebody's conversation."""
    counts: dict[str, int]
    """Redactions by kind; empty if there were none."""


def redact_turns(texts: list[str], *, contacts: bool = False, rules: Rules = ()) -> list[Redacted]:
    """The turns of a session in order, each redacted; one may say what the one before it asked for."""
    found, before = [], ""
    for text in texts:
        spans = announced(before, text)
        redacted = redact(_replace(text, spans), contacts=contacts, rules=rules)
        counts = Counter(redacted.counts) + Counter(kind for _, _, kind in spans)
        found.append(Redacted(redacted.text, dict(counts)))
        before = text
    return found


def redact(text: str, *, contacts: bool = False, rules: Rules = ()) -> Redacted:
    """Replace every secret in `text` by a marker, with `contacts` phone numbers and mail addresses too, and
    what `rules` find. Idempotent, raises on no string; linear in time, if the rules are."""
    counts: Counter[str] = Counter()
    finders = (*FINDERS, find_contacts) if contacts else FINDERS
    for _ in range(MAX_PASSES):
        found = [span for finder in finders for span in finder(text)]
        found += [(*match.span(), kind) for kind, rule in rules for match in rule.finditer(text) if match[0]]
        spans = _disjoint(found, text, rules)
        if not spans:
            break
        counts.update(kind for _, _, kind in spans)
        text = _replace(text, spans)
    return Redacted(text, dict(counts))


@functools.lru_cache(maxsize=4096)
def shown_id(value: str) -> str:
    """An id as people are shown it. Ids are names that somebody gave, and a key may be among them.

    Not a card number or the like: of ids that are counted up, every tenth has a right check digit.
    """
    found = redact(value)
    return value if found.counts.keys() <= {"card_number", "iban", "national_id"} else found.text


GIVEN_NAMES = ("user_id", "conversation_id", "session_id", "speaker")
"""Columns with names that somebody gave. The store needs the ids as they are: they are its keys."""


def shown_rows(value: Any) -> Any:
    """Rows, or what is made of them, as they are shown: names that somebody gave as `shown_id` has them."""
    if isinstance(value, list):
        return [shown_rows(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        name: shown_id(item) if name in GIVEN_NAMES and isinstance(item, str) else shown_rows(item)
        for name, item in value.items()
    }


def shown_by_id(values: Mapping[str, Value]) -> dict[str, Value]:
    """What is known of each id, by the ids as they are shown; numbered where several would be the same."""
    found: dict[str, Value] = {}
    for name, value in values.items():
        shown = key = shown_id(name)
        number = 1
        while key in found:
            number += 1
            key = f"{shown} {number}"
        found[key] = value
    return found


@functools.cache
def _marker(*kinds: str) -> re.Pattern:
    return re.compile(rf"\[redacted:(?:{'|'.join((*KINDS, *kinds))})\]")


def _disjoint(found: list[Span], text: str, rules: Rules) -> list[Span]:
    """Merge overlapping spans; the kind of the first stays. What overlaps an earlier marker is dropped."""
    if not found:
        return []
    markers = [(m.start(), m.end(), "") for m in _marker(*(kind for kind, _ in rules)).finditer(text)]
    merged: list[Span] = []
    for start, end, kind in sorted(found + markers, key=lambda span: (span[0], -span[1])):
        if merged and start < merged[-1][1]:
            first, last, first_kind = merged[-1]
            merged[-1] = (first, max(last, end), first_kind if kind else "")
        else:
            merged.append((start, end, kind))
    return [span for span in merged if span[2]]


def _replace(text: str, spans: list[Span]) -> str:
    pieces: list[str] = []
    done = 0
    for start, end, kind in spans:
        pieces += text[done:start], f"[redacted:{kind}]"
        done = end
    return "".join([*pieces, text[done:]])


# --- private keys

_KEY_BEGIN = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----|Private-Lines: \d{1,4}")
_KEY_END = re.compile(r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----|Private-MAC: \w+")
# What follows a BEGIN without END: header lines and base64, perhaps with escaped newlines, and a last
# line cut short.
_KEY_BODY = re.compile(
    r"(?:[\s>]{0,8}(?:(?:Proc-Type|DEK-Info|Version|Comment|Hash):[^\n]*+|[A-Za-z0-9+/=\\]{16,}+))*+"
    r"(?:[\s>]{0,8}[A-Za-z0-9+/=\\]{1,15}+(?=[ \t\r]*+(?:\n|\Z)))?"
)


def _private_keys(text: str) -> Iterator[Span]:
    if "PRIVATE KEY" not in text and "Private-Lines" not in text:
        return
    begins = list(_KEY_BEGIN.finditer(text))
    ends = [m.span() for m in _KEY_END.finditer(text)][::-1]
    for i, begin in enumerate(begins):
        limit = begins[i + 1].start() if i + 1 < len(begins) else len(text)
        while ends and ends[-1][0] < begin.end():
            ends.pop()
        if ends and ends[-1][0] < limit:
            end = ends[-1][1]
        else:
            body = _KEY_BODY.match(text, begin.end(), limit)
            assert body is not None, "it matches the empty text"
            end = body.end()
        if end > begin.end():  # else it only names the header
            yield begin.start(), end, "private_key"


# --- URLs, Authorization headers, tokens of known shape

# Up to the last @ before the path; a # or ? behind digits alone is behind a port.
_URL_PASSWORD = re.compile(r"://[^\s:/?#@\"'<>]{0,100}:(?!\d{1,5}[?#])([^\s/\"'<>]{1,256})@")
_HEADER = re.compile(
    r"(?i:authorization)[\"'`*\]\\]{0,4}\s{0,4}[:=,][\"'`*\\]{0,4}\s{0,4}[\"'`\\]{0,2}"
    r"(?i:bearer|basic|token|apikey|digest)\s{1,4}([^\s\"'`\\,;<>]{6,4096})"
)
_BEARER = re.compile(r"\b[Bb]earer\s{1,4}(?=[\w.~+/=-]{0,200}?[0-9])([\w.~+/=-]{16,4096})")
_JSON_WEB_TOKEN = re.compile(r"(?<![\w-])(eyJ[\w=-]{8,}+(?:\.[\w=-]++){1,4})")

_SHAPES = (  # a lower-case part that is quick to look for, the regex, the kind
    ("://", _URL_PASSWORD, "url_password"),
    ("authorization", _HEADER, "bearer_token"),
    ("bearer", _BEARER, "bearer_token"),
    ("eyj", _JSON_WEB_TOKEN, "bearer_token"),
)


def _headers_and_urls(text: str) -> Iterator[Span]:
    lowered = text.lower()
    for part, regex, kind in _SHAPES:
        for m in regex.finditer(text) if part in lowered else ():
            if not _is_placeholder(m[1]):
                yield *m.span(1), kind


_WORD = re.compile(r"[A-Za-z0-9_+/=.:-]{20,2048}")
_TOKEN_REST = re.compile(r"[\w-]*")  # newer tokens of a provider are often longer than its regex says
_PROVIDERS = (
    "AWSKey AzureStorageKey DiscordBotToken GitHubToken GitLabToken Mailchimp PypiToken SendGrid Slack "
    "SquareOAuth Stripe TelegramBotToken TwilioKey"
)
# The regexes themselves, as `analyze_string` yields only the prefix of a GitHub or GitLab token.
_DETECTORS: list[RegexBasedDetector] = [
    from_plugin_classname(f"{name}Detector") for name in _PROVIDERS.split()
]
_TOKENS = [regex for detector in _DETECTORS for regex in detector.denylist]
# OpenAI and Anthropic, Stripe test, GitHub fine-grained, Google, Hugging Face, npm, Groq, Slack app
_TOKENS.append(
    re.compile(r"(?<![A-Za-z0-9])(?:sk-|[rs]k_test_|github_pat_|AIza|ya29\.|hf_|npm_|gsk_|xapp-)[\w-]{20,}")
)


def _tokens(text: str) -> Iterator[Span]:
    for word in _WORD.finditer(text):
        if any(map(str.isdigit, word[0])):
            for regex in _TOKENS:
                for m in regex.finditer(word[0]):
                    if tokens.is_public(m[0]):
                        continue
                    rest = _TOKEN_REST.match(word[0], m.end())
                    end = rest.end() if rest else m.end()
                    yield word.start() + m.start(), word.start() + end, "api_key"


# --- card numbers

# Digits, spaces and dashes; not the tail of a fraction, phone number, path or longer name.
_DIGIT_RUN = re.compile(r"([0-9](?<![\w+/].)(?<![0-9]\..)(?<!\w-.)[0-9 -]{11,}+)([\w/]|\.[0-9])?")
_GROUP = re.compile(r"[0-9]+")
_CARD_GROUPS = ((4, 4, 4, 4), (4, 4, 4, 4, 3), (4, 6, 5), (4, 6, 4))
_MAX_GROUPS = 8  # a card, its expiry date and its code; longer rows of numbers are tables
# Visa, Mastercard, American Express, Diners Club, JCB; Discover, UnionPay and Maestro. Without the brand,
# one order number, ISBN or IMEI in ten would pass: the check digit is all that is left.
_CARD = re.compile(
    r"4\d{12}(?:\d{3}){0,2}|(?:5[1-5]\d\d|22[2-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}|3[47]\d{13}|"
    r"3(?:0[0-5]|[689]\d)\d{11}|35[2-8]\d{13}|(?:6[0245-9]|5[06-8])\d{14,17}"
)


def _card_numbers(text: str) -> Iterator[Span]:
    for run in _DIGIT_RUN.finditer(text):
        groups = [m.span() for m in _GROUP.finditer(text, *run.span(1))]
        if run[2] and run[1][-1].isdigit():
            groups.pop()  # the last number goes on: a word, a date or a fraction
        num = len(groups)
        windows = combinations(range(num + 1), 2) if num <= _MAX_GROUPS else pairwise(range(num + 1))
        for first, last in windows:
            window = groups[first:last]
            sizes = tuple(end - start for start, end in window)
            digits = "".join(text[start:end] for start, end in window)
            grouped = len(window) in (1, num) or sizes in _CARD_GROUPS
            if grouped and _CARD.fullmatch(digits) and luhn.is_valid(digits):
                yield window[0][0], window[-1][1], "card_number"


# --- passwords and keys in prose, forms and code

_PASSWORD_NOUN = (
    r"(?<!redacted:)(?:pass(?:word|wd|phrase)s?|(?<![a-z])(?:pwd|pw|(?P<code>pass ?codes?|(?-i:PIN)|"
    r"(?P<pin>pin(?: number)?(?=[\"'`*’:=]| is| was| to)))|(?P<short>pass)))(?![a-z])"
)
_KEY_NOUN = (
    r"(?<!redacted:)(?:(?:api|access|secret|auth|client|private|account|service|bearer|refresh|session|bot|"
    r"admin|master|global|signing|encryption|deploy)"
    r"[ _-]?(?:key|token|secret)|(?<![a-z])(?:token|secret))(?![a-z])"
)
# The value is looked at, not consumed: it may turn out to be the next noun.
_LINK_AND_VALUE = (
    r"(?P<about>[ \t]+(?:\([^()\n]{1,40}\)|(?:for|on|of|at|in)(?:[ \t]+(?!and\b)[\w'’&-]{1,30}){1,6}?|"
    r"to(?:[ \t]+(?!and\b)[a-z'’&-]{1,30}){1,6}?))?(?:"
    r"(?P<assign>[\"'`*_\])\\]{0,4}[ \t]{0,4}(?::=|<-|=>|->|→|[=|:]{1,3}(?!//)|(?<=[ \t])[-–—](?=[ \t]))"
    r"[\"*_]{0,2}\s{0,4})|"
    r"[\"'`*]{0,3}(?P<is>['’]s|(?:[ \t]+(?:now|currently))?[ \t]+(?:is|was|are|"
    r"will be))(?:[ \t]+(?:now|still|just|currently))?:?[ \t]{1,4}|"
    r"(?P<to>[ \t]+(?:(?:is|was|has been)[ \t]+)?(?:(?:changed|set|reset)[ \t]+)?to[ \t]{1,4})|"
    r"(?(about)(?!)|(?P<direct>,?[ \t]{1,4})))"
    r"(?![*_(\[\"'`]{0,3}\[redacted:)"
    r"(?=(?P<quote>[\"'`])(?P<quoted>[^\n]{1,128}?)(?P=quote)|[“‘](?P<curly>[^\n”’]{1,128})[”’]|"
    r"[*_(\[\"'`]{0,3}(?P<bare>\S{1,512}))"
)
_PASSWORD = re.compile(_PASSWORD_NOUN + _LINK_AND_VALUE, re.IGNORECASE)
_KEY = re.compile(_KEY_NOUN + _LINK_AND_VALUE, re.IGNORECASE)
_KEY_VALUE = re.compile(r"(?=[\w./+=~-]*[A-Za-z])(?=(?:[\w./+=~-]*?[0-9]){2})[\w./+=~-]{12,512}", re.ASCII)
_VALUE_FIRST = re.compile(
    r"(?<![^\s\"'`“‘(])([^\s\"'`“”‘’]{4,64})[\"'`”’]?[ \t]+(?:is|as)[ \t]+(?:my|our|your|his|her|their|the)"
    r"[ \t]+(?:[\w'’-]{1,30}[ \t]+){0,3}?(?:password|passcode|passphrase)\b",
    re.IGNORECASE,
)
_PLACEHOLDER = re.compile(
    r"\$[A-Za-z_]+|[A-Z]+(?:_[A-Z]+)+|(?:your|enter|insert|example)[\W_].*|.*[\W_]here|[xX*•.…#-]+|"
    r"[A-Za-z_][A-Za-z_.]*[(\[{].*|(?:self|this|req|request|process|config|settings|args|os)\.\w.*|"  # code
    r"(?:[a-z][a-z0-9+.-]*://|www\.).*|[\w.+-]+@[\w-]+\.[a-z.]{2,}|"  # where to reset it or to send it
    r"(?i:1?passwords?|passwd|passphrase|pass|pwd|secret|required.*)",
    re.DOTALL,
)
# Not 12-digit, 2FA, 64GB, $129/day, WPA2-PSK.
_UNLIKE_A_WORD = re.compile(
    r"(?!\d{1,4}[-–]?[a-z]{1,4}(?:\W|\Z)|\d+[-–][a-z]|[$€£¥]\d|(?:wpa|sha|md|aes|utf|base)-?\d)"
    r"(?:(?=.*[^\W\d_])(?=.*\d|.*\w[!@#$%^&+=~?]+\w)\S{4,}|[a-z]{4,}(?:-[a-z]{4,}){2,})",
    re.IGNORECASE | re.DOTALL,
)
# A single word that may be a password, and not what is said about one: required, weak, wrong.
_PLAIN_WORD = re.compile(
    r"(?!(?:.*(?:ed|ing|ly|al|ive|[ai]ble|ful|ous|[ae]nt|less|ic|[aeo]ry|ity|rect|ong)|string|text|bytes|"
    r"null|true|false|blank|unknown|invalid|same|weak|safe|secure|short|complex|simple|unique|private|"
    r"public|yours|mine|gone|there|here|good|great|fine|hard|what|which|this|that|these|those|none|okay|"
    r"enough|never|always|also|because|when|then|with|from|until|once|only|back|down|over|again|admin|"
    r".*-(?:known|only|free|proof|wide|based|safe|like))\Z)[a-z]{4,32}(?:-[a-z]{3,32})?",
    re.IGNORECASE,
)
_CLAUSE_END = re.compile(r"[!)\"'`*]*(?:[.,;]|\s*\Z|\s*\n|\s+(?:and|but)\b)")


def _is_placeholder(value: str) -> bool:
    return is_templated_secret(value) or _PLACEHOLDER.fullmatch(value) is not None


def _value(m: re.Match[str]) -> tuple[int, int]:
    for name in ("quoted", "curly"):
        if m[name] is not None:
            return m.span(name)
    return m.start("bare"), m.start("bare") + len(m["bare"].rstrip(".,;:)]}>*_\"'`’”|\\"))


def _is_password(m: re.Match[str], value: str, after: str) -> bool:
    """Whether `value`, linked to a noun by `m`, is a password; `after` is the text that follows it."""
    direct, value = m["direct"] is not None, value[:MAX_JUDGED_CHARS]
    if _is_placeholder(value):
        return False
    if value.isdecimal():
        most = 8 if m["code"] or m["pin"] or m["to"] else 12
        return 4 <= len(value) <= most and not m["short"] and (m["code"] is not None or not direct)
    if m["pin"] or m["code"] == "PIN":
        return False
    if _UNLIKE_A_WORD.fullmatch(value):
        return not direct or (len(value) >= 6 and not set("=\"'<>(") & set(value))
    if m["bare"] is None:
        return len(value) >= 4 and not direct
    stated = m["is"] or ":" in (m["assign"] or "") or "=" in (m["assign"] or "")
    plain = stated and not m["about"] and not m["short"] and "\n" not in m[0]
    return bool(plain and _PLAIN_WORD.fullmatch(value) and _CLAUSE_END.match(after))


def _passwords(text: str) -> Iterator[Span]:
    lowered = text.lower()
    if "pass" in lowered or "pw" in lowered or "pin" in lowered:
        for m in _PASSWORD.finditer(text):
            start, end = _value(m)
            if _is_password(m, text[start:end], text[end : end + 8]):
                yield start, end, "password"
        for m in _VALUE_FIRST.finditer(text):
            if _UNLIKE_A_WORD.fullmatch(m[1]) and not _is_placeholder(m[1]):
                yield *m.span(1), "password"


def _keys(text: str) -> Iterator[Span]:
    lowered = text.lower()
    if "key" in lowered or "token" in lowered or "secret" in lowered:
        for m in _KEY.finditer(text):
            value = _KEY_VALUE.match(text, *_value(m))
            if value and not _is_placeholder(value[0]):
                yield *value.span(), "api_key"


_KEYWORD_DETECTOR = KeywordDetector()
_KEYWORDS = tuple(word for key in DENYLIST for word in {key.replace("_?", ""), key.replace("_?", "_")})
# A keyword, what links it to a quoted value, and that value.
_QUOTED_ASSIGNMENT = re.compile(
    rf"(?<!redacted:)({'|'.join(DENYLIST)})\w{{0,40}}[\]'\"]{{0,2}}[^\"'`\n]{{0,20}}"
    r"[\"'`](?!\[redacted:)[^\"'`\n]{1,200}[\"'`];?",
    re.IGNORECASE,
)
_KEY_LIKE = re.compile(r"(?=.*\d|.{12})\S+")  # tells a key from `the secret: "love"`


def _quoted_assignments(text: str) -> Iterator[Span]:
    lowered = text.lower()
    if ('"' in text or "'" in text or "`" in text) and any(word in lowered for word in _KEYWORDS):
        for m in _QUOTED_ASSIGNMENT.finditer(text):
            kind = "password" if re.search("pass|pwd|contra", m[1], re.IGNORECASE) else "api_key"
            for value in _KEYWORD_DETECTOR.analyze_string(m[0]):
                start = m.start() + m[0].rfind(value)
                if (kind == "password" or _KEY_LIKE.fullmatch(value)) and not _is_placeholder(value):
                    yield start, start + len(value), kind


FINDERS = (
    *(_private_keys, _headers_and_urls, _tokens, _keys, _passwords, _quoted_assignments, _card_numbers),
    *(find(_is_placeholder) for find in (tokens.by_package, carriers.find, languages.find)),
    *(*tokens.FINDERS, *numbers.FINDERS),
)
"""In order of precedence: of two that find exactly the same, the first names the kind."""
