"""The metrics of a job to a collector of OpenTelemetry, where the environment names one.

The usual variables decide: OTEL_EXPORTER_OTLP_ENDPOINT (or that of metrics alone), _PROTOCOL, _HEADERS and
_TIMEOUT likewise, OTEL_METRICS_EXPORTER, OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES, OTEL_SDK_DISABLED.
Names, labels and values are those of the file for Prometheus, see jobs.common.metrics; all are gauges.
"""

import logging
import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricExporter, MetricsData

ENDPOINTS = ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")

EXPORTERS = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}
"""Protocol -> entry point of the package that speaks it."""


Sample = tuple[str, dict[str, str], float]
"""Metric, labels, value."""


class TelemetryError(Exception):
    """The metrics were not sent. The message says why, and what to do."""


def is_configured() -> bool:
    """Whether the environment asks for metrics by OTLP."""
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    if exporters := os.environ.get("OTEL_METRICS_EXPORTER"):
        return "otlp" in (one.strip() for one in exporters.split(","))
    return _first(ENDPOINTS) is not None


def send(samples: Iterable[Sample], help: Mapping[str, str]) -> None:
    """Send the samples, and wait for an answer, at most OTEL_EXPORTER_OTLP_TIMEOUT (10 s). `help`: metric ->
    what it says. TelemetryError."""
    exporter = _exporter()
    told = _Told()
    # It says what went wrong to nobody but the log of its own package.
    logger = logging.getLogger("opentelemetry")
    propagates, logger.propagate = logger.propagate, False
    logger.addHandler(told)
    try:
        result = exporter.export(gathered(samples, help))
        exporter.shutdown()
    finally:
        logger.removeHandler(told)
        logger.propagate = propagates
    if result.name != "SUCCESS":
        where = _first(ENDPOINTS) or "the collector of this machine"
        raise TelemetryError(
            f"{where}: {told.last or 'refused'}; is a collector there, as OTEL_EXPORTER_OTLP_... say?"
        )


def gathered(samples: Iterable[Sample], help: Mapping[str, str]) -> "MetricsData":
    """The samples as OpenTelemetry has them: a gauge for each name, a data point for each sample."""
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource

    given = OTELResourceDetector().detect().attributes
    resource = Resource.create({"service.name": given.get("service.name", "slowwave")})
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], resource, shutdown_on_exit=False)
    meter = provider.get_meter("slowwave")
    gauges: dict[str, Any] = {}
    for name, labels, value in samples:
        if name not in gauges:
            gauges[name] = meter.create_gauge(name, description=help[name])
        gauges[name].set(value, labels)
    found = reader.get_metrics_data()
    assert found is not None, "a job has samples"
    return found


def _exporter() -> "MetricExporter":
    """What speaks the protocol that the environment names. TelemetryError where nothing does."""
    from importlib.metadata import entry_points

    protocol = _first(PROTOCOLS) or "http/protobuf"
    if protocol not in EXPORTERS:
        raise TelemetryError(f"{PROTOCOLS[1]}={protocol}: give {' or '.join(EXPORTERS)}")
    name = EXPORTERS[protocol]
    for entry in entry_points(group="opentelemetry_metrics_exporter", name=name):
        return entry.load()()
    package = f"opentelemetry-exporter-{name.replace('_', '-')}"
    raise TelemetryError(f"nothing here speaks {protocol}; install {package}, or slowwave[otel]")


def _first(names: tuple[str, ...]) -> str | None:
    """Of these variables, the first that is set and not empty."""
    return next((value for name in names if (value := os.environ.get(name, "").strip())), None)


class _Told(logging.Handler):
    """Keeps the last message."""

    last = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.last = record.getMessage()
