"""Which texts are surely in no language that an encoder reads; with the package itself."""

import pytest
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from cluster.language.identify import other_language
from schemas.profiles.encoder import LANGUAGES

SPANISH = "Vivo en Sevilla y trabajo de camarero."


@pytest.mark.parametrize(
    ("text", "language"),
    [
        (SPANISH, "es"),
        ("Ich wohne in Köln und habe zwei Katzen.", "de"),
        ("Je suis végétarienne depuis dix ans.", "fr"),
        ("我住在上海，养了一只猫。", "zh"),
        ("私は大阪に住んでいます。", "ja"),
        ("أعيش في القاهرة مع زوجتي وأولادي الثلاثة", "ar"),
        ("Mam na imię Zofia i mieszkam w Krakowie.", "pl"),
    ],
)
def test_a_sentence_in_another_language_is_told_by_its_code(text, language):
    assert other_language(text, ("en",)) == language
    assert other_language(text, ("en", language)) == ""


@pytest.mark.parametrize(
    "text",
    [
        "I live in Oslo.",
        "gonna b there @ 8 w/ ma lads innit",
        "whit ye daein the morra? ah'm awa tae ma maw's hoose fur ma tea",
        "wah lau eh so ex one leh, kena scolded by boss again lor",
        "E don do. Wetin you dey find for there? I no sabi am o",
        "I like döner kebab, Currywurst and Weißbier from Munich",
        "My best friends are Torunn Håkonsdottir, Bjørn Ødegård, Åse Kjærstad and Sigrún",
    ],
)
def test_english_of_any_kind_is_english(text):
    assert other_language(text, ("en",)) == ""


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ok",
        "naw",
        "👍🏽",
        "1234 5678 9012 3456",
        "Anna",
        "Torunn Håkonsdottir, Bjørn Ødegård, Åse Kjærstad, Sigrún Þorvaldsdóttir",
        "Bundesministerium für Arbeit und Soziales",
        "https://www.spiegel.de/politik/deutschland/bundestag-beschliesst-gesetz-a-123.html",
        '{"name": "Anna", "city": "Oslo", "age": 31, "tags": ["a", "b"]}',
        "def f(x):\n    return [i for i in range(x) if i % 2]\nprint(f(10))",
        "import pandas as pd; df.groupby('stadt').agg({'einwohner': 'sum'})",
        "SELECT u.id, u.name FROM users u JOIN orders o ON o.uid = u.id WHERE o.total > 100;",
        '<div class="container"><p>{{ item.title }}</p></div>',
        "[table, 40 lines] [base64 data, 12 kB]",
    ],
)
def test_what_is_short_or_no_speech_may_be_in_any_language(text):
    assert other_language(text, ("en",), text) == ""


@pytest.mark.parametrize(
    "text",
    [
        f"{SPANISH} I moved here in May.",
        f"{SPANISH}\nwhat does that mean",
        f"translate to english: '{SPANISH}'",
        f'My landlord says "{SPANISH}" all day.',
    ],
)
def test_a_mixed_text_is_in_both_languages(text):
    assert other_language(text, ("en",)) == ""
    assert other_language(text, ("es",)) == ""


def test_what_stands_around_a_short_text_decides_unless_the_text_itself_looks_like_one_of_the_languages():
    around = f"Claro, te ayudo con eso. ¿Qué más necesitas saber sobre el viaje? {SPANISH} "
    assert other_language("buena idea", ("en",)) == ""
    assert other_language("buena idea", ("en",), f"{around}buena idea") == "es"
    assert other_language("buena idea", ("en",), "Shall we take the train? buena idea") == ""
    assert other_language("I live in Oslo.", ("en",), f"{around}I live in Oslo.") == ""
    assert other_language("Anna", ("en",), f"{around}Anna") == ""


def test_cantonese_counts_as_chinese_where_chinese_is_read():
    assert other_language("唔好意思，我今日唔得閒，聽日先得。", ("zh",)) == ""
    assert other_language("唔好意思，我今日唔得閒，聽日先得。", ("en",)) in ("zh", "yue")


def test_broken_characters_are_no_obstacle():
    assert other_language(f"{SPANISH} \ud83d", ("en",)) == "es"


def test_a_profile_can_name_every_language_that_the_package_tells_apart_but_none_at_all():
    known = LanguageIdentifier.from_model_file(MODEL_FILE).labels
    assert sorted(LANGUAGES) == sorted({*known} - {"zxx"})
