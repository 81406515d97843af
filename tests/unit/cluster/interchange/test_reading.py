"""What is read of files that other systems have written, and how a format is told from others."""

import json
import sqlite3
import zipfile
from dataclasses import replace

import pytest

from cluster.interchange import formats
from cluster.interchange.files import BadRow
from cluster.interchange.formats import READERS, WRITERS, recognised
from cluster.interchange.langgraph import TABLES
from cluster.runtime import entry_points
from schemas.exchange import BadMemory, Memory
from tests.adding import install
from tests.unit.cluster.interchange.memories import Listed

TEA = Memory("ann", "User likes tea.", record_id="0" * 32, memory_type="preference")


def read(name, path, user_id="ann"):
    return list(READERS[name](path, user_id))


def texts(name, path, user_id="ann"):
    return [one.reason if isinstance(one, BadRow) else one.semantic_text for one in read(name, path, user_id)]


def file(tmp_path, name, content):
    (path := tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


# --- types of memories ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "kind"), [("jsonl", "recipe"), ("mem0", "recipe"), ("lychee", "fact")])
def test_a_type_of_one_s_own_goes_out_and_comes_back_or_is_a_fact_where_the_receiver_has_types(
    tmp_path, name, kind
):
    WRITERS[name].write(tmp_path, Listed([replace(TEA, memory_type="recipe")]))
    assert [memory.memory_type for memory in read(name, tmp_path)] == [kind]


def test_what_is_no_name_of_a_type_is_a_fact_and_categories_of_others_are_no_types(tmp_path):
    rows = [{"semantic_text": "tea", "memory_type": kind} for kind in ("Recipes for tea", None, 7)]
    lines = file(tmp_path, "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    assert [memory.memory_type for memory in read("jsonl", lines)] == ["fact"] * 3
    points = [{"memory": "tea", "category": kind} for kind in ("drinks", "preference")]
    lines = file(tmp_path, "points.jsonl", "".join(json.dumps(point) + "\n" for point in points))
    found = read("lightmem", lines)
    assert [memory.memory_type for memory in found] == ["fact", "preference"]


# --- Markdown -------------------------------------------------------------------------------------------


def test_an_item_goes_on_in_indented_lines_and_in_lines_that_were_wrapped(tmp_path):
    path = file(
        tmp_path,
        "notes.md",
        "- likes tea\n  with milk\n- lives\nin Oslo\n"
        "- has worked as a nurse at the big hospital by the long river in\nLyon since May.\n"
        "* short\nNo item.\n\nNor this.\n",
    )
    assert texts("markdown", path) == [
        "likes tea with milk",
        "lives in Oslo",
        "has worked as a nurse at the big hospital by the long river in Lyon since May.",
        "short",
    ]


def test_a_bold_line_is_a_heading_and_names_a_kind(tmp_path):
    [memory] = read("markdown", file(tmp_path, "notes.md", "**Preferences:**\n- tea\n"))
    assert (memory.semantic_text, memory.memory_type) == ("tea", "preference")


# --- Letta ----------------------------------------------------------------------------------------------

AGENT_FILE = {
    "agents": [
        {"id": "agent-0", "name": "a", "block_ids": ["block-0", "block-1"], "messages": [{"role": "user"}]}
    ],
    "groups": [],
    "blocks": [
        {"id": "block-0", "label": "persona", "value": "I am a helpful assistant.", "limit": 5000},
        {
            "id": "block-1",
            "label": "human",
            "value": "Name: Ann\nLives in Oslo.\n\n- likes tea",
            "limit": 5000,
        },
        {"id": "block-3", "label": "system/persona", "value": "I am kind.", "limit": 5000},
        {
            "id": "block-2",
            "label": "reference/preferences",
            "value": "Never call before nine.",
            "limit": 5000,
        },
    ],
    **{name: [] for name in ("files", "sources", "tools", "mcp_servers", "skills")},
}


def test_the_blocks_of_an_agent_file_come_in_and_its_persona_does_not(tmp_path):
    path = file(tmp_path, "agent.af", AGENT_FILE)
    assert recognised(path) == "letta"
    found = read("letta", path)
    assert [(one.semantic_text, one.memory_type) for one in found] == [
        ("Name: Ann", "fact"),
        ("Lives in Oslo.", "fact"),
        ("likes tea", "fact"),
        ("Never call before nine.", "preference"),
    ]


def test_an_agent_file_of_an_earlier_release_has_its_blocks_in_core_memory(tmp_path):
    block = {"label": "human", "value": "Ann lives in Oslo."}
    path = file(tmp_path, "old.af", {"agent_type": "memgpt_agent", "core_memory": [block], "messages": []})
    assert texts("letta", path) == ["Ann lives in Oslo."]


def test_a_memfs_folder_comes_in_without_persona_skills_and_front_matter(tmp_path):
    front = "---\ndescription: About her\nread_only: false\n---\n"
    folder = tmp_path / "memory"
    file(folder, "system/human.md", front + "Ann is a nurse.\n")
    file(folder, "system/persona.md", front + "I am kind.\n")
    file(folder, "reference/trips/events.md", "- [2025-05-03] went to Rome\n")
    file(folder, "skills/code/SKILL.md", "- writes code\n")
    file(folder, ".git/notes.md", "- no memory\n")
    assert recognised(folder) == "letta"
    found = read("letta", folder)
    assert [(one.semantic_text, one.memory_type) for one in found] == [
        ("went to Rome", "event"),
        ("Ann is a nurse.", "fact"),
    ]


# --- LangGraph ------------------------------------------------------------------------------------------


def store(path, *rows):
    with sqlite3.connect(path) as database:
        for statement in TABLES:
            database.execute(statement)
        names = "prefix, key, value, created_at, expires_at"
        database.executemany(f"INSERT INTO store ({names}) VALUES (?, ?, ?, '2026-01-02 03:04:05', ?)", rows)
    return path


def test_what_langmem_s_manager_and_tool_have_written_is_read_with_its_namespace_as_user(tmp_path):
    manager = {"kind": "Memory", "content": {"content": "Bob is a pilot."}}
    path = store(
        tmp_path / "any.sqlite",
        ("memories.bob", "1", json.dumps(manager), None),
        ("carl.memories", "2", json.dumps({"content": "Carl has a dog."}), None),
        ("memories", "3", json.dumps({"data": "Likes tea."}), None),
        ("carl.memories", "4", json.dumps({"seen": 3}), None),
        ("carl.memories", "5", "[", None),
        ("carl.memories", "6", json.dumps({"content": "It rains."}), "2026-01-03 00:00:00"),
    )
    assert recognised(path) == "langgraph"
    bob, carl, ann, *bad, rains = read("langgraph", path)
    assert [(one.user_id, one.semantic_text) for one in (bob, carl, ann)] == [
        ("bob", "Bob is a pilot."),
        ("carl", "Carl has a dog."),
        ("ann", "Likes tea."),
    ]
    assert str(bob.session_time) == "2026-01-02 03:04:05+00:00"
    assert [one.reason.partition(":")[0] for one in bad] == ["semantic_text", "value"]
    assert rains.change == "closed"


def test_a_namespace_of_several_labels_names_nobody(tmp_path):
    path = store(tmp_path / "s.db", ("app.memories.bob", "1", json.dumps({"content": "Bob flies."}), None))
    [bad] = read("langgraph", path, None)
    assert "give --user-id" in bad.reason
    assert texts("langgraph", path) == ["Bob flies."]


# --- Hindsight ------------------------------------------------------------------------------------------


def archive(path, members):
    with zipfile.ZipFile(path, "w") as whole:
        for name, content in members.items():
            whole.writestr(name, content if isinstance(content, str) else json.dumps(content))
    return path


MANIFEST = {"schema_version": 1, "source_bank_id": "bob", "document_count": 1, "archive_type": "documents"}


def test_facts_of_a_bank_are_read_with_its_id_as_user_and_its_observations_are_not(tmp_path):
    fact = {
        "text": "Bob moved to Rome.",
        "fact_type": "world",
        "occurred_start": "2025-05-01T00:00:00Z",
        "mentioned_at": "2025-05-03T10:00:00Z",
        "metadata": {"source": "mail"},
        "tags": ["home"],
        "entities": ["Rome"],
    }
    document = {"id": "mail-1", "original_text": "...", "facts": [fact, {"text": ""}, "no fact"]}
    members = {"manifest.json": MANIFEST, "documents/000000.json": document, "documents/000001.json": "["}
    path = archive(tmp_path / "bank.zip", members | {"observations.json": [{"text": "Bob moves a lot."}]})
    assert recognised(path) == "hindsight"
    rome, *bad = read("hindsight", path)
    assert (rome.user_id, rome.semantic_text, rome.session_id) == ("bob", "Bob moved to Rome.", "mail-1")
    assert (rome.t_valid_from, rome.tags, rome.entities) == ("2025-05-01", ("home",), ("Rome",))
    assert str(rome.session_time) == "2025-05-03 10:00:00+00:00"
    assert [one.place for one in bad] == [
        "bank.zip/documents/000000.json: fact 2",
        "bank.zip/documents/000000.json: fact 3",
        "bank.zip/documents/000001.json",
    ]


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"a.txt": "a"}, "has no manifest.json"),
        ({"manifest.json": {"schema_version": 2, "source_bank_id": "b"}}, "schema_version=2"),
        ({"manifest.json": {"version": 3}}, "names no bank"),
    ],
)
def test_a_zip_that_is_no_transfer_archive_of_this_version_is_refused(tmp_path, members, reason):
    with pytest.raises(BadMemory, match=reason):
        read("hindsight", archive(tmp_path / "any.zip", members))


# --- Claude and ChatGPT ---------------------------------------------------------------------------------

SAVED = [
    {
        "conversations_memory": "**Work context**\n\nAnn is a nurse. She works nights.\n\n"
        "**Top of mind**\n\nA move.",
        "project_memories": {"p-1": "Ann writes a cookbook."},
        "account_uuid": "u-1",
    }
]
SAID = ["Ann is a nurse. She works nights.", "A move.", "Ann writes a cookbook."]


def test_what_claude_has_saved_is_read_by_paragraphs_with_the_heading_as_tag(tmp_path):
    path = file(tmp_path, "memories.json", SAVED)
    assert recognised(path) == recognised(tmp_path) == "claude"
    assert texts("claude", path) == texts("claude", tmp_path) == SAID
    assert [one.tags for one in read("claude", path)] == [("Work context",), ("Top of mind",), ()]


def test_what_claude_has_saved_is_read_of_the_zip_that_it_sends(tmp_path):
    members = {"conversations.json": [], "users.json": [], "memories/u-1.json": SAVED[0]}
    path = archive(tmp_path / "data.zip", members)
    assert recognised(path) == "claude"
    assert texts("claude", path) == SAID


def test_an_export_of_claude_without_memories_is_refused(tmp_path):
    with pytest.raises(BadMemory, match=r"has no memories\.json"):
        read("claude", archive(tmp_path / "data.zip", {"conversations.json": []}))


def test_what_chatgpt_s_page_of_memories_gets_is_read(tmp_path):
    item = {"id": "m-1", "content": "Ann likes tea.", "updated_at": "2025-05-03T10:00:00Z", "status": "warm"}
    path = file(tmp_path, "saved.json", {"memories": [item], "memory_max_tokens": 9, "memory_num_tokens": 4})
    assert recognised(path) == "chatgpt"
    [memory] = read("chatgpt", path)
    assert (memory.semantic_text, str(memory.session_time)) == ("Ann likes tea.", "2025-05-03 10:00:00+00:00")


@pytest.mark.parametrize("name", ["chatgpt", "claude"])
def test_a_copied_text_is_read_a_memory_a_paragraph_with_the_days_in_front(tmp_path, name):
    path = file(
        tmp_path,
        "saved.txt",
        "```\n[2025-05-03] - Ann lives in Oslo.\n[unknown] - Ann likes tea.\n```\n"
        "1. [2024-01-02]. Ann has a cat.\n2. [2024-01-03] - Ann runs.\nAnn is a nurse.\n",
    )
    days = {one.semantic_text: one.session_time and str(one.session_time.date()) for one in read(name, path)}
    assert days == {
        "Ann lives in Oslo.": "2025-05-03",
        "Ann likes tea.": None,
        "Ann has a cat.": "2024-01-02",
        "Ann runs.": "2024-01-03",
        "Ann is a nurse.": None,
    }


# --- which format it is ---------------------------------------------------------------------------------


PAYLOADS = [
    {
        "data": "Likes tea",
        "hash": "h",
        "created_at": "2025-07-01T09:00:00+00:00",
        "user_id": "ann",
        "topic": "x",
    },
    # As mem0 keeps what jobs.export gave it: our fields among its own.
    {"data": "Has a cat", "user_id": "ann", "created_at": "2025-07-02T00:00:00+00:00"}
    | {"record_id": "0" * 31 + "7", "session_time": "2025-07-02T00:00:00+00:00", "memory_type": "event"},
]
POINTS = [{"id": str(number), "payload": payload, "vector": None} for number, payload in enumerate(PAYLOADS)]


@pytest.mark.parametrize("content", [POINTS, {"result": {"points": POINTS, "next_page_offset": None}}])
def test_points_of_mem0_s_collection_are_read_with_what_their_payload_holds(tmp_path, content):
    tea, cat = read("mem0", file(tmp_path, "scroll.json", content), None)
    assert (tea.semantic_text, tea.user_id, f"{tea.session_time:%Y-%m-%d}") == (
        "Likes tea",
        "ann",
        "2025-07-01",
    )
    assert (cat.semantic_text, cat.record_id, cat.memory_type) == ("Has a cat", "0" * 31 + "7", "event")


@pytest.mark.parametrize("name", [name for name in WRITERS if name in READERS])
def test_what_an_export_has_written_is_recognised(tmp_path, name):
    (folder := tmp_path / "out").mkdir()
    WRITERS[name].write(folder, Listed([TEA]))
    (folder / "_slowwave" / "runs").mkdir(parents=True)
    assert recognised(folder) == name
    assert texts(name, folder, None) == ["User likes tea."]


@pytest.mark.parametrize(
    ("name", "content", "format"),
    [
        ("a.json", [{"memory": "Tea.", "user_id": "ann"}], "mem0"),
        ("a.json", {"results": [{"id": "1", "memory": "Tea."}]}, "mem0"),
        ("a.json", {"result": {"points": [{"id": "1", "payload": {"data": "Tea."}}]}}, "mem0"),
        ("a.jsonl", {"user_id": "ann", "text": "Tea."}, "jsonl"),
        ("a.jsonl", {"id": "1", "payload": {"memory": "Tea."}}, "lightmem"),
        ("a.md", "- tea", "markdown"),
    ],
)
def test_a_file_of_another_system_is_recognised(tmp_path, name, content, format):
    assert recognised(file(tmp_path, name, content)) == format


@pytest.mark.parametrize(("name", "content"), [("a.txt", "I like tea."), ("a.json", [{"mapping": {}}])])
def test_a_file_of_no_known_format_is_refused(tmp_path, name, content):
    with pytest.raises(BadMemory, match=r"a\.\w+: is in none of jsonl, .* name its format with --from"):
        recognised(file(tmp_path, name, content))


def test_an_input_that_may_be_in_two_formats_is_refused(tmp_path):
    file(tmp_path, "memories.jsonl", {"text": "Tea."})
    file(tmp_path, "notes.md", "- tea")
    with pytest.raises(BadMemory, match="may be in jsonl or markdown"):
        recognised(tmp_path)


def test_every_format_that_is_read_can_be_recognised():
    assert formats.recognise.RULES.keys() == formats._READERS.keys()


DIARY = """
from cluster.interchange.formats import ExchangeFormat

def read(path, user_id):
    return iter(())

FORMAT = ExchangeFormat(read=read, recognises=lambda path: path.suffix == ".diary")
"""


def test_a_format_of_another_distribution_is_recognised_by_its_own_rule(tmp_path, monkeypatch):
    groups = {entry_points.EXCHANGE_FORMATS: {"diary": "my_diary:FORMAT"}}
    monkeypatch.syspath_prepend(install(tmp_path / "site", groups, {"my_diary.py": DIARY}))
    entry_points._entries.cache_clear()
    try:
        assert recognised(file(tmp_path, "a.diary", "Dear diary")) == "diary"
        assert recognised(file(tmp_path, "a.md", "- tea")) == "markdown"
    finally:
        entry_points._entries.cache_clear()
