"""Tests whether an object store excludes a second writer: whether it refuses to create an object twice.

Leases, heads and intents rely on this: of two writers that create the same object, one is refused. Some
servers accept the condition (`If-None-Match: *`) and overwrite all the same. On such a server two jobs would
publish over each other unnoticed. So the first job that writes a store tests its server.

The test tries to create an existing object again. That two cannot create one in the same instant is left to
the server's promise.
"""

import hashlib
import json
import uuid

from cluster.store.clients import endpoint
from cluster.store.errors import StoreError
from cluster.store.files import Files, local_path

_OUTCOME = "exclusive.json"
"""Created twice, and then the memory of how that went."""


def check_exclusive(uri: str) -> None:
    """StoreError for a store whose server lets an object be created twice. One that was asked is remembered
    in the store, together with where it lies: a copy in another place is asked anew. A local folder keeps two
    apart by itself."""
    if local_path(uri) is not None:
        return
    files, place = Files(uri, "probe"), _place(uri)
    if files.get_json(_OUTCOME) == {"is_exclusive": True, "place": place}:
        return
    if not _is_exclusive(uri, files):
        files.delete([_OUTCOME])
        raise StoreError(
            f"store {uri}: its object store does not keep two writers apart. Asked to create an object only "
            "where none is (If-None-Match), it overwrote one, so two jobs could publish over each other; "
            f"{_REMEDY}"
        )
    files.put_json(_OUTCOME, {"is_exclusive": True, "place": place})


_REMEDY = (
    "use one that knows conditional puts, such as Amazon S3, Google Cloud Storage, Azure or Ceph, or a local "
    "folder"
)


def _is_exclusive(uri: str, files: Files) -> bool:
    """Whether the second of two that create the same object is refused, and changes nothing."""
    from obstore.exceptions import NotSupportedError

    first, second = (json.dumps({"token": uuid.uuid4().hex}).encode() for _ in range(2))
    try:
        # Refused where a killed job has left it, which is well. An answer that was lost is no matter either.
        files.create(_OUTCOME, first)
        return not files.create(_OUTCOME, second) and files.get(_OUTCOME) != second
    except NotSupportedError as error:
        raise StoreError(
            f"store {uri}: its object store cannot create an object only where none is ({error}), so it "
            f"cannot keep two writers apart; {_REMEDY}"
        ) from error


def _place(uri: str) -> str:
    """A hash of where a store lies: its URI and the server, which may have names that nobody is to read."""
    return hashlib.sha256(json.dumps([uri.rstrip("/"), endpoint()]).encode()).hexdigest()
