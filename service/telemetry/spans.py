"""One server span for each call and one client span for each attempt, exported over OTLP.

OpenTelemetry's own gRPC instrumentation writes the texts of exceptions into spans and reports calls whose
deadline expired as successful (docs/adr/0022). So this module makes the spans with the API. Their
attributes are constants and members of the log.

A thread exports finished spans in batches. A full queue drops spans; it never delays a call.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.metadata import version
from threading import Thread
from typing import Final
from urllib.parse import urlsplit

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.trace import (
    Span,
    SpanKind,
    StatusCode,
    format_span_id,
    format_trace_id,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from clients.alipayhk.wire.endpoint import Endpoint

from .logs import log

SERVICE_NAME: Final = "alipayhk-gateway"
TRACEPARENT: Final = "traceparent"
CLOSE_S: Final = 2.0
"""Maximum time in seconds that the end of the process waits for the last spans."""
PREFIX: Final = "alipayhk."
"""The start of the name of an attribute that has the name and meaning of a member of the log."""
SERVER_ERRORS: Final = frozenset(
    {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
)
"""Codes that are errors of a server: https://opentelemetry.io/docs/specs/semconv/rpc/grpc/."""
_W3C: Final = TraceContextTextMapPropagator()

Members = Mapping[str, object]


class Tracer:
    """Makes the spans of one process, as OpenTelemetry's variables configure it."""

    def __init__(self) -> None:
        """Start the exporting thread; raise any error that OpenTelemetry has with its variables."""
        own = Resource({"service.version": version(SERVICE_NAME), "process.pid": os.getpid()})
        resource = own.merge(Resource.create())
        if str(resource.attributes["service.name"]).startswith("unknown_service"):
            resource = resource.merge(Resource({"service.name": SERVICE_NAME}))
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(_Exporter()))
        self._tracer = self._provider.get_tracer(SERVICE_NAME, version(SERVICE_NAME))

    def call(self, method: str, metadata: Iterable[tuple[str, str | bytes]]) -> CallSpan:
        """Start the span of a call of a method, `package.Service/Method`; its parent is in the metadata.

        `tracestate` and baggage are not read: they are arbitrary texts of callers.
        """
        received = {name: text for name, text in metadata if name == TRACEPARENT and isinstance(text, str)}
        parent = _W3C.extract(received, Context())
        attributes = {"rpc.system.name": "grpc", "rpc.method": method}
        return CallSpan(self, self._tracer.start_span(method, parent, SpanKind.SERVER, attributes))

    def attempt(self, call: Span, endpoint: Endpoint, resends: int) -> AttemptSpan:
        """Start the span of an attempt, the child of a call's span."""
        name, constant = _of_url(endpoint.base_url + endpoint.path)
        attributes = {**constant, f"{PREFIX}api": endpoint.api}
        if resends:
            attributes["http.request.resend_count"] = resends
        parent = set_span_in_context(call, Context())
        return AttemptSpan(self._tracer.start_span(name, parent, SpanKind.CLIENT, attributes))

    def close(self) -> None:
        """Export the spans that are left, or give up after CLOSE_S: a collector may not answer."""
        closing = Thread(target=self._provider.shutdown, name="traces", daemon=True)
        closing.start()
        closing.join(CLOSE_S)


class CallSpan:
    """The server span of a call."""

    __slots__ = ("_span", "_tracer", "ids")

    def __init__(self, tracer: Tracer, span: Span) -> None:
        self._tracer = tracer
        self._span = span
        context = span.get_span_context()
        self.ids = format_trace_id(context.trace_id), format_span_id(context.span_id)
        """The ids of the trace and of the span, in hexadecimal."""

    def attempt(self, endpoint: Endpoint, *, resends: int) -> AttemptSpan:
        """Start the span of an attempt at an endpoint; `resends` is the number of attempts before it."""
        return self._tracer.attempt(self._span, endpoint, resends)

    def share(self, other: CallSpan) -> None:
        """Link to the span of another call, which has the attempts that this call waits for."""
        self._span.add_link(other._span.get_span_context())

    def end(self, code: str, members: Members) -> None:
        """End the span with the gRPC code of its call and the members of its log line."""
        self._span.set_attribute("rpc.response.status_code", code)
        _describe(self._span, members)
        _end(self._span, code if code in SERVER_ERRORS else "")


class AttemptSpan:
    """The client span of an attempt."""

    __slots__ = ("_span",)

    def __init__(self, span: Span) -> None:
        self._span = span

    def end(self, error: str, members: Members) -> None:
        """End the span with the kind of its failure, empty without one, and members of its log line."""
        _describe(self._span, members)
        _end(self._span, error)


class _Exporter(OTLPSpanExporter):
    """Exports spans, and logs when that stops working and when it works again."""

    _is_failing = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        try:
            result = super().export(spans)
        except Exception:  # noqa: BLE001  (older versions raise the errors of `requests`)
            result = SpanExportResult.FAILURE
        is_failing = result is not SpanExportResult.SUCCESS
        if is_failing and not self._is_failing:
            log.warning("trace export failed", count=len(spans))
        elif self._is_failing and not is_failing:
            log.info("trace export recovered")
        self._is_failing = is_failing
        return result


@cache
def _of_url(url: str) -> tuple[str, dict[str, str | int]]:
    """Return the name and attributes of all spans of requests to a URL; the settings have few of them."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    attributes: dict[str, str | int] = {
        "http.request.method": "POST",
        "url.full": url,
        "server.address": parts.hostname or "",
        "server.port": port,
    }
    return f"POST {parts.path}", attributes


def _describe(span: Span, members: Members) -> None:
    for name, value in members.items():
        if name == "http_status":
            span.set_attribute("http.response.status_code", int(str(value)))
        elif isinstance(value, str | int) and value != "":
            span.set_attribute(f"{PREFIX}{name}", value)


def _end(span: Span, error: str) -> None:
    if error:
        span.set_attribute("error.type", error)
        span.set_status(StatusCode.ERROR)
    span.end()
