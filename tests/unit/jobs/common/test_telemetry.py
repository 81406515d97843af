"""Metrics to a collector of OpenTelemetry: where the environment names one, the numbers of the file."""

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from jobs.common.metrics import HELP, Metrics, of_job, of_runs, text_of
from jobs.common.telemetry import TelemetryError, gathered, is_configured, send
from tests.unit.jobs.common.endings import ENDED, JOB, NIGHT, ROOT, samples

TOLD = [*of_job("nightly", "done", ENDED, 20.0), *of_runs([NIGHT])]


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch):
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)


def key(name: str, labels: dict[str, str]) -> str:
    """A sample as the file for Prometheus has it."""
    return name + "{" + ",".join(f'{label}="{value}"' for label, value in labels.items()) + "}"


class Collector(BaseHTTPRequestHandler):
    """Keeps what it is sent: (path, header of the test, samples, resource)."""

    def do_POST(self):
        from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as service

        sent = service.ExportMetricsServiceRequest()
        sent.ParseFromString(self.rfile.read(int(self.headers["Content-Length"])))
        found, resource = {}, {}
        for of_resource in sent.resource_metrics:
            resource |= {one.key: one.value.string_value for one in of_resource.resource.attributes}
            for metric in (metric for scope in of_resource.scope_metrics for metric in scope.metrics):
                for point in metric.gauge.data_points:
                    labels = {one.key: one.value.string_value for one in point.attributes}
                    value = point.as_double if point.HasField("as_double") else point.as_int
                    found[key(metric.name, labels)] = value
        self.server.sent.append((self.path, self.headers.get("x-tenant"), found, resource))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def collector(status: int = 200) -> Iterator[tuple[str, list]]:
    """A collector on this machine: its address, and what it is sent."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    server.sent, server.status = [], status
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", server.sent
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_collector_is_told_the_numbers_of_the_file():
    found = {}
    for metric in gathered(TOLD, HELP).resource_metrics[0].scope_metrics[0].metrics:
        assert metric.description
        found |= {key(metric.name, point.attributes): point.value for point in metric.data.data_points}
    assert found == samples(text_of(TOLD)) and len(found) == len(TOLD)


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "x"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://c:4318/v1/metrics"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/v1/traces"}, False),
        ({"OTEL_METRICS_EXPORTER": "otlp"}, True),
        ({"OTEL_METRICS_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, False),
        ({"OTEL_METRICS_EXPORTER": "prometheus, otlp"}, True),
        ({"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, False),
    ],
)
def test_the_usual_variables_decide_whether_anything_is_sent(monkeypatch, variables, wanted):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert is_configured() is wanted


def test_the_usual_variables_say_where_and_as_whom(monkeypatch):
    with collector() as (address, sent):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=night")
        send(TOLD, HELP)
        monkeypatch.setenv("OTEL_SERVICE_NAME", "memories")
        monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", f"{address}/own")
        send(TOLD, HELP)
    first, second = sent
    assert [first[:3], second[:3]] == [
        (path, "night", samples(text_of(TOLD))) for path in ("/v1/metrics", "/own")
    ]
    assert first[3]["service.name"] == "slowwave"
    assert (second[3]["service.name"], second[3]["deployment.environment"]) == ("memories", "test")


def test_what_cannot_be_sent_is_told_without_secrets_and_fails_no_job(monkeypatch, capsys, tmp_path):
    with collector(status=400) as (address, sent):
        address = address.replace("//", "//me:hunter2@")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
        told = Metrics()
        told.begin(tmp_path / "night.prom")
        told.end("nightly", "done", 20.0)
    assert len(sent) == 1 and (tmp_path / "night.prom").is_file()
    line = capsys.readouterr().err
    assert line.startswith("[metrics] OpenTelemetry: not sent: ") and line.count("\n") == 1
    assert "400" in line and "OTEL_EXPORTER_OTLP_" in line and "hunter2" not in line


def test_a_collector_that_is_not_there_is_waited_for_no_longer_than_the_environment_says(monkeypatch):
    with collector() as (address, _):
        pass
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    with pytest.raises(TelemetryError, match=r"127\.0\.0\.1.*; is a collector there"):
        send(TOLD, HELP)


def test_a_protocol_that_nothing_speaks_is_told_with_its_remedy(monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "carrier-pigeon")
    with pytest.raises(TelemetryError, match="carrier-pigeon: give http/protobuf or grpc"):
        send(TOLD, HELP)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    monkeypatch.setattr("importlib.metadata.entry_points", lambda **_: ())
    with pytest.raises(TelemetryError, match=r"install opentelemetry-exporter-otlp-proto-grpc, or slowwave"):
        send(TOLD, HELP)


@pytest.mark.parametrize(
    ("body", "status"), [("pass", "done"), ("os.kill(os.getpid(), signal.SIGKILL)", "interrupted")]
)
def test_a_collector_is_told_of_a_job_however_it_ends(tmp_path, body, status):
    with collector() as (address, sent):
        environment = os.environ | {"OTEL_EXPORTER_OTLP_ENDPOINT": address}
        command = [sys.executable, "-c", JOB % body, "--store", str(tmp_path / "store")]
        subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, timeout=300)
    ((_, _, found, _),) = sent
    assert found[f'slowwave_job_status{{job="small",status="{status}"}}'] == 1
    assert found['slowwave_run_count{job="small",name="num_rows"}'] == 3
