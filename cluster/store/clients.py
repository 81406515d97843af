"""The clients of object stores, all of them made here: obstore for files, Lance for tables, boto3 for what
only S3 itself shows. They find the same server with the same credentials, and wait out the same outages.

All is read from the environment (see cluster.runtime.storage). Credentials that stand there in clear come
first; then, for S3, those of a profile or of ~/.aws; then what the machine gives, such as a node's role.
"""

import datetime as dt
import functools
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from cluster.runtime.storage import ENDPOINTS, MAX_OUTAGE, REGIONS, StorageConfig
from cluster.store.errors import StoreError

if TYPE_CHECKING:
    import pyarrow as pa
    from obstore.store import ObjectStore

Done = TypeVar("Done")

MAX_RETRIES = 10_000
"""No number of tries ends them, but `max_outage_s`: how many there are in a minute depends on the jitter."""

FIRST_BACKOFF, MAX_BACKOFF = dt.timedelta(milliseconds=100), dt.timedelta(seconds=2)
"""An outage costs at most so much more than it lasts."""


def max_outage() -> dt.timedelta:
    """For how long a request is tried again."""
    return dt.timedelta(seconds=float(os.environ.get(MAX_OUTAGE, StorageConfig().max_outage_s)))


def bucket(url: str) -> "ObjectStore":
    """obstore's client of everything under a URL."""
    from obstore.store import from_url

    backoff = {"init_backoff": FIRST_BACKOFF, "max_backoff": MAX_BACKOFF}
    retry = {"max_retries": MAX_RETRIES, "retry_timeout": max_outage(), "backoff": backoff}
    options: dict[str, Any] = {"retry_config": retry}
    if _is_s3(url):
        settings = _s3()
        options["client_options"] = {"allow_http": True} if settings.pop("allow_http", None) else None
        options |= {"config": settings, "credential_provider": _of_profile()}
    return from_url(url, **{name: value for name, value in options.items() if value})


def lance_options(uri: str) -> dict[str, str]:
    """Storage options of LanceDB's and Lance's client for tables there."""
    if "://" not in uri or uri.startswith("file://"):
        return {}
    # Lance has its own chain of credentials, which reads the same profile.
    retry = {
        "client_max_retries": MAX_RETRIES,
        "client_retry_timeout": round(max_outage().total_seconds() + 0.5),
        "download_retry_count": 10,
    }
    found = {name: str(value) for name, value in retry.items()}
    return found | ({f"aws_{name}": value for name, value in _s3().items()} if _is_s3(uri) else {})


def s3_client() -> Any:
    """boto3's client."""
    import boto3
    from botocore.config import Config

    names = {"endpoint": "endpoint_url", "region": "region_name"}
    given = {names[name]: value for name, value in _s3().items() if name in names}
    # Its own mode backs off for up to 20 s; the number of tries covers what the others do in time.
    retries = {"mode": "standard", "total_max_attempts": 3 + int(max_outage().total_seconds() // 5)}
    # A session of its own: boto3's default one keeps the credentials that it found first.
    return boto3.Session().client(
        "s3", **{"region_name": "us-east-1", **given}, config=Config(retries=retries)
    )


def endpoint() -> str | None:
    """Another server for S3 than Amazon's, if the environment names one."""
    return _first(ENDPOINTS)


def listed(store: "ObjectStore", prefix: str | None = None) -> list[dict[str, Any]]:
    """What lies under a prefix, as obstore describes it."""
    import obstore

    return _again(lambda: [dict(meta) for chunk in obstore.list(store, prefix=prefix) for meta in chunk])


def delete(store: "ObjectStore", paths: Sequence[str]) -> None:
    """Delete objects, in bulk where the server can. What is gone already is no error."""
    import obstore
    from obstore.exceptions import NotFoundError

    if not paths:
        return
    try:
        _again(lambda: obstore.delete(store, paths))
    except (NotFoundError, FileNotFoundError):
        # S3 does not say so, others do.
        if len(paths) > 1:
            for path in paths:
                delete(store, [path])


def _again(work: Callable[[], Done]) -> Done:
    """Lists and deletes, which can be repeated: where the answer breaks off in the middle, obstore does not
    ask for it again."""
    from obstore.exceptions import GenericError

    for left in reversed(range(MAX_CUTS)):
        begun_s = time.monotonic()
        try:
            return work()
        except GenericError:
            if not left or time.monotonic() - begun_s > max_outage().total_seconds():
                raise
    raise AssertionError


def opened(url: str, path: str) -> "pa.NativeFile":
    """An object, for pyarrow to read in parts."""
    import obstore
    import pyarrow as pa

    return pa.PythonFile(_Readable(obstore.open_reader(bucket(url), path)), mode="r")


def identity(url: str, path: str) -> str:
    """What tells one content of an object from every other: its size and the name that the server gave the
    content (ETag); "" where it gives none."""
    import obstore

    meta = obstore.head(bucket(url), path)
    return f"{meta['size']} {meta['e_tag']}" if meta["e_tag"] else ""


class _Readable:
    """obstore's reader with what pyarrow asks of a file of Python besides."""

    def __init__(self, reader: Any):
        self._reader, self.closed = reader, False

    def read(self, size: int = -1) -> bytes:
        return bytes(self._reader.readall() if size < 0 else self._reader.read(size))

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._reader.seek(offset, whence)

    def tell(self) -> int:
        return self._reader.tell()

    def close(self) -> None:
        self.closed = True
        self._reader.close()


MAX_CUTS = 5
"""How often a request is made whose answers break off."""


def told(error: Exception) -> str:
    """What a client says is wrong, without the pages of its internals that follow."""
    return str(error).partition("\n")[0]


def _is_s3(url: str) -> bool:
    return url.startswith(("s3://", "s3a://"))


def _s3() -> dict[str, str]:
    """Settings of S3 that the environment has, under the names that obstore gives them."""
    server, region = endpoint(), _first(REGIONS)
    is_plain = os.environ.get("AWS_ALLOW_HTTP", "").lower() in ("true", "1")
    if server and server.startswith("http://") and not is_plain:
        raise StoreError(
            f"object store at {server}: is plain HTTP; set AWS_ALLOW_HTTP=true, or allow_http in [storage]"
        )
    found = {"endpoint": server, "region": region, "allow_http": "true" if is_plain else None}
    return {name: value for name, value in found.items() if value}


def _first(names: tuple[str, ...]) -> str | None:
    return next((os.environ[name] for name in names if os.environ.get(name)), None)


def _of_profile() -> Any:
    """What gives obstore the credentials of ~/.aws; None where they stand in the environment, or where only
    the machine can have some."""
    if any(os.environ.get(name) for name in ("AWS_ACCESS_KEY_ID", "AWS_SKIP_SIGNATURE")):
        return None
    homes = {"AWS_SHARED_CREDENTIALS_FILE": "credentials", "AWS_CONFIG_FILE": "config"}
    files = [os.environ.get(name, f"~/.aws/{file}") for name, file in homes.items()]
    if not os.environ.get("AWS_PROFILE") and not any(Path(file).expanduser().is_file() for file in files):
        return None
    return _provider(os.environ.get("AWS_PROFILE"), *files)


@functools.lru_cache
def _provider(*_: str | None) -> Any:
    """Of the profile, and the files, that boto3 finds in the environment."""
    import boto3
    from botocore.exceptions import BotoCoreError
    from obstore.auth.boto3 import Boto3CredentialProvider

    try:
        session = boto3.Session()
        return Boto3CredentialProvider(session) if session.get_credentials() else None
    except BotoCoreError as error:
        raise StoreError(f"credentials of the object store: {error}; check AWS_PROFILE and ~/.aws") from None
