"""The checks of a GPU: tried on the CPU with tiny models, and on the card where there is one."""

import json
import time
from pathlib import Path

import numpy as np
import pytest

from tests.gpu import check
from tests.gpu.check import CHECKS, LIMIT_S, NotRun, Setting, compared, in_own_process, main, run_check

TINY = Setting("cpu", tiny=True)


def printed(capsys) -> list[dict]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]


# --- the checks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["encoder", "embedder", "evolvable", "evolvable_step", "lora", "records"])
def test_a_check_holds_where_the_cpu_stands_in_with_tiny_models(name):
    line = run_check(name, TINY)
    assert line["status"] == "held", line
    assert any(key.partition("_per_s")[1] for key in line), "it names no speed"


@pytest.mark.gpu
@pytest.mark.parametrize("name", CHECKS)
def test_a_check_holds_on_the_card(name):
    line = in_own_process(name, Setting("cuda"), LIMIT_S)
    if line["status"] == "not run":
        pytest.skip(line["why"])
    assert line["status"] == "held", line


def test_training_in_four_bits_says_what_it_lacks():
    line = run_check("qlora", TINY)
    assert line["status"] == "not run"
    assert "a CUDA device" in line["why"]


# --- the bound ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def product() -> dict[str, np.ndarray]:
    """One and the same product: exact, in float32, and in float32 with the sums the other way round."""
    left, right = (np.random.default_rng(seed).standard_normal((64, 512)) for seed in (0, 1))
    single = [side.astype(np.float32) for side in (left, right)]
    left, right = (side.astype(np.float64) for side in single)
    turned = [np.ascontiguousarray(side[:, ::-1]) for side in single]
    return {"exact": left @ right.T, "cpu": single[0] @ single[1].T, "here": turned[0] @ turned[1].T}


def test_another_order_of_the_sums_is_within_the_bound(product):
    found = compared(**product)
    assert found["holds"]
    assert found["off_by"] > 0


def test_factors_of_ten_bits_as_in_tf32_are_beyond_the_bound(product):
    left, right = (np.random.default_rng(seed).standard_normal((64, 512)) for seed in (0, 1))
    # The mantissa's last 13 bits of 23 are cut.
    cut = [(side.astype(np.float32).view(np.uint32) & 0xFFFFE000).view(np.float32) for side in (left, right)]
    found = compared(product["exact"], product["cpu"], cut[0] @ cut[1].T)
    assert not found["holds"]
    assert found["off_by"] > 50 * found["bound"]


def test_what_is_no_number_does_not_hold(product):
    assert not compared(product["exact"], product["cpu"], product["here"] * np.nan)["holds"]


# --- the run --------------------------------------------------------------------------------------------


def test_without_a_gpu_it_names_the_option_that_stands_in(monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 2
    assert "no CUDA device" in (told := capsys.readouterr().err)
    assert "--cpu" in told


def lacks_a_package(_):
    raise ModuleNotFoundError("No module named 'vllm'", name="vllm")


def lacks_something(_):
    raise NotRun("there is no room")


@pytest.mark.parametrize(
    ("work", "why"), [(lacks_a_package, "the package vllm is not installed"), (lacks_something, "no room")]
)
def test_a_check_that_cannot_run_says_why(monkeypatch, work, why):
    monkeypatch.setitem(CHECKS, "encoder", work)
    line = run_check("encoder", TINY)
    assert line["status"] == "not run"
    assert why in line["why"]


def test_one_comparison_that_does_not_hold_fails_its_check(monkeypatch):
    monkeypatch.setitem(CHECKS, "encoder", lambda _: {"a": {"b": {"holds": True}, "c": {"holds": False}}})
    assert run_check("encoder", TINY)["status"] == "failed"


def test_a_check_that_compares_nothing_is_an_error(monkeypatch):
    monkeypatch.setitem(CHECKS, "encoder", lambda _: {"tokens_per_s": 7})
    with pytest.raises(AssertionError, match="compares nothing"):
        run_check("encoder", TINY)


def test_no_check_begins_when_the_time_is_over(monkeypatch, capsys):
    monkeypatch.setattr(check, "LIMIT_S", 0)
    assert main(["--cpu", "--tiny"]) == 1
    *lines, summary = printed(capsys)
    assert [line["check"] for line in lines] == list(CHECKS)
    assert {line["status"] for line in lines} == {"not run"}
    assert all("are over" in line["why"] for line in lines)
    assert summary["not run"] == len(CHECKS)


@pytest.mark.parametrize(("status", "code"), [("held", 0), ("not run", 0), ("failed", 1)])
def test_a_run_is_good_where_something_held_and_nothing_failed(monkeypatch, capsys, status, code):
    def line(name, setting, left_s):
        return {"check": name, "status": status if name == "lora" else "held", "why": "as told"}

    monkeypatch.setattr(check, "in_own_process", line)
    assert main(["--cpu", "--only", "encoder", "lora"]) == code
    told = capsys.readouterr()
    assert json.loads(told.out.splitlines()[-1])["status"] == ("failed" if code else "done")
    assert ("lora: not run: as told" in told.err) == (status == "not run")


def test_a_check_that_dies_fails_alone(monkeypatch):
    monkeypatch.setattr(check.sys, "executable", "/bin/false")
    line = in_own_process("encoder", TINY, 60)
    assert (line["status"], line["why"]) == ("failed", "exit code 1, see above")


def test_a_check_that_hangs_ends_with_all_that_it_has_started(monkeypatch, tmp_path):
    hangs, child = tmp_path / "hangs", tmp_path / "child"
    hangs.write_text(f"#!/bin/sh\nsleep 600 & echo $! > {child}.new; mv {child}.new {child}; wait\n")
    hangs.chmod(0o755)

    def has_started(_, timeout):
        while not child.is_file():
            time.sleep(0.01)
        raise check.subprocess.TimeoutExpired("python", timeout)

    monkeypatch.setattr(check.sys, "executable", str(hangs))
    monkeypatch.setattr(check.subprocess.Popen, "communicate", has_started)
    assert "not done" in in_own_process("encoder", TINY, 60)["why"]
    place = Path("/proc", child.read_text().strip(), "stat")
    # A signal takes its time. What is dead may stay until its new parent asks for it.
    while place.exists() and place.read_text().split()[2] != "Z":
        time.sleep(0.01)
