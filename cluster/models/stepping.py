"""One vLLM for several callers: a thread of its own steps it as long as anybody waits for an answer.

`LLM.generate` answers one call after the other, so that at the end of each a few long answers are decoded
alone. Here the requests of a call that comes in meanwhile are decoded beside them. The model is loaded in
that thread too: on a CPU vLLM binds the threads of whoever loads it.
"""

import contextlib
import itertools
import queue
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, as_completed
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from cluster.runtime import tick


class Output(Protocol):
    """What is needed here of `vllm.RequestOutput`."""

    request_id: str
    finished: bool


class Steps(Protocol):
    """The same of `LLMEngine`."""

    def add_request(self, request_id: str, prompt: Any, params: Any, **options: Any) -> object: ...

    def abort_request(self, request_ids: list[str]) -> object: ...

    def has_unfinished_requests(self) -> bool: ...

    def step(self) -> Sequence[Output]: ...


class Model(Protocol):
    """The same of `vllm.LLM`."""

    llm_engine: Steps


MAX_END_S = 60.0
"""What the thread is waited for when its model is dropped. It ends after the step that it is at."""


@dataclass(frozen=True)
class _Call:
    """What one caller asks."""

    requests: Sequence[dict[str, Any]]
    answers: Sequence[Future[Output]]


Calls = queue.SimpleQueue[_Call | None]
"""None: no more will come."""


class Stepper:
    """An LLM and the thread that steps it. `answers` may be called by several threads at a time.

    `load` and the context `stepping`, in which each step is taken, are called in that thread. The thread ends
    when the Stepper is dropped, and lets the LLM go.
    """

    def __init__(
        self,
        load: Callable[[], Model],
        stepping: Callable[[], AbstractContextManager] = contextlib.nullcontext,
    ):
        self._calls: Calls = queue.SimpleQueue()
        loaded: Future[Model] = Future()
        thread = threading.Thread(
            target=_serve, args=(load, stepping, loaded, self._calls), name="vllm", daemon=True
        )
        thread.start()
        # Before it is loaded: whoever is interrupted while it loads has dropped it.
        weakref.finalize(self, _end, self._calls, thread)
        try:
            self.llm = loaded.result()
        finally:
            del loaded

    def answers(self, requests: Sequence[dict[str, Any]]) -> list[Any]:
        """Finished `vllm.RequestOutput`s, in order; each counts as a tick of the caller's. A request is the
        arguments of `LLMEngine.add_request`, all but the id.

        What vLLM raises when it is given a request fails this call, and leaves no request of it behind. What
        it raises in a step fails all calls in work.
        """
        answers: list[Future[Output]] = [Future() for _ in requests]
        answer: Future[Output] | None = None
        self._calls.put(_Call(requests, answers))
        try:
            for answer in as_completed(answers):
                answer.result()
                tick()
            return [answer.result() for answer in answers]
        finally:
            # See below.
            answers, answer = [], None


def _end(calls: Calls, thread: threading.Thread) -> None:
    calls.put(None)
    if thread is not threading.current_thread():
        thread.join(MAX_END_S)


# --- in the thread --------------------------------------------------------------------------------------
#
# An error holds the frames that it went through, the caller's among them, and so the model. No such frame
# holds the answer that holds the error: the circle would keep the model when the next one is loaded.


def _serve(
    load: Callable[[], Model],
    stepping: Callable[[], AbstractContextManager],
    loaded: Future[Model],
    calls: Calls,
) -> None:
    try:
        llm = load()
    except BaseException as error:
        loaded.set_exception(error)
        del loaded
        return
    loaded.set_result(llm)
    waiting: dict[str, Future[Output]] = {}
    ids = map(str, itertools.count())
    while _take(llm.llm_engine, calls, waiting, ids):
        _step(llm.llm_engine, stepping, waiting)


def _take(engine: Steps, calls: Calls, waiting: dict[str, Future[Output]], ids: Iterator[str]) -> bool:
    """Add the requests of all who have called; where nothing is in work, wait for one who does. False when
    nobody will."""
    while not waiting or not calls.empty():
        call = calls.get()
        if call is None:
            return False
        added, error = _added(engine, call.requests, ids)
        if error is None:
            waiting |= zip(added, call.answers, strict=True)
        else:
            _fail(engine, added, call.answers, error)
        del call, error
    return True


def _added(
    engine: Steps, requests: Sequence[dict[str, Any]], ids: Iterator[str]
) -> tuple[list[str], BaseException | None]:
    """Ids of the requests; those until then, and the error, where there is one."""
    added: list[str] = []
    try:
        for request in requests:
            added.append(next(ids))
            engine.add_request(added[-1], **request)
    except BaseException as error:
        return added, error
    return added, None


def _step(
    engine: Steps, stepping: Callable[[], AbstractContextManager], waiting: dict[str, Future[Output]]
) -> None:
    outputs, error = _outputs(engine, stepping)
    for output in outputs:
        if output.finished and (answer := waiting.pop(output.request_id, None)):
            answer.set_result(output)
    if error is None and waiting and not engine.has_unfinished_requests():
        error = RuntimeError(f"vLLM has ended {len(waiting)} requests without an answer")
    if error is not None:
        _fail(engine, waiting, waiting.values(), error)
        waiting.clear()


def _outputs(
    engine: Steps, stepping: Callable[[], AbstractContextManager]
) -> tuple[Sequence[Output], BaseException | None]:
    try:
        with stepping():
            return engine.step(), None
    except BaseException as error:
        return [], error


def _fail(
    engine: Steps, request_ids: Iterable[str], answers: Iterable[Future[Output]], error: BaseException
) -> None:
    # The error that is told is the first one.
    with contextlib.suppress(Exception):
        engine.abort_request(list(request_ids))
    for answer in answers:
        answer.set_exception(error)
