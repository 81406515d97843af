"""Full text on a real store: words of every script are found, and nothing in a question is an operator."""

import pytest

from cluster.store.store import Store
from tests.unit.cluster.store.stores import commit, segment, vector

SAID = {
    # Chinese
    "大学": "我住在北京大学附近",
    "医院": "她在上海的一家医院当护士",
    "花生": "我对花生过敏",
    "绿茶": "我喜欢喝绿茶",
    "我的狗叫什么名字": "我的狗叫旺财",
    "搬到哪里": "我下个月要搬到深圳",
    "跑步": "我每天早上跑步五公里",
    "老師": "我媽媽是中學老師",
    "猪肉": "我不吃猪肉",
    "吉他": "我在学吉他",
    # Japanese
    "どこの会社": "私は東京の会社で働いています",
    "看護師": "妹は看護師です",
    "ピーナッツ": "ピーナッツのアレルギーがあります",
    "お茶": "毎朝お茶を飲みます",
    "犬の名前は何ですか": "犬の名前はハチです",
    "引っ越し": "来月大阪に引っ越します",
    "走っていますか": "毎日五キロ走っています",
    "先生": "母は中学校の先生です",
    "豚肉": "豚肉は食べません",
    "ギター": "ギターを習っています",
    # Korean puts particles behind its words, and many languages inflect them.
    "서울": "저는 서울에서 살고 있습니다",
    "고양이": "고양이를 키웁니다",
    "Москва": "Я живу в Москве",
    "собаки": "У меня есть собака",
    "Αθήνα": "Ζω στην Αθήνας",
    # Scripts without spaces, and others
    "กรุงเทพ": "ฉันอาศัยอยู่ที่กรุงเทพ",
    "القاهرة": "أنا أعيش في القاهرة",
    "ירושלים": "אני גר ב ירושלים",
    "दिल्ली": "मैं दिल्ली में रहता हूँ",
    # Latin
    "koln": "We moved to Köln last week",
    "running": "I run every morning along the river",
    "bob@example.com": "Write to bob@example.com please",
    "snake": "The file is called snake_case.py",
}


@pytest.fixture(scope="module")
def babel(tmp_path_factory):
    """One turn of one user each; no text's vector says anything of another's."""
    store = Store(str(tmp_path_factory.mktemp("babel") / "store"), must_exist=False)
    parts = [segment(f"s{number}", text, session=f"s{number}") for number, text in enumerate(SAID.values())]
    commit(store, "run1", *parts)
    return store


@pytest.mark.parametrize("question", SAID)
def test_a_word_of_any_script_finds_what_was_said_with_it(babel, question):
    hits = babel.search("ann", question, vector("nothing of it"), len(SAID))
    without = babel.search("ann", "qqq", vector("nothing of it"), len(SAID))
    scores = {hit["content"]: hit["score"] for hit in without}
    # What the words of the question add, not where its vector happens to be near.
    best = max(hits, key=lambda hit: hit["score"] - scores[hit["content"]])
    assert best["content"] == SAID[question]
    assert best["score"] > scores[best["content"]]


@pytest.mark.parametrize(
    "question",
    ['"Where do I live?"', "'run'", '"', '""', "run AND NOT (river", "content:run", '运动 "跑步"', " "],
)
def test_quotes_and_operators_in_a_question_are_text(babel, question):
    """Regression: a question in quotes was a phrase query, which this index refuses."""
    assert len(babel.search("ann", question, vector("x"), 3)) == 3
