"""Faults of an S3 server, as something that stands in front of a `tests.s3_server.S3Server`."""

import threading
import time

from tests.s3_server import Answer, Around, Do, Request

UNAVAILABLE = Answer(503, b"<Error><Code>ServiceUnavailable</Code><Message>later</Message></Error>")
FAILED = Answer(500, b"<Error><Code>InternalError</Code><Message>nobody knows</Message></Error>")


def lost_answers() -> Around:
    """Every change is done, and the first time that it is asked for its answer is 500."""
    return _at_first(lambda request, do: (do(request), FAILED)[1], is_for=lambda request: request.is_change)


def cut_answers() -> Around:
    """Every request is done, and the first time that it is asked for the connection ends in its answer."""
    return _at_first(_cut, is_for=lambda request: True)


def cut_now_and_then(every: int) -> Around:
    """Every request is done, and at each n-th one the connection ends in its answer."""
    lock, num = threading.Lock(), 0

    def around(request: Request, do: Do) -> Answer:
        nonlocal num
        with lock:
            num += 1
            is_cut = num % every == 0
        return (_cut if is_cut else lambda request, do: do(request))(request, do)

    return around


def _cut(request: Request, do: Do) -> Answer:
    answer = do(request)
    return Answer(answer.status, answer.body, answer.headers, is_cut=True)


def outage(seconds: float, *, after: int = 0) -> Around:
    """From the request after so many on, all are answered by 503 for so many seconds."""
    lock, num, begun_s = threading.Lock(), 0, 0.0

    def around(request: Request, do: Do) -> Answer:
        nonlocal num, begun_s
        with lock:
            num += 1
            begun_s = begun_s or (time.monotonic() if num > after else 0.0)
            is_down = begun_s and time.monotonic() - begun_s < seconds
        return UNAVAILABLE if is_down else do(request)

    return around


def _at_first(fault: Around, is_for) -> Around:
    lock, seen = threading.Lock(), set()

    def around(request: Request, do: Do) -> Answer:
        what = (request.method, request.key, tuple(request.query.items()), request.headers.get("range"))
        with lock:
            is_first = what not in seen
            seen.add(what)
        return fault(request, do) if is_first and is_for(request) else do(request)

    return around
