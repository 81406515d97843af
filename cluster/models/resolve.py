"""Profiles are resolved before a run: prompts are read from where they lie, and what models hold is hashed.

Only a resolved profile has a fingerprint. Errors are ModelError, before any work is done.
"""

import ast
import hashlib
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TypeVar

from cluster.models import cross_encoder
from cluster.models.sources import (
    ModelError,
    adapter_folder,
    cache_dir,
    check_adapter,
    is_installed,
    model_folder,
    source_hash,
)
from schemas.profiles.answerer import AnswererProfile
from schemas.profiles.decider import DeciderProfile
from schemas.profiles.embedder import EmbedderProfile
from schemas.profiles.encoder import EncoderProfile, PromptInWheel
from schemas.profiles.judge import JudgeProfile
from schemas.profiles.model import ModelProfile

Resolvable = TypeVar("Resolvable", bound=ModelProfile)
Instructed = TypeVar("Instructed", DeciderProfile, JudgeProfile)


def resolve_encoder(profile: EncoderProfile) -> EncoderProfile:
    """Fill in prompt text and content hashes, and refuse an adapter that does not fit its base."""
    _check_fit(profile)
    return hashed_encoder(profile)


def hashed_encoder(profile: EncoderProfile) -> EncoderProfile:
    """The same without a look at whether the adapter fits, for which the models must be here: enough for a
    fingerprint."""
    # The wheel's prompt is taken to the byte, also when a run's profile is resolved again; blank lines around
    # the texts of a TOML file are layout.
    if wheel := profile.system_prompt_in_wheel:
        prompt = read_prompt(wheel)
    else:
        assert profile.system_prompt is not None, "a profile has one of the two"
        prompt = profile.system_prompt if profile.base_hash else profile.system_prompt.strip()
    return _resolved(
        profile,
        system_prompt=prompt,
        system_prompt_in_wheel=None,
        user_template=profile.user_template.strip("\n"),
        entailment=profile.entailment and is_installed(cross_encoder.BASE),
    )


def resolve_decider(profile: Instructed) -> Instructed:
    """Fill in content hashes, and refuse an adapter that does not fit its base."""
    _check_fit(profile)
    return _resolved(
        profile,
        system_prompt=profile.system_prompt.strip(),
        user_template=profile.user_template.strip("\n"),
    )


def resolve_answerer(profile: AnswererProfile) -> AnswererProfile:
    """Fill in content hashes, and refuse an adapter that does not fit its base."""
    _check_fit(profile)
    return _resolved(profile)


def _check_fit(profile: ModelProfile) -> None:
    if profile.adapter:
        check_adapter(model_folder(profile.base, profile.base_revision), adapter_folder(profile))


def _resolved(profile: Resolvable, **settings: str | bool | None) -> Resolvable:
    values = profile.model_dump() | {
        **settings,
        "base_hash": source_hash(profile.base, profile.base_revision),
        "adapter_hash": source_hash(profile.adapter, profile.adapter_revision) if profile.adapter else "",
    }
    return type(profile).model_validate(values)


def resolve_embedder(profile: EmbedderProfile) -> EmbedderProfile:
    """Fill in the content hashes of its models."""
    update: dict = {"model_hash": source_hash(profile.model, profile.revision)}
    if turns := profile.turns:
        hashes = [source_hash(turns.model, turns.revision)]
        # What a model on the hub names as its base is part of that model.
        if base := turns.base or _base_named_in(Path(turns.model)):
            hashes.append(source_hash(base, None))
        update["turns"] = turns.model_copy(update={"model_hash": "|".join(hashes)})
    return profile.model_copy(update=update)


def _base_named_in(folder: Path) -> str | None:
    """The base of the evolvable model in this folder; None where it is no folder."""
    if not folder.is_dir():
        return None
    for file, name in (("evolvable.json", "base"), ("config.json", "base_model_name_or_path")):
        if (folder / file).is_file() and (base := json.loads((folder / file).read_text()).get(name)):
            return base
    raise ModelError(
        f"model {folder}: not an evolvable model; give a folder that jobs.train wrote, or a released "
        "checkpoint"
    )


# --- a prompt in a wheel ------------------------------------------------------------------------------


def read_prompt(source: PromptInWheel) -> str:
    """The prompt constant out of the pinned wheel. The module is parsed, never run; the hash must match.

    The wheel is fetched once, without its dependencies, into the cache.
    """
    wheels = cache_dir() / "wheels"
    pattern = f"{source.package.replace('-', '_')}-{source.version}-*.whl"
    if not list(wheels.glob(pattern)):
        wheels.mkdir(parents=True, exist_ok=True)
        requirement = f"{source.package}=={source.version}"
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            # A source distribution would run code to be read.
            "--only-binary=:all:",
            "--dest",
            str(wheels),
            requirement,
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode or not list(wheels.glob(pattern)):
            raise ModelError(
                f"system_prompt_in_wheel={requirement}: cannot be downloaded; put the wheel into {wheels} "
                f"({done.stderr.strip()[-300:]})"
            )
    wheel = next(wheels.glob(pattern))
    try:
        with zipfile.ZipFile(wheel) as archive:
            text = constant_in_source(archive.read(source.path).decode(), source.constant)
    except (KeyError, SyntaxError, UnicodeDecodeError, zipfile.BadZipFile) as error:
        raise ModelError(f"{wheel.name}: {error}; remove the file and run again") from None
    digest = hashlib.sha256(text.encode()).hexdigest()
    if digest != source.sha256:
        raise ModelError(
            f"{source.constant} in {wheel.name} has sha256 {digest}, expected {source.sha256}: "
            "the adapter was trained on another prompt; restore the pinned wheel"
        )
    return text


def constant_in_source(source: str, name: str) -> str:
    """The value of a module-level string constant. KeyError when there is none, or it must be computed."""
    for node in ast.parse(source).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        value = getattr(node, "value", None)
        named = any(getattr(target, "id", None) == name for target in targets)
        if named and isinstance(value, ast.Constant) and isinstance(value.value, str):
            return value.value
    raise KeyError(f"no string constant {name}")
