"""Passwords and keys in English prose, in forms and in code."""

import re

from cluster.secrets import Spans
from cluster.secrets.placeholders import is_placeholder

MAX_JUDGED_CHARS = 40
"""A word is judged by its beginning: in a megabyte of "password:" every one of them starts a long word."""

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


def _value(m: re.Match[str]) -> tuple[int, int]:
    for name in ("quoted", "curly"):
        if m[name] is not None:
            return m.span(name)
    return m.start("bare"), m.start("bare") + len(m["bare"].rstrip(".,;:)]}>*_\"'`’”|\\"))


def _is_password(m: re.Match[str], value: str, after: str) -> bool:
    """Whether `value`, linked to a noun by `m`, is a password; `after` is the text that follows it."""
    direct, value = m["direct"] is not None, value[:MAX_JUDGED_CHARS]
    if is_placeholder(value):
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


def passwords(text: str) -> Spans:
    """Passwords and PINs, behind the word for them or before it."""
    lowered = text.lower()
    if "pass" in lowered or "pw" in lowered or "pin" in lowered:
        for m in _PASSWORD.finditer(text):
            start, end = _value(m)
            if _is_password(m, text[start:end], text[end : end + 8]):
                yield start, end, "password"
        for m in _VALUE_FIRST.finditer(text):
            if _UNLIKE_A_WORD.fullmatch(m[1]) and not is_placeholder(m[1]):
                yield *m.span(1), "password"


def keys(text: str) -> Spans:
    """Keys, tokens and secrets behind the word for them."""
    lowered = text.lower()
    if "key" in lowered or "token" in lowered or "secret" in lowered:
        for m in _KEY.finditer(text):
            value = _KEY_VALUE.match(text, *_value(m))
            if value and not is_placeholder(value[0]):
                yield *value.span(), "api_key"
