"""Confidence: which tokens are a record's words, and what their probabilities say of it together."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE

from cluster.models.confidence import confidences, pieces
from schemas.record import parse_answer


def tokens(*parts: tuple[str, float]) -> list[tuple[str, float]]:
    """Pieces with probabilities -> tokens."""
    return [(piece, math.log(probability)) for piece, probability in parts]


def measured(*parts: tuple[str, float]) -> dict[str, float]:
    found = confidences("".join(piece for piece, _ in parts), tokens(*parts))
    return {text: one.mean for text, one in found.items()}


def test_confidence_is_the_geometric_mean_over_the_text_s_tokens():
    found = measured(
        ('{"records":[{"memory_type":"', 0.5),
        ("fact", 0.1),
        ('","semantic_text":"', 0.9),
        ("User", 0.8),
        (" likes", 0.2),
        (" tea.", 0.4),
        ('","', 0.3),
        ('evidence_turns":[0]}]}', 1.0),
    )
    assert found == {"User likes tea.": pytest.approx((0.8 * 0.2 * 0.4) ** (1 / 3))}


def test_the_least_likely_token_is_told_beside_the_mean():
    answer = ('{"semantic_text":"', 0.1), ("User", 0.8), (" likes", 0.2), (" tea.", 0.4), ('"}', 0.1)
    found = confidences("".join(piece for piece, _ in answer), tokens(*answer))
    assert found["User likes tea."].least == pytest.approx(0.2)


def test_a_token_that_holds_the_quote_and_a_part_of_the_text_counts():
    found = measured(('{"semantic_text": "User', 0.5), (" likes tea", 1.0), ('."}', 0.5))
    assert found == {"User likes tea.": pytest.approx(0.25 ** (1 / 3))}


def test_a_token_that_only_opens_or_closes_the_text_does_not_count():
    found = measured(('{"semantic_text": "', 0.1), ("Tea.", 0.9), ('"', 0.1), ("}", 0.1))
    assert found == {"Tea.": pytest.approx(0.9)}


def test_every_record_has_its_own():
    found = measured(
        ('[{"semantic_text":"', 1.0),
        ("A.", 0.9),
        ('"},{"semantic_text":"', 1.0),
        ("B", 0.5),
        (".", 0.5),
        ('"}]', 1.0),
    )
    assert found == {"A.": pytest.approx(0.9), "B.": pytest.approx(0.5)}


def test_of_equal_texts_the_first_decides():
    found = measured(
        ('[{"semantic_text":"', 1.0), ("A.", 0.2), ('"},{"semantic_text":"', 1.0), ("A.", 0.99), ('"}]', 1.0)
    )
    assert found == {"A.": pytest.approx(0.2)}


def test_escapes_are_read_and_a_key_within_a_text_is_no_key():
    text = 'User wrote "semantic_text":"x" \\ on\na wall.'
    before, after = '{"records": [{"semantic_text": "', '", "entities": ["semantic_text"]}]}'
    found = measured((before, 0.1), (json.dumps(text)[1:-1], 0.6), (after, 0.1))
    assert found == {'User wrote "semantic_text":"x" \\ on a wall.': pytest.approx(0.6)}


def test_a_text_that_ends_in_a_backslash_ends_there():
    answer = json.dumps([{"semantic_text": "C:\\"}, {"semantic_text": "D"}])
    assert set(confidences(answer, tokens((answer, 0.5)))) == {"C:\\", "D"}


def test_tokens_that_only_begin_a_character_count_with_it():
    """A character of several tokens is spelt by its last one."""
    found = measured(
        ('{"semantic_text":"', 0.1), ("", 0.5), ("", 0.5), ("喝", 0.5), ("茶", 1.0), ('"}', 0.1), ("", 0.1)
    )
    assert found == {"喝茶": pytest.approx(0.125 ** (1 / 4))}


def test_a_cut_text_has_none_and_those_before_it_have_theirs():
    found = measured(('[{"semantic_text":"', 1.0), ("A.", 0.9), ('"},{"semantic_text":"', 1.0), ("B", 0.5))
    assert found == {"A.": pytest.approx(0.9)}


def test_without_probabilities_nothing_is_known():
    answer = '{"records": [{"semantic_text": "A."}]}'
    assert confidences(answer, []) == {}


def test_tokens_of_another_text_say_nothing():
    answer = '{"records": [{"semantic_text": "A."}]}'
    assert confidences(answer, tokens(("[" + answer, 0.5))) == {}


def test_what_a_cut_answer_s_last_token_began_may_miss_in_the_text():
    found = confidences('{"semantic_text":"A."}', tokens(('{"semantic_text":"A."}', 0.5), ("\ufffd", 0.5)))
    assert found == {"A.": (pytest.approx(0.5), pytest.approx(0.5))}


def test_no_records_is_no_confidence():
    assert measured(('{"records": []}', 0.5)) == {}


@given(
    st.lists(st.text(st.characters(codec="utf-8"), min_size=1), min_size=1, max_size=4),
    st.data(),
    st.booleans(),
)
def test_every_record_that_is_read_of_an_answer_is_measured(texts, data, ascii_only):
    """However its text is escaped, and wherever tokens are cut."""
    items = [{"memory_type": "fact", "semantic_text": f"A {text}", "evidence_turns": [0]} for text in texts]
    answer = json.dumps({"records": items}, ensure_ascii=ascii_only)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(answer)), max_size=12)))
    parts = [answer[i:j] for i, j in zip([0, *cuts], [*cuts, len(answer)], strict=True)]
    found = confidences(answer, [(part, math.log(0.5)) for part in parts])
    for record in parse_answer(answer, 1):
        assert found[record.semantic_text].mean == pytest.approx(0.5)


def test_pieces_together_are_the_text_and_a_character_is_its_last_token_s():
    vocabulary = {letter: number for number, letter in enumerate(pre_tokenizers.ByteLevel.alphabet())}
    tokenizer = Tokenizer(BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<end>"])
    prompt, output = (tokenizer.encode(text).ids for text in ("Was?", "a 茶.<end>"))
    assert pieces(tokenizer, prompt, output) == ["a", " ", "", "", "茶", ".", ""]
