"""Small files beside the tables: staged batches, manifests, the lease. Local path or object store, one code.

A put is atomic on every backend (a local file is written aside and renamed), and `create` puts succeed for
exactly one of two writers, which is all that resume, the lease and the commit need. What was put stays: a
local file and its folder are on the disk before `put` returns, as an object is when its store answers.
Reading makes no folder.
"""

import json
import os
import re
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import obstore
import pyarrow as pa
import pyarrow.parquet as pq
from obstore.exceptions import AlreadyExistsError, NotFoundError

from cluster.store.clients import bucket, delete, listed

HOME = "_slowwave"
"""Folder of a store in which everything lies that is no table."""

WATERMARKS = "watermarks"
"""Folder under HOME of what is known of archives, see cluster.backfill.watermark. An erasure deletes it."""

ASIDE = "tmp"
"""Folder under HOME in which local files are written before they get their name."""

_OLD_ASIDE = re.compile(r"#\d+$")
"""How earlier releases named a file that was being written."""


@dataclass(frozen=True)
class Numbered:
    """Names of files that are counted up, such as "intent-000000000007.json". File systems and tools that
    copy leave files of their own beside them, which are none."""

    prefix: str = ""

    def path(self, number: int) -> str:
        return f"{self.prefix}{number:012d}.json"

    def number(self, path: str) -> int | None:
        """The number in a name; None where it is another file's."""
        found = re.fullmatch(rf"{self.prefix}(\d{{12}})\.json", path)
        return int(found[1]) if found else None


class Files:
    """Files under `<store>/_slowwave/<folder>`. Paths are relative, with forward slashes."""

    def __init__(self, uri: str, folder: str):
        self.uri, self.folder = uri, folder
        if (local := local_path(uri)) is not None:
            self._place: _Folder | _Bucket = _Folder(local / HOME, folder)
        else:
            self._place = _Bucket(f"{uri.rstrip('/')}/{HOME}/{folder}")

    def __reduce__(self) -> tuple[type["Files"], tuple[str, str]]:
        return Files, (self.uri, self.folder)

    def put(self, path: str, data: bytes) -> None:
        self._place.put(path, data)

    def create(self, path: str, data: bytes) -> bool:
        """Put only where nothing is; False when something was there."""
        return self._place.create(path, data)

    def claim(self, path: str, data: bytes) -> bool:
        """`create`, and True as well where the same data is there: an object store's answer may get lost, and
        the client's second try then meets its own first one."""
        return self.create(path, data) or self.get(path) == data

    def get(self, path: str) -> bytes | None:
        """The content, or None where there is no such file."""
        return self._place.get(path)

    def exists(self, path: str) -> bool:
        return self._place.exists(path)

    def paths(self, prefix: str = "") -> list[str]:
        """Paths under a prefix (whole path parts), sorted."""
        return sorted(self._place.paths(prefix.rstrip("/")))

    def delete(self, paths: Iterable[str]) -> None:
        self._place.delete(paths)

    def put_json(self, path: str, value: object) -> None:
        self.put(path, json.dumps(value, default=str).encode())

    def get_json(self, path: str) -> dict | None:
        """A JSON object; None where there is no file, or where it is empty, cut off or no JSON object, as
        an earlier release could leave it in a power cut."""
        data = self.get(path)
        return None if data is None else json_object(data)

    def put_rows(self, path: str, rows: list[dict], schema: pa.Schema) -> None:
        self.put_table(path, pa.Table.from_pylist(rows, schema=schema))

    def put_table(self, path: str, table: pa.Table) -> None:
        self.put(path, parquet_bytes(table))

    def get_table(self, path: str, columns: list[str] | None = None) -> pa.Table:
        """A staged Parquet file. FileNotFoundError names it when it is gone, OSError a damaged page."""
        data = self.get(path)
        if data is None:
            raise FileNotFoundError(f"{self.uri}/{HOME}/{self.folder}/{path}")
        return pq.read_table(pa.BufferReader(data), columns=columns, page_checksum_verification=True)


class _Bucket:
    """Files of an object store."""

    def __init__(self, url: str):
        self._store = bucket(url)

    def put(self, path: str, data: bytes) -> None:
        obstore.put(self._store, path, data)

    def create(self, path: str, data: bytes) -> bool:
        try:
            obstore.put(self._store, path, data, mode="create")
        except AlreadyExistsError:
            return False
        return True

    def get(self, path: str) -> bytes | None:
        try:
            return bytes(obstore.get(self._store, path).bytes())
        except (NotFoundError, FileNotFoundError):
            return None

    def exists(self, path: str) -> bool:
        try:
            obstore.head(self._store, path)
        except (NotFoundError, FileNotFoundError):
            return False
        return True

    def paths(self, prefix: str) -> Iterator[str]:
        return (meta["path"] for meta in listed(self._store, prefix or None))

    def delete(self, paths: Iterable[str]) -> None:
        delete(self._store, list(paths))


class _Folder:
    """Files of a local folder `home/folder`, each on the disk when it has its name."""

    def __init__(self, home: Path, folder: str):
        self._root, self._aside, self._kind = home / folder, home / ASIDE, folder.split("/")[0]

    def put(self, path: str, data: bytes) -> None:
        target = self._target(path)
        make_folder(target.parent)
        os.replace(self._write_aside(data), target)
        sync(target.parent)

    def create(self, path: str, data: bytes) -> bool:
        target = self._target(path)
        make_folder(target.parent)
        written = self._write_aside(data)
        try:
            # A link, unlike a rename, never takes the place of what is there.
            os.link(written, target)
        except FileExistsError:
            return False
        finally:
            written.unlink()
        sync(target.parent)
        return True

    def get(self, path: str) -> bytes | None:
        try:
            return self._target(path).read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None

    def exists(self, path: str) -> bool:
        return self._target(path).is_file()

    def paths(self, prefix: str) -> Iterator[str]:
        for folder, _, names in os.walk(self._root / prefix):
            for name in names:
                if not _OLD_ASIDE.search(name):
                    yield Path(folder, name).relative_to(self._root).as_posix()

    def delete(self, paths: Iterable[str]) -> None:
        folders = set()
        for path in paths:
            try:
                (target := self._target(path)).unlink()
            except (FileNotFoundError, NotADirectoryError):
                continue
            folders.add(target.parent)
        for folder in folders:
            sync(folder)

    def _target(self, path: str) -> Path:
        parts = path.split("/")
        is_name = all(part.isprintable() and part not in ("", ".", "..") for part in parts)
        if not is_name or _OLD_ASIDE.search(path):
            raise ValueError(
                f"path {path!r}: no name for a file of a store; use parts of printable characters, not `..`, "
                "that do not end in # and a number"
            )
        return self._root.joinpath(*parts)

    def _write_aside(self, data: bytes) -> Path:
        make_folder(self._aside)
        # Named by whose it is: a lease is being put by jobs that hold nothing.
        path = self._aside / f"{self._kind}-{os.getpid()}-{uuid.uuid4().hex}"
        with open(path, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        return path


def local_path(uri: str) -> Path | None:
    """The folder that a path or a file:// URI names; None for an object store."""
    if uri.startswith("file://"):
        return Path(unquote(uri.removeprefix("file://"))).absolute()
    return None if "://" in uri else Path(uri).absolute()


_UNUSABLE = re.compile(r"[?\x00-\x1f\x7f]")
"""LanceDB takes what follows a ? for a query, and writes tables into the folder before it, which may be
another store's; control characters fail at its first commit."""


def unusable(uri: str) -> str | None:
    """Why no store can lie there, with the remedy; None where one can."""
    path = local_path(uri)
    found = _UNUSABLE.search(str(path)) if path else re.search(r"[?#\x00-\x1f\x7f]", uri)
    if not found:
        return None
    return f"has the character {found[0]!r}, and no store can lie there; name another folder"


def make_folder(path: Path) -> None:
    """A folder with all above it, on the disk."""
    if path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir(exist_ok=True)
    sync(path.parent)


def sync(path: Path) -> None:
    """Bring a file's content, or a folder's list of names, to the disk."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def files_below(path: Path) -> set[Path]:
    """Every file under a local folder."""
    return {Path(folder, name) for folder, _, names in os.walk(path) for name in names}


def sync_new(path: Path, known: set[Path]) -> None:
    """Bring the files under a folder to the disk that are not known to be there, and their names."""
    new = files_below(path) - known
    for place in [*new, *{parent for one in new for parent in one.parents if parent.is_relative_to(path)}]:
        sync(place)


def sweep_aside(uri: str) -> int:
    """Delete what killed writers of a local store wrote aside; returns how many files. Needs the lease.

    An object store shows no part of a put that did not end.
    """
    home = local_path(uri)
    if home is None:
        return 0
    left = [path for path in (home / HOME / ASIDE).glob("*") if not path.name.startswith("lease-")]
    left += [path for path in (home / HOME).rglob("*#*") if _OLD_ASIDE.search(path.name) and path.is_file()]
    for path in left:
        path.unlink(missing_ok=True)
    return len(left)


def json_object(data: bytes) -> dict | None:
    """A JSON object, None where these bytes are none."""
    try:
        value = json.loads(data)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def parquet_bytes(table: pa.Table) -> bytes:
    """A table as every staged file holds it."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    return sink.getvalue().to_pybytes()


def everything(uri: str) -> Iterator[tuple[str, bytes]]:
    """(path, content) of every file of a store, the tables' own files and what was only written aside
    included; one in memory at a time."""
    root = local_path(uri)
    store = bucket(uri) if root is None else None
    for path in sorted(sizes_below(uri)):
        if store is not None:
            yield path, bytes(obstore.get(store, path).bytes())
        elif root is not None:
            yield path, (root / path).read_bytes()


def sizes_below(uri: str) -> dict[str, int]:
    """Path -> bytes of every file under a folder, also of such as `Files` does not list."""
    if (root := local_path(uri)) is None:
        return {meta["path"]: meta["size"] for meta in listed(bucket(uri))}
    return {path.relative_to(root).as_posix(): path.stat().st_size for path in files_below(root)}


def paths_below(uri: str) -> list[str]:
    """Every file under a folder, in order."""
    if (root := local_path(uri)) is None:
        return sorted(meta["path"] for meta in listed(bucket(uri)))
    return sorted(path.relative_to(root).as_posix() for path in files_below(root))


def delete_below(uri: str, paths: Iterable[str]) -> None:
    """Delete files under a folder. What is gone already is no error."""
    if (root := local_path(uri)) is None:
        delete(bucket(uri), list(paths))
        return
    for path in paths:
        (root / path).unlink(missing_ok=True)


def put_below(uri: str, path: str, data: bytes, content_type: str | None = None) -> None:
    """Put a file into a folder, made where it is missing: it appears whole or not at all."""
    if (root := local_path(uri)) is None:
        attributes = {"Content-Type": content_type} if content_type else None
        obstore.put(bucket(uri), path, data, attributes=attributes)
        return
    make_folder(root)
    aside = root / f".{path}"
    aside.write_bytes(data)
    os.replace(aside, root / path)
