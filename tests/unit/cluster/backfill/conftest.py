"""What the tests of a backfill's stages share: staged files, planned batches, models that follow a script."""

import pytest

from cluster.backfill import cut_stage, embed_stage, encode_stage
from tests.unit.cluster.backfill.scripted import ScriptedEmbedder, ScriptedEncoder, cut, session, word_offsets


@pytest.fixture(autouse=True)
def tokenizer(monkeypatch):
    monkeypatch.setattr(cut_stage, "segment_offsets", lambda profile: word_offsets)


@pytest.fixture
def encoder(monkeypatch):
    scripted = ScriptedEncoder()
    monkeypatch.setattr(encode_stage, "Encoder", scripted.load)
    return scripted


@pytest.fixture
def embedder(monkeypatch):
    scripted = ScriptedEmbedder()
    monkeypatch.setattr(embed_stage, "Embedder", scripted.load)
    return scripted


@pytest.fixture
def batch(tmp_path, files):
    """A planned batch of four segments."""
    (result,) = cut(tmp_path, files, [session(0), session(1)], batch_size=4)
    return result.batches[0]


@pytest.fixture
def two(tmp_path, files):
    """Two planned batches of two segments."""
    (result,) = cut(tmp_path, files, [session(0), session(1)], batch_size=2)
    return result.batches
