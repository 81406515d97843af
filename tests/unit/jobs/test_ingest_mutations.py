"""Good items, damaged at random: only what was damaged is lost."""

import itertools
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.common.input_items import ITEM
from jobs.ingest import read_file
from jobs.ingest.files import find_files
from schemas.archive import check_session
from tests.unit.jobs.damage import damaged
from tests.unit.jobs.exported import (
    FIELDS,
    conversation,
    message_item,
    node,
    question,
    read,
    said,
    sample,
)

TOLD = [f"I own {number} hens." for number in range(6)]


def items(format: str) -> list[dict]:
    """Three good items that are not each other's versions; the middle one gets the damage."""
    made = []
    for position, name in enumerate("abc"):
        if format == "messages":
            messages = [{"role": "user", "content": text, "time": 1714554000} for text in TOLD]
            made.append(message_item(session_id=name, session_time="2024-05-01T09:00:00Z", messages=messages))
        elif format == "sharegpt":
            turns = [{"from": "human", "value": text} for text in TOLD]
            made.append({"id": name, "conversations": turns})
        elif format == "chatgpt-export":
            nodes = {"0": node(None)}
            for number, text in enumerate(TOLD):
                nodes[str(number + 1)] = node(str(number), "user", text, create_time=1714554001 + number)
            made.append(conversation(nodes, str(len(TOLD)), conversation_id=name, title="t"))
        elif format == "longmemeval":
            made.append(question(question_id=name))
        elif format == "locomo":
            made.append(sample() | {"sample_id": name})
        elif format == "beam":
            turns = [{"role": "user", "content": text, "time_anchor": "May-03-2024"} for text in TOLD]
            made.append({"batch_number": position, "turns": [turns[:3], turns[3:]]})
        else:
            turns = [{"speaker": "Ann", "clean_text": text} for text in TOLD]
            chat = {"name": {"speaker_1": "Ann", "speaker_2": "Bob"}, f"session_{position}": turns}
            made.append(chat | {f"session_{position}_date_time": "29.02.2024, 22:00:00"})
    return made


@given(data=st.data(), format=st.sampled_from(sorted(FIELDS)))
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damage_to_one_item_costs_no_other(tmp_path, data, format):
    first, second, third = items(format)
    whole, _ = read(tmp_path, format, [first, third], user_id="me")
    rows, notes = read(tmp_path, format, [first, damaged(second, data.draw), third], user_id="me")
    kept = [row for row in rows if row in whole]
    # The damage may have made the second a copy of one of them.
    assert [row for row, _ in itertools.groupby(kept)] == whole
    assert all(check_session(row) == row for row in rows)
    assert all(note.line_or_item == 2 for note in notes)


@given(data=st.data())
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damage_to_one_message_costs_no_other_message(tmp_path, data):
    _, item, _ = items("messages")
    number = data.draw(st.integers(0, len(TOLD) - 1))
    item["messages"][number] = damaged(item["messages"][number], data.draw)
    (row,), notes = read(tmp_path, "messages", [item])
    others = [text for index, text in enumerate(TOLD) if index != number]
    assert [text for _, text in said(row) if text in others] == others
    assert all(note.kind != ITEM for note in notes)


@pytest.mark.parametrize("cut", range(0, 2000, 97))
def test_a_line_that_breaks_off_costs_that_line(tmp_path, cut):
    first, second, third = (json.dumps(item) for item in items("messages"))
    path = tmp_path / "input.jsonl"
    path.write_text("\n".join([first, second[: cut % len(second)], third]))
    (file,) = find_files([str(path)], "messages")
    rows = [found for found in read_file(file, "messages", None) if isinstance(found, tuple)]
    assert [row[2]["session_id"] for row in rows] == ["a", "c"]
