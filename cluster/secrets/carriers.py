"""Secrets by what carries them: command lines, files of credentials, cookies, links and headers."""

import re

from cluster.secrets import Spans
from cluster.secrets.placeholders import is_placeholder

_VALUE = r"(?![<$*{\[\\]|['\"]?\$)(?P<v>[^\s\"'`<>|;&]{3,512})"
_QUOTED = r"[\"'`]?" + _VALUE

_COMMANDS = (
    # curl -u user:password
    (
        "curl",
        r"\bcurl\b[^\n]{0,400}?\s(?:-u|--user|--proxy-user)[ =]?[\"']?[^\s:\"']{1,100}:"
        r"(?P<v>[^\s\"'`]{3,256})",
    ),
    # A password glued to -p: mysql's; -p with a space is another's.
    (
        "mysql",
        r"\bmysql(?:dump|admin|import|show|check)?\b[^\n]{0,200}?\s-p[\"']?"
        r"(?P<v>[^\s\"'`-][^\s\"'`]{2,128})",
    ),
    ("sshpass", rf"\bsshpass\s+-p\s*{_QUOTED}"),
    ("login", rf"\b(?:docker|podman|az|oc|helm)\b[^\n]{{0,100}}?\blogin\b[^\n]{{0,200}}?\s-p[ =]?{_QUOTED}"),
    ("login", rf"\b(?:cargo|wandb|npm|huggingface-cli)\s+login\s+{_QUOTED}"),
    ("twine", rf"\btwine\b[^\n]{{0,200}}?\s-p[ =]?{_QUOTED}"),
    ("redis-cli", rf"\bredis-cli\b[^\n]{{0,200}}?\s-a[ =]?{_QUOTED}"),
    ("mongo", rf"\bmongo(?:sh|dump|restore)?\b[^\n]{{0,200}}?\s-p[ =]?{_QUOTED}"),
    ("openssl", rf"\bopenssl\b[^\n]{{0,200}}?\s(?:-k\s+|-pass(?:in|out)?\s+pass:){_QUOTED}"),
    ("smb", r"\bsmb\w*\b[^\n]{0,200}?\s-U\s*[\"']?[^\s%\"']{1,100}%(?P<v>[^\s\"'`]{2,128})"),
    ("net use", r"\bnet use\b[^\n]{0,200}?\s(?P<v>[^\s/:\\*]{3,128})\s+/user:"),
    ("sudo", r"\becho\s+[\"']?(?P<v>[^\s\"'`$|]{2,128})[\"']?\s*\|\s*sudo\s+(?:-\w+\s+)*-S\b"),
    # ldapsearch -w, restic and borg by their variables below; rclone, rdesktop and the like
    ("ldap", rf"\bldap[a-z]{{3,10}}\b[^\n]{{0,300}}?\s-w[ =]?{_QUOTED}"),
    ("rdp", rf"\b(?:x?freerdp|rdesktop)\b[^\n]{{0,200}}?\s(?:/p:|-p\s){_QUOTED}"),
    ("zip", rf"\b(?:zip|unzip|7z[ar]?)\b[^\n]{{0,100}}?\s(?:-P\s+|-p(?=\S)){_QUOTED}"),
    ("ftp", rf"\b(?:ncftp|lftp)\b[^\n]{{0,200}}?\s-u\s*[^\s,]{{1,100}},{_VALUE}"),
    # What a Wi-Fi QR code says, and a contact's or a login's form of the same kind: P: behind T: and S:
    ("wifi:", r"(?i:\bwifi:)(?:[TSHE]:[^;\n]{0,64};){0,4}P:\"?(?P<v>(?:\\.|[^;\\\n]){3,128}?)\"?;"),
    ("authtoken", rf"\bngrok\b[^\n]{{0,60}}?authtoken\s+{_QUOTED}"),
    # Any option that says what it is.
    (
        "--",
        r"(?<![\w-])--(?:[a-z]+-)*(?:password|passwd|passphrase|token|auth-?key|secret|api-?key|access-?key)"
        rf"(?:=|\s+)(?!-){_QUOTED}",
    ),
    # netrc, .pgpass
    ("machine", r"\bmachine\s+\S{1,200}\s+login\s+\S{1,100}\s+password\s+(?P<v>\S{3,256})"),
    (
        ":",
        r"(?m:^)[ \t>]{0,8}(?=[\w.*-]{0,200}[a-zA-Z*])[\w.*-]{1,200}:(?:\d{2,5}|"
        r"\*):[\w*-]{1,64}:[\w*-]{1,64}:"
        r"(?P<v>[^:\s]{3,128})[ \t]*(?m:$)",
    ),
    # NAME_PASSWORD=word, as in .env files; no digit is needed.
    (
        "=",
        r"(?<![A-Z0-9_])(?=[A-Z])[A-Z0-9_]{0,60}(?:PASSWORD|PASSWD|PASSPHRASE|_PASS|_PWD|"
        r"SECRET(?:_KEY)?|_TOKEN|API_?KEY|"
        r"ACCESS_KEY|PRIVATE_KEY)(?:_[A-Z0-9]{1,20})?=[\"']?(?![\d.]{1,12}(?:\s|$))" + _VALUE,
    ),
    # Any other NAME_KEY=, where chance has drawn the value.
    (
        "_key=",
        r"(?<![A-Z0-9_])[A-Z][A-Z0-9_]{1,60}_KEY=[\"']?(?=(?:[^\d\s]{0,40}\d){4})(?=[^\s]{0,80}[A-Za-z])"
        r"(?P<v>[\w+/=.-]{20,512})",
    ),
    # A Dockerfile's ENV NAME_PASSWORD word
    (
        "env ",
        r"(?m:^)\s{0,8}ENV\s+[A-Z0-9_]{0,60}(?:PASSWORD|PASSWD|SECRET|TOKEN|API_?KEY)\s+[\"']?" + _VALUE,
    ),
    # ssh_pass: word, as in inventories and files of settings
    (
        "_pass",
        r"(?i:(?<![a-z0-9])(?:[a-z0-9]{1,20}_){0,3}(?:ssh|sudo|become|db|user|admin|root|smtp|ftp|imap|mail|"
        r"login|auth|mysql|pg|redis|rpc|wifi)_pass(?:wd|word)?)[\"']?\s{0,2}[:=]\s{0,3}" + _QUOTED,
    ),
    # define('DB_PASSWORD', 'word')
    (
        "define(",
        r"(?i:\bdefine\(\s{0,3}[\"'][\w.]{0,40}(?:password|secret|_key|_salt|token)[\"']\s{0,3},\s{0,3})"
        r"[\"'](?P<v>[^\"'\n]{3,256})[\"']",
    ),
    # <password>word</password>, <add key="ApiKey" value="...">
    (
        "<",
        r"(?i:<(?P<tag>[\w:.-]{0,30}(?:password|passwd|passphrase|secret|apikey|api-key|accesstoken))>)"
        r"(?P<v>[^<>\s$]{3,256})</",
    ),
    (
        "value=",
        r"(?i:(?:key|name)=[\"'][\w:.-]{0,40}(?:password|secret|apikey|api-key|"
        r"accesstoken)[\"']\s+value=[\"'])"
        r"(?P<v>[^\"'\n$]{3,256})[\"']",
    ),
    # x-api-key: word
    (
        "-",
        r"(?i:(?<![\w-])(?:x-[\w-]{0,40}(?:key|token|secret|password)|(?:dd|private|"
        r"circle)-(?:api-key|token)))[\"']?"
        rf"\s{{0,2}}:\s{{0,4}}{_QUOTED}",
    ),
    (
        "authorization",
        r"(?i:authorization)[\"']?\s{0,2}:\s{0,4}[\"']?(?:SSWS|GenieKey|Api-Key|Key|Splunk|Negotiate)"
        r"\s+(?P<v>[^\s\"'`]{8,512})",
    ),
    ("ssws", r"\bSSWS\s+(?P<v>00[\w-]{38,42})(?![\w-])"),
    # A passphrase of several words, alone on its line.
    (
        "phrase",
        r"(?im:^\s{0,8}(?:(?:the|my|gpg|pgp|ssh|key|wallet) )?pass ?phrase\s{0,2}[:=]\s{0,3}"
        r"(?!(?:must|should|choose|use|required?|enter|an?|the|not|your|"
        r"optional|leave|at|for|if|is|was|none|see)\b)(?P<v>[a-z]{2,20}(?: [a-z]{2,20}){2,8})\s*$)",
    ),
    # pass: word, alone on its line
    (
        "pass",
        r"(?im:^\s{0,8}(?:login\s*:\s*\S{1,64}\s+)?pass\s{0,2}[:=]\s{0,4}"
        r"(?P<v>[^\s\"'`<>$*]{4,64})\s*$)",
    ),
)  # fmt: skip
_COMPILED = [(part, re.compile(pattern)) for part, pattern in _COMMANDS]

_IN_LINK = re.compile(
    r"[?&#;](?:[\w.-]{0,40}[._-])?(?P<name>sig|signature|token|access_?token|id_?token|"
    r"refresh_?token|auth_?token|secret|"
    r"password|passwd|pwd|api_?key|apikey|access_?key|jwt|ticket|x-amz-signature|x-amz-security-token|"
    r"x-goog-signature|client_?secret|code|key|auth|session|sid|otp|hash|app_?id)=(?P<v>[^&\s\"'<>#]{6,2048})",
    re.IGNORECASE,
)
_OPEN = frozenset(("code", "key", "auth", "session", "sid", "hash", "signature", "otp", "appid", "app_id"))
"""Parameters that may be anything: only a long value with digits counts."""
HOOKS = re.compile(
    r"(?:discord(?:app)?\.com/api/webhooks/\d{5,25}/|webhook\.office\.com/webhookb2/|"
    r"outlook\.office\.com/webhook/|"
    r"hooks\.zapier\.com/hooks/catch/|hooks\.slack\.com/(?:services|workflows|triggers)/|"
    r"maker\.ifttt\.com/trigger/\w{1,60}/with/key/|api\.telegram\.org/bot|open-apis/bot/v2/hook/|"
    r"hook\.(?:\w{2,4}\.)?make\.com/|"
    r"hooks\.airtable\.com/workflows/v1/genericWebhook/)(?P<v>[^\s\"'<>)\]]{8,512})"
)
_COOKIE = re.compile(r"(?i:\b(?:set-)?cookie)[\"']?\s{0,2}[:=]\s{0,2}[\"']?(?P<pairs>[^\n\"']{8,4096})")
_PAIR = re.compile(r"(?P<name>[\w.-]{1,64})=(?P<v>[^;\s,]{8,2048})")
_SESSION = re.compile(r"sess|sid|auth|token|jwt|login|remember|csrf|secret|key|user", re.IGNORECASE)
_NAMES = (
    r"\b(?:credentials|login(?: data| details)?|zugangsdaten|anmeldedaten|identifiants|"
    r"credenciales|credenciais|"
    r"учетные данные|логин/пароль|登录信息|账号密码"
)
_LABELS = r"pass(?:word|wort)?|pwd?|kennwort|contraseña|clave|senha|mot de passe|пароль|密码|パスワード"
_PAIRED = re.compile(
    rf"(?i:{_NAMES})\s{{0,2}}[:：=]\s{{0,3}}[^\s/|]{{1,64}}\s{{0,2}}[/|"
    r"]\s{0,2}(?![^\s/|]{1,63}[:：=](?:\s|\Z))(?P<v>[^\s/|]{4,64}))"
)
"""login: NAME / PASSWORD"""
_LABELLED = re.compile(
    rf"(?i:{_NAMES}|user(?:name)?|e-?mail|benutzer(?:name)?|usuario|usuário|utilisateur|логин|用户名)"
    rf"\s{{0,2}}[:：=]\s{{0,3}}[^\s/|,;]{{1,64}}\s{{0,2}}[/|,;]\s{{0,2}}(?:{_LABELS})\s{{0,2}}[:：=]\s{{0,3}}"
    r"(?P<v>[^\s\"'`<>$*/|,;]{4,64}))"
)
"""login: NAME / pass: PASSWORD"""


def find(text: str) -> Spans:
    """What commands, settings, links and cookies carry."""
    lowered = text.lower()
    for part, pattern in _COMPILED:
        for found in pattern.finditer(text) if part in lowered else ():
            value = found["v"].rstrip(".,;:)")
            if len(value) >= 3 and not is_placeholder(value) and not _is_flag(value):
                yield found.start("v"), found.start("v") + len(value), "password"
    if "=" in text:
        yield from _links(text)
        yield from _cookies(text)
    for pattern, kind in ((HOOKS, "api_key"), (_PAIRED, "password"), (_LABELLED, "password")):
        for found in pattern.finditer(text):
            if not is_placeholder(found["v"]):
                yield *found.span("v"), kind


def _is_flag(value: str) -> bool:
    return value.lower() in (
        "true",
        "false",
        "yes",
        "none",
        "null",
        "required",
        "optional",
        "file",
        "string",
        "stdin",
    )


def _links(text: str) -> Spans:
    for found in _IN_LINK.finditer(text):
        value = found["v"]
        if is_placeholder(value) or "+" in value or (found["name"].lower() in _OPEN and not _is_drawn(value)):
            continue
        yield *found.span("v"), "api_key"


def _is_drawn(value: str) -> bool:
    return len(value) >= 16 and bool(re.search(r"\d.*\d", value)) and bool(re.search("[A-Za-z]", value))


def _cookies(text: str) -> Spans:
    for line in _COOKIE.finditer(text):
        for found in _PAIR.finditer(text, *line.span("pairs")):
            if _is_drawn(found["v"]) or (_SESSION.search(found["name"]) and re.search(r"\d", found["v"])):
                yield *found.span("v"), "api_key"
