"""What a preview tells of a conversation; encoder and embedder are scripted, the rules decide."""

import datetime as dt
import hashlib
import json
import re

import numpy as np
import pytest

from cluster import preview as module
from cluster.backfill.encoder import Encoding
from cluster.preview import Changed, Kept, Preview, Refused
from cluster.store.store import Store
from schemas.profiles.encoder import EncoderProfile
from tests.unit.cluster.store.stores import commit, segment

PROFILE = EncoderProfile(
    name="scripted", base="none", base_hash="0" * 16, system_prompt="?", user_template="{previous}{current}"
)
ANSWERS = {
    "I live in Oslo.": ["User lives in Oslo."],
    "I moved to Bergen.": ["User lives in Bergen."],
    "My token is [redacted:api_key]": ["User has a token."],
}
TOKEN = "ghp_" + "a1B2" * 9


class ScriptedEncoder:
    def __init__(self, profile):
        self.profile = profile

    def encode(self, segments):
        return [self._encoding(segment) for segment in segments]

    def _encoding(self, segment):
        found = Encoding(num_calls=1, prompt_tokens=10, output_tokens=3)
        for part in segment["current"]:
            texts = ANSWERS.get(part["text"], [])
            found.records += [self._record(segment, text, part["turn_index"]) for text in texts]
            if not texts:
                raw = json.dumps({"semantic_text": f"User said {part['text']}"})
                found.refusals.append({"reason": "unsure", "turns": [part["turn_index"]], "raw": raw})
        return found

    def _record(self, segment, text, turn):
        return {
            "record_id": hashlib.sha256((segment["session_id"] + text).encode()).hexdigest()[:32],
            "memory_type": "fact",
            "semantic_text": text,
            "entities": [],
            "tags": [],
            "temporal": {"t_ref": "", "t_valid_from": "", "t_valid_to": ""},
            "evidence_turns": [turn],
            "confidence": 0.9,
        }


class ScriptedEmbedder:
    dim = 4

    def __init__(self, profile):
        pass

    def embed(self, texts):
        return np.full((len(texts), self.dim), 0.5, np.float32)


@pytest.fixture
def preview(monkeypatch):
    monkeypatch.setattr(module, "Encoder", ScriptedEncoder)
    monkeypatch.setattr(module, "Embedder", ScriptedEmbedder)
    offsets = lambda texts: [[m.span() for m in re.finditer(r"\S+", text)] for text in texts]  # noqa: E731
    monkeypatch.setattr(module, "segment_offsets", lambda profile: offsets)
    return Preview(PROFILE, None, "rules", min_similarity=0.5, top_k=10, max_sources=10, min_confidence=0.5)


def user(*texts):
    return [{"role": "user", "content": text} for text in texts]


def test_what_would_be_kept_and_what_was_refused_is_told_with_its_turns(preview):
    told = preview.tell(user("I live in Oslo.", "Thanks!"))
    assert told.kept == (Kept("User lives in Oslo.", "fact", (0,), 0.9),)
    assert told.refused == (Refused("User said Thanks!", "unsure", (1,)),)
    assert told.changed == ()
    assert told.prompt_tokens >= 10


def test_a_later_conversation_closes_what_an_earlier_one_left(preview):
    preview.tell(user("I live in Oslo."), dt.datetime(2026, 1, 1, tzinfo=dt.UTC))
    told = preview.tell(user("I moved to Bergen."), dt.datetime(2026, 2, 1, tzinfo=dt.UTC))
    assert told.changed == (Changed("delete", "User lives in Oslo.", ("User lives in Bergen.",)),)
    # It is closed: nothing is left to close.
    assert preview.tell(user("Thanks!")).changed == ()
    again = preview.tell(user("I moved to Bergen."), dt.datetime(2026, 3, 1, tzinfo=dt.UTC))
    assert [(one.action, one.text) for one in again.changed] == [("unite", "User lives in Bergen.")]


def test_a_secret_is_no_more_shown_to_the_model_than_by_a_backfill(preview):
    told = preview.tell(user(f"My token is {TOKEN}"))
    assert [kept.text for kept in told.kept] == ["User has a token."]
    assert TOKEN not in repr(told)


def test_memories_of_a_store_are_older_and_only_those_of_the_user(preview, tmp_path):
    store = Store(str(tmp_path / "store"), must_exist=False)
    ann = segment("oslo", "We live in Oslo", user="ann", session="s1", records=["User lives in Oslo."])
    bob = segment("rome", "We live in Rome", user="bob", session="s2", records=["User lives in Rome."])
    commit(store, "run1", ann, bob)
    assert preview.remember(store, "ann") == 1
    told = preview.tell(user("I moved to Bergen."))
    assert [(one.action, one.text) for one in told.changed] == [("delete", "User lives in Oslo.")]
    assert {row["user_id"] for row in preview._records} == {"ann"}
