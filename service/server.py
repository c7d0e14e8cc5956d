"""The asyncio gRPC server: ports, TLS, health, reflection, and a stop that loses no call."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.reflection import aio as reflection_aio

from .admission import Admission
from .backlog import Backlog, calls_in_progress, newest_server
from .delivery import Delivery
from .interceptors import Allow, Around, Observe, Surround, Tell
from .linkage import LinkageService
from .logs import log
from .metrics import Metrics
from .parsing import Address
from .result_codes import ResultCodes
from .rpcs import SERVICE
from .settings import Settings

REQUEST_BYTES_MAX: Final = 64 * 1024
STREAMS_MAX: Final = 8_000
"""Streams of one connection, reset ones included until this process has accepted them.

Measured on grpcio 1.83.2: beyond this limit gRPC refuses streams with a bare UNAVAILABLE (4,965 of 6,000
calls at once with a limit of 1,000). Without `grpc.http.overload_protection` it does not, but then one
connection that resets its streams fills the queue of all, and the calls of others end with their deadlines.
"""
PENDING_MAX: Final = 2 * STREAMS_MAX
"""Calls that this process has not accepted yet. Beyond it gRPC cancels calls of any connection with a bare
CANCELLED, so one connection must not be able to fill it. Each takes about 25 KiB."""
LIVENESS: Final = "liveness"
"""The health service's name for "this process runs", which draining does not change."""
READINESS: Final = ("", SERVICE)
_REFLECTION: Final = ("grpc.reflection.v1alpha.ServerReflection", "grpc.reflection.v1.ServerReflection")
_CLOSE_GRACE_S: Final = 1.0


class CannotListen(Exception):
    """An address cannot be listened on."""


@dataclass(slots=True)
class Health:
    """What health checks are told."""

    servicer: health_aio.HealthServicer
    ready: bool = False

    async def set_ready(self, *, ready: bool) -> None:
        """Say whether calls are wanted here; the process is alive either way."""
        self.ready = ready
        status = health_pb2.HealthCheckResponse
        for service in READINESS:
            await self.servicer.set(service, status.SERVING if ready else status.NOT_SERVING)
        await self.servicer.set(LIVENESS, status.SERVING)


class Server:
    """The gateway's listeners, from ready to stopped."""

    def __init__(
        self, settings: Settings, linkage: LinkageService, metrics: Metrics, *, shared: bool
    ) -> None:
        self._settings = settings
        self._delivery: Delivery = linkage.delivery
        self.health = Health(health_aio.HealthServicer())
        idempotent = {name: endpoint.idempotent for name, endpoint in linkage.endpoints.items()}
        observe = Observe(metrics, idempotent, settings.default_deadline_s, settings.deadline_max_s)
        tell = Tell(settings.result_codes_file or ResultCodes())
        admission = Admission(Backlog(lambda: calls_in_progress(number)), metrics, idempotent)
        self._server = grpc.aio.server(
            interceptors=_interceptors(admission, observe, tell, Allow(settings.callers_file)),
            options=[
                ("grpc.enable_channelz", 1),  # the backlog is read from it
                ("grpc.max_concurrent_streams", STREAMS_MAX),
                ("grpc.server.max_pending_requests", PENDING_MAX),
                ("grpc.server.max_pending_requests_hard_limit", PENDING_MAX),
                ("grpc.max_receive_message_length", REQUEST_BYTES_MAX),
                # But for workers, a second process on the same port is a mistake, and must fail to start.
                ("grpc.so_reuseport", int(shared)),
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
            ],
        )
        number = newest_server()
        self._server.add_generic_rpc_handlers((linkage.handler(),))
        health_pb2_grpc.add_HealthServicer_to_server(self.health.servicer, self._server)
        if settings.reflection:
            self._server.add_generic_rpc_handlers(_reflection_handlers())
        self._health_server: grpc.aio.Server | None = None
        if settings.health_listen is not None:
            # Probes hold no certificate, and are told of their mistakes as callers are.
            self._health_server = grpc.aio.server(
                interceptors=_interceptors(observe, tell, Allow(None)),
                options=[("grpc.so_reuseport", int(shared))],
            )
            health_pb2_grpc.add_HealthServicer_to_server(self.health.servicer, self._health_server)

    async def start(self) -> Address:
        """Listen; return the address, whose port may have been chosen by the system."""
        settings = self._settings
        port = _add_port(self._server, "LISTEN", settings.listen, _credentials(settings))
        if settings.health_listen is not None and self._health_server is not None:
            _add_port(self._health_server, "HEALTH_LISTEN", settings.health_listen, None)
            await self._health_server.start()
        await self._server.start()
        await self.health.set_ready(ready=True)
        return Address(settings.listen.host, port)

    async def stop(self) -> None:
        """Drain: say not ready, take calls for a while, refuse them, finish what is under way."""
        # A watcher that does not read must not hold up the stop.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_GRACE_S):
                await self.health.set_ready(ready=False)
        await asyncio.sleep(self._settings.drain_delay_s)
        self._delivery.close()
        # An attempt that has begun gets its whole time, however short the grace.
        done = await self._delivery.idle(
            max(self._settings.stop_grace_s, self._settings.upstream_timeout_s)
        )
        if not done:
            log.warning("calls were still under way at the end of the grace")
        # What was answered just now is still on its way to its callers.
        await self._server.stop(_CLOSE_GRACE_S)
        if self._health_server is not None:
            await self._health_server.stop(None)


def _credentials(settings: Settings) -> grpc.ServerCredentials | None:
    if settings.tls_cert_file is None or settings.tls_key_file is None:
        return None
    client_ca = settings.tls_client_ca_file
    return grpc.ssl_server_credentials(
        [(settings.tls_key_file.read_bytes(), settings.tls_cert_file.read_bytes())],
        root_certificates=client_ca.read_bytes() if client_ca else None,
        require_client_auth=client_ca is not None,
    )


def _interceptors(*outermost_first: Surround | Admission) -> list[grpc.aio.ServerInterceptor]:
    return [each if isinstance(each, Admission) else Around(each) for each in outermost_first]


def _add_port(
    server: grpc.aio.Server, setting: str, address: Address, credentials: grpc.ServerCredentials | None
) -> int:
    try:
        if credentials is None:
            return server.add_insecure_port(str(address))
        return server.add_secure_port(str(address), credentials)
    except RuntimeError:
        # gRPC tells why on stderr alone.
        why = "it is in use, is not an address of this machine, or cannot be resolved"
        raise CannotListen(f"cannot listen on {address} ({setting}): {why}") from None


def _reflection_handlers() -> tuple[grpc.GenericRpcHandler, ...]:
    """Serve reflection as v1alpha and as v1, whose messages are the same on the wire."""
    names = (SERVICE, "grpc.health.v1.Health", _REFLECTION[0])
    row = grpc.stream_stream_rpc_method_handler(
        reflection_aio.ReflectionServicer(names).ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    return tuple(
        grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": row}) for name in _REFLECTION
    )
