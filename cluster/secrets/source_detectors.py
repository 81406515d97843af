"""What detect-secrets finds: tokens of providers, and quoted values that are assigned to a keyword.

It was made for source files, so its detectors get one word or one assignment at a time: on long lines they
are quadratic, and of two passwords on a line they report one. Left out are the entropy detectors (they cannot
tell a checksum from a secret), the one for JSON Web Tokens (misses truncated ones, recurses without limit
into a hostile payload), and those for URLs and OpenAI keys (miss punctuation, newer keys).
"""

import re

from detect_secrets.core.plugins.initialize import from_plugin_classname
from detect_secrets.plugins.base import RegexBasedDetector
from detect_secrets.plugins.keyword import DENYLIST, KeywordDetector

from cluster.secrets import Spans
from cluster.secrets.placeholders import is_placeholder
from cluster.secrets.tokens import is_public

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


def tokens(text: str) -> Spans:
    """Tokens of the providers that it knows, and of some that it does not."""
    for word in _WORD.finditer(text):
        if any(map(str.isdigit, word[0])):
            for regex in _TOKENS:
                for m in regex.finditer(word[0]):
                    if is_public(m[0]):
                        continue
                    rest = _TOKEN_REST.match(word[0], m.end())
                    end = rest.end() if rest else m.end()
                    yield word.start() + m.start(), word.start() + end, "api_key"


_KEYWORD_DETECTOR = KeywordDetector()
_KEYWORDS = tuple(word for key in DENYLIST for word in {key.replace("_?", ""), key.replace("_?", "_")})
# A keyword, what links it to a quoted value, and that value.
_QUOTED_ASSIGNMENT = re.compile(
    rf"(?<!redacted:)({'|'.join(DENYLIST)})\w{{0,40}}[\]'\"]{{0,2}}[^\"'`\n]{{0,20}}"
    r"[\"'`](?!\[redacted:)[^\"'`\n]{1,200}[\"'`];?",
    re.IGNORECASE,
)
_KEY_LIKE = re.compile(r"(?=.*\d|.{12})\S+")  # tells a key from `the secret: "love"`


def quoted_assignments(text: str) -> Spans:
    """Values in quotes behind words such as `db_password`."""
    lowered = text.lower()
    if ('"' in text or "'" in text or "`" in text) and any(word in lowered for word in _KEYWORDS):
        for m in _QUOTED_ASSIGNMENT.finditer(text):
            kind = "password" if re.search("pass|pwd|contra", m[1], re.IGNORECASE) else "api_key"
            for value in _KEYWORD_DETECTOR.analyze_string(m[0]):
                start = m.start() + m[0].rfind(value)
                if (kind == "password" or _KEY_LIKE.fullmatch(value)) and not is_placeholder(value):
                    yield start, start + len(value), kind
