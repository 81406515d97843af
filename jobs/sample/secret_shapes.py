"""Secrets as users type them, made up anew by the seeded generator.

Put together from pieces, so that no string in this source looks like a secret to a scanner of the repository.
"""

import base64
import json
import random
import string

SECRET_KINDS = ("api_key", "password", "card_number", "bearer_token", "private_key")

CARD_DIGITS = (("4", 1, "1", 15), ("5", 12, "4", 4), ("42", 8, "", 0))
"""Numbers that payment providers reserve for tests, as digits and repeats: valid, but without an account."""


def make_secret(*, rng: random.Random, kind: str) -> str:
    """One secret of `kind`, a member of SECRET_KINDS."""
    return {
        "api_key": _api_key,
        "password": _password,
        "card_number": _card_number,
        "bearer_token": _bearer_token,
        "private_key": _private_key,
    }[kind](rng)


def _api_key(rng: random.Random) -> str:
    prefix, alphabet, length = rng.choice(
        (
            ("AK" + "IA", string.ascii_uppercase + string.digits, 16),
            ("gh" + "p_", string.ascii_letters + string.digits, 36),
            ("sk" + "_live_", string.ascii_letters + string.digits, 24),
        )
    )
    return prefix + _characters(rng, alphabet, length)


def _password(rng: random.Random) -> str:
    word = _characters(rng, "bdfgklmnprstvz", 3).capitalize() + _characters(rng, "aeiou", 1)
    return word + rng.choice("!#%+=") + _characters(rng, string.ascii_letters + string.digits, 7)


def _card_number(rng: random.Random) -> str:
    head, num_head, tail, num_tail = rng.choice(CARD_DIGITS)
    digits = head * num_head + tail * num_tail
    return rng.choice((" ", "-", "")).join(digits[start : start + 4] for start in range(0, 16, 4))


def _bearer_token(rng: random.Random) -> str:
    header = {"alg": "HS" + "256", "typ": "JWT"}
    body = {"sub": _characters(rng, string.digits, 8), "iat": 1_760_000_000 + rng.randrange(10_000_000)}
    compact = [json.dumps(part, separators=(",", ":")) for part in (header, body)]
    parts = [*compact, _characters(rng, string.ascii_letters + string.digits, 32)]
    return ".".join(base64.urlsafe_b64encode(part.encode()).decode().rstrip("=") for part in parts)


def _private_key(rng: random.Random) -> str:
    label = " ".join(("RSA", "PRIVATE", "KEY")) + "-" * 5
    body = [_characters(rng, string.ascii_letters + string.digits + "+/", 64) for _ in range(4)]
    return "\n".join(["-" * 5 + "BEGIN " + label, *body, "-" * 5 + "END " + label])


def _characters(rng: random.Random, alphabet: str, length: int) -> str:
    return "".join(rng.choice(alphabet) for _ in range(length))
