"""Lines into conversations, and what becomes of them into lines."""

import pytest

from cluster.preview import Changed, Kept, Refused, Told
from jobs.common.cli import UsageError
from jobs.preview import PreviewConfig, conversations, lines_of, run


def test_lines_are_turns_and_an_empty_one_ends_a_conversation():
    lines = ["user: I live in Oslo.", "Assistant: Nice.", "", "", "Call me: Ann", "  or Annie", "\n", " "]
    assert list(conversations(lines)) == [
        [{"role": "user", "content": "I live in Oslo."}, {"role": "assistant", "content": "Nice."}],
        [{"role": "user", "content": "Call me: Ann\nor Annie"}],
    ]
    assert list(conversations([])) == []


def test_each_memory_is_shown_with_its_turns_and_each_refusal_with_its_reason():
    told = Told(
        kept=(Kept("User lives in Bergen.", "fact", (0, 2), 0.83), Kept("User sings.", "fact", (), None)),
        refused=(Refused("User is Oslo.", "unsure", (0,)),),
        changed=(
            Changed("delete", "User lives in Oslo.", ("User lives in Bergen.",)),
            Changed("update", "User has a cat.", (), "User has two cats."),
        ),
        prompt_tokens=1,
        output_tokens=1,
    )
    assert list(lines_of(told)) == [
        "+ fact         User lives in Bergen.  [0.83, turn 0, 2]",
        "+ fact         User sings.  [no turn]",
        "- unsure       User is Oslo.  [turn 0]",
        "~ delete       User lives in Oslo.  [because: User lives in Bergen.]",
        "~ update       User has a cat. -> User has two cats.",
    ]
    assert list(lines_of(Told((), (), (), 1, 1))) == ["  nothing to remember"]


def test_a_memory_is_shown_with_the_values_of_its_extra_fields():
    kept = Kept("User sings.", "fact", (0,), None, {"mood": "good", "place": "home"})
    (line,) = lines_of(Told((kept,), (), (), 1, 1))
    assert line == "+ fact         User sings.  (mood: good, place: home)  [turn 0]"


@pytest.mark.parametrize(
    ("settings", "named"),
    [({"store": "s"}, "--user-id"), ({"user_id": "u"}, "--store"), ({"input": "no/such.txt"}, "no/such.txt")],
)
def test_what_cannot_be_read_is_wrong_usage(settings, named):
    with pytest.raises(UsageError, match=named):
        run(PreviewConfig(**settings))
