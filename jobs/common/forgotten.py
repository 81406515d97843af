"""The secret that keys the list of who is forgotten: settings that jobs.forget and jobs.backfill share."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.common.cli import JobConfig, UsageError

if TYPE_CHECKING:
    from cluster.forget.forgotten import Forgotten


class ForgetKeyConfig(JobConfig):
    """Where the secret is; never the secret itself, which must not stand in a manifest."""

    forget_key_env: str = "SLOWWAVE_FORGET_KEY"
    """Environment variable with the secret that keys the store's list of who is forgotten. Make one with
    `openssl rand -hex 32`, keep it outside the store, and never change it. Without one, whoever can read the
    store can check whether an id that they guess is on the list."""
    forget_key_file: str | None = None
    """File with that secret, instead of the variable."""


def forget_key(config: ForgetKeyConfig) -> str | None:
    """The secret, or None where none is given. UsageError for one that cannot serve."""
    from cluster.forget.forgotten import MIN_SECRET_CHARS

    if config.forget_key_file:
        name = f"forget_key_file={config.forget_key_file!r}"
        try:
            secret = Path(config.forget_key_file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{name}: cannot be read ({error}); write the secret there") from None
    else:
        name = f"{config.forget_key_env} (forget_key_env)"
        found = os.environ.get(config.forget_key_env)
        if found is None and "forget_key_env" not in config.model_fields_set:
            return None
        if found is None:
            raise UsageError(f"{name}: there is no such variable in the environment; set it to the secret")
        secret = found.strip()
    if len(secret) < MIN_SECRET_CHARS:
        raise UsageError(
            f"{name}: {len(secret)} characters, fewer than {MIN_SECRET_CHARS}: it could be guessed; make one "
            "with `openssl rand -hex 32`"
        )
    return secret


def read_forgotten(config: ForgetKeyConfig, store: str, *, may_begin: bool = False) -> "Forgotten":
    """The store's cluster.forget.forgotten.Forgotten; StoreError without the secret that keys it, and where
    the list is damaged or lost. Only a forgetting `may_begin` a new one."""
    from cluster.forget.forgotten import Forgotten

    return Forgotten.of_store(store, forget_key(config), may_begin=may_begin)
