import pytest

from cluster.models.resolve import resolve_embedder
from jobs.common.cli import JobError
from jobs.common.consolidation import check_embedder
from jobs.common.run import load_profile
from schemas.profiles.embedder import EmbedderProfile


def test_a_rewritten_text_gets_no_vector_of_another_model():
    profile = resolve_embedder(load_profile("embedders", "default", EmbedderProfile))
    check_embedder(profile)
    with pytest.raises(JobError, match=r"embedder 'default': the model .* is no longer the one that wrote"):
        check_embedder(profile.model_copy(update={"model_hash": "another"}))
