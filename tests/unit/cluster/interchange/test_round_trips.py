"""Round trips: a format gives back what it can hold, whatever the memories are."""

import dataclasses
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.interchange.formats import READERS, WRITERS
from tests.unit.cluster.interchange.memories import MEMORIES, Listed


@pytest.mark.parametrize("name", ["jsonl", "parquet", "mem0", "cogx"])
def test_a_format_gives_back_every_field_of_every_memory(name):
    @settings(max_examples=25)
    @given(st.lists(MEMORIES, max_size=3))
    def holds(memories):
        with tempfile.TemporaryDirectory() as folder:
            WRITERS[name].write(Path(folder), Listed(memories))
            assert list(READERS[name](Path(folder), None)) == memories

    holds()


def by_user(memories):
    return sorted(memories, key=lambda one: one.user_id)


def test_lightmem_gives_back_every_field_of_every_memory():
    @settings(max_examples=25)
    @given(st.lists(MEMORIES, max_size=3).map(by_user))
    def holds(memories):
        with tempfile.TemporaryDirectory() as folder:
            WRITERS["lightmem"].write(Path(folder), Listed(memories))
            # A file a user, in the order of their names.
            found = by_user(READERS["lightmem"](Path(folder), None))
            assert found == memories

    holds()


@pytest.mark.parametrize("name", ["langgraph", "hindsight"])
def test_a_format_of_documents_or_keys_gives_back_every_field_of_every_memory(name):
    distinct = st.lists(MEMORIES, min_size=1, max_size=3, unique_by=lambda one: one.record_id)

    @settings(max_examples=25)
    @given(distinct.map(by_user))
    def holds(memories):
        with tempfile.TemporaryDirectory() as folder:
            WRITERS[name].write(Path(folder), Listed(memories))
            # A ZIP a user, and in it a document a session.
            found = sorted(READERS[name](Path(folder), None), key=lambda one: one.record_id)
            assert found == sorted(memories, key=lambda one: one.record_id)

    holds()


def test_lychee_gives_back_what_its_table_can_hold():
    @settings(max_examples=5)
    @given(st.lists(MEMORIES, max_size=3).map(by_user))
    def holds(memories):
        with tempfile.TemporaryDirectory() as folder:
            listed = Listed(memories)
            WRITERS["lychee"].write(Path(folder), listed)
            found = list(READERS["lychee"](Path(folder), None)) if memories else []
            # Of two equal texts of a user one is there.
            first = {(one.user_id, one.semantic_text): one for one in reversed(memories)}
            assert {(one.user_id, one.semantic_text): one for one in found} == {
                key: held_by_lychee(one) for key, one in first.items()
            }
            assert len(found) + listed.skipped["same_text"] == len(memories)

    holds()


def held_by_lychee(memory):
    own = [turn for session, turn in memory.evidence if session == memory.session_id]
    ends = dict.fromkeys((min(own), max(own))) if own else ()
    return dataclasses.replace(
        memory,
        record_id=None,
        evidence=tuple((memory.session_id, turn) for turn in ends),
        conversation_id=None,
        session_time=memory.time,
        created_at=None,
        revision=1,
        extra=(),
    )


@pytest.mark.parametrize("name", ["markdown", "letta"])
def test_a_format_of_markdown_gives_back_user_kind_text_and_day(name):
    @settings(max_examples=25)
    @given(st.lists(MEMORIES, min_size=1, max_size=3).map(by_user))
    def holds(memories):
        with tempfile.TemporaryDirectory() as folder:
            WRITERS[name].write(Path(folder), Listed(memories))
            found = list(READERS[name](Path(folder), None))
            assert sorted(map(told, found)) == sorted(map(told, memories))

    holds()


def told(memory):
    day = str(memory.session_time.date()) if memory.session_time else ""
    return memory.user_id, memory.memory_type, memory.semantic_text, day
