"""Round trips: a format gives back what it can hold, whatever the memories are."""

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


def test_markdown_gives_back_user_kind_text_and_day():
    @settings(max_examples=25)
    @given(st.lists(MEMORIES, max_size=3).map(lambda found: sorted(found, key=lambda one: one.user_id)))
    def holds(memories):
        with tempfile.TemporaryDirectory() as folder:
            WRITERS["markdown"].write(Path(folder), Listed(memories))
            found = list(READERS["markdown"](Path(folder), None))
            assert sorted(map(told, found)) == sorted(map(told, memories))

    holds()


def told(memory):
    day = str(memory.session_time.date()) if memory.session_time else ""
    return memory.user_id, memory.memory_type, memory.semantic_text, day
