"""The operator's own tokens: used, and in nothing that a run leaves behind or says."""

import json

import pytest

from cluster.runtime import HIDDEN, ClusterConfig, hide_secrets
from jobs.backfill import BackfillConfig
from jobs.common.cli import JobError, main, parse_config, say
from jobs.common.run import Run
from jobs.evaluate import decider
from jobs.evaluate.report import write_report
from jobs.train import __main__ as training

CANARY = "hf_" + "Canary0Value" * 3


def config(**cluster) -> BackfillConfig:
    return BackfillConfig(archive="a", store="s", cluster=ClusterConfig(**cluster))


def test_the_workers_get_what_the_config_gives_and_what_it_names(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", CANARY)
    given = ClusterConfig(env_vars={"SLOWWAVE_CACHE": "/cache"}, pass_env=["HF_TOKEN"])
    assert given.environment() == {"SLOWWAVE_CACHE": "/cache", "HF_TOKEN": CANARY}


def test_a_name_that_is_not_set_is_named_with_the_remedy(monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with pytest.raises(ValueError, match="HF_TOKEN: not set in the environment; export it"):
        ClusterConfig(pass_env=["HF_TOKEN"])


def test_a_dumped_config_has_names_and_no_values():
    dumped = config(env_vars={"HF_TOKEN": CANARY})
    for text in (dumped.model_dump_json(), json.dumps(dumped.model_dump(mode="json")), repr(dumped)):
        assert "HF_TOKEN" in text and CANARY not in text


@pytest.mark.parametrize("way", ["env_vars", "pass_env"])
def test_no_file_that_a_run_leaves_has_the_token(tmp_path, monkeypatch, way):
    """The row of `runs`, a job's manifest, the report of an evaluation; also where an error quotes it."""
    monkeypatch.setenv("HF_TOKEN", CANARY)
    cluster = {"env_vars": {"HF_TOKEN": CANARY}} if way == "env_vars" else {"pass_env": ["HF_TOKEN"]}
    given = BackfillConfig(archive="a", store=str(tmp_path / "store"), cluster=ClusterConfig(**cluster))
    run = Run("backfill", given, encoder="e", embedder="m", profiles={"note": f"401 for {CANARY}"})
    run.counts["error"] = f"401 for {CANARY}"
    row = run.row("{}")
    run.finish("failed")
    report = tmp_path / "report"
    report.mkdir()
    evaluation = decider.Config(pairs="p", report=str(report), cluster=ClusterConfig(**cluster))
    write_report(report, evaluation, {"error": CANARY}, "T", [{"a": 1}], "notes", lambda figure: None)
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(left) >= 4
    assert [path for path in left if CANARY.encode() in path.read_bytes()] == []
    assert CANARY not in json.dumps(row) and "HF_TOKEN" in json.dumps(row)


def test_neither_an_error_nor_the_summary_nor_progress_says_the_token(monkeypatch, capfd):
    monkeypatch.setenv("HF_TOKEN", CANARY)
    # Which would leave this process without a stdout.
    monkeypatch.setattr("jobs.common.cli.reserve_stdout", lambda: None)
    say(f"loading with {CANARY}")

    def fail(given):
        raise JobError(f"401 for {CANARY}")

    def break_(given):
        raise RuntimeError(f"unexpected {CANARY}")

    for run in (fail, break_):
        with pytest.raises(SystemExit):
            main(BackfillConfig, run, "Doc.", ["--archive", "a", "--store", "s"])
    said = capfd.readouterr()
    assert CANARY not in said.out + said.err and "[HF_TOKEN]" in said.out + said.err


@pytest.mark.parametrize(
    "toml",
    [
        f'[cluster]\nHF_TOKEN = "{CANARY}"\n',
        f'[cluster]\nenv_vars = {{ HF_TOKEN = ["{CANARY}"] }}\n',
        f'[cluster]\nenv_vars = "HF_TOKEN={CANARY}"\n',
        f'hf_token = "{CANARY}"\n',
    ],
)
def test_a_token_at_the_wrong_place_is_refused_without_being_shown(tmp_path, capsys, toml):
    (tmp_path / "c.toml").write_text(toml)
    arguments = ["--archive", "a", "--store", "s", "--config", str(tmp_path / "c.toml")]
    with pytest.raises(SystemExit):
        parse_config(BackfillConfig, "Doc.", arguments)
    said = capsys.readouterr().err
    assert "wrong settings" in said and CANARY not in said


def test_a_token_with_a_quotation_mark_is_hidden_in_json_too(monkeypatch):
    monkeypatch.setenv("APP_TOKEN", odd := 'odd"value\\here')
    assert json.loads(hide_secrets(json.dumps({"a": odd}))) == {"a": "[APP_TOKEN]"}


def test_short_values_and_paths_are_not_hidden(monkeypatch, tmp_path):
    monkeypatch.setenv("APP_TOKEN", "short")
    monkeypatch.setenv("SSH_KEY", str(tmp_path))
    assert hide_secrets(f"short {tmp_path}") == f"short {tmp_path}"


# --- secrets in URLs ------------------------------------------------------------------------------------

URLS = {
    "git+https://CANARY@host/x": "git+https://**********@host/x",
    "git+https://x-token:CANARY@host/x@v1.0#egg=x": "git+https://**********@host/x@v1.0#egg=x",
    "pkg --index-url https://user:CANARY@host/simple --no-deps": "https://**********@host/simple --no-deps",
    "--extra-index-url=https://__token__:CANARY%40@host:8443": "https://**********@host:8443",
    "https://host/x.whl?X-Amz-Credential=CANARY&X-Amz-Signature=CANARY&v=2": "&v=2",
    "https://host/x.whl?v=2&access_token=CANARY#sha256=12": "?v=2&access_token=**********#sha256=12",
    "https://blob/x?sv=2024&sig=CANARY%3D": "?sv=2024&sig=**********",
    "https://host/x?api-key=CANARY;key=CANARY": "?api-key=**********",
    "https://host/cb#id_token=CANARY": "#id_token=**********",
    "s3://AKIACANARY:CANARY@host/bucket": "s3://**********@host/bucket",
}


@pytest.mark.parametrize(("url", "left"), URLS.items())
def test_no_dumped_config_has_the_secrets_of_a_url(tmp_path, monkeypatch, url, left):
    """Wherever in the config it stands: the row of `runs`, a manifest, reports of evaluation and training."""
    cluster = ClusterConfig(pip=[url], address=url, working_dir=url)
    given = BackfillConfig(archive=url, store=str(tmp_path / "store"), cluster=cluster)
    run = Run("backfill", given, encoder="e", embedder="m", profiles={"encoder": {"base": url}})
    row = run.row("{}")
    run.finish("done")
    (report := tmp_path / "report").mkdir()
    evaluation = decider.Config(pairs=url, report=str(report), cluster=cluster)
    write_report(report, evaluation, {}, "T", [{"a": 1}], "notes", lambda figure: None)
    training.leave({"config": given.model_dump(mode="json")}, f"of {url}", tmp_path, report)
    dumps = list(tmp_path.rglob("*.json"))
    assert len(dumps) == 3
    for text in (row["config"], *(path.read_text() for path in dumps)):
        assert "CANARY" not in text and left in text
        json.loads(text)
    assert "CANARY" not in (report / "README.md").read_text()


def test_a_password_with_a_quotation_mark_is_hidden_in_a_dumped_url():
    text = json.dumps({"url": 'https://user:CANARY"\\"CANARY@host/x'})
    assert json.loads(hide_secrets(text)) == {"url": f"https://{HIDDEN}@host/x"}


@pytest.mark.parametrize(
    "text",
    [
        "git+https://host/x@v1.0#subdirectory=a&egg=b",
        "s3://bucket/user@example.org/x?region=eu-1&endpoint=https://minio:9000&author=me",
        "someone@example.org, git@host:org/x.git",
    ],
)
def test_what_is_no_secret_of_a_url_stays(text):
    assert hide_secrets(text) == text


def test_an_error_does_not_say_the_secrets_of_a_url(monkeypatch, capfd):
    monkeypatch.setattr("jobs.common.cli.reserve_stdout", lambda: None)

    def fail(given):
        raise JobError("--archive https://user:CANARY@host/x: cannot be listed")

    with pytest.raises(SystemExit):
        main(BackfillConfig, fail, "Doc.", ["--archive", "a", "--store", "s"])
    said = capfd.readouterr()
    assert "CANARY" not in said.out + said.err and "@host/x: cannot be listed" in said.out + said.err
