"""The teacher behind an endpoint: what it does not finish is halved, and nothing is asked for twice."""

import datetime as dt
import json
from collections import Counter

from cluster.distill.teacher import OpenAITeacher
from cluster.models.asking import Answer
from cluster.models.paid_answers import COUNTS
from schemas.profiles.encoder import EncoderProfile

PROFILE = EncoderProfile(
    name="t",
    base="owner/base",
    system_prompt="Extract.",
    user_template="{previous}|{current}",
    turn_template="{content}",
    dates="resolve",
    second_look=True,
    languages=("en",),
)


def segment(name: str, *texts: str) -> dict:
    current = [
        {"turn_index": 4 + i, "role": "user", "speaker": "Ann", "text": text} for i, text in enumerate(texts)
    ]
    return {
        **{"segment_id": name, "user_id": "u", "session_id": "s"},
        **{"session_time": dt.datetime(2024, 5, 20, tzinfo=dt.UTC), "context": [], "current": current},
        "turns": [],
    }


def told(*statements: tuple[str, int]) -> str:
    records = [
        {"memory_type": "fact", "semantic_text": text, "evidence_turns": [turn]} for text, turn in statements
    ]
    return json.dumps({"records": records})


class Endpoint:
    """Answers by the current turns; keeps what was answered, as the ledger does."""

    def __init__(self, answers: dict[str, Answer | None]):
        self.answers, self.sent = answers, list[str]()
        self.kept: dict[str, Answer] = {}
        self.counts = Counter(dict.fromkeys(COUNTS, 0))

    def ask(self, asks):
        return [self.kept.get(one.key) or self._send(one) for one in asks]

    def _send(self, one):
        shown = one.messages[-1]["content"].partition("|")[2]
        if (answer := self.answers[shown]) is None:
            return None
        self.sent.append(shown)
        self.counts["num_asked"] += 1
        if answer.prompt_tokens:
            self.kept[one.key] = answer
        return answer


CUT = Answer('{"records": [{"memory_', complete=False, prompt_tokens=10, output_tokens=5)
TOO_LONG = Answer("", refusal="BadRequestError: maximum context length is 10 tokens")


def answered(text: str) -> Answer:
    return Answer(text, prompt_tokens=10, output_tokens=5)


def texts(answer: Answer) -> list[tuple[str, list[int]]]:
    records = json.loads(answer.text)["records"]
    return [(record["semantic_text"], record["evidence_turns"]) for record in records]


def test_what_is_too_long_is_halved_and_its_records_rest_on_the_turns_of_the_whole():
    for whole in (CUT, TOO_LONG):
        endpoint = Endpoint(
            {
                "a": answered(told(("User likes tea.", 0))),
                "b\nc": whole,
                "b": answered(told(("User moves tomorrow.", 0))),
                "c": answered(told(("User has a dog.", 0))),
            }
        )
        first, second = OpenAITeacher(PROFILE, endpoint).teach([segment("1", "a"), segment("2", "b", "c")])
        # As it was said: the student's runtime knows the day, and the speaker's name.
        assert first == answered(told(("User likes tea.", 0)))
        assert texts(second) == [("User moves tomorrow.", [0]), ("User has a dog.", [1])]
        assert second.complete and not second.refusal
        assert endpoint.sent == ["a", "b\nc", "b", "c"]


def test_halves_are_counted_apart_and_asked_for_once():
    endpoint = Endpoint({"b\nc": CUT, "b": answered(told()), "c": answered(told())})
    teacher = OpenAITeacher(PROFILE, endpoint)
    teacher.teach([segment("2", "b", "c")])
    assert (teacher.counts["num_asked"], teacher.counts["num_halves_asked"]) == (1, 2)
    again = OpenAITeacher(PROFILE, endpoint).teach([segment("2", "b", "c")])
    assert [texts(answer) for answer in again] == [[]]
    assert len(endpoint.sent) == 3


def test_a_half_that_stays_cut_leaves_the_segment_refused_as_cut():
    endpoint = Endpoint({"b\nc": CUT, "b": answered(told()), "c": CUT})
    assert OpenAITeacher(PROFILE, endpoint).teach([segment("2", "b", "c")]) == [CUT]


def test_a_half_that_a_cap_leaves_open_leaves_open_its_segment_alone():
    endpoint = Endpoint({"a": answered(told()), "b\nc": CUT, "b": answered(told()), "c": None})
    answers = OpenAITeacher(PROFILE, endpoint).teach([segment("1", "a"), segment("2", "b", "c")])
    assert answers == [answered(told()), None]


def test_what_is_refused_for_another_reason_is_not_asked_again():
    refused = Answer("", refusal="BadRequestError: content filter")
    endpoint = Endpoint({"b\nc": refused})
    assert OpenAITeacher(PROFILE, endpoint).teach([segment("2", "b", "c")]) == [refused]
    assert endpoint.sent == ["b\nc"]
