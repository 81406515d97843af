"""Numbers that stand for a person: accounts, national ids, passports; and codes that open a door once."""

import re
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from types import ModuleType

from cluster.secrets import Spans

_IBAN = re.compile(
    r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?:[ -]?[A-Z0-9]{4}){2,7}(?:[ -]?[A-Z0-9]{1,4})?(?![A-Za-z0-9])"
)

_IDS = (
    # Shapes of their own, with check digits: module of python-stdnum, pattern. They need no word beside them.
    ("us.ssn", r"\d{3}-\d{2}-\d{4}"),
    ("es.dni", r"\d{8}-?[A-Z]"),
    ("es.nie", r"[XYZ]-?\d{7}-?[A-Z]"),
    ("it.codicefiscale", r"[A-Z]{6}\d{2}[A-Z]\d{2}[A-Z]\d{3}[A-Z]"),
    ("br.cpf", r"\d{3}\.\d{3}\.\d{3}-\d{2}"),
    ("mx.curp", r"[A-Z]{4}\d{6}[HM][A-Z]{5}[A-Z0-9]\d"),
    ("cn.ric", r"\d{17}[\dX]"),
    ("fr.nir", r"[12] ?\d{2} ?\d{2} ?\d{2} ?\d{3} ?\d{3} ?\d{2}"),
    ("se.personnummer", r"(?:\d{2})?\d{6}[-+]\d{4}"),
    ("fi.hetu", r"\d{6}[-+A]\d{3}[0-9A-Y]"),
    ("kr.rrn", r"\d{6}-\d{7}"),
)
_SHAPED = [(name, re.compile(rf"(?<![\w.-])(?:{pattern})(?![\w]|[.-]\w)")) for name, pattern in _IDS]
_WORDS = (
    r"(?:ssn|social security(?: number| no\.?)?|steuer-?id(?:entifikationsnummer)?|steuernummer|idnr|"
    r"sozialversicherungsnummer|personalausweis(?:nummer)?|dni|nif|nie|cpf|cnpj|rg|codice fiscale|"
    r"nhs(?: number)?|"
    r"national insurance(?: number| no\.?)?|nino|aadhaar|aadhar|pesel(?: to)?|bsn|burgerservicenummer|"
    r"social insurance(?: number)?|sin|personnummer|fødselsnummer(?: er)?|nir|"
    r"num[ée]ro de s[ée]curit[ée] sociale|curp|rfc|"
    r"tfn|tax file number|tax id|rut|cuit|cuil|cpr(?:-nummer)?(?: er)?|hetu(?: on)?|henkilötunnus(?: on)?|"
    r"egn|cnp(?:-ul)?|oib|jmbg|amka|"
    r"kimlik no|инн|снилс|"
    r"паспорт|passport(?: number| no\.?)?|reisepass(?:nummer)?|pasaporte|passeport|passaporte|passaporto|"
    r"driver'?s licen[cs]e(?: number)?|führerschein(?:nummer)?|身份证号?码?|护照号?码?|"
    r"マイナンバー|パスポート番号|주민등록번호|여권번호)"
)
_NAMED = re.compile(
    rf"(?i:(?<![^\W\d_]){_WORDS})(?i:(?:\s(?:meu|minha|mio|mia|mój|moje|mitt|min))?\s{{0,3}}(?:number|no\.?|nr\.?|#)?\s{{0,2}}(?:is|ist|es|est|é|"
    rf"è|jest|är|este|это|:|：|=|是|は|—|-)?\s{{0,3}})"
    r"(?P<v>[A-Z0-9](?:[ ./-]?[A-Z0-9]){5,21})(?![\w])"
)


_LONG = re.compile(r"\d[A-Z0-9 ./-]{4,}\d|[A-Z]\d{6}|\d{6}[A-Z]|[A-Z]\d[A-Z0-9]{5}")
"""Without such a run of digits there is no number of these."""
_AHEAD = 100
"""What names a number stands within so many characters before it."""


def _named(text: str) -> Iterator[re.Match]:
    """Matches of _NAMED, looked for only before runs of digits: most text has none."""
    done = 0
    for run in _LONG.finditer(text):
        if run.end() <= done:
            continue
        for found in _NAMED.finditer(text, max(done, run.start() - _AHEAD), min(len(text), run.end() + 40)):
            done = max(done, found.end())
            yield found


@cache
def _module(name: str) -> ModuleType:
    return import_module(f"stdnum.{name}")


def accounts_and_ids(text: str) -> Spans:
    """IBANs and national ids with right check digits, and whatever is told as the number of an id."""
    if not _LONG.search(text):
        return
    for found in _IBAN.finditer(text):
        if _module("iban").is_valid(found[0]):
            yield *found.span(), "iban"
    for name, pattern in _SHAPED:
        for found in pattern.finditer(text):
            if _module(name).is_valid(found[0]):
                yield *found.span(), "national_id"
    for found in _named(text):
        if sum(map(str.isdigit, found["v"])) >= 6 or re.fullmatch(
            r"(?=.*\d.*\d.*\d)[A-Z0-9]{7,9}", found["v"]
        ):
            yield *found.span("v"), "national_id"


_CODE = r"(?P<v>\d{3}[ -]\d{3}|\d{4,8})(?!\d|[.,:/-]\d)"
_CODE_WORDS = (
    r"(?:(?:verification|security|confirmation|login|log-in|sign-in|one[- ]time|authentication|"
    r"authenticator|auth|2fa|"
    r"mfa|two[- ]factor|sms|access)[ -](?:code|password|passcode|pin)|otp(?: code)?|2fa code|mtan|"
    r"best[äa]tigungscode|sicherheitscode|einmalcode|anmeldecode|c[óo]digo de (?:verificaci[óo]n|"
    r"seguridad|confirmaci[óo]n|"
    r"acceso|verifica[çc][ãa]o|seguran[çc]a|confirma[çc][ãa]o|acesso)|code de (?:v[ée]rification|"
    r"s[ée]curit[ée]|"
    r"confirmation|connexion)|код (?:подтверждения|безопасности|доступа|из смс))"
)
_ONE_TIME = re.compile(
    rf"(?:(?<![^\W\d_]){_CODE_WORDS}|验证码|驗證碼|校验码|認証コード|確認コード|"
    rf"인증번호)(?:(?: (?:i|you|we) (?:got|received|sent|need)| from [\w ]{{1,20}}|"
    rf" for [\w ]{{1,20}}))?"
    r"\s{0,2}(?:is|:|：|=|was|lautet|ist|es|é|est|是|为|為|は|—|-)?\s{0,3}[\"'«»“]?(?:G-)?" + _CODE,
    re.IGNORECASE,
)
_YOUR_CODE = re.compile(
    r"(?<![^\W\d_])(?:your|dein|ihr|euer|tu|su|votre|ton|seu|teu|tuo|suo|jouw|uw|ваш|твой) "
    r"(?:code|c[óo]digo|codice|kod|код)\s{0,2}(?:is|:|=|was|lautet|ist|es|é|est|è|—|-)\s{0,3}[\"'«“]?"
    r"(?P<v>\d{3}[ -]\d{3}|\d{5,8})(?!\d|[.,:/-]\d|\s+[^\W\d_])",
    re.IGNORECASE,
)
"""As a message says it; of a code in a program one says how many lines it has."""
_CODE_RUN = re.compile(r"(?<!\d)(?:\d{3}[ -]\d{3}|\d{4,8})(?!\d)")
_CODE_FIRST = re.compile(
    rf"(?<![\w.-])(?:G-)?{_CODE} is your\b[^.\n]{{0,40}}\bcode\b|"
    r"(?i:\buse|\benter) (?:code )?(?P<w>\d{3}[ -]\d{3}|\d{4,8}) (?i:to (?:log|sign) ?in|to verify|as your\b)"
)


def one_time_codes(text: str) -> Spans:
    """Codes of a text message or an authenticator."""
    done = 0
    for run in _CODE_RUN.finditer(text):
        start, end = max(done, run.start() - _AHEAD), min(len(text), run.end() + _AHEAD)
        if not any(map(str.isalpha, text[start:end])):
            continue
        for pattern in (_ONE_TIME, _CODE_FIRST, _YOUR_CODE):
            for found in pattern.finditer(text, start, end):
                done = max(done, found.end())
                yield *found.span("v" if found["v"] else "w"), "one_time_code"


_DOOR = re.compile(
    r"(?i:(?<![\w-])(?:alarm|door|gate|garage|safe|lock|locker|entry|entrance|keypad|building)[ -]?code)"
    r"(?i:(?: (?:for|of|to|at) [\w' ]{1,30}?)?(?:\s{0,2}(?:is|was|:|=)|['’]s)?)\s{1,3}[\"'“`#*]{0,2}"
    r"(?P<v>\d{4,8}(?![\w.,:]\d)|(?=\S{0,60}\d)(?=\S{0,60}[^\W\d_])[\w!@$%&+~-]{6,64})|"
    r"(?i:(?<![\w-])(?:cvv2?|cvc2?|card security code)\s{0,2}(?:is|:|=|number)?\s{0,3})(?P<w>\d{3,4})(?!\w)"
)


def door_codes(text: str) -> Spans:
    """Codes of doors and alarms, and the three digits of a card."""
    lowered = text.lower()
    for found in _DOOR.finditer(text) if "code" in lowered or "cv" in lowered else ():
        yield *found.span("v" if found["v"] else "w"), "password"


_BACKUP = re.compile(
    r"(?i:(?:backup|recovery|rescue|scratch|emergency|wiederherstellungs)[ -]?codes?)\s{0,2}(?:is|"
    r"are|:|=|：)?\s{0,3}"
    r"(?P<v>[A-Za-z0-9]{4,12}(?:-[A-Za-z0-9]{4,12}){0,6}(?:[\s,;]{1,4}[A-Za-z0-9]{4,12}(?:-"
    r"[A-Za-z0-9]{4,12}){0,6}){0,20})"
)
_ONE_BACKUP = re.compile(r"[A-Za-z0-9]+(?:-[A-Za-z0-9]+)*")
_DISK = re.compile(r"(?<![\d-])\d{6}(?:-\d{6}){7}(?![\d-])")
"""What opens a disk that BitLocker has encrypted."""
_SEED = re.compile(
    r"(?i:(?:seed|recovery|mnemonic|secret)[ -]?(?:phrase|"
    r"words))\W{1,6}(?:is )?(?P<v>(?:[a-z]{3,8}[ ,]{1,3}){11,23}[a-z]{3,8})\b"
)


def backup_codes(text: str) -> Spans:
    """Codes and words that bring an account, a disk or a wallet back."""
    lowered = text.lower()
    for disk in _DISK.finditer(text):
        yield *disk.span(), "password"
    for found in _BACKUP.finditer(text) if "code" in lowered else ():
        for code in _ONE_BACKUP.finditer(text, *found.span("v")):
            if re.search(r"\d", code[0]) and not re.fullmatch(r"(?:19|20)\d\d", code[0]):
                yield *code.span(), "one_time_code"
    for found in _SEED.finditer(text) if "phrase" in lowered or "words" in lowered else ():
        yield *found.span("v"), "private_key"


FINDERS = (accounts_and_ids, one_time_codes, door_codes, backup_codes)
