"""A fake S3 server in memory, for tests that send thousands of requests or need a server that fails.

It is no S3: it checks no signature, knows one user, and answers the requests that obstore, Lance and boto3
send for what this project does (tests/unit/test_s3_server.py holds it against moto). What it takes seriously
is what a store rests on: puts on condition (`If-None-Match: *`, `If-Match`), of which exactly one of two
succeeds, multipart uploads that appear whole, ranges, and lists that show what was written.

Threads answer on HTTP/1.1 connections that stay open. A test may stand in front of every request (`around`):
let it be done or not, change the answer, or cut the connection in the middle of it.
"""

import contextlib
import datetime as dt
import hashlib
import io
import socket
import socketserver
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.utils import format_datetime
from urllib.parse import parse_qsl, quote, unquote
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from tests.buckets import ENVIRONMENT

MAX_KEYS = 1000


@dataclass(frozen=True)
class Request:
    """What a client asks; names of headers are in lower case."""

    method: str
    bucket: str
    key: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    """As it was sent, see `content`."""
    target: str
    """Path and query as they were sent."""

    @property
    def content(self) -> bytes:
        """The body without the frames that boto3 puts around its pieces."""
        is_framed = "aws-chunked" in self.headers.get("content-encoding", "")
        return b"".join(_chunks(io.BytesIO(self.body))) if is_framed else self.body

    @property
    def is_change(self) -> bool:
        return self.method in ("PUT", "POST", "DELETE")


@dataclass(frozen=True)
class Answer:
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    is_cut: bool = False
    """The connection is closed in the middle of this answer."""


Do = Callable[[Request], Answer]
Around = Callable[[Request, Do], Answer]
"""Stands in front of the server: may do the request, and answers in its place."""


@dataclass(frozen=True)
class _Object:
    data: bytes
    headers: dict[str, str]
    etag: str
    changed: dt.datetime


class S3Error(Exception):
    def __init__(self, status: int, code: str):
        super().__init__(code)
        self.answer = _xml(f"<Error><Code>{code}</Code><Message>{code}</Message></Error>", status)


class S3Server:
    """Buckets in memory, served on a port of this machine from `start` to `stop`. With `do`, that does the
    requests in their place."""

    def __init__(self, do: Do | None = None) -> None:
        self._do = do or self.do
        self.around: Around = lambda request, do: do(request)
        self._lock = threading.Lock()
        self._buckets: dict[str, dict[str, _Object]] = {}
        self._uploads: dict[str, dict[int, bytes]] = {}
        self._upload_headers: dict[str, dict[str, str]] = {}
        server = self

        class Handler(socketserver.StreamRequestHandler):
            disable_nagle_algorithm = True

            def handle(self) -> None:
                with contextlib.suppress(ConnectionError):
                    while (request := _read(self.rfile, self.wfile)) is not None:
                        if not _write(self.connection, request, server.around(request, server._do)):
                            return

        class Sockets(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True
            block_on_close = False
            request_queue_size = 128

        self._sockets = Sockets(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._sockets.server_address[1]}"

    @property
    def environment(self) -> dict[str, str]:
        """In which its buckets are found."""
        return ENVIRONMENT | {"AWS_ENDPOINT_URL": self.endpoint}

    def start(self) -> None:
        threading.Thread(target=self._sockets.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        self._sockets.shutdown()
        self._sockets.server_close()

    def new_bucket(self) -> str:
        """The name of an empty bucket."""
        name = f"bucket-{uuid.uuid4().hex[:8]}"
        self._buckets[name] = {}
        return name

    def copy(self, bucket: str, source: str, target: str) -> None:
        """Put the objects of one folder into the place of another's."""
        with self._lock:
            objects = self._buckets[bucket]
            kept = {key: one for key, one in objects.items() if not key.startswith(f"{target}/")}
            copies = {
                target + key.removeprefix(source): one
                for key, one in objects.items()
                if key.startswith(f"{source}/")
            }
            self._buckets[bucket] = kept | copies

    # --- what is asked ------------------------------------------------------------------------------------

    def do(self, request: Request) -> Answer:
        """Do a request, and answer it."""
        try:
            with self._lock:
                return self._of_object(request) if request.key else self._of_bucket(request)
        except S3Error as error:
            return error.answer

    def _of_bucket(self, request: Request) -> Answer:
        if request.method == "PUT":
            self._buckets.setdefault(request.bucket, {})
            return Answer()
        objects = self._objects(request)
        if request.method == "HEAD":
            return Answer(headers={"x-amz-bucket-region": ENVIRONMENT["AWS_REGION"]})
        if request.method == "GET" and "location" in request.query:
            return _xml("<LocationConstraint/>")
        if request.method == "GET" and request.query.get("list-type") == "2":
            return _listed(objects, request)
        if request.method == "POST" and "delete" in request.query:
            keys = [_text(one, "Key") for one in _children(request.body, "Object")]
            for key in keys:
                objects.pop(key, None)
            deleted = "".join(f"<Deleted><Key>{escape(key)}</Key></Deleted>" for key in keys)
            return _xml(f"<DeleteResult>{deleted}</DeleteResult>")
        raise S3Error(501, "NotImplemented")

    def _of_object(self, request: Request) -> Answer:
        objects, key = self._objects(request), request.key
        if request.method in ("GET", "HEAD"):
            return _got(objects.get(key), request)
        if request.method == "DELETE" and "uploadId" in request.query:
            self._uploads.pop(request.query["uploadId"], None)
            return Answer(204)
        if request.method == "DELETE":
            objects.pop(key, None)
            return Answer(204)
        if request.method == "POST" and "uploads" in request.query:
            upload = uuid.uuid4().hex
            self._uploads[upload], self._upload_headers[upload] = {}, request.headers
            return _xml(
                f"<InitiateMultipartUploadResult><Bucket>{request.bucket}</Bucket><Key>{escape(key)}</Key>"
                f"<UploadId>{upload}</UploadId></InitiateMultipartUploadResult>"
            )
        if request.method == "POST" and "uploadId" in request.query:
            return self._completed(objects, request)
        if request.method == "PUT" and "uploadId" in request.query:
            data = self._source(request).data if "x-amz-copy-source" in request.headers else request.content
            self._upload(request)[int(request.query["partNumber"])] = data
            return Answer(headers={"ETag": _etag(data)})
        if request.method == "PUT":
            return self._put(objects, request)
        raise S3Error(501, "NotImplemented")

    def _put(self, objects: dict[str, _Object], request: Request) -> Answer:
        _check(objects.get(request.key), request)
        if "x-amz-copy-source" in request.headers:
            source = self._source(request)
            objects[request.key] = _object(source.data, source.headers)
            return _xml(f"<CopyObjectResult><ETag>{escape(source.etag)}</ETag></CopyObjectResult>")
        objects[request.key] = found = _object(request.content, request.headers)
        return Answer(headers={"ETag": found.etag})

    def _completed(self, objects: dict[str, _Object], request: Request) -> Answer:
        parts = self._upload(request)
        _check(objects.get(request.key), request)
        numbers = [int(_text(one, "PartNumber")) for one in _children(request.body, "Part")]
        if not numbers or any(number not in parts for number in numbers):
            raise S3Error(400, "InvalidPart")
        upload = request.query["uploadId"]
        data = b"".join(parts[number] for number in numbers)
        objects[request.key] = found = _object(data, self._upload_headers.pop(upload))
        del self._uploads[upload]
        return _xml(
            f"<CompleteMultipartUploadResult><Bucket>{request.bucket}</Bucket><Key>{escape(request.key)}</Key>"
            f"<ETag>{escape(found.etag)}</ETag></CompleteMultipartUploadResult>"
        )

    def _objects(self, request: Request) -> dict[str, _Object]:
        if request.bucket not in self._buckets:
            raise S3Error(404, "NoSuchBucket")
        return self._buckets[request.bucket]

    def _upload(self, request: Request) -> dict[int, bytes]:
        if request.query["uploadId"] not in self._uploads:
            raise S3Error(404, "NoSuchUpload")
        return self._uploads[request.query["uploadId"]]

    def _source(self, request: Request) -> _Object:
        bucket, _, key = unquote(request.headers["x-amz-copy-source"]).lstrip("/").partition("/")
        found = self._buckets.get(bucket, {}).get(key)
        if found is None:
            raise S3Error(404, "NoSuchKey")
        return found


@contextlib.contextmanager
def serving_fake() -> Iterator[S3Server]:
    """A server while the context lasts."""
    server = S3Server()
    server.start()
    try:
        yield server
    finally:
        server.stop()


# --- objects ----------------------------------------------------------------------------------------------


def _object(data: bytes, headers: dict[str, str]) -> _Object:
    kept = {
        name: value
        for name, value in headers.items()
        if name == "content-type" or name.startswith("x-amz-meta-")
    }
    return _Object(data, kept, _etag(data), dt.datetime.now(dt.UTC))


def _etag(data: bytes) -> str:
    return f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'


def _check(there: _Object | None, request: Request) -> None:
    """What a put is asked to find: nothing (`If-None-Match: *`), or an object that has not changed."""
    if request.headers.get("if-none-match") == "*" and there is not None:
        raise S3Error(412, "PreconditionFailed")
    if (expected := request.headers.get("if-match")) is not None:
        if there is None:
            raise S3Error(404, "NoSuchKey")
        if expected != there.etag:
            raise S3Error(412, "PreconditionFailed")


def _got(found: _Object | None, request: Request) -> Answer:
    if found is None:
        raise S3Error(404, "NoSuchKey")
    if request.headers.get("if-match", found.etag) != found.etag:
        raise S3Error(412, "PreconditionFailed")
    headers = found.headers | {
        "ETag": found.etag,
        "Last-Modified": format_datetime(found.changed, usegmt=True),
        "Accept-Ranges": "bytes",
    }
    if request.headers.get("if-none-match") == found.etag:
        return Answer(304, b"", headers)
    if "range" not in request.headers:
        return Answer(200, found.data, headers)
    first, _, last = request.headers["range"].removeprefix("bytes=").partition("-")
    size = len(found.data)
    start = int(first) if first else max(0, size - int(last))
    end = min(size, int(last) + 1) if first and last else size
    if start >= end:
        raise S3Error(416, "InvalidRange")
    return Answer(206, found.data[start:end], headers | {"Content-Range": f"bytes {start}-{end - 1}/{size}"})


def _listed(objects: dict[str, _Object], request: Request) -> Answer:
    query = request.query
    prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
    after = query.get("continuation-token") or query.get("start-after", "")
    room, rows, folders, last, is_more = int(query.get("max-keys", MAX_KEYS)), "", [], "", False
    is_url = query.get("encoding-type") == "url"

    def shown(key: str) -> str:
        return quote(key) if is_url else escape(key)

    for key in sorted(objects):
        if not key.startswith(prefix) or key <= after:
            continue
        folder = _folder(key, prefix, delimiter)
        if folder is not None and (folder in folders[-1:] or folder <= after):
            continue
        if not room:
            is_more = True
            break
        room, last = room - 1, key
        if folder is not None:
            folders.append(folder)
            # What follows in this folder is in it, and not listed for itself.
            last = folder + "\U0010ffff"
            continue
        found = objects[key]
        rows += (
            f"<Contents><Key>{shown(key)}</Key><LastModified>{found.changed:%Y-%m-%dT%H:%M:%S.000Z}</LastModified>"
            f"<ETag>{escape(found.etag)}</ETag><Size>{len(found.data)}</Size>"
            "<StorageClass>STANDARD</StorageClass></Contents>"
        )
    rows += "".join(f"<CommonPrefixes><Prefix>{shown(one)}</Prefix></CommonPrefixes>" for one in folders)
    token = f"<NextContinuationToken>{escape(last)}</NextContinuationToken>" if is_more else ""
    return _xml(
        f"<ListBucketResult><Name>{request.bucket}</Name><Prefix>{shown(prefix)}</Prefix>"
        + ("<EncodingType>url</EncodingType>" if is_url else "")
        + f"<IsTruncated>{str(is_more).lower()}</IsTruncated>{token}{rows}</ListBucketResult>"
    )


def _folder(key: str, prefix: str, delimiter: str) -> str | None:
    """The folder under `prefix` in which a key lies; None for one that lies there itself."""
    rest = key[len(prefix) :]
    return prefix + rest.partition(delimiter)[0] + delimiter if delimiter and delimiter in rest else None


# --- XML and HTTP -----------------------------------------------------------------------------------------


def _xml(text: str, status: int = 200) -> Answer:
    return Answer(
        status, f'<?xml version="1.0" encoding="UTF-8"?>{text}'.encode(), {"Content-Type": "application/xml"}
    )


def _children(body: bytes, name: str) -> list[ElementTree.Element]:
    return [one for one in ElementTree.fromstring(body).iter() if one.tag.rpartition("}")[2] == name]


def _text(element: ElementTree.Element, name: str) -> str:
    return next(one.text or "" for one in element if one.tag.rpartition("}")[2] == name)


def _read(rfile: "socketserver._BufferedIOBase", wfile: "socketserver._BufferedIOBase") -> Request | None:
    """The next request of a connection; None at its end."""
    line = rfile.readline()
    if not line.strip():
        return None
    method, target, _ = line.decode("latin-1").split(" ", 2)
    headers: dict[str, str] = {}
    while header := rfile.readline().strip():
        name, _, value = header.decode("latin-1").partition(":")
        headers[name.strip().lower()] = value.strip()
    if headers.get("expect", "").lower() == "100-continue":
        wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    if headers.get("transfer-encoding", "").lower() == "chunked":
        body = b"".join(_chunks(rfile))
    else:
        body = rfile.read(int(headers.get("content-length", 0)))
    path, _, query = target.partition("?")
    bucket, _, key = unquote(path).lstrip("/").partition("/")
    found = dict(parse_qsl(query, keep_blank_values=True))
    return Request(method, bucket, key, found, headers, body, target)


def _chunks(rfile: "socketserver._BufferedIOBase") -> Iterator[bytes]:
    """Pieces of a body of which each says how long it is; trailers are read over."""
    while size := int(rfile.readline().partition(b";")[0].strip() or b"0", 16):
        yield rfile.read(size)
        rfile.readline()
    while rfile.readline().strip():
        pass


def _write(connection: socket.socket, request: Request, answer: Answer) -> bool:
    """Send an answer; whether the connection goes on."""
    headers = {"Server": "fake-s3-of-tests", "x-amz-request-id": "0", "Content-Length": str(len(answer.body))}
    lines = [f"HTTP/1.1 {answer.status} -"]
    lines += [f"{name}: {value}" for name, value in (headers | answer.headers).items()]
    data = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
    if request.method != "HEAD" and answer.status not in (204, 304):
        data += answer.body
    if answer.is_cut:
        connection.sendall(data[: len(data) // 2])
        connection.shutdown(socket.SHUT_RDWR)
        return False
    connection.sendall(data)
    return request.headers.get("connection", "").lower() != "close"
