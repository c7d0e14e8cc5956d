"""When spans are exported, and what a gateway says if they cannot be."""

from __future__ import annotations

import subprocess
import sys

import pytest

from service.telemetry.tracing import tracing, tracing_risks
from tests.service.fakes import LogStream

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
ONLY_HTTP = (
    "is not http/protobuf, the only protocol of the gateway, so no traces are exported: remove it, and let "
    "the endpoint name the collector's port for HTTP (by default 4318)"
)
ONLY_OTLP = "is neither otlp nor none, so no traces are exported: remove it"
NOT_INSTALLED = (
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT asks for traces, and OpenTelemetry is not installed, so none are "
    "exported: install alipayhk-gateway[otel]"
)
TRACES = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:9/v1/traces"}


@pytest.mark.parametrize(
    ("environ", "is_on"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "linkage", "OTEL_TRACES_EXPORTER": "otlp"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        (ENDPOINT, True),
        (TRACES, True),
        (ENDPOINT | {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_SDK_DISABLED": "false"}, True),
        (ENDPOINT | {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, True),
        (ENDPOINT | {"OTEL_SDK_DISABLED": "TRUE"}, False),
        (ENDPOINT | {"OTEL_TRACES_EXPORTER": "none"}, False),
    ],
)
def test_endpoint_switches_traces_on(environ: dict[str, str], is_on: bool) -> None:
    with tracing(environ) as tracer:
        assert (tracer is not None) is is_on
    assert tracing_risks(environ) == []


@pytest.mark.parametrize(
    ("environ", "risk"),
    [
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, f"OTEL_EXPORTER_OTLP_PROTOCOL {ONLY_HTTP}"),
        ({"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc"}, f"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL {ONLY_HTTP}"),
        ({"OTEL_TRACES_EXPORTER": "console"}, f"OTEL_TRACES_EXPORTER {ONLY_OTLP}"),
    ],
)
def test_other_protocol_or_exporter_is_a_risk(environ: dict[str, str], risk: str) -> None:
    with tracing(ENDPOINT | environ) as tracer:
        assert tracer is None
    assert tracing_risks(ENDPOINT | environ) == [risk]


@pytest.mark.parametrize("package", ["opentelemetry", "opentelemetry.exporter.otlp.proto.http"])
def test_missing_library_is_a_risk(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with tracing(TRACES) as tracer:
        assert tracer is None
    assert tracing_risks(TRACES) == [NOT_INSTALLED]
    assert tracing_risks({}) == []


def test_value_that_opentelemetry_refuses_is_a_warning_without_the_value(
    monkeypatch: pytest.MonkeyPatch, log_lines: LogStream
) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "-47")
    with tracing(ENDPOINT) as tracer:
        assert tracer is None
    (line,) = log_lines.of("traces not exported")
    assert (line["level"], line["error_class"]) == ("warning", "ValueError")
    assert "-47" not in log_lines.getvalue()


def test_nothing_of_opentelemetry_is_imported_without_an_endpoint() -> None:
    code = "import sys, service.commands.serve; print([m for m in sys.modules if 'opentelemetry' in m])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
