"""An OpenAI-compatible endpoint on loopback that counts what it is paid for, with its batch API."""

import email
import hashlib
import json
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

TURN = re.compile(r"^\[(\d+)\] (\w+): (.*?)(?=^\[\d+\] \w+: |^</)", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Odd:
    """An answer that is more than a text; of a status other than 200, `text` is the error's message, and
    nothing is paid."""

    text: str
    status: int = 200
    finish_reason: str = "stop"
    refusal: str | None = None
    has_usage: bool = True


@dataclass
class Faults:
    """What goes wrong with batches. Numbers count down: so many of the next ones."""

    num_busy: int = 0
    """Requests to the batch API that get status 429, and do nothing."""
    num_lost_uploads: int = 0
    """Files that are stored, and answered with status 500."""
    num_lost_creates: int = 0
    """Batches that are created, and answered with status 500."""
    num_late_creates: int = 0
    """The same, but they are created only after the next request, if their file is still there then."""
    num_failed: int = 0
    """Batches that fail, for `failure`."""
    failure: tuple[str, str] = ("invalid_request", "the model is not known")
    num_expired: int = 0
    """Batches that expire when half of them is answered."""
    num_missing: int = 0
    """Requests that are in neither file of their batch, and not paid."""
    no_lists: bool = False
    """Nothing is listed: status 404."""
    no_batches: bool = False
    """There is no batch API: status 404."""
    queue: int | None = None
    """Batches that may be open beside each other; others fail with `token_limit_exceeded`."""

    def happens(self, name: str) -> bool:
        number = getattr(self, name)
        setattr(self, name, max(0, number - 1))
        return number > 0


class Batches:
    """Files and batches in OpenAI's format. A batch has an equal share of its requests done with each of
    `num_looks` looks at it."""

    def __init__(self, answer, faults: Faults, num_looks: int):
        self._answer, self.faults, self.num_looks = answer, faults, num_looks
        self.files: dict[str, dict] = {}
        self.batches: dict[str, dict] = {}
        self.num_created = self.num_looked = self.num_read = 0
        self.was_deleted: set[str] = set()
        self._left: dict[str, list[dict]] = {}
        self._lines: dict[str, tuple[list, list]] = {}
        self._late: list[dict] = []
        self._lock = threading.Lock()

    def handle(self, method: str, path: str, headers, body: bytes) -> tuple[int, bytes]:
        with self._lock:
            if self.faults.no_batches:
                return _refused(404, "not found")
            if self.faults.happens("num_busy"):
                return _refused(429, "too many requests")
            late, self._late = self._late, []
            url = urlsplit(path)
            match [method, *url.path.removeprefix("/v1/").split("/")]:
                case ["POST", "files"]:
                    said = self._upload(headers, body)
                case ["GET", "files"]:
                    said = self._listed(self.files, parse_qs(url.query))
                case ["GET", "files", file_id, "content"]:
                    self.num_read += 1
                    found = self.files.get(file_id)
                    said = (200, found["content"]) if found else _refused(404, "no such file")
                case ["DELETE", "files", file_id]:
                    found = self.files.pop(file_id, None)
                    self.was_deleted.add(file_id)
                    deleted = {"id": file_id, "object": "file", "deleted": True}
                    said = _said(deleted) if found else _refused(404, "no such file")
                case ["POST", "batches"]:
                    said = self._create(json.loads(body))
                case ["GET", "batches"]:
                    said = self._listed(self.batches, parse_qs(url.query))
                case ["GET", "batches", batch_id]:
                    self.num_looked += 1
                    said = self._looked(batch_id)
                case ["POST", "batches", batch_id, "cancel"]:
                    self.batches[batch_id]["status"] = "cancelling"
                    said = _said(self.batches[batch_id])
                case _:
                    said = _refused(404, "no such route")
            for request in late:
                self._create(request)
            return said

    def cancel(self) -> None:
        """Somebody cancels all batches, in the provider's own pages."""
        for batch in self.batches.values():
            batch["status"] = "cancelling"

    def _upload(self, headers, body: bytes) -> tuple[int, bytes]:
        head = f"Content-Type: {headers['Content-Type']}\r\n\r\n".encode()
        parts = email.message_from_bytes(head + body).get_payload()
        (part,) = (part for part in parts if part.get_filename())
        file = self._store(part.get_filename(), part.get_payload(decode=True))
        return _refused(500, "oh") if self.faults.happens("num_lost_uploads") else _said(file)

    def _store(self, name: str, content: bytes, purpose: str = "batch") -> dict:
        file = {
            "id": f"file-{len(self.files) + len(self.was_deleted)}",
            "object": "file",
            "created_at": int(time.time()),
        }
        file |= {"filename": name, "bytes": len(content), "purpose": purpose, "status": "processed"}
        self.files[file["id"]] = file | {"content": content}
        return file

    def _create(self, request: dict) -> tuple[int, bytes]:
        if self.faults.happens("num_late_creates"):
            self._late.append(request)
            return _refused(500, "oh")
        file = self.files.get(request["input_file_id"])
        if file is None:
            return _refused(400, "no such file")
        self.num_created += 1
        lines = [json.loads(line) for line in file["content"].splitlines()]
        batch = {"id": f"batch-{self.num_created}", "object": "batch", "created_at": int(time.time())}
        batch |= request | {"status": "in_progress", "output_file_id": None, "error_file_id": None}
        batch["request_counts"] = {"total": len(lines), "completed": 0, "failed": 0}
        num_open = sum(other["status"] == "in_progress" for other in self.batches.values())
        is_over = self.faults.queue is not None and num_open >= self.faults.queue
        if is_over or self.faults.happens("num_failed"):
            failure = ("token_limit_exceeded", "too much is enqueued") if is_over else self.faults.failure
            error = dict(zip(("code", "message"), failure, strict=True))
            batch |= {"status": "failed", "errors": {"object": "list", "data": [error]}}
        self.batches[batch["id"]] = batch
        self._left[batch["id"]], self._lines[batch["id"]] = lines, ([], [])
        return _refused(500, "oh") if self.faults.happens("num_lost_creates") else _said(batch)

    def _looked(self, batch_id: str) -> tuple[int, bytes]:
        batch = self.batches.get(batch_id)
        if batch is None:
            return _refused(404, "no such batch")
        left, (answers, errors) = self._left[batch_id], self._lines[batch_id]
        total = batch["request_counts"]["total"]
        if batch["status"] == "cancelling":
            self._end(batch, "cancelled")
        elif batch["status"] == "in_progress":
            for _ in range(min(len(left), -(-total // self.num_looks))):
                line = left.pop(0)
                if self.faults.happens("num_missing"):
                    continue
                status, said = self._answer(line["custom_id"], line["body"])
                response = {"status_code": status, "request_id": "r", "body": json.loads(said)}
                done = {"id": "l", "custom_id": line["custom_id"], "response": response, "error": None}
                (answers if status == 200 else errors).append(done)
                if len(left) <= total // 2 and self.faults.happens("num_expired"):
                    self._end(batch, "expired")
                    break
            batch["request_counts"]["completed"] = len(answers)
            if not left and batch["status"] == "in_progress":
                self._end(batch, "completed")
        return _said(batch)

    def _end(self, batch: dict, status: str) -> None:
        batch["status"] = status
        answers, errors = self._lines[batch["id"]]
        for line in self._left[batch["id"]]:
            error = {"code": f"batch_{status}", "message": f"the batch is {status}"}
            errors.append({"id": "l", "custom_id": line["custom_id"], "response": None, "error": error})
        for name, lines in (("output", answers), ("error", errors)):
            if lines:
                content = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
                file = self._store(f"{batch['id']}_{name}.jsonl", content, "batch_output")
                batch[f"{name}_file_id"] = file["id"]

    def _listed(self, found: dict[str, dict], query: dict) -> tuple[int, bytes]:
        if self.faults.no_lists:
            return _refused(404, "nothing is listed")
        names = list(reversed(found))
        names = names[names.index(query["after"][0]) + 1 :] if "after" in query else names
        # Pages are short, so that there are some.
        page = [{name: one for name, one in found[name].items() if name != "content"} for name in names[:2]]
        return _said({"object": "list", "data": page, "has_more": len(names) > 2})


HAPPENS = ("busy", "broken", "dropped", "lost", "cut", "ended")
NOT_DONE = HAPPENS[:3]


@dataclass(frozen=True)
class Network:
    """What happens to a share of the requests, in equal parts: `busy`, status 429; `broken`, status 500;
    `dropped`, the connection closes. Of these nothing is done. The others are done, and paid: `lost`, the
    connection closes without an answer; `cut`, in its middle; `ended`, the same, where the answer does not
    say how long it is.

    It is drawn by the request's name and by how often it came, so that a run that is killed meets the same as
    one that is not.
    """

    share: float = 0.0
    seed: int = 0
    most: int = 2
    """How often it may happen to a request of one name."""

    def happens(self, name: str, times: int) -> str:
        """To a request that came so many times before; empty where it gets through."""
        digest = hashlib.sha256(f"{self.seed}\0{name}\0{times}".encode()).digest()
        drawn = int.from_bytes(digest[:7]) / (1 << 56)
        if times >= self.most or drawn >= self.share:
            return ""
        return HAPPENS[int(drawn / self.share * len(HAPPENS))]


@dataclass(frozen=True)
class Happening:
    """A network of which a test says what happens."""

    happens: Callable[[str, int], str]


def _said(value: dict) -> tuple[int, bytes]:
    return 200, json.dumps({name: one for name, one in value.items() if name != "content"}).encode()


def _refused(status: int, message: str) -> tuple[int, bytes]:
    return status, json.dumps({"error": {"message": message}}).encode()


REFUSED = {"busy": _refused(429, "too many requests"), "broken": _refused(500, "oh")}
"""What is said to what was not done."""


def table(base_url: str, **settings) -> dict:
    """A table [endpoint] that asks there, one request at a time and each once."""
    return {"base_url": base_url, "model": "m", "max_retries": 0, "concurrency": 1} | settings


class _Server(ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        # A client that was killed is none.
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class Endpoint:
    """Use as a context manager. `reply(messages)` gives the answer's text, or an `Odd` one; each call takes
    `latency_s`.

    Every request that is answered is *paid*: counted by its idempotency key, whether the client still listens
    or not. With `knows_keys` a repeated key gets the first answer again and costs nothing, as at servers that
    honour the header; `num_repeated` counts such requests. The first `num_refused` requests get status
    `refusal`, with Retry-After.

    `batches` is its batch API. An answer in a batch is paid when it is made, whoever fetches it. `embed`:
    texts -> vectors, for clients that ask for those. `network` is what lies between: a chat is named by its
    key, other requests by number, method and path; those in a batch may be `busy` or `broken`. `usage`:
    messages, text -> tokens of prompt and answer.
    """

    def __init__(
        self,
        reply,
        *,
        latency_s=0.0,
        knows_keys=False,
        num_refused=0,
        refusal=429,
        faults: Faults | None = None,
        num_looks: int = 2,
        embed=None,
        network: Network | Happening = Network(),
        usage=lambda messages, text: (100, 10),
    ):
        self.embed, self.network, self.usage = embed, network, usage
        self.batches = Batches(self.answer_in_batch, faults or Faults(), num_looks)
        self.num_received = 0
        """HTTP requests."""
        self.happened: Counter[str] = Counter()
        self._came: Counter[str] = Counter()
        self.reply, self.latency_s, self.knows_keys = reply, latency_s, knows_keys
        self.num_refused, self.refusal = num_refused, refusal
        self.paid: Counter[str] = Counter()
        self.requests: list[dict] = []
        self.num_repeated = 0
        self.authorizations: set[str | None] = set()
        self._seen: set[str] = set()
        self.max_in_flight = self._in_flight = 0
        self._answers: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def __enter__(self):
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                endpoint.authorizations.add(self.headers.get("Authorization"))
                is_chat = self.path.endswith("/chat/completions")
                key = self.headers.get("Idempotency-Key") if is_chat else None
                happens = endpoint.received(key, f"{self.command} {self.path}")
                if happens in NOT_DONE:
                    said = REFUSED.get(happens, (0, b""))
                elif is_chat:
                    said = endpoint.answer(key, json.loads(body))
                elif self.path.endswith("/embeddings") and endpoint.embed:
                    said = endpoint.vectors(json.loads(body))
                else:
                    said = endpoint.batches.handle(self.command, self.path, self.headers, body)
                self.say(*said, happens)

            do_GET = do_DELETE = do_POST

            def say(self, status, answer, happens):
                if happens in ("dropped", "lost"):
                    self.close_connection = True
                    return
                is_file = self.path.endswith("/content")
                try:
                    self.send_response(status)
                    if status == 429:
                        self.send_header("Retry-After", "0.2")
                    self.send_header(
                        "Content-Type", "application/octet-stream" if is_file else "application/json"
                    )
                    if happens == "ended":
                        self.send_header("Connection", "close")
                    else:
                        self.send_header("Content-Length", str(len(answer)))
                    self.end_headers()
                    if happens in ("cut", "ended"):
                        self.close_connection = True
                        answer = answer[: len(answer) // 2]
                    self.wfile.write(answer)
                except OSError:
                    self.close_connection = True

            def log_message(self, *_):
                pass

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.base_url = f"http://127.0.0.1:{self._server.server_port}/v1"
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()

    def received(self, key: str | None, line: str) -> str:
        """What happens to a request: a chat of this key, or any other."""
        with self._lock:
            self.num_received += 1
            return self._happens(key or f"{self.num_received} {line}")

    def _happens(self, name: str) -> str:
        happens = self.network.happens(name, self._came[name])
        self._came[name] += 1
        self.happened.update([happens] if happens else [])
        return happens

    def answer_in_batch(self, key: str, body: dict) -> tuple[int, bytes]:
        with self._lock:
            happens = self._happens(key)
        return REFUSED.get(happens) or self.answer(key, body)

    def vectors(self, body: dict) -> tuple[int, bytes]:
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        with self._lock:
            found = self.embed(texts)
        data = [{"object": "embedding", "index": n, "embedding": one} for n, one in enumerate(found)]
        usage = {"prompt_tokens": 0, "total_tokens": 0}
        return _said({"object": "list", "data": data, "model": body["model"], "usage": usage})

    def answer(self, key: str, body: dict) -> tuple[int, bytes]:
        with self._lock:
            self.requests.append(body)
            if len(self.requests) <= self.num_refused:
                return self.refusal, json.dumps({"error": {"message": "not now"}}).encode()
            self.num_repeated += key in self._seen
            self._seen.add(key)
            if self.knows_keys and key in self._answers:
                return 200, self._answers[key]
            self._in_flight += 1
            self.max_in_flight = max(self.max_in_flight, self._in_flight)
        time.sleep(self.latency_s)
        said = self.reply(body["messages"])
        said = Odd(said) if isinstance(said, str) else said
        if said.status != 200:
            with self._lock:
                self._in_flight -= 1
            return said.status, json.dumps({"error": {"message": said.text}}).encode()
        tokens = self.usage(body["messages"], said.text)
        usage = dict(zip(("prompt_tokens", "completion_tokens"), tokens, strict=True))
        usage |= {"total_tokens": sum(tokens)}
        message = {"role": "assistant", "content": said.text, "refusal": said.refusal}
        done = {
            "id": key,
            "object": "chat.completion",
            "created": 0,
            "model": body["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": said.finish_reason}],
            **({"usage": usage} if said.has_usage else {}),
        }
        answer = json.dumps(done).encode()
        with self._lock:
            self._in_flight -= 1
            self.paid[key] += not (self.knows_keys and key in self._answers)
            return 200, self._answers.setdefault(key, answer)


def by_rules(messages: list[dict], opening: str = "<CURRENT_TURNS>") -> str:
    """What the rule-based extractor says of the prompt's current turns."""
    from cluster.distill.extractor import extract

    current = messages[-1]["content"].partition(opening)[2]
    parts = [
        {"turn_index": int(index), "role": role, "speaker": None, "text": text.strip()}
        for index, role, text in TURN.findall(current)
    ]
    segment = {"current": parts, "context": [], "session_time": None}
    return json.dumps({"records": extract(segment, max_records=4, max_text_chars=160)})
