"""A secret that one turn announces or asks for, and the next one says with no word beside it."""

import re

from cluster.secrets import Span

_NOUNS = (
    r"(?:pass(?:word|code|phrase)|pwd|\bpin\b|api[ -]?key|(?:access|auth|bearer|"
    r"secret)[ -]?(?:token|key)|\btoken\b|secret key|"
    r"client secret|credentials|(?:verification|security|confirmation|one[- ]time|login|sms|"
    r"2fa)[ -](?:code|password)|"
    r"code from the (?:sms|text|app|email)|\botp\b|passwort|kennwort|zugangscode|"
    r"best[äa]tigungscode|contraseña|\bclave\b|"
    r"mot de passe|\bmdp\b|senha|palavra-passe|пароль|пин-код|密码|密碼|口令|验证码|パスワード|"
    r"暗証番号|認証コード)"
    r"(?![ -]?(?:manager|policy|reset|hash|field|generator|length|strength|prompt|protect|limit|"
    r"count|rotation|expir|rule|"
    r"requirement|box|hint)|s\b)"
)
_ASKED = re.compile(rf"{_NOUNS}[^\n.!?。？]{{0,60}}[?？]\W*\Z", re.IGNORECASE)
_COMING = (
    r"(?:\b(?:kommt|folgt|schick\w*|sende|hier ist|gleich|anbei|te (?:mando|env[ií]o|paso|escribo)|"
    r"aqu[ií] (?:va|est[áa])|enseguida|je (?:t['’]|vous |te )(?:envoie|[ée]cris|donne)|voici|arrive|"
    r"ci-dessous|segue|a[íi] vai|aqui (?:vai|est[áa])|ti (?:mando|invio|scrivo)|ecco|arriva|komt|stuur|"
    r"hierbij|wysy[łl]am|oto|вот|сейчас|пришл\w+|отправл\w+|дальше|ниже)\b|"
    r"pr[óo]xim[oa] mensa(?:je|gem)|n[äa]chste[nr]? nachricht|prochain message|prossimo messaggio|"
    r"следующ\w+ сообщени\w+|发给你|發給你|如下|下一条|稍后|送ります|送る|次の|以下)"
)
"""That something is sent now or next, in other languages than English."""
_TO_COME = re.compile(
    rf"{_NOUNS}[^\n.?]{{0,60}}{_COMING}[^\n.?]{{0,40}}[.:!…]?\W*\Z|{_COMING}[^\n.?]{{0,40}}{_NOUNS}[^\n.?]{{0,40}}"
    rf"[.:!…]?\W*\Z|"
    rf"(?:{_NOUNS}[^\n.?]{{0,40}}(?:\b(?:is|below|next message|follows|coming)\b|:|：)\W*\Z|"
    rf"(?:here (?:comes|is|are)|i(?:'ll| will) (?:send|paste|give|write)|let me (?:send|"
    rf"paste))[^\n.?]{{0,40}}{_NOUNS}[^\n?]{{0,40}}\Z|"
    rf"(?:send|paste|share|enter|type|tell|give|provide|schick|env[íi]a|"
    rf"envoie)\w*\b[^\n?]{{0,60}}{_NOUNS}[^\n?]{{0,80}}[.:!?]?\W*\Z)",
    re.IGNORECASE,
)
_NOT_ASKED = re.compile(
    r"(?:^|[.!?\n]\s{0,3})is (?:it|the|my|your)\b|\b(?:forgot|forget|reset|change|how|why|where|"
    r"should|safe|strong|never|which|who|when|does|do you|have you|did you|can i|don't|do not|"
    r"vergessen|olvid)\w*\b",
    re.IGNORECASE,
)
_LEAD = re.compile(
    r"\s{0,4}(?:(?:sure|ok(?:ay)?|yes|here(?: it is| you go)?|it['’]?s|it is|this is it|"
    r"that['’]?s|the code is|es ist|es|c['’]est|é|это|是|です)"
    r"[\s,:.—–-]{1,4}){0,3}",
    re.IGNORECASE,
)
_VALUE = re.compile(r"[\"'`«“]?(?P<v>\d{3}[ -]\d{3}|[^\s\"'`»”]{4,512})[\"'`»”]?[.!]?\s*\Z")
_REPLIES = frozenset(
    """yes yeah yep nope no none nothing never thanks thank okay sure done sorry what why where when which
    whichever unknown maybe please later soon cancel stop wait help hello great good fine perfect same
    correct wrong right always today tomorrow forgot forgotten both neither idk danke gracias merci
    obrigado спасибо nein nada rien gern gerne klar bitte claro weiß weiter continue next skip exit quit
    back""".split()  # noqa: SIM905
)

MAX_CHARS = 600
"""A longer turn says more than a secret; and only the end of the turn before it can announce one."""


def announced(before: str, text: str) -> list[Span]:
    """Spans in `text`, at most one: a lone value where `before` asks for a secret or says that one comes."""
    end = before.rstrip()[-200:]
    asked, to_come = _ASKED.search(end), _TO_COME.search(end)
    if len(text) > MAX_CHARS or not (asked or to_come):
        return []
    if _NOT_ASKED.search(end) or "[redacted:" in text:
        return []
    lead = _LEAD.match(text)
    found = lead and _VALUE.match(text, lead.end())
    if not found:
        return []
    value = found["v"].rstrip(".,!?;:")
    if len(value) < 4 or value.casefold().strip("*_~") in _REPLIES or re.match(r"https?://|<|\$\{", value):
        return []
    return [(found.start("v"), found.start("v") + len(value), "password")]
