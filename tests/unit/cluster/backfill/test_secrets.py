"""How many shapes of secrets are found, and that nothing else is touched.

`secrets/shapes.txt` was written from providers' documents and from memory before the patterns were read.
"""

import collections

import pytest

from cluster.backfill.redact import KINDS, redact, redact_turns, shown_id
from cluster.secrets.announced import announced
from cluster.secrets.tokens import by_package
from tests.unit.cluster.backfill.secrets import chats, innocent, is_gone, shapes


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_nine_in_ten_of_every_group_of_shapes_are_found(seed):
    found, missed = collections.Counter(), []
    total = collections.Counter()
    for shape in shapes(seed):
        text = "\n".join(redacted.text for redacted in redact_turns(list(shape.turns)))
        total[shape.group] += 1
        if all(is_gone(secret, text) for secret in shape.secrets):
            found[shape.group] += 1
        else:
            missed.append(shape)
    assert total.total() >= 300 and total["provider"] >= total.total() / 3
    assert all(found[group] >= 0.9 * num for group, num in total.items()), missed
    assert found.total() >= 0.97 * total.total(), missed


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_innocent_sentence_is_touched(seed):
    sentences = innocent(seed)
    assert len(sentences) >= 300
    assert [text for text in sentences if redact(text).text != text] == []


def test_an_innocent_turn_after_one_about_secrets_is_not_touched():
    conversations = chats()
    assert len(conversations) >= 20
    assert [
        turns for turns in conversations if any(redacted.counts for redacted in redact_turns(turns))
    ] == []


@pytest.mark.parametrize("seed", [0])
def test_every_shape_stays_redacted_when_it_is_redacted_again(seed):
    for shape in shapes(seed):
        once = [redacted.text for redacted in redact_turns(list(shape.turns))]
        assert [redacted.text for redacted in redact_turns(once)] == once


def test_phone_numbers_and_mail_addresses_are_masked_only_where_that_is_asked_for():
    rest = "on 2026-03-04 at 12.03.1987, 10.0.0.1."
    text = f"Call +49 30 1234567 or (212) 555-0187, write to ann@example.org, {rest}"
    assert redact(text).text == text
    masked = redact(text, contacts=True)
    assert masked.counts == {"phone_number": 2, "email_address": 1}
    assert masked.text.endswith(rest)


def test_an_id_with_a_key_in_it_is_not_shown():
    for name in ("chat-2026-03", "4900944303585882776", "5618892246511953", "91R28NR4WKMDVY4RG06KER0S45"):
        assert shown_id(name) == name
    assert shown_id("sk_live_" + "a1B2" * 6) == "[redacted:api_key]"


def test_a_nul_or_a_lone_surrogate_hides_nothing_behind_it():
    token = "xoxb-" + "123456789012-123456789012-abcdefABCDEFabcdefABCDEF"
    for odd in ("\0", "\ud800"):
        text = f"odd {odd} {token}"
        assert token not in redact(text).text
        assert list(by_package(text, with_placeholders=True))


def test_every_kind_that_is_found_is_a_kind_that_a_marker_may_have():
    found = {kind for shape in shapes() for turn in redact_turns(list(shape.turns)) for kind in turn.counts}
    assert found < set(KINDS) and len(found) >= 8


@pytest.mark.parametrize(
    "reply", ["", " ", "a" * 10_000, "ok", "what password do you mean, the one for work?"]
)
def test_a_reply_that_is_no_lone_value_is_none(reply):
    assert announced("What's the wifi password?", reply) == []
