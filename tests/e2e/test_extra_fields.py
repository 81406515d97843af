"""Extra fields of an encoder's profile: from the grammar of a real engine to what is shown and brought."""

import json

import pytest

from tests.e2e.archives import session, write_archive
from tests.e2e.conftest import ENCODER, ROOT, here, job, rows

pytestmark = pytest.mark.engine

FIELDS = """
[[extra_fields]]
name = "sphere"
description = "which part of life it is about"
choices = ["home", "work"]

[[extra_fields]]
name = "told_as"
description = "the word that matters most"
max_length = 24
"""

SAID = ("I live in Bergen with my sister Ada.", "Nice!", "I work as a nurse at the harbour.", "I see.")


def test_a_memory_keeps_the_fields_of_its_encoder_from_the_grammar_to_an_import(tmp_path):
    shipped = (ROOT / "cluster" / "profiles" / "encoders" / f"{ENCODER}.toml").read_text("utf-8")
    (profile := tmp_path / "mine.toml").write_text(shipped + FIELDS, "utf-8")
    archive = write_archive(tmp_path / "archive", "a.parquet", [session("ann", "s1", *SAID)])
    store, brought, out = (tmp_path / name for name in ("store", "brought", "out"))
    done = here("jobs.backfill", "--archive", archive, "--store", store, "--profile", profile)
    assert done.summary["stages"]["encode"]["num_values_left_out"] >= 0
    found = sorted(str(dict(row["extra"] or ())) for row in rows(store, "records"))
    values = [dict(row["extra"] or ()) for row in rows(store, "records")]
    assert any(values), done.summary
    for extra in values:
        assert extra.keys() <= {"sphere", "told_as"}
        assert extra.get("sphere", "home") in ("home", "work") and len(extra.get("told_as", "")) < 24
    asked = ("--store", store, "--user-id", "ann", "--text", "Where do I live?", "--kind", "record")
    hits = job("jobs.query", *asked, "--json").summary["hits"]
    assert sorted(str(hit["extra"]) for hit in hits) == found
    job("jobs.export", "--store", store, "--to", "jsonl", "--output", out)
    lines = (out / "memories.jsonl").read_text("utf-8").splitlines()
    assert sorted(str(json.loads(line).get("extra", {})) for line in lines) == found
    job("jobs.import", "--from", "jsonl", "--input", out, "--store", brought)
    assert sorted(str(dict(row["extra"] or ())) for row in rows(brought, "records")) == found
