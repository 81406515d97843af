"""Each input format, from its own bytes to archive rows and rejections."""

import datetime as dt
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.common.input_items import NOTE, Rejection
from jobs.ingest import read_file
from jobs.ingest.files import find_files
from schemas.archive import check_session
from tests.unit.jobs.exported import (
    FIELDS,
    JSON,
    conversation,
    message_item,
    node,
    question,
    read,
    said,
    sample,
    utc,
)

# --- messages ---------------------------------------------------------------------------------------


def test_messages(tmp_path):
    item = message_item(
        session_time="2024-05-01T11:00:00+02:00",
        conversation_id="c1",
        messages=[
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": "Tea, please.", "name": "Ada", "time": 1714554000},
            {"role": "assistant", "content": "Green?", "speaker": "Bot", "time": "2024-05-01T09:00:05Z"},
        ],
    )
    rows, rejections = read(tmp_path, "messages", [item])
    assert not rejections
    assert rows == [
        {
            "user_id": "u1",
            "conversation_id": "c1",
            "session_id": "s1",
            "session_time": utc(2024, 5, 1, 9),
            "turns": [
                {"role": "system", "content": "Be brief.", "speaker": None, "time": None},
                {"role": "user", "content": "Tea, please.", "speaker": "Ada", "time": utc(2024, 5, 1, 9)},
                {
                    "role": "assistant",
                    "content": "Green?",
                    "speaker": "Bot",
                    "time": utc(2024, 5, 1, 9, 0, 5),
                },
            ],
        }
    ]


def test_messages_joins_text_parts_and_names_others(tmp_path):
    parts = [
        {"type": "text", "text": "Look at this:"},
        {"type": "image_url", "image_url": {"url": "data:..."}},
        {"type": "input_audio", "input_audio": {}},
        {"type": "file", "file": {}},
    ]
    (row,), _ = read(tmp_path, "messages", [message_item(messages=[{"role": "user", "content": parts}])])
    assert said(row) == [("user", "Look at this:\n[image]\n[audio]\n[file]")]


def test_messages_ids_may_be_numbers(tmp_path):
    (row,), _ = read(tmp_path, "messages", [message_item(user_id=17, session_id=4)])
    assert (row["user_id"], row["session_id"]) == ("17", "4")


def test_messages_user_id_has_a_default(tmp_path):
    rows, _ = read(tmp_path, "messages", [message_item(user_id=None), message_item()], user_id="me")
    assert [row["user_id"] for row in rows] == ["me", "u1"]


def test_empty_turns_are_dropped_with_a_note(tmp_path):
    messages = [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
        {"role": "assistant", "tool_calls": [{"id": "2"}]},
        {"role": "tool", "content": "Rain"},
        {"role": "assistant", "content": " "},
    ]
    (row,), notes = read(tmp_path, "messages", [message_item(messages=messages)])
    assert said(row) == [("user", "Weather?"), ("tool", "Rain")]
    assert [(note.kind, note.noted) for note in notes] == [(NOTE, "empty_turn")] * 3
    assert "session_id='s1', turns[1]: empty turn dropped" in notes[0].reason
    assert '"assistant"' in notes[0].raw


@pytest.mark.parametrize("messages", [[], None, [None], [{"role": "user", "content": ""}]], ids=repr)
def test_a_chat_in_which_nothing_was_said_is_left_out_and_is_no_rejection(tmp_path, messages):
    rows, (note,) = read(tmp_path, "messages", [message_item(messages=messages)])
    assert not rows
    assert (note.kind, note.noted, note.line_or_item) == (NOTE, "empty_chat", 1)


def test_calls_of_tools_are_turns_of_tools_and_nobody_s_words(tmp_path):
    call = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
    messages = [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "Rain"},
        {"role": "assistant", "content": "Rain. More?", "function_call": {"name": "ask", "arguments": "{}"}},
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "I look."},
                {"type": "tool_use", "name": "maps", "input": {"to": "Rome"}},
            ],
        },
        {"role": "user", "content": [{"type": "tool_result", "content": "2,500 km"}]},
    ]
    (row,), notes = read(tmp_path, "messages", [message_item(messages=messages)])
    assert said(row) == [
        ("user", "Weather?"),
        ("tool", 'weather({"city": "Oslo"})'),
        ("tool", "Rain"),
        ("assistant", "Rain. More?"),
        ("tool", "ask({})"),
        ("assistant", "I look."),
        ("tool", 'maps({"to": "Rome"})'),
        ("tool", "2,500 km"),
    ]
    assert notes == []


def test_items_that_are_no_messages_cost_nothing(tmp_path):
    """As OpenAI's Responses have them."""
    messages = [
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Are nuts in it?"}]},
        {"type": "reasoning", "id": "r", "summary": []},
        {"type": "function_call", "call_id": "c", "name": "search", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "walnuts"},
        {"type": "web_search_call", "id": "w", "status": "completed"},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Walnuts."}]},
    ]
    (row,), notes = read(tmp_path, "messages", [message_item(messages=messages)])
    assert said(row) == [
        ("user", "Are nuts in it?"),
        ("tool", "search({})"),
        ("tool", "walnuts"),
        ("assistant", "Walnuts."),
    ]
    assert {(note.kind, note.noted) for note in notes} == {(NOTE, "empty_turn")}


def test_messages_of_langchain_are_read(tmp_path):
    messages = [
        {"type": "human", "data": {"content": "I keep bees.", "additional_kwargs": {}}},
        {"type": "ai", "data": {"content": "Nice."}},
        {"type": "human", "content": "Two hives."},
    ]
    (row,), notes = read(tmp_path, "messages", [message_item(messages=messages)])
    assert said(row) == [("user", "I keep bees."), ("assistant", "Nice."), ("user", "Two hives.")]
    assert notes == []


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ([None, {"type": "text", "text": "Tea."}], "Tea."),
        ([{"type": "text", "text": None}, "Tea."], "Tea."),
        ([{"type": "thinking", "thinking": "Hm"}, {"type": "text", "text": "Tea."}], "Tea."),
        ([{"type": "text", "text": {"value": "Tea.", "annotations": []}}], "Tea."),
        ([5, "Tea.", {}, ["x"]], "5\nTea.\n[attachment]\n[attachment]"),
        ({"type": "text", "text": "Tea."}, "Tea."),
    ],
)
def test_odd_parts_of_a_message_cost_nothing(tmp_path, content, text):
    messages = [{"role": "user", "content": content}]
    (row,), notes = read(tmp_path, "messages", [message_item(messages=messages)])
    assert (said(row), notes) == ([("user", text)], [])


@pytest.mark.parametrize(
    ("odd", "place", "kind"),
    [
        (None, None, "empty_turn"),
        ({"role": "moderator", "content": "flag"}, ("tool", "flag"), "unknown_role"),
        ({"content": "who?"}, ("tool", "who?"), "unknown_role"),
        ({"role": "user", "content": "ok \ud83d"}, ("user", "ok \ufffd"), "broken_text"),
        ({"role": "user", "content": "x", "name": 5}, ("user", "x"), "odd_speaker"),
        ({"role": "user", "text": "x"}, ("user", "[empty]"), "empty_turn"),
        ({"role": "user", "content": "x", "time": "noon"}, ("user", "x"), "unknown_time"),
        ("hello", ("tool", "hello"), "unknown_role"),
    ],
)
def test_one_odd_message_does_not_cost_its_session(tmp_path, odd, place, kind):
    messages = [*message_item()["messages"], odd, {"role": "user", "content": "I have two sons."}]
    (row,), notes = read(tmp_path, "messages", [message_item(messages=messages)])
    expected = [("user", "Tea, please."), ("assistant", "Green?"), place, ("user", "I have two sons.")]
    assert said(row) == [turn for turn in expected if turn]
    assert [(note.kind, note.noted) for note in notes] == [(NOTE, kind)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"user_id": None}, "user_id=None: must be a non-empty string; name the user with --user-id"),
        ({"user_id": True}, "user_id=True"),
        ({"session_id": ["s"]}, "session_id=['s']"),
        ({"session_id": None}, "session_id=None"),
        ({"messages": {"role": "user"}}, "turns={"),
        ({"messages": [5]}, "turns[0]=5"),
        ({"messages": [{"role": "narrator", "content": "x"}]}, "turns[0].role='narrator'"),
        ({"messages": [{"role": ["user"], "content": "x"}]}, "turns[0].role=['user']"),
        ({"messages": [{"role": "user", "text": "x"}]}, "turns[0].content=None"),
        ({"messages": [{"role": "user", "content": 5}]}, "turns[0].content=5"),
        ({"user_id": "x\ud800"}, "lone surrogate"),
    ],
)
def test_bad_messages_cost_their_own_line_only(tmp_path, changes, message):
    items = [message_item(session_id="a"), message_item(**changes), message_item(session_id="b")]
    rows, (rejection,) = read(tmp_path, "messages", items)
    assert [row["session_id"] for row in rows] == ["a", "b"]
    assert rejection.line_or_item == 2
    assert message in rejection.reason
    assert rejection.raw.startswith("{")


TEXT = st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip)
TIME = st.none() | st.datetimes(dt.datetime(1990, 1, 1), dt.datetime(2026, 1, 1), timezones=st.just(dt.UTC))
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "user_id": TEXT,
            "conversation_id": st.none() | st.text(st.characters(codec="utf-8")),
            "session_id": TEXT,
            "session_time": TIME,
            "turns": st.lists(
                st.fixed_dictionaries(
                    {
                        "role": st.sampled_from(["user", "assistant", "system", "tool"]),
                        "content": TEXT,
                        "speaker": st.none() | TEXT,
                        "time": TIME,
                    }
                ),
                min_size=1,
                max_size=3,
            ),
        }
    ),
    max_size=4,
)


@given(rows=ROWS, as_array=st.booleans())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_messages_round_trip(tmp_path, rows, as_array):
    items = [
        {key: row[key] for key in ("user_id", "conversation_id", "session_id", "session_time")}
        | {"messages": row["turns"]}
        for row in rows
    ]
    path = tmp_path / ("input.json" if as_array else "input.jsonl")
    lines = [json.dumps(item, default=dt.datetime.isoformat, ensure_ascii=False) for item in items]
    path.write_text("[" + ",\n".join(lines) + "]" if as_array else "\n".join(lines), encoding="utf-8")
    (file,) = find_files([str(path)], "messages")
    for row in rows:
        row["session_time"] = row["session_time"] or next(
            (turn["time"] for turn in row["turns"] if turn["time"]), None
        )
    assert [found[2] for found in read_file(file, "messages", None)] == rows


NESTED = {
    "messages": st.fixed_dictionaries({"role": JSON, "content": JSON, "time": JSON, "name": JSON}),
    "sharegpt": st.fixed_dictionaries({"from": JSON, "value": JSON}),
    "chatgpt-export": st.dictionaries(
        st.sampled_from("ab"),
        st.fixed_dictionaries(
            {
                "parent": st.sampled_from([None, "a", "b", "c"]) | JSON,
                "message": st.fixed_dictionaries(
                    {"author": JSON | st.just({"role": "user"}), "content": JSON | st.just({"parts": ["x"]})}
                )
                | JSON,
            }
        ),
    ),
    "longmemeval": st.fixed_dictionaries({"role": JSON, "content": JSON}),
    "locomo": st.fixed_dictionaries(
        {
            "speaker_a": st.just("A"),
            "speaker_b": st.just("B"),
            "session_1_date_time": JSON,
            "session_1": JSON
            | st.lists(st.fixed_dictionaries({"speaker": st.just("A"), "text": JSON, "blip_caption": JSON})),
        }
    ),
    "beam": st.lists(st.fixed_dictionaries({"role": JSON, "content": JSON, "time_anchor": JSON})),
    "realtalk": st.fixed_dictionaries(
        {"speaker_1": JSON, "speaker_2": JSON, "clean_text": JSON, "blip_caption": JSON, "date_time": JSON}
    ),
}


@given(data=st.data(), format=st.sampled_from(sorted(FIELDS)))
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_json_gives_good_rows_or_rejections(tmp_path, data, format):
    value = JSON | NESTED[format] | st.lists(NESTED[format], min_size=1, max_size=2)
    item = {name: data.draw(value, label=name) for name in FIELDS[format]}
    rows, rejections = read(tmp_path, format, [item], user_id="me")
    assert all(check_session(row) == row for row in rows)
    assert all(rejection.reason and len(rejection.raw) <= 2000 for rejection in rejections)


@pytest.mark.parametrize("format", sorted(FIELDS))
def test_deep_nesting_costs_one_item(tmp_path, format):
    """Values that json just about parses must not break what shows or hashes them later."""
    path = tmp_path / "input.jsonl"
    lines = []
    for depth in (500, 900, 950, 960, 970, 980, 990, 5000, 200_000):
        deep = "[" * depth + "]" * depth
        lines += [f'{{"{name}": {deep}}}' for name in FIELDS[format]]
    path.write_text("\n".join(lines))
    (file,) = find_files([str(path)], format)
    rejections = list(read_file(file, format, "me"))
    assert len(rejections) == len(lines)
    assert all(isinstance(rejection, Rejection) for rejection in rejections)


# --- sharegpt ---------------------------------------------------------------------------------------


def test_sharegpt(tmp_path):
    turns = [
        {"from": "system", "value": "Be kind."},
        {"from": "human", "value": "Hello"},
        {"from": "gpt", "value": "Hi"},
        {"from": "observation", "value": "42"},
    ]
    rows, rejections = read(tmp_path, "sharegpt", [{"id": "c1", "conversations": turns}], user_id="me")
    assert not rejections
    assert (rows[0]["user_id"], rows[0]["session_id"]) == ("me", "c1")
    assert said(rows[0]) == [("system", "Be kind."), ("user", "Hello"), ("assistant", "Hi"), ("tool", "42")]


def test_sharegpt_without_id_is_named_after_its_content(tmp_path):
    turns = [{"from": "human", "value": "Hello"}]
    other = [{"from": "human", "value": "Bye"}]
    items = [{"conversations": turns}, {"conversations": other}, {"conversations": turns}]
    rows, _ = read(tmp_path, "sharegpt", items, user_id="me")
    names = [row["session_id"] for row in rows]
    assert names[0] == names[2] != names[1]


def test_sharegpt_unknown_speaker_is_rejected(tmp_path):
    items = [{"id": 1, "conversations": [{"from": "narrator", "value": "Once"}]}]
    rows, (rejection,) = read(tmp_path, "sharegpt", items, user_id="me")
    assert not rows
    assert "role='narrator'" in rejection.reason


# --- chatgpt-export ---------------------------------------------------------------------------------


def test_chatgpt_reads_the_branch_that_was_seen(tmp_path):
    mapping = {
        "root": node(None),
        "sys": node("root", "system", ""),
        "hidden": node("sys", "user", "profile", metadata={"is_visually_hidden_from_conversation": True}),
        "q1": node("hidden", "user", "Tea?", create_time=1714554001.25),
        "old": node("q1", "assistant", "Coffee."),
        "new": node("q1", "assistant", "Green tea.", create_time=1714554002),
    }
    (row,), rejections = read(tmp_path, "chatgpt-export", [conversation(mapping, "new")], user_id="me")
    assert not rejections
    assert (row["user_id"], row["session_id"], row["conversation_id"]) == ("me", "c1", "c1")
    assert row["session_time"] == utc(2024, 5, 1, 9, 0, 0, 500_000)
    assert said(row) == [("user", "Tea?"), ("assistant", "Green tea.")]
    assert row["turns"][0]["time"] == utc(2024, 5, 1, 9, 0, 1, 250_000)


def test_chatgpt_content_types(tmp_path):
    image = {"content_type": "image_asset_pointer", "asset_pointer": "file-service://x"}
    mapping = {
        "a": node(None, "user", {"content_type": "multimodal_text", "parts": [image, "What is it?"]}),
        "b": node("a", "assistant", {"content_type": "thoughts", "thoughts": [{"content": "Hm"}]}),
        "c": node("b", "assistant", {"content_type": "code", "text": "look()"}),
        "d": node(
            "c",
            "tool",
            {"content_type": "execution_output", "text": "a cat"},
            author={"role": "tool", "name": "py"},
        ),
        "e": node("d", "assistant", {"content_type": "novel_kind", "body": 1}),
        "f": node("e", "assistant", "A cat."),
    }
    (row,), _ = read(tmp_path, "chatgpt-export", [conversation(mapping, "f")], user_id="me")
    assert said(row) == [
        ("user", "[image]\nWhat is it?"),
        ("assistant", "look()"),
        ("tool", "a cat"),
        ("assistant", "[novel_kind]"),
        ("assistant", "A cat."),
    ]
    assert row["turns"][2]["speaker"] == "py"


def test_chatgpt_without_current_node_takes_the_newest_branch(tmp_path):
    chain = {"a": node(None, "user", "Hi"), "b": node("a", "assistant", "Hello", create_time=1714554009)}
    fork = chain | {"c": node("a", "assistant", "Hey", create_time=1714554002)}
    undated = {"a": node(None, "user", "Hi"), "b": node("a", "user", "x"), "c": node("a", "user", "y")}
    items = [conversation(mapping, None) for mapping in (chain, fork, undated)]
    items.append(conversation(fork, "gone"))
    rows, notes = read(tmp_path, "chatgpt-export", items, user_id="me")
    assert [said(row)[-1][1] for row in rows] == ["Hello", "Hello", "y", "Hello"]
    assert {(note.kind, note.noted) for note in notes} == {(NOTE, "odd_tree")}
    assert [note.line_or_item for note in notes] == [2, 3, 4]
    assert "current_node='gone': names none of 2 branches; the newest is taken" in notes[-1].reason


@pytest.mark.parametrize(
    ("mapping", "texts", "noted"),
    [
        ({"b": node("a", "user", "x"), "a": node("b", "user", "y")}, ["x", "y"], "its own ancestor"),
        ({"a": node("a", "user", "x")}, ["x"], "its own ancestor"),
        ({"a": node("gone", "user", "x")}, ["x"], "'gone' is no node"),
        ({"a": node(["b"], "user", "x")}, ["x"], "list is no node"),
        ({"b": node(None, "user", "x")}, ["x"], "current_node='a': names none"),
        ({"b": node(None, "user", "x"), "a": None}, ["x"], "current_node='a': names none"),
        ({"b": {"parent": None, "message": "hi"}, "a": node("b", "user", "x")}, ["x"], "is no object"),
        ({"a": node(None, "user", ["x"])}, ["x"], ""),
        ({"a": node(None, "user", {"parts": "x"})}, ["x"], ""),
        ({"a": node(None, "user", {"parts": [None, "x"]})}, ["x"], ""),
        ({"b": node(None, "user", "x", author=None), "a": node("b", "user", "y")}, ["x", "y"], "role=None"),
        ({"a": node(None, "user", "x", create_time="soon")}, ["x"], "create_time='soon'"),
    ],
)
def test_chatgpt_reads_what_a_damaged_tree_still_has(tmp_path, mapping, texts, noted):
    (row,), notes = read(tmp_path, "chatgpt-export", [conversation(mapping, "a")], user_id="me")
    assert [turn["content"] for turn in row["turns"]] == texts
    assert len(notes) == bool(noted)
    assert noted in "".join(note.reason for note in notes)


@pytest.mark.parametrize(
    "item",
    [
        conversation({"a": node(None)}, "a"),
        conversation({"a": node(None, "system", "")}, "a"),
        conversation({}, None),
        conversation(None, None),
        {"conversation_id": "c1", "id": "c1", "title": None, "create_time": 1714554000.5},
    ],
)
def test_chatgpt_shells_and_empty_chats_are_left_out_and_are_no_rejections(tmp_path, item):
    rows, (note,) = read(tmp_path, "chatgpt-export", [item], user_id="me")
    assert not rows
    assert (note.kind, note.noted) == (NOTE, "empty_chat")


def test_chatgpt_recordings_beside_their_own_words_are_not_named(tmp_path):
    parts = [
        {"content_type": "audio_transcription", "text": "I live in Porto.", "direction": "in"},
        {"content_type": "real_time_user_audio_video_asset_pointer", "audio_asset_pointer": {}},
    ]
    mapping = {"a": node(None, "user", {"content_type": "multimodal_text", "parts": parts})}
    (row,), _ = read(tmp_path, "chatgpt-export", [conversation(mapping, "a")], user_id="me")
    assert said(row) == [("user", "I live in Porto.")]


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"a": None}, "none of its 1 nodes is an object"),
        ({"a": {"parent": None, "message": "hi"}}, "is no object"),
        ({"a": node(None, "alien", "x")}, "role='alien'"),
        ([], "mapping: must be an object"),
        ("x", "mapping: must be an object"),
    ],
)
def test_chatgpt_conversations_without_anything_usable_are_rejected(tmp_path, mapping, message):
    good = conversation({"a": node(None, "user", "Hi")}, "a", conversation_id="good")
    items = [conversation(mapping, "a"), good]
    (row,), (rejection,) = read(tmp_path, "chatgpt-export", items, user_id="me")
    assert row["session_id"] == "good"
    assert message in rejection.reason


# --- longmemeval ------------------------------------------------------------------------------------


def test_longmemeval_sorts_sessions_by_date(tmp_path):
    rows, rejections = read(tmp_path, "longmemeval", [question()])
    assert not rejections
    assert [(row["user_id"], row["session_id"], row["session_time"]) for row in rows] == [
        ("q1", "early", utc(2023, 5, 19, 23, 59)),
        ("q1", "late", utc(2023, 5, 20, 2, 21)),
    ]
    assert said(rows[1]) == [("user", "Green tea!")]


def test_longmemeval_repeated_session_ids_get_a_suffix_by_date(tmp_path):
    changes = {
        "haystack_session_ids": ["s", "s#2", "s", "s"],
        "haystack_dates": [f"2023/05/{day} 10:00" for day in (23, 22, 21, 20)],
        "haystack_sessions": [[{"role": "user", "content": str(day)}] for day in (23, 22, 21, 20)],
    }
    rows, _ = read(tmp_path, "longmemeval", [question(**changes)])
    names = [(row["session_id"], row["turns"][0]["content"]) for row in rows]
    assert names == [("s", "20"), ("s#3", "21"), ("s#2", "22"), ("s#4", "23")]


def test_longmemeval_bad_sessions_cost_themselves_only(tmp_path):
    changes = {
        "haystack_session_ids": ["good", "turns", "undated", None, "good", "empty"],
        "haystack_dates": ["2023/05/20 (Sat) 02:21"] * 6,
        "haystack_sessions": [[{"role": "user", "content": "x"}]] * 6,
    }
    changes["haystack_dates"][2] = "2023/13/20 (Sat) 02:21"
    changes["haystack_sessions"] = [*changes["haystack_sessions"]]
    changes["haystack_sessions"][1] = "not turns"
    changes["haystack_sessions"][5] = []
    rows, rejections = read(tmp_path, "longmemeval", [question(**changes)])
    assert [row["session_id"] for row in rows] == ["good", "good#2", "undated"]
    reasons = " | ".join(rejection.reason for rejection in rejections)
    assert len(rejections) == 4
    for part in (
        "turns='not turns'",
        "haystack_dates='2023/13/20 (Sat) 02:21': not a time that can be read",
        "session_id=None",
        "empty chat",
    ):
        assert part in reasons
    assert '"session_id": "turns"' in rejections[0].raw


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"haystack_dates": ["2023/05/20 (Sat) 02:21"]}, "have [2, 1, 2] entries"),
        ({"haystack_sessions": None}, "haystack_sessions: must be a list, not NoneType"),
        ({"haystack_session_ids": "s"}, "haystack_session_ids: must be a list, not str"),
    ],
)
def test_longmemeval_bad_questions_are_rejected_whole(tmp_path, changes, message):
    rows, (rejection,) = read(tmp_path, "longmemeval", [question(**changes), question()])
    assert len(rows) == 2
    assert message in rejection.reason


# --- locomo -----------------------------------------------------------------------------------------


def test_locomo(tmp_path):
    rows, rejections = read(tmp_path, "locomo", [sample()])
    assert not rejections
    assert [(row["user_id"], row["session_id"], row["session_time"]) for row in rows] == [
        ("conv-1", "session_2", utc(2023, 5, 8, 13, 56)),
        ("conv-1", "session_10", utc(2024, 1, 2, 0, 5)),
    ]
    assert said(rows[0]) == [
        ("user", "Look, my garden."),
        ("user", "Lovely! [image: a photo of roses]"),
        ("user", "[image: a photo of a gate]"),
    ]
    assert [turn["speaker"] for turn in rows[0]["turns"]] == ["Ana", "Ben", "Ana"]


@pytest.mark.parametrize(
    ("changes", "message", "num_rows"),
    [
        ({"session_2": [{"speaker": "Eve", "text": "Hi"}]}, "turns[0].role=None", 1),
        ({"session_2": "Hi"}, "turns='Hi'", 1),
        ({"session_2": [{"speaker": "Ana", "text": 5}]}, "turns[0].content=5", 1),
        ({"speaker_b": "Ana"}, "must not be the name of speaker_b too", 0),
        ({"speaker_a": None}, "conversation.speaker_a: must be a name", 0),
    ],
)
def test_locomo_bad_parts(tmp_path, changes, message, num_rows):
    rows, (rejection,) = read(tmp_path, "locomo", [sample(**changes)])
    assert len(rows) == num_rows
    assert message in rejection.reason


# --- BEAM and REALTALK ------------------------------------------------------------------------------


def test_a_batch_of_beam_is_a_session_without_the_marks_of_its_plan(tmp_path):
    turns = [
        {
            "role": "user",
            "id": 0,
            "content": "Hi, I use Flask -> gunicorn ->-> 1,1",
            "time_anchor": "May-03-2024",
        },
        {"role": "assistant", "id": 1, "content": "Good."},
    ]
    bare = {"role": "user", "id": 2, "content": " ->-> 1,2"}
    item = {"batch_number": 2, "turns": [turns, [bare]]}
    (row,), rejections = read(tmp_path, "beam", [item], user_id="me")
    assert said(row) == [("user", "Hi, I use Flask -> gunicorn"), ("assistant", "Good.")]
    assert (row["user_id"], row["session_id"], row["session_time"]) == ("me", "batch_2", utc(2024, 5, 3))
    assert [rejection.noted for rejection in rejections] == ["empty_turn"]


def test_both_people_of_a_realtalk_chat_speak_as_users_by_name(tmp_path):
    item = {
        "name": {"speaker_1": "Ann", "speaker_2": "Bob"},
        "session_10": [{"speaker": "Bob", "clean_text": "Bye", "date_time": "01.03.2024, 09:10:11"}],
        "session_10_date_time": "01.03.2024, 09:10:11",
        "session_2": [
            {"speaker": "Ann", "clean_text": "Hi"},
            {"speaker": "Bob", "clean_text": "Look", "blip_caption": "a boat"},
        ],
        "session_2_date_time": "29.02.2024, 22:00:00",
    }
    rows, rejections = read(tmp_path, "realtalk", [item])
    assert not rejections
    assert [(row["user_id"], row["session_id"], row["session_time"]) for row in rows] == [
        ("Ann-Bob", "session_2", utc(2024, 2, 29, 22)),
        ("Ann-Bob", "session_10", utc(2024, 3, 1, 9, 10, 11)),
    ]
    assert said(rows[0]) == [("user", "Hi"), ("user", "Look [image: a boat]")]
    assert [turn["speaker"] for turn in rows[0]["turns"]] == ["Ann", "Bob"]
    assert rows[1]["turns"][0]["time"] == utc(2024, 3, 1, 9, 10, 11)
