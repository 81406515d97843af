"""A base to fit adapters to, and a cache of models of the test's own."""

from pathlib import Path

import pytest

from tests.unit.cluster.models.adapters import save


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("SLOWWAVE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def base(tmp_path) -> Path:
    q_proj, v_proj = (f"model.layers.0.self_attn.{name}.weight" for name in ("q_proj", "v_proj"))
    save(tmp_path / "base", "model-00001-of-00002.safetensors", {q_proj: (8, 8)})
    return save(tmp_path / "base", "model-00002-of-00002.safetensors", {v_proj: (4, 8)})
