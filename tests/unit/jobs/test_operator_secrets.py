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
from schemas.manifest import RunManifest

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
    write_report(report, evaluation, {"error": CANARY}, "T", [{"a": 1}], "notes", ())
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
    assert said.startswith("error: ") and CANARY not in said


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
    write_report(report, evaluation, {}, "T", [{"a": 1}], "notes", ())
    training.leave(RunManifest(config=given.model_dump(mode="json")), f"of {url}", "page", tmp_path, report)
    dumps = list(tmp_path.rglob("*.json"))
    assert len(dumps) == 3
    for text in (row["config"], *(path.read_text() for path in dumps)):
        assert "CANARY" not in text and left in text
        json.loads(text)
    assert "CANARY" not in (report / "README.md").read_text()


def test_a_password_with_a_quotation_mark_is_hidden_in_a_dumped_url():
    text = json.dumps({"url": 'https://user:CANARY"\\"CANARY@host/x'})
    assert json.loads(hide_secrets(text)) == {"url": f"https://{HIDDEN}@host/x"}


KEYS = {
    "hook": "a1B2c3D4e5F6g7H8i9J0k1L2",
    "small": "k3j9x2m4n8p1q7r5s6t0u2v4",
    "hex": "9f86d081884c7d659a2feaa0c55ad015",
    "uuid": "5f0c1e2a-3b4d-4c5e-8f60-718293a4b5c6",
    "bot": "7102015432:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsawE",
    "token": "glpat-" + "x1Y2z3A4b5C6d7E8f9G0",
}
"""Put together here, so that no scanner finds them."""

PATHS = {
    "https://hooks.slack.com/services/T0123ABCD/B0123ABCD/{hook}": "https://hooks.slack.com",
    "https://discord.com/api/webhooks/123456789012345678/{hook}-_x": "https://discord.com/api/webhooks/1234",
    "https://api.telegram.org/bot{bot}/getMe": "https://api.telegram.org/",
    "https://proxy.example/bot{bot}/sendMessage?chat_id=1": "/sendMessage?chat_id=1",
    "https://n8n.example.com/webhook/{uuid}": "https://n8n.example.com/webhook/",
    "https://alerts.example.com/hook/{hex}/fire": "/fire",
    "https://objectstorage.eu.example/p/{hook}{hook}/n/ns/b/models/o/a.gguf": "/n/ns/b/models/o/a.gguf",
    "https://mirror.example/share/{small}/model.tar": "/model.tar",
    "https://host.example/{hook}/model.whl": "/model.whl",
    "git+https://host.example/x/{token}/y.git": "/y.git",
    "s3://bucket/{token}/store": "/store",
    "see https://hooks.example.com/hooks/{hook}, then": ", then",
}


@pytest.mark.parametrize(("url", "left"), PATHS.items())
def test_a_key_in_the_path_of_a_url_is_hidden_and_the_rest_stays(url, left):
    """Regression: only user names and parameters were looked at."""
    whole = url.format(**KEYS)
    hidden = hide_secrets(json.dumps({"url": whole}))
    assert json.loads(hidden)["url"].count(HIDDEN) >= 1 and left in hidden
    assert not any(key[at : at + 8] in hidden for key in KEYS.values() for at in range(len(key) - 7))
    assert hide_secrets(hidden) == hidden


@pytest.mark.parametrize(
    "text",
    [
        "s3://bucket/store",
        "s3://bucket/teams/Night-Run-2026/01JABCDEFGHJKMNPQRSTVWXYZ0/store",
        "s3://bucket/a1B2c3D4e5F6g7H8i9J0k1L2/archive",
        "gs://bucket/5f0c1e2a-3b4d-4c5e-8f60-718293a4b5c6/part-00000.parquet",
        "file:///data/archive/2026-11-27T03:00:00/store",
        "https://huggingface.co/meta-llama/Meta-Llama-3-8B-Instruct/resolve/main/model-00001-of-00004.safetensors",
        "https://huggingface.co/x/y-GGUF/resolve/0123456789abcdef0123456789abcdef01234567/Q4_K_M.gguf",
        "https://files.example/packages/ab/cd/0123456789abcdef0123456789abcdef0123456789/a-1.0-py3-none-any.whl",
        "https://github.com/org/repo/archive/refs/tags/v1.2.3.tar.gz",
        "https://download.pytorch.org/whl/cpu/torch-2.9.0%2Bcpu-cp311-cp311-manylinux_2_28_x86_64.whl",
        "https://api.example.com/v1/chat/completions",
        "ray://head.cluster.local:10001",
        "https://minio.example:9000/bucket/conversations2026/part-1",
        "postgresql://host:5432/SlowwaveNightly2026Store",
        "https://host/ReallyLongCamelCaseProjectName2026/Build42Release",
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
