"""What lies in a store's place and does not show in its listing: it is erased and searched for like the rest.

A put to a local folder writes a file aside and renames it; killed in between, it leaves all content there
(Lance's puts, and those of earlier releases, as `NAME#1`), which no listing shows. A bucket with versioning
keeps every object that was overwritten or deleted, and every bucket keeps uploads that were never completed.

Other kinds of object stores cannot be asked for what they keep: this is said, not guessed.
"""

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cluster.store.clients import s3_client
from cluster.store.files import ASIDE, HOME, Files, local_path

_TEMPORARY = re.compile(r"#\d+$")

LEASES = f"{HOME}/lease/"
"""Renewed while everything else rests: older versions of a lease appear at any time, and name a process."""


@dataclass
class Leftovers:
    """What there is, in words; empty where all is well."""

    left: list[str] = field(default_factory=list)
    """What is there, each with what to do."""
    not_searched: list[str] = field(default_factory=list)
    """What could not be looked at, each with the reason and what to do."""


def remove(uri: str) -> int:
    """Remove all of it, as far as that is allowed; how many. Only under the store's lease: an upload that is
    under way looks the same."""
    if (folder := local_path(uri)) is not None:
        for path in (paths := list(_temporary(folder))):
            path.unlink(missing_ok=True)
        return len(paths)
    bucket = _Bucket.of(uri)
    return bucket.remove_leftovers() if bucket else 0


def look(uri: str) -> Leftovers:
    """What there is."""
    if (folder := local_path(uri)) is not None:
        left = [f"{path.relative_to(folder)}: what a killed write has left" for path in _temporary(folder)]
        return Leftovers(left=sorted(left))
    if not uri.startswith("s3://"):
        why = "older versions and soft-deleted objects of this kind of store cannot be listed from here"
    elif bucket := _Bucket.of(uri):
        return bucket.leftovers()
    else:
        why = "older versions cannot be listed without the package boto3; install it"
    return Leftovers(not_searched=[f"{uri}: {why}; see to it that the bucket keeps none"])


def delete_for_good(files: Files, path: str) -> None:
    """Delete a file such that no older version of it stays, wherever versions can be deleted."""
    bucket = _Bucket.of(f"{files.uri.rstrip('/')}/{HOME}/{files.folder}/{path}")
    if bucket is None or not bucket.remove_key():
        files.delete([path])


def _temporary(folder: Path) -> Iterator[Path]:
    for where, _, names in os.walk(folder):
        is_aside = Path(where) == folder / HOME / ASIDE
        for name in names:
            # Jobs that hold no lease write theirs aside as well.
            if _TEMPORARY.search(name) or (is_aside and not name.startswith("lease-")):
                yield Path(where, name)


# --- buckets ------------------------------------------------------------------------------------------


class _Bucket:
    """The part of an S3 bucket under one prefix, with what only its own API shows."""

    def __init__(self, client: Any, uri: str):
        parts = urlsplit(uri)
        self._client, self._uri, self._name = client, uri, parts.netloc
        self._prefix = parts.path.lstrip("/")

    @classmethod
    def of(cls, uri: str) -> "_Bucket | None":
        """None for another kind of store, or without boto3."""
        if not uri.startswith("s3://"):
            return None
        try:
            return cls(s3_client(), uri)
        except ImportError:
            return None

    def leftovers(self) -> Leftovers:
        found = Leftovers()
        for kind in _KINDS:
            try:
                # A mark of deletion holds nothing.
                num = sum(not one.get("is_marker") for one in self._listed(kind))
            except Exception as error:  # a permission that is not given, an API that is not there
                found.not_searched.append(
                    f"{self._uri}: {kind.what} cannot be listed ({_message(error)}); allow {kind.to_list}, "
                    "or see to it that the bucket keeps none"
                )
            else:
                if num:
                    remedy = f"allow {kind.to_remove}, or let a lifecycle rule expire them"
                    found.left.append(f"{self._uri}: {num} {kind.what}; {remedy}")
        return found

    def remove_leftovers(self) -> int:
        num_removed = 0
        for kind in _KINDS:
            with contextlib.suppress(Exception):  # what stays is found by the look that follows
                num_removed += kind.remove(self, self._listed(kind))
        return num_removed

    def remove_key(self) -> bool:
        """Remove the object that the prefix names, all its versions, the newest last. False if refused."""
        with contextlib.suppress(Exception):  # the ordinary way to delete remains
            versions = [one for one in self._versions(self._prefix) if one["Key"] == self._prefix]
            older = [one for one in versions if not one["IsLatest"]]
            if self.remove_versions(older) == len(older):
                return self.remove_versions([one for one in versions if one["IsLatest"]]) > 0
        return False

    def _listed(self, kind: "_Kind") -> list[dict]:
        # `store` must not show what lies under `store-2`.
        prefix = self._prefix.rstrip("/") + "/" if self._prefix.strip("/") else ""
        found = kind.listed(self, prefix)
        return [one for one in found if not one["Key"].removeprefix(prefix).startswith(LEASES)]

    def _versions(self, prefix: str) -> Iterator[dict]:
        pages = self._client.get_paginator("list_object_versions")
        for page in pages.paginate(Bucket=self._name, Prefix=prefix):
            yield from page.get("Versions", ())
            yield from ({**one, "is_marker": True} for one in page.get("DeleteMarkers", ()))

    def older_versions(self, prefix: str) -> Iterator[dict]:
        """What is not there any more for those who list objects, and the marks that hide it."""
        return (one for one in self._versions(prefix) if one.get("is_marker") or not one["IsLatest"])

    def remove_versions(self, versions: list[dict]) -> int:
        """How many were removed. A mark of deletion stays as long as a version that it hides."""
        num_removed, held = 0, set()
        for marks in (False, True):
            some = [
                {"Key": one["Key"], "VersionId": one["VersionId"]}
                for one in versions
                if one.get("is_marker", False) is marks and one["Key"] not in held
            ]
            for start in range(0, len(some), 1000):
                part = some[start : start + 1000]
                request = {"Objects": part, "Quiet": True}
                answer = self._client.delete_objects(Bucket=self._name, Delete=request)
                errors = answer.get("Errors", ())
                held |= {error["Key"] for error in errors}
                num_removed += len(part) - len(errors)
        return num_removed

    def uploads(self, prefix: str) -> Iterator[dict]:
        pages = self._client.get_paginator("list_multipart_uploads")
        for page in pages.paginate(Bucket=self._name, Prefix=prefix):
            yield from page.get("Uploads", ())

    def abort(self, uploads: list[dict]) -> int:
        for one in uploads:
            names = {"Key": one["Key"], "UploadId": one["UploadId"]}
            self._client.abort_multipart_upload(Bucket=self._name, **names)
        return len(uploads)


@dataclass(frozen=True)
class _Kind:
    """Something that a bucket keeps and does not list."""

    what: str
    listed: Callable[[_Bucket, str], Iterator[dict]]
    remove: Callable[[_Bucket, list[dict]], int]
    to_list: str
    to_remove: str


_KINDS = (
    _Kind(
        "older versions of objects",
        _Bucket.older_versions,
        _Bucket.remove_versions,
        "s3:ListBucketVersions",
        "s3:DeleteObjectVersion",
    ),
    _Kind(
        "uploads that were never completed",
        _Bucket.uploads,
        _Bucket.abort,
        "s3:ListBucketMultipartUploads",
        "s3:AbortMultipartUpload",
    ),
)


def _message(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
