"""What a folder with an evolvable model says of it, before any weight is loaded."""

import json
from pathlib import Path

from safetensors import safe_open

from cluster.models.sources import ModelError
from schemas.evolvable import EvolvableConfig

CONFIG_FILE = "evolvable.json"
PROJECTION = "mem_to_emb.2.weight"
"""The last one of a released checkpoint, whose shape tells the vectors' length."""


def read_config(folder: Path) -> EvolvableConfig:
    """The constants of a saved model or a released checkpoint. ModelError when it is neither."""
    if (folder / CONFIG_FILE).is_file():
        return EvolvableConfig.model_validate_json((folder / CONFIG_FILE).read_text())
    try:
        values = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise ModelError(
            f"model {folder}: neither {CONFIG_FILE} nor a readable config.json ({error}); give a folder "
            "that jobs.train wrote, or a released EvoEmbedding checkpoint"
        ) from None
    files = sorted(folder.glob("*.safetensors"))
    if not files or "num_latents" not in values:
        raise ModelError(f"model {folder}: no *.safetensors, or config.json is of another kind of model")
    for file in files:
        with safe_open(file, "pt") as weights:
            if PROJECTION in weights.keys():  # noqa: SIM118
                embedding_dim = weights.get_slice(PROJECTION).get_shape()[0]
                break
    else:
        raise ModelError(f"model {folder}: its weights lack mem_to_emb; the checkpoint is incomplete")
    return EvolvableConfig(
        base=values["base_model_name_or_path"],
        num_latents=values["num_latents"],
        queue_capacity=values["buffer_capacity"],
        lora_r=values["lora_r"],
        lora_alpha=values["lora_alpha"],
        embedding_dim=embedding_dim,
        dtype=values.get("dtype") or values.get("torch_dtype") or "float32",
    )
