"""Tokens that providers give out, by their shape.

Three readings. betterleaks (Go, in this process: linear regexes, 0.07 ms for a kilobyte) knows 460 kinds with
their contexts; measured beside classifinder-engine, which finds fewer at a hundred times the time,
detect-secrets' own list, and gitleaks-py, which only starts a program. Then prefixes that providers document
and betterleaks does not know or takes for too regular. Then, for the providers of next year, any word that
begins like `name_` and goes on as nothing but chance does.
"""

import functools
import math
import re
from collections import Counter
from collections.abc import Callable

from cluster.secrets import Spans
from cluster.secrets.placeholders import is_placeholder

_CLEAN = re.compile(r"[\x00\ud800-\udfff]")


def by_package(text: str, *, with_placeholders: bool = False) -> Spans:
    """What betterleaks finds; `with_placeholders`, also what stands for a value in examples."""
    # A C string ends at NUL, and a lone surrogate is no UTF-8; each is replaced by one character.
    clean = _CLEAN.sub(" ", text)
    for secret in {finding.secret for finding in _scanner()(clean) if finding.secret}:
        # Private keys are found whole elsewhere; here two of them would become one.
        if is_public(secret) or "PRIVATE KEY" in secret:
            continue
        if not with_placeholders and is_placeholder(secret):
            continue
        start = clean.find(secret)
        while start >= 0:
            yield start, start + len(secret), "api_key"
            start = clean.find(secret, start + len(secret))


@functools.cache
def _scanner() -> Callable:
    import betterleaks

    return betterleaks.scan_string


def is_public(value: str) -> bool:
    """A Twilio account's name looks like its keys and is in every link to it."""
    return re.fullmatch(r"AC[0-9a-f]{32}", value) is not None


_NOT_BEFORE = r"(?<![A-Za-z0-9])"
_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_DOCUMENTED = re.compile(
    rf"{_NOT_BEFORE}(?:"
    # A prefix that is only a token's, and whatever follows it.
    r"(?:sk-(?:proj|svcacct|admin|ant|or|lf)-|[rs]k_(?:live|test)_|github_pat_|gh[opsur]_|AIza|"
    r"ya29\.|1//0|hf_|npm_|"
    r"gsk_|xapp-|xox[abeprs]-|whsec_|xai-|pplx-|r8_|shp(?:at|ss|ca|pa|tka)_|do[opr]_v1_|hv[sbr]\.|"
    r"nf[bcopu]_|fo1_|IGQ[VW]|"
    r"FlyV1 fm\d_|ntn_|lin_(?:api|oauth)_|AT(?:ATT|CTT)3x|ATBB|figd_|dp\.(?:pt|ct|scim|audit|"
    r"st\.\w{1,40}|sa)\.|pcsk_|"
    r"lsv2_(?:pt|sk)_|rubygems_|dckr_(?:pat|oat)_|NR(?:AK|II|JS)-|sntry[su]_|gl(?:pat|dt|rt|ptt|"
    r"cbt|ft|soat)-|glsa_|"
    r"glc_|sb[ap]_|sb_secret_|pscale_(?:tkn|pw|oauth)_|CFPAT-|shippo_(?:live|test)_|"
    r"AGE-SECRET-KEY-1|ops_eyJ|tskey-|"
    r"tfp_|pul-|sq[apu]_|CCI(?:PAT|PRJ)_|bkua_|aio_|CLOJARS_|duffel_(?:live|test)_|"
    r"FLWSECK(?:_TEST)?-|AQVN|jina_|"
    r"tvly-|nvapi-|rzp_(?:live|test)_|rdme_|dt0[a-z]\d{2}\.|AKCp|s-s4t2(?:ud|af)-|pnu_|polar_|"
    r"HRKU-|ABSK|PMAK-|"
    r"pypi-AgE|sq0[a-z]{3}-|EAAA|EZ[AT]K|csk-|GOCSPX-|SG\.|sl\.[A-Z]|access_token\$production\$|"
    r"PRIVATE-)[\w.$:=~-]{16,}|"
    # A short prefix with a body of known length.
    r"(?:fw_[A-Za-z0-9]{20,}|fc-[0-9a-f]{32}|e2b_[0-9a-f]{40}|a[ks]-[A-Za-z0-9]{20,24}|"
    r"pa-[\w-]{40,}|sk-[A-Za-z0-9]{20,}|"
    r"sk_[0-9a-f]{40,}|dapi[0-9a-f]{32}(?:-\d)?|key-[0-9a-f]{32}|[0-9a-f]{32}-us\d{1,2}|"
    r"secret_[A-Za-z0-9]{40,}|"
    r"cio[A-Za-z0-9]{32}|oy2[a-z0-9]{43}|API-[A-Z0-9]{26}|SK[0-9a-f]{32}|EAA[A-Za-z0-9]{60,}|"
    rf"pat-(?:na|eu)\d-{_UUID}|(?:sdk|mob)-{_UUID}|v1\.0-[0-9a-f]{{24}}-[0-9a-f]{{100,}}|"
    r"pat[A-Za-z0-9]{14}\.[0-9a-f]{64}|[A-Za-z0-9]{14}\.atlasv1\.[\w-]{40,}|"
    r"\d/\d{16}(?:/\d{16})?:[0-9a-f]{32}|"
    # Telegram, Discord, Microsoft Entra, Twitter.
    # Firebase; a hash of a password, as /etc/shadow, htpasswd and frameworks have it.
    r"(?:pbkdf2|scrypt|argon2|bcrypt|sha\d{1,3})[\w:.-]{0,24}\$[\w./$+-]{2,}\$[\w./+=-]{20,}|"
    r"[A-Za-z0-9_-]{11}:APA91b[\w-]{100,}|\$(?:1|2[abxy]|5|6|7|y|apr1|argon2(?:id|i|d)|scrypt|pbkdf2[\w-]{0,16})\$"
    r"[\w./$=,+-]{20,}|"
    r"\d{8,10}:AA[\w-]{33}|[MNO][\w-]{23,27}\.[\w-]{6}\.[\w-]{27,}|[A-Za-z0-9_~.-]{3}\dQ~[\w~.-]{31,34}|"
    r"A{18,22}[A-Za-z0-9%]{40,}))"
)


def documented(text: str) -> Spans:
    """Tokens whose prefix their provider documents."""
    for found in _DOCUMENTED.finditer(text):
        value = found[0].rstrip(".:-")
        if any(map(str.isdigit, value)) or len(value) > 30:
            yield found.start(), found.start() + len(value), "api_key"


_AWS_ID = re.compile(r"(?<![A-Z0-9])(?:AKIA|ASIA|LTAI)[A-Za-z0-9]{16,22}(?![A-Za-z0-9])")
_AWS_SECRET = re.compile(
    r"(?<![\w/+=])(?=[\w/+]*[A-Z])(?=[\w/+]*[a-z])(?=[\w/+]*\d)[A-Za-z0-9/+]{30,40}(?![\w/+=])"
)
_BESIDE = 200
"""Characters between a key's id and its secret."""


def beside_its_id(text: str) -> Spans:
    """An AWS or Alibaba secret, which has no shape of its own, near the id of its key."""
    done = 0
    for key in _AWS_ID.finditer(text):
        start = max(done, key.start() - _BESIDE)
        done = key.end() + _BESIDE
        for found in _AWS_SECRET.finditer(text, start, done):
            if len(found[0]) in (30, 40):
                yield *found.span(), "api_key"


_BODY = re.compile(r"(?<![A-Za-z0-9])[A-Za-z0-9]{30,512}+(?![\w./-])")
_PREFIX = re.compile(r"(?<![\w./%@#?&-])(?P<prefix>[A-Za-z][A-Za-z0-9]{1,15}(?:[_-][a-z]{2,8}){0,2})[_-]\Z")
_NAMES = frozenset(
    """sha sha1 sha256 sha384 sha512 md5 blake2b blake3 id uid uuid guid req request trace span session
    sess conv conversation thread msg message run call toolu file resp response chatcmpl cmpl batch asst
    assistant step vs item rs fc ft ftjob modr user usr org team proj project acct cus card src pi seti
    sub prod price plan inv in evt event ch txn re po tr cs bpc job task node pod commit rev ref tag
    build release image img snapshot cache hash digest checksum etag key pub pk public""".split()  # noqa: SIM905 - words are read more easily
)
"""Beginnings of names and sums, which are as random and open nothing."""
MIN_BITS = 3.8
"""Entropy of a character of a drawn body of 30 letters and digits: 99 of 100 have more; text has less."""


def prefixed(text: str) -> Spans:
    """`name_` and at least 30 characters of capitals, small letters and digits by chance."""
    for run in _BODY.finditer(text):
        before = text[max(0, run.start() - 40) : run.start()]
        found, body = _PREFIX.search(before), run[0]
        if not found or found["prefix"].lower() in _NAMES or found["prefix"].lower().split("_")[-1] in _NAMES:
            continue
        kinds = (re.search("[a-z]", body), re.search("[A-Z]", body), re.search(r"\d.*\d", body))
        if all(kinds) and _bits(body) >= MIN_BITS:
            yield run.start() - len(before) + found.start(), run.end(), "api_key"


def _bits(text: str) -> float:
    return -sum(n / len(text) * math.log2(n / len(text)) for n in Counter(text).values())


FINDERS = (documented, beside_its_id, prefixed)
