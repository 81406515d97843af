"""Weights of bases and adapters, as small as they can be."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file


def save(folder: Path, name: str, shapes: dict[str, tuple[int, ...]]) -> Path:
    folder.mkdir(exist_ok=True)
    save_file({key: np.zeros(shape, np.float16) for key, shape in shapes.items()}, folder / name)
    return folder


def an_adapter(tmp_path: Path, config: dict | None = None, **shapes: tuple[tuple, tuple]) -> Path:
    """`q_proj=((rank, in), (out, rank))`."""
    tensors = {}
    for name, pair in (shapes or {"q_proj": ((2, 8), (8, 2)), "v_proj": ((2, 8), (4, 2))}).items():
        module = f"base_model.model.model.layers.0.self_attn.{name}"
        tensors |= {f"{module}.lora_A.weight": pair[0], f"{module}.lora_B.weight": pair[1]}
    folder = save(tmp_path / "adapter", "adapter_model.safetensors", tensors)
    config = config or {"peft_type": "LORA", "r": 2, "base_model_name_or_path": "owner/other"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder
