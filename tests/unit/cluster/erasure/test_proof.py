"""The search of bytes for what was erased."""

import json
import os

import pytest

from cluster.erasure.proof import _stand_in

TEXTS = [f'User said "{number}" (über a+b)\nand left' for number in range(100)]


@pytest.mark.parametrize("text", [TEXTS[0], TEXTS[99]])
@pytest.mark.parametrize("form", [str, lambda text: json.dumps(text)], ids=["plain", "json"])
def test_a_text_among_other_bytes_is_found_in_every_form(text, form):
    noise = os.urandom(100_000)
    assert not _stand_in(TEXTS, noise)
    assert _stand_in(TEXTS, noise + form(text).encode() + noise)
    assert not _stand_in(TEXTS, form(text).encode()[1:-2])


def test_what_looks_like_a_pattern_is_taken_as_it_is():
    assert _stand_in(["a.c+"], b"xxa.c+yy") and not _stand_in(["a.c+"], b"abcc")
    assert not _stand_in([], b"anything") and not _stand_in(["a"], b"")
