"""The thread that steps vLLM: who is answered when, and what an error costs whom.

Stand-in: the model. A request is how many steps it takes, or a function that says when it is done.
"""

import contextlib
import gc
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest

from cluster.models.stepping import Stepper
from cluster.runtime import report_to, tick

TIMEOUT_S = 300
"""For what never comes; nothing here takes a second."""


@dataclass
class Output:
    request_id: str
    finished: bool
    prompt: object = None


@dataclass
class FakeLLM:
    """As much of `LLM` and its `LLMEngine` as a Stepper uses. `fails(engine)`: whether the next step does."""

    fails: Callable[["FakeLLM"], bool] = lambda engine: False
    in_work: dict[str, object] = field(default_factory=dict)
    steps: dict[str, int] = field(default_factory=dict)
    num_steps: int = 0
    num_answered: int = 0
    aborted: list[str] = field(default_factory=list)
    threads: set[threading.Thread] = field(default_factory=set)

    @property
    def llm_engine(self) -> "FakeLLM":
        return self

    def add_request(self, request_id, prompt, params):
        self.threads.add(threading.current_thread())
        assert request_id not in self.steps, "each has an id of its own"
        self.steps[request_id], self.in_work[request_id] = 0, prompt
        if prompt == "bad":
            raise ValueError("a bad request")

    def abort_request(self, request_ids):
        self.aborted += [one for one in request_ids if self.in_work.pop(one, None) is not None]

    def has_unfinished_requests(self):
        return bool(self.in_work)

    def step(self):
        self.threads.add(threading.current_thread())
        assert self.in_work, "it is stepped only where there is work"
        self.num_steps += 1
        if self.fails(self):
            raise ArithmeticError("a bad step")
        outputs = []
        for request_id, prompt in list(self.in_work.items()):
            self.steps[request_id] += 1
            is_done = prompt(self) if callable(prompt) else self.steps[request_id] >= prompt
            if is_done:
                del self.in_work[request_id]
                self.num_answered += 1
            outputs.append(Output(request_id, is_done, prompt))
        return outputs


def asked(*prompts) -> list[dict]:
    return [{"prompt": prompt, "params": None} for prompt in prompts]


def prompts_of(outputs) -> list:
    return [output.prompt for output in outputs]


@pytest.fixture
def callers():
    with ThreadPoolExecutor(4) as pool:
        yield pool


def test_answers_are_in_the_order_of_the_requests_and_go_to_who_asked(callers):
    stepper = Stepper(FakeLLM)
    calls = [(3, 1, 2), (1, 5), (), (4,)] * 5
    found = callers.map(lambda call: prompts_of(stepper.answers(asked(*call))), calls, timeout=TIMEOUT_S)
    assert list(found) == [list(call) for call in calls]


def test_what_is_asked_late_is_decoded_beside_what_is_in_work(callers):
    """Regression: the model was asked one batch after the other, and at the end of each it decoded little."""
    stepper, first_is_in_work = Stepper(FakeLLM), threading.Event()

    def until_another_is_answered(engine):
        first_is_in_work.set()
        return engine.num_answered > 0

    first = callers.submit(stepper.answers, asked(until_another_is_answered))
    assert first_is_in_work.wait(TIMEOUT_S)
    second = callers.submit(stepper.answers, asked(2))
    assert prompts_of(second.result(TIMEOUT_S)) == [2]
    assert prompts_of(first.result(TIMEOUT_S)) == [until_another_is_answered]


def test_it_is_loaded_and_stepped_in_one_thread_that_is_no_callers(callers):
    loaded_in, stepping = [], threading.local()

    def load():
        loaded_in.append(threading.current_thread())
        return FakeLLM(fails=lambda engine: not getattr(stepping, "is_on", False))

    @contextlib.contextmanager
    def on():
        stepping.is_on = True
        yield
        stepping.is_on = False

    stepper = Stepper(load, on)
    assert prompts_of(callers.submit(stepper.answers, asked(2)).result(TIMEOUT_S)) == [2]
    assert stepper.llm.threads == set(loaded_in)
    assert threading.current_thread() not in loaded_in


def test_a_request_that_is_refused_fails_its_call_and_no_other(callers):
    stepper, may_end = Stepper(FakeLLM), threading.Event()
    other = callers.submit(stepper.answers, asked(lambda engine: may_end.is_set()))
    for _ in range(2):
        with pytest.raises(ValueError, match="a bad request"):
            stepper.answers(asked(10**9, "bad", 10**9))
    assert len(stepper.llm.aborted) == 4, "nothing of these calls is left, also not what was bad"
    may_end.set()
    assert len(other.result(TIMEOUT_S)) == 1
    assert prompts_of(stepper.answers(asked(2, 1))) == [2, 1]


def test_a_step_that_fails_fails_all_calls_in_work_and_none_after(callers):
    stepper = Stepper(lambda: FakeLLM(fails=lambda engine: len(engine.in_work) == 3))
    calls = [callers.submit(stepper.answers, asked(*prompts)) for prompts in [(10**9, 10**9), (10**9,)]]
    for call in calls:
        with pytest.raises(ArithmeticError, match="a bad step"):
            call.result(TIMEOUT_S)
    assert not stepper.llm.in_work, "the next call is not decoded beside what nobody waits for"
    assert prompts_of(stepper.answers(asked(2, 1))) == [2, 1]


def test_a_request_that_the_model_forgets_is_no_endless_wait():
    def forgotten(engine):
        engine.in_work.clear()
        return False

    stepper = Stepper(FakeLLM)
    with pytest.raises(RuntimeError, match="ended 1 requests without an answer"):
        stepper.answers(asked(forgotten))
    assert prompts_of(stepper.answers(asked(1))) == [1]


def test_a_model_that_cannot_be_loaded_says_why_and_leaves_no_thread():
    threads = []

    def load():
        threads.append(threading.current_thread())
        raise OSError("no such model")

    with pytest.raises(OSError, match="no such model"):
        Stepper(load)
    threads[0].join(TIMEOUT_S)
    assert not threads[0].is_alive()


@pytest.mark.parametrize("prompts", [(1, 2), (1, "bad")])
def test_thread_and_model_go_with_who_holds_them(prompts):
    """Also after a call that failed, and without a look for circles, which may come after the next model."""
    gc.disable()
    try:
        stepper = Stepper(FakeLLM)
        with contextlib.suppress(ValueError):
            stepper.answers(asked(*prompts))
        (thread,), model = stepper.llm.threads, weakref.ref(stepper.llm)
        del stepper
        assert not thread.is_alive()
        assert model() is None
    finally:
        gc.enable()


def test_each_answer_counts_in_the_item_that_asked(callers, capsys):
    """Two batches in work count apart, and nothing is shown beside the lines of the job."""
    stepper, both = Stepper(FakeLLM), threading.Barrier(2)

    def work(prompts) -> int:
        counted: list[int] = []
        with report_to(counted.append):
            both.wait(TIMEOUT_S)
            stepper.answers(asked(*prompts))
            both.wait(TIMEOUT_S)
            tick(10)
        tick(100)
        return sum(counted)

    calls: list[Future[int]] = [callers.submit(work, prompts) for prompts in [(3, 1, 2), (2, 2)]]
    assert [call.result(TIMEOUT_S) for call in calls] == [13, 12]
    assert capsys.readouterr() == ("", "")
