from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.evolvable.tokens import Exchange, Tokens, exchanges_of
from cluster.models.sources import ModelError
from tests.tiny import CHATML, tiny_config, tiny_tokenizer, tiny_tokens

WITH_SYSTEM = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nBe kind.<|im_end|>\n{% endif %}" + CHATML
)
# Trims, and lets only the answer to the last question show its reasoning, as templates of reasoners do.
REASONER = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['role'] == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}"
    "{{ message['content'] | trim }}<|im_end|>\n{% endfor %}"
)
DIALOGUE = [
    Exchange("one end", "two"),
    Exchange("  three ", "four\n"),
    Exchange("", "five"),
    Exchange("six", ""),
]


@pytest.mark.parametrize("template", [CHATML, WITH_SYSTEM, REASONER])
def test_exchanges_put_together_are_the_rendered_conversation(template):
    tokenizer = tiny_tokenizer(template)
    tokens = Tokens(tiny_config(), tokenizer)
    messages = [
        {"role": role, "content": content}
        for exchange in DIALOGUE
        for role, content in zip(("user", "assistant"), exchange, strict=True)
    ]
    text = tokenizer.apply_chat_template([*messages, {"role": "user", "content": "and?"}], tokenize=False)
    ids = list(chain.from_iterable(tokens.memory_ids(DIALOGUE)))
    question = "<|im_start|>user\nand?<|im_end|>\n"
    assert tokenizer.decode(ids) + question == text
    assert tokens.insert_at == 3


def test_the_answer_is_what_the_assistant_says_and_its_end():
    tokens = tiny_tokens()
    ids, positions, insert_at = tokens.answer_ids(Exchange("is it the end?", "end"), first=False)
    assert tokens.tokenizer.decode([ids[p] for p in positions]) == "end<|im_end|>"
    assert tokens.tokenizer.decode(ids[:insert_at]) == "<|im_start|>user\n"
    assert [ids] == tokens.memory_ids([Exchange("is it the end?", "end")], first=False)


def test_documents_end_with_end_of_text_and_queries_have_the_instruction():
    tokens = tiny_tokens(query_instruction="Find:")
    texts = ["User: a\nAssistant: b", "Assistant: b"]
    assert [Exchange(user, "b").text for user in ("a", "")] == texts
    decoded = [tokens.tokenizer.decode(ids) for ids in tokens.document_ids(texts)]
    assert decoded == [f"{text}<|endoftext|>" for text in texts]
    (ids,) = tokens.query_ids(["why?"])
    assert tokens.tokenizer.decode(ids) == "Find:why?<|endoftext|>"


@given(texts=st.lists(st.text(), max_size=4))
def test_ids_are_those_that_the_tokenizer_gives(texts):
    """Also where it was left with another truncation, as some are saved."""
    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.enable_truncation(3)
    tokens = Tokens(tiny_config(), tokenizer)
    found = tokens.document_ids(texts)
    expected = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    assert found == [[*ids, tokens.end_id] for ids in expected]


def test_long_exchanges_are_cut_and_still_closed():
    tokens = tiny_tokens(max_turn_tokens=40)
    long = Exchange("x" * 100, "y")
    (ids,) = tokens.memory_ids([long])
    assert len(ids) == 40
    assert tokens.tokenizer.decode(ids).endswith("x<|im_end|>\n")
    assert len(tokens.document_ids([long.text])[0]) == 40


def test_a_users_message_opens_an_exchange_and_others_join():
    roles = ["assistant", "user", "assistant", "tool", "assistant", "user", "user"]
    messages = [{"role": role, "content": str(number)} for number, role in enumerate(roles)]
    exchanges, numbers = exchanges_of(messages)
    assert exchanges == [("", "0"), ("1", "2\n3\n4"), ("5", ""), ("6", "")]
    assert numbers == [0, 1, 1, 1, 1, 2, 3]


def test_an_exchange_says_who_speaks_where_that_is_known():
    messages = [
        {"role": "user", "content": "I got a dog.", "speaker": "Ann"},
        {"role": "assistant", "content": "Lovely!", "speaker": None},
    ]
    assert exchanges_of(messages)[0] == [("Ann: I got a dog.", "Lovely!")]


def test_what_another_person_says_joins_the_exchange():
    said = [("Bob", "0"), ("Ann", "1"), ("Cas", "2"), ("Bob", "3"), ("Bob", "4"), (None, "5"), ("Ann", "6")]
    messages = [{"role": "user", "content": content, "speaker": speaker} for speaker, content in said]
    exchanges, numbers = exchanges_of([{"role": "assistant", "content": "Hi", "speaker": "Bot"}, *messages])
    assert exchanges == [
        ("", "Bot: Hi"),
        ("Bob: 0", "Ann: 1\nCas: 2"),
        ("Bob: 3", ""),
        ("Bob: 4", ""),
        ("5", ""),
        ("Ann: 6", ""),
    ]
    assert numbers == [0, 1, 1, 1, 2, 3, 4, 5]


def test_a_tokenizer_that_cannot_serve_is_refused():
    with pytest.raises(ModelError, match="no chat template"):
        Tokens(tiny_config(), tiny_tokenizer(None))
    with pytest.raises(ModelError, match="end_of_text='<eot>'"):
        Tokens(tiny_config(end_of_text="<eot>"), tiny_tokenizer())
    with pytest.raises(ModelError, match="does not show messages"):
        Tokens(tiny_config(), tiny_tokenizer("hello"))
