"""Words that can tell something, and their inflections."""

import pytest

from cluster.forget.words import Vocabulary, words


@pytest.mark.parametrize(
    ("text", "telling"),
    [
        ("I have MS", "ms"),
        ("an HP printer", "hp"),
        ("ＨＰ", "hp"),
        ("I work in IT", "IT"),
        ("vitamin D", "D"),
        ("a 5G phone", "5g"),
        ("我住在北京", "北京"),
        ("我有一只猫", "猫"),
        ("ベルリンに住んでいます", "ベルリン"),
        ("さくらが好き", "くら"),
        ("서울에 살아요", "서울"),
        ("ฉันอยู่กรุงเทพ", "กรุ"),
    ],
)
def test_short_words_and_words_without_spaces_tell_something(text, telling):
    assert telling in words(text)


@pytest.mark.parametrize("text", ["it is on us", "I am a", "de la", "не на", "你是我的", "The user has the"])
def test_what_every_text_has_tells_nothing(text):
    assert words(text) == set() or words(text) <= {"你是", "是我", "我的"}


@pytest.mark.parametrize(
    ("known", "word", "is_known"),
    [
        ("nurse", "nurses", True),
        ("works", "worked", True),
        ("dog", "dogs", True),
        ("берлине", "берлин", True),
        ("dog", "dogma", False),
        ("there", "these", False),
        ("ms", "msc", False),
        ("北京", "北方", False),
        ("12", "123", False),
    ],
)
def test_a_vocabulary_knows_inflections(known, word, is_known):
    assert (word in Vocabulary([known])) is is_known
    assert (known in Vocabulary([word])) is is_known
