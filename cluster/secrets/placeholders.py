"""What stands for a value in examples, templates and code, and is no secret."""

import functools
import re
from collections.abc import Callable

_PLACEHOLDER = re.compile(
    r"\$[A-Za-z_]+|[A-Z]+(?:_[A-Z]+)+|(?:your|enter|insert|example)[\W_].*|.*[\W_]here|[xX*•.…#-]+|"
    r"[A-Za-z_][A-Za-z_.]*[(\[{].*|(?:self|this|req|request|process|config|settings|args|os)\.\w.*|"  # code
    r"(?:[a-z][a-z0-9+.-]*://|www\.).*|[\w.+-]+@[\w-]+\.[a-z.]{2,}|"  # where to reset it or to send it
    r"(?i:1?passwords?|passwd|passphrase|pass|pwd|secret|required.*)",
    re.DOTALL,
)


def is_placeholder(value: str) -> bool:
    """Whether a value is `YOUR_KEY_HERE`, a variable, code, or where to get one."""
    return _is_templated()(value) or _PLACEHOLDER.fullmatch(value) is not None


@functools.cache
def _is_templated() -> Callable[[str], bool]:
    # Every job hides secrets in what it prints, and few come to ask this.
    from detect_secrets.filters.heuristic import is_templated_secret

    return is_templated_secret
