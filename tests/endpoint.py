"""An OpenAI-compatible endpoint on loopback that counts what it is paid for."""

import json
import re
import threading
import time
from collections import Counter
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

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


def table(base_url: str, **settings) -> dict:
    """A table [endpoint] that asks there, one request at a time and each once."""
    return {"base_url": base_url, "model": "m", "max_retries": 0, "concurrency": 1} | settings


class Endpoint:
    """Use as a context manager. `reply(messages)` gives the answer's text, or an `Odd` one; each call takes
    `latency_s`.

    Every request that is answered is *paid*: counted by its idempotency key, whether the client still listens
    or not. With `knows_keys` a repeated key gets the first answer again and costs nothing, as at servers that
    honour the header; `num_repeated` counts such requests. The first `num_refused` requests get status
    `refusal`, with Retry-After.
    """

    def __init__(self, reply, *, latency_s=0.0, knows_keys=False, num_refused=0, refusal=429):
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
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                endpoint.authorizations.add(self.headers.get("Authorization"))
                status, answer = endpoint.answer(self.headers.get("Idempotency-Key"), body)
                try:
                    self.send_response(status)
                    if status == 429:
                        self.send_header("Retry-After", "0.2")
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(answer)))
                    self.end_headers()
                    self.wfile.write(answer)
                except OSError:
                    self.close_connection = True

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.base_url = f"http://127.0.0.1:{self._server.server_port}/v1"
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()

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
        usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
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
