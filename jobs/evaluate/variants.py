"""Profiles to be compared, by name or TOML file, each as it stands or in a variant.

default                as the profile says
default:base           the same base and prompt, without the adapter
default:merged         the adapter folded into the weights
default:per_request    the adapter kept apart
"""

from collections.abc import Sequence
from typing import TypeVar

from jobs.common.cli import UsageError
from jobs.common.run import load_profile
from schemas.profiles.model import ModelProfile

Compared = TypeVar("Compared", bound=ModelProfile)

VARIANTS = ("base", "merged", "per_request")


def load_variants(folder: str, names: Sequence[str], kind: type[Compared]) -> dict[str, Compared]:
    """Name as given -> profile, not resolved. UsageError for a name that is unknown or is given twice."""
    if len(set(names)) < len(names):
        raise UsageError(f"{folder} {names}: each must be named once; copies cannot be told apart")
    return {name: _load(folder, name, kind) for name in names}


def _load(folder: str, given: str, kind: type[Compared]) -> Compared:
    name, _, variant = given.rpartition(":")
    if variant not in VARIANTS:
        return load_profile(folder, given, kind)
    profile = load_profile(folder, name, kind)
    if variant == "base":
        return profile.model_copy(update=profile.WITHOUT_ADAPTER)
    if profile.adapter is None:
        raise UsageError(f"{given}: profile {name!r} has no adapter; give {name} itself")
    return profile.model_copy(update={"adapter_mode": variant})
