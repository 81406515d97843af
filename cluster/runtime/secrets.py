"""Secrets of the operator, which nothing may keep or show."""

import json
import os
import re
from typing import Any

_SECRET_NAMES = re.compile(r"(?:TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?|API_?KEY|_KEY)$", re.IGNORECASE)
MIN_SECRET_CHARS = 8
"""Shorter values are words, and would be hidden in every sentence."""


HIDDEN = "**********"
"""Stands for a secret, as it does in the dump of a secret type."""

_USERINFO = re.compile(r"""://(?:\\.|[^\s"/?#\\])*@""")
"""What a URL has in front of its host. In text as in JSON, where a quotation mark has a backslash."""

_PARAMETER = re.compile(r"""(?<=[?&;#])([\w.%~-]{1,80})=(?:\\.|[^\s"'&#\\])+""")
"""A parameter of a URL's query, or of its fragment."""

_SECRET_PARAMETERS = re.compile(
    r"token|secret|passw|pwd|credential|signature|session|jwt|auth(?!or)|key(?:[_-]?id)?$"
    r"|^(?:sig|code|pass|user(?:name)?)$",
    re.IGNORECASE,
)
"""Names of those whose values are secret."""


def hide_secrets(text: str) -> str:
    """Text of the operator's own, such as a dumped config (as JSON) or an error, without secrets: user names,
    passwords, secret parameters and keys in the path of every URL in it, and what `hide_variables` hides."""
    text = _USERINFO.sub(f"://{HIDDEN}@", hide_variables(text))
    return _PARAMETER.sub(_without_secret, _without_keys(text))


def _without_keys(text: str) -> str:
    if "://" not in text:
        return text
    from cluster.secrets.urls import in_paths

    pieces: list[str] = []
    done = 0
    for start, end, _ in sorted(in_paths(text)):
        if start >= done:
            pieces += text[done:start], HIDDEN
        done = max(done, end)
    return "".join([*pieces, text[done:]])


def hide_in_dump(dump: str) -> str:
    """JSON with a config in it, as an earlier release dumped it, without secrets: values of `env_vars` too,
    which stood there in clear."""
    return hide_secrets(json.dumps(_without_env_vars(json.loads(dump or "null"))))


def _without_env_vars(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_env_vars(item) for item in value]
    if not isinstance(value, dict):
        return value
    found = {name: _without_env_vars(item) for name, item in value.items()}
    if isinstance(given := found.get("env_vars"), dict):
        found["env_vars"] = dict.fromkeys(given, HIDDEN)
    return found


def _without_secret(parameter: re.Match) -> str:
    return f"{parameter[1]}={HIDDEN}" if _SECRET_PARAMETERS.search(parameter[1]) else parameter[0]


def hide_variables(text: str) -> str:
    """The text without the values of environment variables whose names say that they are secret: a library's
    error may quote one."""
    for name, value in os.environ.items():
        if len(value) >= MIN_SECRET_CHARS and _SECRET_NAMES.search(name) and not os.path.exists(value):
            for written in (value, json.dumps(value)[1:-1]):
                text = text.replace(written, f"[{name}]")
    return text
