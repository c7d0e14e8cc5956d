"""Whether OpenTelemetry's variables ask for spans, and whether they can be exported.

Without them nothing of OpenTelemetry is imported. Spans never stop a gateway: what prevents them is a
warning. The variables: https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from .logs import log, stack_of

if TYPE_CHECKING:
    from .spans import Tracer

ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL: Final = "http/protobuf"
_EXTRA: Final = ("opentelemetry", "opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")


@contextmanager
def tracing(environ: Mapping[str, str]) -> Iterator[Tracer | None]:
    """Make and export spans in a block; None if they are not wanted, or not possible."""
    tracer = _started() if _is_wanted(environ) and not tracing_risks(environ) else None
    try:
        yield tracer
    finally:
        if tracer is not None:
            tracer.close()


def _started() -> Tracer | None:
    try:
        from .spans import Tracer  # noqa: PLC0415  (it takes time and memory, and may not be installed)

        return Tracer()
    except Exception as error:  # noqa: BLE001  (a value that OpenTelemetry refuses; its text may be a secret)
        log.warning("traces not exported", error_class=type(error).__name__, stack=stack_of(error))
        return None


def tracing_risks(environ: Mapping[str, str]) -> list[str]:
    """Return one sentence for each reason why wanted spans are not exported."""
    return list(_risks(environ)) if _is_wanted(environ) else []


def _is_wanted(environ: Mapping[str, str]) -> bool:
    is_disabled = environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    if is_disabled or environ.get("OTEL_TRACES_EXPORTER", "otlp").strip() == "none":
        return False
    return any(environ.get(name) for name in ENDPOINTS)


def _risks(environ: Mapping[str, str]) -> Iterator[str]:
    protocol = next((name for name in _PROTOCOLS if environ.get(name)), "")
    if protocol and environ[protocol].strip() != _PROTOCOL:
        yield (
            f"{protocol} is not {_PROTOCOL}, the only protocol of the gateway, so no traces are exported: "
            "remove it, and let the endpoint name the collector's port for HTTP (by default 4318)"
        )
    exporter = environ.get("OTEL_TRACES_EXPORTER", "").strip()
    if exporter not in ("", "otlp"):
        yield "OTEL_TRACES_EXPORTER is neither otlp nor none, so no traces are exported: remove it"
    if not all(map(_is_installed, _EXTRA)):
        endpoint = next(name for name in ENDPOINTS if environ.get(name))
        yield (
            f"{endpoint} asks for traces, and OpenTelemetry is not installed, so none are exported: "
            "install alipayhk-gateway[otel]"
        )


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except (ImportError, ValueError):
        return False
