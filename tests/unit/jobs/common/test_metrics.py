"""Metrics for Prometheus: a file at the end of a job, however it ends."""

import json
import re
import subprocess
import sys

import pytest

from cluster.runtime import log
from jobs.common import job_config
from jobs.common.cli import JobConfig, parse_config
from jobs.common.metrics import HELP, Metrics, of_runs, text_of, write
from schemas.manifest import RunStatus
from tests.unit.jobs.common.endings import ENDED, JOB, NIGHT, ROOT, samples


def test_a_run_s_manifest_gives_status_seconds_counts_tokens_cost_and_time():
    assert samples(text_of(of_runs([NIGHT]))) == {
        'slowwave_run_status{job="backfill",status="done"}': 1,
        'slowwave_run_seconds{job="backfill"}': 12.5,
        'slowwave_run_finished_timestamp_seconds{job="backfill"}': ENDED.timestamp(),
        'slowwave_run_stage_seconds{job="backfill",stage="encode"}': 10,
        'slowwave_run_count{job="backfill",name="num_records"}': 7,
        'slowwave_run_tokens{job="backfill",kind="prompt"}': 100,
        'slowwave_run_cost{job="backfill"}': 0.25,
    }


def test_every_metric_says_once_what_it_is_and_its_samples_stand_together():
    text = text_of([*of_runs([NIGHT, NIGHT.model_copy(update={"job": "consolidate"})])])
    names = re.findall(r"^(?:# TYPE )?(\w+)(?: gauge$|\{)", text, re.MULTILINE)
    together = [name for place, name in enumerate(names) if place == 0 or names[place - 1] != name]
    assert len(together) == len(set(together)) and set(together) <= set(HELP)
    assert text.count("# HELP ") == text.count("# TYPE ") == len(together)


def test_a_label_cannot_break_a_line():
    text = text_of([("slowwave_job_status", {"job": 'a"b\\c\nd', "status": "done"}, 1)])
    assert 'job="a\\"b\\\\c\\nd"' in text and len(samples(text)) == 1


def test_the_last_run_of_each_job_is_told(tmp_path):
    told = Metrics()
    told.begin(tmp_path / "night.prom")
    for run_id, status in (("r1", "failed"), ("r2", "done")):
        told.ended(NIGHT.model_copy(update={"run_id": run_id, "status": RunStatus(status)}))
    told.end("nightly", "done", 20.0)
    found = samples((tmp_path / "night.prom").read_text())
    assert [name for name in found if "run_status" in name] == [
        'slowwave_run_status{job="backfill",status="done"}'
    ]
    assert found['slowwave_job_seconds{job="nightly"}'] == 20
    told.begin(None)
    told.end("nightly", "done", 1.0)


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    (path := tmp_path / "night.prom").write_text("old\n")

    def broken():
        yield "slowwave_job_seconds", {"job": "j"}, 1.0
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError):
        write(path, broken())
    assert path.read_text() == "old\n" and [one.name for one in tmp_path.iterdir()] == ["night.prom"]


@pytest.mark.parametrize(
    ("body", "status", "run_status"),
    [
        ("pass", "done", "done"),
        ('raise JobError("limit=1: all")', "failed", "failed"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "interrupted", "interrupted"),
    ],
)
def test_a_job_leaves_its_metrics_however_it_ends_and_speaks_json_where_asked(
    tmp_path, body, status, run_status
):
    command = [sys.executable, "-c", JOB % body, "--store", str(tmp_path / "store")]
    command += ["--metrics", str(tmp_path / "job.prom"), "--log-format", "json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    found = samples((tmp_path / "job.prom").read_text())
    assert found[f'slowwave_job_status{{job="small",status="{status}"}}'] == 1
    assert found[f'slowwave_run_status{{job="small",status="{run_status}"}}'] == 1
    assert found['slowwave_run_count{job="small",name="num_rows"}'] == 3
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert lines[0] | {"time": "", "message": ""} == {
        "time": "",
        "level": "info",
        "job": "small",
        "stage": "count",
        "message": "",
    }
    assert (status == "done") == all(line["level"] == "info" for line in lines)


class Small(JobConfig):
    """Settings."""

    name: str = "x"
    """A name."""


def test_the_file_sets_what_every_job_tells_and_an_option_wins(tmp_path, capsys):
    before = log.settings()
    (path := tmp_path / "job.toml").write_text(
        f'name = "y"\nlog_format = "json"\n[metrics]\nprometheus_file = "{tmp_path}/a.prom"\n'
    )
    config, shared = job_config.parse(Small, "A job.", ["--config", str(path)])
    assert (config.name, shared) == ("y", job_config.Shared("json", tmp_path / "a.prom"))
    _, shared = job_config.parse(
        Small, "A job.", ["--config", str(path), "--log-format", "text", "--metrics", str(tmp_path / "b")]
    )
    assert shared == job_config.Shared("text", tmp_path / "b")
    assert parse_config(Small, "A job.", []) == Small()
    assert log.settings() == before, "to parse sets nothing"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('log_format = "yaml"', "log_format='yaml': must be one of text, json"),
        ("metrics = 1", "[metrics]: 1: has one setting, prometheus_file"),
        ('[metrics]\nfile = "x"', "has one setting, prometheus_file; leave others out"),
        ('[metrics]\nprometheus_file = "/none/such/x"', "must be a file in a local folder that is there"),
        ('[metrics]\nprometheus_file = "s3://b/x"', "must be a file in a local folder that is there"),
    ],
)
def test_what_cannot_be_told_so_is_wrong_usage(tmp_path, capsys, text, message):
    (path := tmp_path / "job.toml").write_text(text)
    with pytest.raises(SystemExit) as caught:
        parse_config(Small, "A job.", ["--config", str(path)])
    assert caught.value.code == 2 and message in capsys.readouterr().err
