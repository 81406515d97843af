"""Settings of the object store that holds archives and stores.

A table [storage] only sets the usual environment variables, because all clients, Ray's workers and every
process that a job starts read those. `cluster.store.clients` makes the clients from these variables alone.
"""

import os
from typing import Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from schemas.settings import Settings

ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
"""Variables that name another server for S3 than Amazon's. The first that is set counts."""

REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")

MAX_OUTAGE = "SLOWWAVE_MAX_OUTAGE_S"
"""Variable with the seconds of StorageConfig.max_outage_s."""

CLOUDS = ("AWS_", "GOOGLE_", "AZURE_")
"""How the usual variables begin."""


class StorageConfig(Settings):
    """The object store of archives and stores. What is not set here comes from the usual variables of the
    environment (AWS_..., GOOGLE_..., AZURE_...), which suffice alone."""

    endpoint: str | None = None
    """Address of a server for S3 other than Amazon's."""
    region: str | None = None
    """Region of the bucket."""
    allow_http: bool = False
    """Speak plain HTTP, for a server without TLS."""
    profile: str | None = None
    """Profile of ~/.aws that has the credentials."""
    credentials: dict[str, str] = Field({})
    """Usual variable = name of the variable that has its value: AWS_SECRET_ACCESS_KEY = "BACKUP_KEY"."""
    max_outage_s: float = Field(60, gt=0)
    """Seconds for which a request is repeated while the server fails or does not answer."""

    @field_validator("endpoint")
    @classmethod
    def _check_endpoint(cls, endpoint: str | None) -> str | None:
        parts = urlsplit(endpoint or "https://host")
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.password:
            raise ValueError("must be http://HOST or https://HOST, without a user name or password")
        return endpoint

    @field_validator("credentials")
    @classmethod
    def _are_set(cls, credentials: dict[str, str]) -> dict[str, str]:
        # No value is told: it may be the secret itself, put where its name belongs.
        if strange := [usual for usual in credentials if not usual.startswith(CLOUDS)]:
            raise ValueError(
                f"{strange}: no variables of an object store; they begin with {' or '.join(CLOUDS)}"
            )
        if missing := [usual for usual, name in credentials.items() if name not in os.environ]:
            raise ValueError(
                f"{', '.join(missing)}: must be the name of a variable that is set in the environment"
            )
        return credentials

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.endpoint or "").startswith("http://") and not self.allow_http:
            raise ValueError(
                f"endpoint={self.endpoint!r}: is plain HTTP; set allow_http = true, or name https://"
            )
        given = "AWS_ACCESS_KEY_ID" in self.credentials or "AWS_ACCESS_KEY_ID" in os.environ
        if self.profile and given:
            raise ValueError(
                f"profile={self.profile!r}: AWS_ACCESS_KEY_ID is given too, and would be taken; leave one out"
            )
        return self

    def environment(self) -> dict[str, str]:
        """What the environment of the job and of its workers is to have, credentials in clear."""
        given = {
            **dict.fromkeys(ENDPOINTS, self.endpoint),
            **dict.fromkeys(REGIONS, self.region),
            "AWS_ALLOW_HTTP": "true" if self.allow_http else None,
            "AWS_PROFILE": self.profile,
            MAX_OUTAGE: str(self.max_outage_s) if "max_outage_s" in self.model_fields_set else None,
        }
        named = {usual: os.environ[name] for usual, name in self.credentials.items()}
        return {name: value for name, value in given.items() if value is not None} | named
