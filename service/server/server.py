"""The asyncio gRPC servers: ports, TLS, health, reflection, and a graceful stop."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import grpc
from grpc_health.v1 import health_pb2
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.reflection import aio as reflection_aio

from ..config.settings import Settings
from ..config.values import Address
from ..credentials.in_use import InUse
from ..delivery.delivery import Delivery
from ..telemetry.logs import log
from ..telemetry.metrics import Metrics
from . import limits
from .access_log import AccessLog
from .admission import Admission
from .around import Around
from .authorization import HEALTH, Authorization
from .backlog import Backlog, calls_in_progress, newest_server
from .error_translation import ErrorTranslation
from .linkage_service import LinkageService
from .methods import Handler, Methods
from .parts import ServerParts
from .ports import cause_of, try_to_bind
from .probe_gate import ProbeGate
from .rpcs import SERVICE
from .systemd import READY, STOPPING, notify
from .tls import server_credentials

if TYPE_CHECKING:
    from ..telemetry.spans import Tracer

LOOPBACK: Final = "127.0.0.1"
LIVENESS: Final = "liveness"
"""The health service's name for liveness, which stays SERVING while the gateway drains."""
READINESS: Final = ("", SERVICE)
_REFLECTION: Final = ("grpc.reflection.v1alpha.ServerReflection", "grpc.reflection.v1.ServerReflection")
_CLOSE_GRACE_S: Final = 1.0
_WATCH_EVERY_S: Final = 0.2
"""Interval of the check whether a listener has stopped unexpectedly."""


class CannotListen(Exception):
    """The gateway cannot listen on an address."""


class ListenerStopped(Exception):
    """A listener stopped unexpectedly; `setting` is the setting of its address."""

    def __init__(self, setting: str) -> None:
        super().__init__(f"the listener of {setting} stopped unexpectedly")
        self.setting = setting


@dataclass(slots=True)
class Health:
    """The status that health checks get."""

    servicer: health_aio.HealthServicer
    ready: bool = False

    async def set_ready(self, *, ready: bool) -> None:
        """Set readiness for new calls; liveness is always SERVING."""
        self.ready = ready
        status = health_pb2.HealthCheckResponse
        for service in READINESS:
            await self.servicer.set(service, status.SERVING if ready else status.NOT_SERVING)
        await self.servicer.set(LIVENESS, status.SERVING)


class Server:
    """The gateway's gRPC listeners, from start to stop."""

    def __init__(
        self,
        settings: Settings,
        linkage: LinkageService,
        metrics: Metrics,
        in_use: ServerParts,
        *,
        shared: bool,
        tracer: Tracer | None = None,
    ) -> None:
        self._settings, self._shared = settings, shared
        self._certificate = in_use.certificate
        self._delivery: Delivery = linkage.delivery
        self.health = Health(health_aio.HealthServicer())
        idempotent = {name: endpoint.idempotent for name, endpoint in linkage.endpoints.items()}
        deadlines = settings.default_deadline_s, settings.deadline_max_s
        access_log = AccessLog(metrics, idempotent, *deadlines, tracer)
        translation = ErrorTranslation(in_use.codes)
        backlog = Backlog(lambda: calls_in_progress(number))
        health = _health_handlers(self.health.servicer)
        reflection = _reflection_handlers() if settings.reflection else {}
        around = Around(access_log, translation, Authorization(in_use.callers))
        handlers = around.handlers({**linkage.handlers(), **health, **reflection})
        admission = Admission(
            handlers, backlog, metrics, idempotent, deadline_max_s=settings.deadline_max_s
        )
        self._server = grpc.aio.server(
            options=[*limits.of_both(shared=shared), *limits.of_callers(settings)]
        )
        number = newest_server()
        self._server.add_generic_rpc_handlers((admission,))
        self._health_server: grpc.aio.Server | None = None
        self._gate: ProbeGate | None = None
        if settings.health_listen is not None:
            # Probes have no certificate; they get the same error statuses as callers.
            around = Around(access_log, translation, Authorization(InUse(None)))
            self._health_server = grpc.aio.server(
                options=[*limits.of_both(shared=False), *limits.OF_PROBES]
            )
            self._health_server.add_generic_rpc_handlers((Methods(around.handlers(health)),))

    async def start(self) -> Address:
        """Listen; return the address, with the port that the system has chosen if it was 0."""
        settings = self._settings
        if not self._shared:
            try:
                try_to_bind(settings.listen.host, settings.listen.port)
            except (OSError, UnicodeError) as error:
                raise CannotListen(
                    f"cannot listen on {settings.listen} (LISTEN): {cause_of(error)}"
                ) from None
        port = _add_port(self._server, "LISTEN", settings.listen, server_credentials(self._certificate))
        if settings.health_listen is not None and self._health_server is not None:
            self._gate = await _start_gate(self._health_server, settings.health_listen, shared=self._shared)
        await self._server.start()
        await self.health.set_ready(ready=True)
        notify(READY)
        return Address(settings.listen.host, port)

    async def listener_stopped(self) -> ListenerStopped:
        """Wait until a listener stops unexpectedly; gRPC's exception is the cause of the returned one."""
        servers = {"LISTEN": self._server, "HEALTH_LISTEN": self._health_server}
        watches = [
            asyncio.create_task(_termination(setting, server))
            for setting, server in servers.items()
            if server is not None
        ]
        try:
            done, _ = await asyncio.wait(watches, return_when=asyncio.FIRST_COMPLETED)
            return done.pop().result()
        finally:
            for watch in watches:
                watch.cancel()

    async def stop(self, *, listener_stopped: bool = False) -> None:
        """Report not ready, accept calls for DRAIN_DELAY_S, then refuse them and finish those in flight."""
        notify(STOPPING)
        # A Health/Watch caller that does not read must not delay the stop.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_GRACE_S):
                await self.health.set_ready(ready=False)
        # If a listener has stopped, load balancers already see the closed port.
        await asyncio.sleep(0 if listener_stopped else self._settings.drain_delay_s)
        self._delivery.close()
        # An attempt that has started runs to completion or timeout, even if STOP_GRACE_S is shorter.
        grace_s = max(self._settings.stop_grace_s, self._settings.upstream_timeout_s)
        async with asyncio.TaskGroup() as leaving:
            if self._settings.max_connection_age_s:
                # Callers have other gateways. If this one still accepted calls, its refusals could use
                # up all attempts of gRPC's retry policy.
                leaving.create_task(self._server.stop(grace_s + _CLOSE_GRACE_S))
            if not await self._delivery.idle(grace_s):
                log.warning("calls in flight at the end of the grace period")
            # The last responses may still be in gRPC's send buffers.
            await self._server.stop(_CLOSE_GRACE_S)
        if self._gate is not None:
            await self._gate.stop()
        if self._health_server is not None:
            await self._health_server.stop(None)


async def _termination(setting: str, server: grpc.aio.Server) -> ListenerStopped:
    """Return when the server has stopped, or when its main loop has failed.

    After such a failure, a wait without a timeout returns only after the last call has completed, and a
    Health/Watch never completes. A wait with a timeout raises the exception of the main loop immediately.
    """
    stopped = ListenerStopped(setting)
    try:
        while await server.wait_for_termination(_WATCH_EVERY_S):
            pass
    except Exception as error:  # noqa: BLE001  (the main loop can fail with any exception)
        stopped.__cause__ = error
    return stopped


def _add_port(
    server: grpc.aio.Server, setting: str, address: Address, credentials: grpc.ServerCredentials | None
) -> int:
    try:
        if credentials is None:
            return server.add_insecure_port(str(address))
        return server.add_secure_port(str(address), credentials)
    except RuntimeError:
        # gRPC writes the reason to stderr only.
        raise CannotListen(f"cannot listen on {address} ({setting}): gRPC cannot use it") from None


async def _start_gate(server: grpc.aio.Server, address: Address, *, shared: bool) -> ProbeGate:
    """Start the health server on loopback, and the gate in front of it."""
    backend = Address(LOOPBACK, 0)
    gate = ProbeGate(Address(LOOPBACK, _add_port(server, "HEALTH_LISTEN", backend, None)))
    await server.start()
    try:
        await gate.start(address, shared=shared)
    except (OSError, UnicodeError) as error:
        # gRPC prints a traceback when a running server is deleted after its event loop.
        await server.stop(None)
        raise CannotListen(f"cannot listen on {address} (HEALTH_LISTEN): {cause_of(error)}") from None
    return gate


def _health_handlers(servicer: health_aio.HealthServicer) -> dict[str, Handler]:
    """Serve Check and Watch; newer protos also have List, which the servicer does not implement."""
    codec = {
        "request_deserializer": health_pb2.HealthCheckRequest.FromString,
        "response_serializer": health_pb2.HealthCheckResponse.SerializeToString,
    }
    return {
        f"{HEALTH}Check": grpc.unary_unary_rpc_method_handler(servicer.Check, **codec),
        f"{HEALTH}Watch": grpc.unary_stream_rpc_method_handler(servicer.Watch, **codec),
    }


def _reflection_handlers() -> dict[str, Handler]:
    """Serve reflection as v1alpha and as v1, whose messages are the same on the wire."""
    names = (SERVICE, HEALTH.strip("/"), _REFLECTION[0])
    row = grpc.stream_stream_rpc_method_handler(
        reflection_aio.ReflectionServicer(names).ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    return {f"/{name}/ServerReflectionInfo": row for name in _REFLECTION}
