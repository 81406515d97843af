"""A distillation by a provider's batch API, killed twice: calls and cost are those of an undisturbed one."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.store.files import Files
from tests import endpoint as served
from tests.e2e.archives import write_unlike
from tests.e2e.conftest import ENCODER, job, start, wait_until
from tests.e2e.judges import grades_or_records


def write_config(path: Path, server: served.Endpoint, num_requests: int) -> Path:
    lines = [f'profile = "{ENCODER}"', "max_empty_fraction = 0.9", 'teacher = "openai"', 'judge = "openai"']
    for role in ("teacher", "judge"):
        lines += [f"[{role}_endpoint]", f'base_url = "{server.base_url}"', f'model = "{role}-1"']
        lines += ["prompt_price = 1.0", "output_price = 2.0"]
        lines += ["batch = true", "batch_poll_s = 0.2", f"batch_max_requests = {num_requests}"]
    path.write_text("\n".join(lines))
    return path


def kill_when(command: list, happened: Callable[[], bool]) -> None:
    process = start(*command)
    wait_until(process, happened)
    assert process.poll() is None, process.communicate()[1][-3000:]
    process.send_signal(signal.SIGKILL)
    process.communicate()


def faults() -> served.Faults:
    """Of each kind that a provider may have."""
    return served.Faults(
        num_busy=2, num_lost_uploads=1, num_lost_creates=1, num_late_creates=1, num_expired=1, num_missing=3
    )


@pytest.mark.parametrize("num_segments", [300, pytest.param(5000, marks=pytest.mark.slow)])
def test_a_distillation_in_batches_killed_twice_asks_and_costs_what_an_undisturbed_one_does(
    tmp_path, num_segments
):
    archive = write_unlike(tmp_path / "archive", num_segments)

    def command(name: str, server: served.Endpoint) -> list:
        config = write_config(tmp_path / f"{name}.toml", server, num_segments // 4)
        distill = ["jobs.distill", "--archive", archive, "--output", tmp_path / name, "--config", config]
        return [*distill, "--local"]

    with served.Endpoint(grades_or_records, faults=faults(), num_looks=5) as server:
        whole = job(*command("whole", server))
        assert whole.summary["status"] == "done"
        num_paid = len(server.paid)
        assert set(server.paid.values()) == {1}
        assert not server.batches.files
    assert whole.summary["num_segments_asked"] == num_segments
    assert num_segments < num_paid <= 2 * num_segments
    assert whole.summary["cost"] == pytest.approx(num_paid * (100 * 1.0 + 10 * 2.0) / 1e6 / 2)
    assert whole.stderr.count(" requests answered in batches (") >= 10

    with served.Endpoint(grades_or_records, faults=faults(), num_looks=5) as server:
        # Once between two batches of the teacher, once while the answers of some are fetched.
        kill_when(command("killed", server), lambda: server.batches.num_created >= 2)
        kill_when(command("killed", server), lambda: server.batches.num_read >= 2)
        done = job(*command("killed", server)).summary
        num_batches = server.batches.num_created
        assert job(*command("killed", server)).summary["num_teach_asked"] == 0
        assert set(server.paid.values()) == {1} and len(server.paid) == num_paid
        assert server.batches.num_created == num_batches and not server.batches.files
    names = (
        "num_train",
        "num_validation",
        "data_hash",
        "cost",
        "teacher_prompt_tokens",
        "judge_output_tokens",
    )
    assert {name: done[name] for name in names} == {name: whole.summary[name] for name in names}
    assert done["num_teach_resumed"] > 0
    ledger = Files(str(tmp_path / "killed"), "ledger")
    assert not ledger.paths("batches") and len(ledger.paths("answers")) == num_paid
