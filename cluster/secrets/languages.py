"""Passwords told in German, Spanish, French, Portuguese, Italian, Dutch, Russian, Chinese and Japanese.

A noun, what links it to a value, and the value. As in English, a word that could be said about a password is
none: "ist zu kurz", "es muy corta". Chinese and Japanese state theirs in ASCII, so that any is taken.
"""

import re

from cluster.secrets import Spans
from cluster.secrets.placeholders import is_placeholder

_NOUN = (
    r"(?<![^\W\d_])(?P<noun>(?:wlan-?|wifi-?|wi-fi-?|master-?|admin-?|root-?)?(?:passwort|"
    r"kennwort|losungswort|zugangscode|pin-code)|"
    r"contraseña|contrasena|clave(?: de acceso| secreta)?|mot de passe|mdp|code d['’]acc[èe]s|"
    r"senha|palavra-passe|"
    r"parola d['’]ordine|parola chiave|password(?=\s(?:è|del|della|di)\s)|wachtwoord|hasło|şifre[mn]?|"
    r"passord(?:et)?|lösenord(?:et)?|adgangskoden?|пароль|пин-код|كلمة (?:المرور|السر))"
)
_ABOUT = r"(?P<about>(?:\s(?:del?|da|do|du|de la|von|vom|für|for|от|для|к|dla|voor)\s[\w'’-]{1,30}){0,2})"
_LINK = (
    r"(?P<link>\s{0,2}(?:[:：=]|[—–-]\s)\s{0,3}|\s(?:lautet|ist|heißt|es|est|é|e|è|is|to|er|är|هي|"
    r"jest)\s{1,3}:?\s{0,2}|,?\s(?:c['’]est|это)(?:\s?:)?\s{1,3}|"
    r",\s(?:das ist|es|é|è|e)\s{1,3}:?\s{0,2}|\s(?=\S*\d))"
)
_BARE = r"[\"'«„“`*]{0,2}(?P<v>[^\s\"'»“”`<>]{4,64})"
_TOLD = re.compile(_NOUN + _ABOUT + _LINK + _BARE, re.IGNORECASE)
_EAST = re.compile(
    r"(?:密码|密碼|口令|パスワード|暗証番号|合言葉|비밀번호)[^\n!-~，。、？！]{0,6}?(?:是|为|為|"
    r"：|:|=|は|が|가|는|은)?\s{0,3}[\"'「『“]?(?P<v>[!-~]{4,64})"
)
_HINT = re.compile(
    r"(?i:(?:pass|kenn|losungs)wort|zugangscode|pin-code|contrase|clave|mot de p|mdp|d['’]acc|"
    r"wachtw|senha|palavra|parola|password|has[łl]o|[şs]ifre|passord|lösenord|adgangsk|парол|пин-|"
    r"كلمة )"
)
_PIN = re.compile(
    r"(?<![^\W\d_])(?i:(?:mein|dein|unser)e?|die|mi|tu|su|el|mon|ton|le|meu|o|mio|mijn|mój|мой|твой)\s"
    r"(?i:(?:c[óo]digo|code|codice|kod|код)\s)?(?:PIN|ПИН)(?i:\s(?:del?|da|do|du|für|von|for|voor)\s"
    r"[\w'’ -]{1,30}?)?(?i:\s?[:=]|\s(?:ist|lautet|es|est|é|è|is|jest|это))\s{1,3}"
    r"(?P<v>\d{4,8})(?!\d|[.,:/-]\d|\s+[^\W\d_])"
)
"""A PIN told in another language than English; of one digit or two says how long it is."""
_PLAIN_END = re.compile(r"[.!\"'»“”`*]{0,3}(?:[,;]|\s*\Z|\s*\n)")
_SAID_OF = re.compile(
    # What is said of a password and not the password.
    r"(?:.*(?:isch|lich|ig|bar|los|sam|iert|elt|ert|ten|ado|ada|ido|ida|ável|able|ible|ieuse?|"
    r"ente|ante|ая|ый|ой|ен|но|ет|ит|"
    r"ый|ого)|falsch|richtig|korrekt|abgelaufen|weg|sicher|unsicher|kurz|lang|geheim|gut|schlecht|"
    r"neu|alt|hier|da|"
    r"dort|weiterhin|gleich|leer|practicar|buena|mala|larga|corta|segura|débil|fuerte|nueva|vieja|"
    r"faux|bon|long|"
    r"court|nouveau|simple|vide|perdu|fraca|forte|errada|curta|longa|nova|velha|mesma|aqui|tudo|"
    r"sehr|noch|nicht|immer|"
    r"muy|trop|très|muito|incorrecta|correcta|wrong|string|text|null|none|true|false|required|optional)\Z",
    re.IGNORECASE,
)


def find(text: str) -> Spans:
    """Passwords and PINs that somebody tells."""
    for found in _TOLD.finditer(text) if _HINT.search(text) else ():
        value = found["v"].rstrip(".,;:!?)*")
        end = found.start("v") + len(value)
        if len(value) >= 4 and not is_placeholder(value) and _is_password(found, value, text[end : end + 8]):
            yield found.start("v"), end, "password"
    for found in _PIN.finditer(text) if "PIN" in text or "ПИН" in text else ():
        yield *found.span("v"), "password"
    for found in _EAST.finditer(text):
        value = found["v"].rstrip(".,;:!?)")
        if len(value) >= 4 and not is_placeholder(value):
            yield found.start("v"), found.start("v") + len(value), "password"


def _is_password(found: re.Match, value: str, after: str) -> bool:
    if value[:1] in "[({":
        return False
    if re.search(r"\d", value) or re.search(r"\w[!@#$%^&+=~]+\w", value):
        return not re.fullmatch(r"\d{1,3}(?:[-–]?[^\W\d]+)?|(?:19|20)\d\d", value)
    if _SAID_OF.fullmatch(value) or not _PLAIN_END.match(after):
        return False
    link = found["link"].strip()
    return link in (":", "：", "=", "—", "–", "-", "lautet", "heißt") or bool(
        found["about"] or "'" in link or "’" in link
    )
