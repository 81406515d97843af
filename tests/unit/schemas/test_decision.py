import json

import pytest

from schemas.decision import DecisionLimits, InvalidDecision, decision_schema, parse_decision


def test_reads_an_update_and_cleans_its_text():
    decision = parse_decision(
        '{"action": "update", "updated_text": " User lives\\nin Oslo. ", "confidence": 0.9}'
    )
    assert (decision.action, decision.updated_text, decision.confidence) == (
        "update",
        "User lives in Oslo.",
        0.9,
    )


def test_reads_new_memory_as_updated_text():
    assert parse_decision('{"action": "update", "new_memory": "A b."}').updated_text == "A b."


def test_text_of_a_delete_is_dropped():
    assert parse_decision('{"action": "delete", "updated_text": "whatever"}').updated_text == ""


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ignore",
        "[]",
        "{}",
        '{"action": "update", "updated_text": ""}',
        '{"action": "update"}',
        '{"action": "forget"}',
        '{"action": "delete", "confidence": 7}',
        '{"action": "delete", "updated_text": "cut her',
        '{"action": null}',
        "[" * 100_000,
    ],
)
def test_free_form_or_broken_decision_is_an_error_and_never_ignore(text):
    with pytest.raises(InvalidDecision):
        parse_decision(text)


def test_schema_is_bounded_and_closed():
    schema = json.loads(decision_schema(DecisionLimits(max_text_chars=99)))
    assert schema["properties"]["updated_text"]["maxLength"] == 99
    assert schema["additionalProperties"] is False
    assert schema["required"] == ["action", "updated_text", "confidence"]
    assert "ignore" in schema["properties"]["action"]["enum"]
