"""A collector that receives spans over OTLP/HTTP."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from tests.peers.processes import ROOT, run, running
from tests.ports import free_port

WAIT_MAX_S: Final = 30.0
BUILD_MAX_S: Final = 3600.0
"""Time limit to compile OpenTelemetry's Collector, in seconds."""
Values = dict[str, str | int]


@dataclass(frozen=True)
class Received:
    """A span as it arrived."""

    span: Any
    resource: Values

    @property
    def attributes(self) -> Values:
        """Return the attributes of the span."""
        return values_of(self.span.attributes)

    @property
    def status(self) -> str:
        """Return UNSET, OK or ERROR."""
        name: str = (
            self.span.status.DESCRIPTOR.enum_types_by_name["StatusCode"]
            .values_by_number[self.span.status.code]
            .name
        )
        return name.removeprefix("STATUS_CODE_")

    @property
    def is_call(self) -> bool:
        """Whether it is the server span of a call."""
        return bool(self.span.kind == self.span.SPAN_KIND_SERVER)


def values_of(attributes: Any) -> Values:
    """Return attributes by their names."""
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}


@dataclass
class Collector:
    """What arrived so far."""

    endpoint: str = ""
    bodies: list[bytes] = field(default_factory=list)
    spans: list[Received] = field(default_factory=list)
    arrived: threading.Condition = field(default_factory=threading.Condition)

    @property
    def environ(self) -> dict[str, str]:
        """Return the variables of a gateway that exports its spans to this collector."""
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": self.endpoint, "OTEL_BSP_SCHEDULE_DELAY": "50"}

    def add(self, body: bytes) -> None:
        """Add the spans of a request."""
        with self.arrived:
            self.bodies.append(body)
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                for scope in resource.scope_spans:
                    values = values_of(resource.resource.attributes)
                    self.spans += [Received(span, values) for span in scope.spans]
            self.arrived.notify_all()

    def wait_for(self, wanted: Callable[[list[Received]], object]) -> None:
        """Wait until the condition accepts the spans that arrived."""
        with self.arrived:
            assert self.arrived.wait_for(lambda: wanted(self.spans), WAIT_MAX_S), self.spans

    def call(self, request_id: str) -> Received:
        """Wait for the span of a call; return it."""

        def found(spans: list[Received]) -> list[Received]:
            return [each for each in spans if each.attributes.get("alipayhk.request_id") == request_id]

        self.wait_for(found)
        return found(self.spans)[0]

    def attempts(self, call: Received, count: int) -> list[Received]:
        """Wait for the spans of the attempts of a call; return them in the order of their starts."""

        def found(spans: list[Received]) -> list[Received]:
            return [each for each in spans if each.span.parent_span_id == call.span.span_id]

        self.wait_for(lambda spans: len(found(spans)) >= count)
        assert len(found(self.spans)) == count
        return sorted(found(self.spans), key=lambda each: int(each.span.start_time_unix_nano))


@contextmanager
def collecting() -> Iterator[Collector]:
    """Run a collector on a free port of the loopback."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            collector.add(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.end_headers()
            self.wfile.write(ExportTraceServiceResponse().SerializeToString())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        collector.endpoint = f"http://127.0.0.1:{server.server_port}"
        try:
            yield collector
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def forwarded(collector: Collector, directory: Path) -> Iterator[Collector]:
    """Run OpenTelemetry's own Collector, which receives the spans and forwards them to this collector."""
    go = shutil.which("go", path=f"{os.environ['PATH']}:{ROOT / '.tools/go-venv/bin'}")
    assert go, "Go is missing: run `make peers`, which installs it."
    program, address = directory / "otelcol", f"127.0.0.1:{free_port()}"
    source = ROOT / "tests/e2e/otelcol"
    built = run(go, "build", "-o", program, ".", cwd=source, timeout_s=BUILD_MAX_S)
    assert built.status == 0, built.output
    config = {
        "receivers": {"otlp": {"protocols": {"http": {"endpoint": address}}}},
        "exporters": {"otlp_http": {"endpoint": collector.endpoint, "compression": "none"}},
        "service": {
            "telemetry": {"metrics": {"level": "none"}},
            "pipelines": {"traces": {"receivers": ["otlp"], "exporters": ["otlp_http"]}},
        },
    }
    (file := directory / "otelcol.yaml").write_text(json.dumps(config))  # JSON is YAML
    with running(program, "--config", file) as process:
        process.wait_for_output("Everything is ready")
        collector.endpoint = f"http://{address}"
        yield collector
