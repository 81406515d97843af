"""Each export is read back by the receiver's own code, in an environment of its own."""

import hashlib
import json
import os
import subprocess
from pathlib import Path

import pytest

from cluster.interchange import cogx, lychee, mem0
from cluster.interchange.formats import READERS, WRITERS
from schemas.exchange import known_fields, shown_time
from tests.interchange.environments import ENVIRONMENTS, python_of
from tests.interchange.sent import CHANGED, MEMORIES, OSLO, PARTY, SAID, TEA, VECTORS, WRITTEN, Sent

pytestmark = pytest.mark.interchange

SCRIPTS = Path(__file__).parent / "receivers"

CLONE = "SLOWWAVE_LIGHTMEM"
"""Environment variable that names a clone of LightMem."""


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    """Receiver -> (its process, folder of what it was sent), side by side; those that have an environment."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    found = {}
    for name in ENVIRONMENTS:
        if not python_of(name).exists() or (name == "lightmem" and not os.environ.get(CLONE)):
            continue
        folder = tmp_path_factory.mktemp(name)
        WRITERS[name].write(folder, Sent())
        (folder / "vectors.json").write_text(json.dumps(VECTORS), "utf-8")
        command = [str(python_of(name)), str(SCRIPTS / f"read_{name}.py"), str(folder)]
        with open(folder / "stdout", "w") as out, open(folder / "stderr", "w") as err:
            found[name] = (
                subprocess.Popen(command, cwd=folder, env=environment, stdout=out, stderr=err),
                folder,
            )
    yield found
    for process, _ in found.values():
        process.kill()
        process.wait()


@pytest.fixture
def received(started):
    """What a receiver found in an export of MEMORIES."""

    def read(name):
        if name not in started:
            clone = (
                f", and of a clone in {CLONE}, since its package has no store" if name == "lightmem" else ""
            )
            pytest.skip(f"needs the environment of {name}, which `make test-interchange` makes{clone}")
        process, folder = started[name]
        assert process.wait(timeout=1800) == 0, (folder / "stderr").read_text()[-3000:]
        return json.loads((folder / "stdout").read_text().splitlines()[-1])

    return read


def test_mem0_lists_finds_and_changes_every_memory_and_knows_its_history(received):
    found = received("mem0")
    listed = {item["id"]: item for item in found["memories"]}
    assert listed == {
        mem0.identify(memory): {
            "id": mem0.identify(memory),
            "memory": memory.semantic_text,
            "hash": hashlib.md5(memory.semantic_text.encode()).hexdigest(),
            "created_at": memory.time.isoformat(),
            "updated_at": memory.updated_at.isoformat(),
            "user_id": memory.user_id,
            **({"role": memory.source_role} if memory.source_role in mem0.ROLES else {}),
            "metadata": known_fields(memory),
        }
        for memory in MEMORIES
    }
    assert found["first"] == mem0.identify(OSLO)
    events = found["history"][mem0.identify(OSLO)]
    assert [(event["event"], event["old_memory"], event["new_memory"]) for event in events] == [
        ("ADD", None, "User lives in Oslo."),
        ("UPDATE", "User lives in Oslo.", "User has lived in Oslo."),
    ]
    assert [event["updated_at"] for event in events] == [None, CHANGED.isoformat()]
    assert [event["event"] for event in found["history"][mem0.identify(TEA)]] == ["ADD"]
    assert found["last"] == "UPDATE"


def test_langgraph_lists_every_memory_and_langmem_s_manager_and_tool_find_them(received):
    found = received("langgraph")
    assert [(item["namespace"], item["key"]) for item in found["items"]] == [
        (["memories", "b%2Eo/b"], OSLO.record_id),
        (["memories", "me"], PARTY.record_id),
        (["memories", "me"], TEA.record_id),
    ]
    for item, memory in zip(found["items"], MEMORIES, strict=True):
        assert item["value"]["content"] == {"content": memory.semantic_text}
        assert known_fields(memory).items() <= item["value"]["metadata"].items()
        assert item["created_at"][:19].replace(" ", "T") == memory.created_at.isoformat()[:19]
    texts = {
        "b%2Eo/b": [OSLO.semantic_text],
        "me": [PARTY.semantic_text, TEA.semantic_text],
    }
    assert found["managed"] == texts
    assert {
        user: [item["value"]["content"]["content"] for item in items] for user, items in found["tool"].items()
    } == texts
    assert found["kept"]


def test_lycheemem_reads_every_record_and_finds_it_by_word_vector_day_and_tag(received):
    found = received("lychee")
    records = {record["record_id"]: record for user in found["users"] for record in user["records"]}
    assert records.keys() == set(map(lychee.identify, MEMORIES))
    for memory in MEMORIES:
        record = records[lychee.identify(memory)]
        assert (record["memory_type"], record["semantic_text"]) == (memory.memory_type, memory.semantic_text)
        assert (record["entities"], record["tags"]) == (list(memory.entities), list(memory.tags))
        assert record["temporal"]["t_valid_from"] == memory.t_valid_from
        assert (record["source_session"], record["source_role"]) == (
            memory.session_id or "",
            memory.source_role,
        )
        assert (record["created_at"], record["expired"]) == (memory.time.isoformat(), False)
    assert records[lychee.identify(OSLO)]["evidence_turn_range"] == [0, 2]
    by_user = {user["user"]: user for user in found["users"]}
    assert by_user.keys() == {"me", "b.o/b"}
    for user in by_user.values():
        for text, hits in user["found"].items():
            own = hashlib.sha256(text.encode()).hexdigest()
            assert hits == {"by_word": [own], "by_vector": own, "by_second_vector": own}
        assert user["num_after"] == len(user["records"])
    assert by_user["me"]["by_day"] == [lychee.identify(PARTY)]
    assert by_user["b.o/b"]["by_tag"] == [lychee.identify(OSLO)]


def test_letta_s_memfs_has_a_block_with_a_description_for_each_kind(received, started):
    found = received("letta")["users"]
    assert {user: [block["label"] for block in blocks] for user, blocks in found.items()} == {
        "b.o%2Fb": ["reference/fact"],
        "me": ["reference/event", "reference/preference"],
    }
    event = found["me"][0]
    assert event["description"].startswith("What is remembered of the user, kind event")
    assert event["value"].strip() == f"- [2025-05-03] {PARTY.semantic_text}"
    # And an agent file with the blocks that it made of them is read.
    again = list(READERS["letta"](started["letta"][1] / "me.af", "me"))
    assert [(one.semantic_text, one.memory_type) for one in again] == [
        (PARTY.semantic_text, "event"),
        (TEA.semantic_text, "preference"),
    ]


def test_hindsight_takes_every_document_chunk_and_fact_and_knows_every_field(received):
    found = received("hindsight")["banks"]
    assert {bank: read["counts"] for bank, read in found.items()} == {"b.o/b": [1, 1], "me": [2, 2]}
    assert [read["unknown"] for read in found.values()] == [[], []]
    [document] = found["b.o/b"]["documents"]
    assert (document["id"], document["original_text"]) == ("s1", "user: We moved.\nuser: To Oslo!")
    assert [chunk["chunk_text"] for chunk in document["chunks"]] == ["user: We moved.", "user: To Oslo!"]
    [fact] = document["facts"]
    assert (fact["text"], fact["fact_type"], fact["chunk_index"]) == (OSLO.semantic_text, "world", 1)
    assert (fact["entities"], fact["tags"]) == (["Oslo", "User"], ["home", "city"])
    times = [fact[name] for name in ("occurred_start", "occurred_end", "mentioned_at", "created_at")]
    shown = [SAID.isoformat(), WRITTEN.isoformat()]
    assert times == ["2025-05-01T00:00:00Z", None, *(time.replace("+00:00", "Z") for time in shown)]
    undated = found["me"]["documents"][1]["facts"][0]
    assert (undated["text"], undated["mentioned_at"]) == (TEA.semantic_text, None)
    assert undated["event_date"] == WRITTEN.isoformat().replace("+00:00", "Z")


def test_cognee_reads_every_memory_of_an_archive_of_its_version(received):
    found = received("cogx")
    assert (found["manifest"]["cogx_version"], found["manifest"]["counts"]) == ("0.1", {"memory": 3})
    for record, memory in zip(found["records"], MEMORIES, strict=True):
        assert (record["kind"], record["external_id"]) == ("memory", cogx.identify(memory))
        assert (record["content"], record["categories"]) == (memory.semantic_text, [memory.memory_type])
        assert record["scope"]["user_id"] == memory.user_id
        assert record["created_at"] == shown_time(memory.time).replace("+00:00", "Z")
        assert record["metadata"] == known_fields(memory)


def test_lightmem_s_retriever_gives_back_every_point_and_finds_it_by_vector_and_time(received):
    found = received("lightmem")["users"]
    for user, memories in (("b.o%2Fb", [OSLO]), ("me", [PARTY, TEA])):
        points = {point["id"]: point for point in found[user]["points"]}
        assert points.keys() == set(map(mem0.identify, memories))
        for memory in memories:
            point = points[mem0.identify(memory)]
            assert point["payload"]["memory"] == memory.semantic_text
            assert known_fields(memory).items() <= point["payload"]["metadata"].items()
            assert point["vector"] == pytest.approx(VECTORS[memory.semantic_text], abs=1e-6)
        assert found[user]["first"] == mem0.identify(memories[0])
    assert found["me"]["until"] == [mem0.identify(PARTY)]
