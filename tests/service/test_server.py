"""The server in this process: its ports, TLS, health, reflection and a graceful stop."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from alipayhk.linkage.v1 import linkage_service_pb2 as pb
from alipayhk.linkage.v1.linkage_service_pb2_grpc import LinkageServiceStub
from service.config.settings import read_settings
from service.config.values import Address
from service.delivery.clock_skew import ClockSkew
from service.replaceable import Replaceable
from service.server import ports
from service.server.admin import start_admin
from service.server.linkage_service import LinkageService
from service.server.ports import cause_of, try_to_bind
from service.server.server import CannotListen, Server
from service.telemetry.metrics import Metrics
from service.upstream import endpoints_of
from tests.ports import free_port
from tests.service.fakes import Behaviour, FakeClient, Gate, bind_request, delivery_of, sync_request, turns
from tests.service.files import TlsFiles

STATUS: Final = health_pb2.HealthCheckResponse
NOTICED_S: Final = 10.0
"""Long enough for a busy machine to do something that normally takes 0.2 seconds."""
SERVICE: Final = "alipayhk.linkage.v1.LinkageService"


@dataclass
class Running:
    """A running server."""

    server: Server
    metrics: Metrics
    address: str

    def channel(self, credentials: grpc.ChannelCredentials | None = None) -> Any:
        """Return a channel to the server."""
        if credentials is None:
            return grpc.aio.insecure_channel(self.address)
        return grpc.aio.secure_channel(self.address, credentials)


Serve = Callable[..., AbstractAsyncContextManager[Running]]


@pytest.fixture
def serve(environ: dict[str, str]) -> Serve:
    """Return a context manager that runs a server with a fake client."""

    @asynccontextmanager
    async def serve(behaviour: Behaviour | None = None, **changes: str) -> AsyncIterator[Running]:
        quick = {"LISTEN": "127.0.0.1:0", "DRAIN_DELAY_S": "0", "STOP_GRACE_S": "1", **changes}
        settings = read_settings({**environ, **{f"ALIPAYHK_{name}": text for name, text in quick.items()}})
        metrics = Metrics()
        service = LinkageService(endpoints_of(settings), delivery_of(FakeClient(behaviour), metrics))
        server = Server(settings, service, metrics, Replaceable(settings), shared=False)
        address = await server.start()
        yield Running(server, metrics, str(address))
        await server.stop()

    return serve


def linkage(channel: Any) -> Any:
    """Return a stub; the generated code is not typed."""
    return LinkageServiceStub(channel)  # type: ignore[no-untyped-call]


async def refused(calling: Any) -> tuple[str, str]:
    """Return the code and reason of a failing call; the reason is empty if the status is not ours."""
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await calling
    info = ErrorInfo()
    trailers = dict(failure.value.trailing_metadata() or ())
    for detail in Status.FromString(trailers.get("grpc-status-details-bin", b"")).details:
        detail.Unpack(info)
    return failure.value.code().name, info.reason


async def health(channel: Any, service: str = "") -> int:
    request = health_pb2.HealthCheckRequest(service=service)
    return int((await health_pb2_grpc.HealthStub(channel).Check(request)).status)


async def test_both_rpcs_are_served_and_counted(serve: Serve) -> None:
    async with serve() as running, running.channel() as channel:
        stub = linkage(channel)
        assert (await stub.SyncLinkage(sync_request())).result.status == "S"
        assert (await stub.BindAccount(bind_request())).result.status == "S"
        for method in ("SyncLinkage", "BindAccount"):
            labels = {
                "grpc_type": "unary",
                "grpc_service": SERVICE,
                "grpc_method": method,
                "grpc_code": "OK",
            }
            assert running.metrics.registry.get_sample_value("grpc_server_handled_total", labels) == 1


async def test_a_refused_call_has_its_details(serve: Serve) -> None:
    async with serve() as running, running.channel() as channel:
        stub = linkage(channel)
        assert await refused(stub.SyncLinkage(pb.SyncLinkageRequest())) == (
            "INVALID_ARGUMENT",
            "INVALID_REQUEST",
        )
        raw = channel.unary_unary(f"/{SERVICE}/SyncLinkage")
        assert await refused(raw(b"\xff")) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
        assert await refused(channel.unary_unary(f"/{SERVICE}/Other")(b"")) == ("UNIMPLEMENTED", "")
        assert await refused(raw(b"\x00" * 70_000)) == ("RESOURCE_EXHAUSTED", "")


async def test_health_has_a_status_for_each_service(serve: Serve) -> None:
    async with serve() as running, running.channel() as channel:
        for service in ("", SERVICE, "liveness"):
            assert await health(channel, service) == STATUS.SERVING
        await running.server.health.set_ready(ready=False)
        for service in ("", SERVICE):
            assert await health(channel, service) == STATUS.NOT_SERVING
        assert await health(channel, "liveness") == STATUS.SERVING
        assert await refused(health(channel, "other")) == ("NOT_FOUND", "")


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_serves_the_service_and_the_details(serve: Serve, version: str) -> None:
    request = reflection_pb2.ServerReflectionRequest
    questions = [
        request(list_services=""),
        request(file_containing_symbol=SERVICE),
        request(file_by_filename="google/rpc/error_details.proto"),
    ]
    async with serve() as running, running.channel() as channel:
        ask = channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=request.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        services, ours, details = [answer async for answer in ask(iter(questions))]
        assert SERVICE in {service.name for service in services.list_services_response.service}
        assert ours.file_descriptor_response.file_descriptor_proto
        assert details.file_descriptor_response.file_descriptor_proto


async def test_reflection_can_be_turned_off(serve: Serve) -> None:
    async with serve(REFLECTION="false") as running, running.channel() as channel:
        ask = channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            [_ async for _ in ask(iter([b""]))]
        assert failure.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_stop_finishes_calls_in_flight_and_refuses_new_ones(serve: Serve) -> None:
    gate = Gate(sent=True)
    async with serve(gate, DRAIN_DELAY_S="2", STOP_GRACE_S="5") as running, running.channel() as channel:
        stub = linkage(channel)
        first = stub.SyncLinkage(sync_request())
        await gate.reached.wait()
        gate.reached.clear()
        stopping = asyncio.create_task(running.server.stop())
        await turns()
        assert await health(channel) == STATUS.NOT_SERVING
        apart = sync_request(request_id="req-2", external_identity_value="another-member")
        while_draining = stub.SyncLinkage(apart)
        async with asyncio.timeout(NOTICED_S):
            await gate.reached.wait()
        await asyncio.sleep(2.1)
        late = stub.SyncLinkage(sync_request(request_id="req-3"))
        assert await refused(late) == ("UNAVAILABLE", "SHUTTING_DOWN")
        gate.open.set()
        for call in (first, while_draining):
            assert (await call).result.status == "S"
        await stopping


async def test_a_stop_waits_no_longer_than_the_grace_period(serve: Serve, log_lines: Any) -> None:
    gate = Gate(sent=True)
    async with (
        serve(gate, STOP_GRACE_S="0.1", UPSTREAM_TIMEOUT_S="1") as running,
        running.channel() as channel,
    ):
        await channel.channel_ready()
        stub = linkage(channel)
        call = asyncio.ensure_future(stub.SyncLinkage(sync_request(), timeout=5))
        async with asyncio.timeout(NOTICED_S):
            await gate.reached.wait()
        await running.server.stop()
        assert log_lines.of("calls in flight at the end of the grace period")
        await refused(call)
        gate.open.set()


@pytest.mark.parametrize("setting", ["LISTEN", "HEALTH_LISTEN"])
async def test_an_unexpected_stop_of_a_listener_is_noticed(serve: Serve, setting: str) -> None:
    async with serve(HEALTH_LISTEN="127.0.0.1:0") as running:
        noticing = asyncio.create_task(running.server.listener_stopped())
        done, _ = await asyncio.wait({noticing}, timeout=1)
        assert not done, "no listener has stopped yet"
        inner = running.server._server if setting == "LISTEN" else running.server._health_server
        assert inner is not None
        await inner.stop(None)
        async with asyncio.timeout(NOTICED_S):
            assert (await noticing).setting == setting


async def test_a_port_in_use_is_named(serve: Serve) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for setting in ("LISTEN", "HEALTH_LISTEN"):
            reported = rf"cannot listen on 127.0.0.1:{port} \({setting}\): another program uses "
            with pytest.raises(CannotListen, match=reported):
                await serve(**{setting: f"127.0.0.1:{port}"}).__aenter__()


def test_every_address_of_a_name_must_be_free() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as taken:
        port = taken.getsockname()[1]

        def resolve(host: str, port: int, **_: Any) -> list[Any]:
            return [(0, 0, 0, "", (place, port)) for place in ("127.0.0.1", "::1", "192.0.2.1")]

        with pytest.raises(OSError, match="Address already in use") as raised:
            try_to_bind("localhost", port, resolve)
        assert cause_of(raised.value) == f"another program uses [::1]:{port}"
    try_to_bind("localhost", port, resolve)  # 192.0.2.1 is no fault: listeners skip it


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (PermissionError(errno.EACCES, "x"), "no permission to listen on this port"),
        (OSError(errno.EADDRINUSE, "x"), "another program uses the port"),
        (OSError("could not bind on any address out of x"), "this is not an address of this machine"),
        (OSError(errno.EINVAL, "x"), "Invalid argument"),
    ],
)
def test_why_an_address_cannot_be_used_is_in_words(error: OSError, cause: str) -> None:
    assert cause_of(error) == cause


def test_a_machine_without_ipv6_can_listen_on_every_address(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_ipv6(_: object) -> None:
        raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")

    monkeypatch.setattr(ports, "_bind", no_ipv6)
    try_to_bind("::", 50051)
    with pytest.raises(OSError, match="family not supported"):
        try_to_bind("::1", 50051)


async def test_callers_are_identified_by_their_certificates(
    serve: Serve, tls: TlsFiles, tmp_path: Path
) -> None:
    callers = tmp_path / "callers.toml"
    callers.write_text('[callers.loyalty]\nsan = ["spiffe://corp/loyalty"]\nmethods = ["SyncLinkage"]')
    ca, pair = tls.ca.read_bytes(), (tls.key.read_bytes(), tls.certificate.read_bytes())
    secured = {
        "TLS_CERT_FILE": str(tls.certificate),
        "TLS_KEY_FILE": str(tls.key),
        "TLS_CLIENT_CA_FILE": str(tls.ca),
        "CALLERS_FILE": str(callers),
        "HEALTH_LISTEN": "127.0.0.1:0",
    }
    async with serve(**secured) as running:
        async with running.channel(grpc.ssl_channel_credentials(ca, *pair)) as channel:
            stub = linkage(channel)
            assert (await stub.SyncLinkage(sync_request())).result.status == "S"
            reported = await refused(stub.BindAccount(bind_request()))
            assert reported == ("PERMISSION_DENIED", "CALLER_NOT_ALLOWED")
        async with running.channel(grpc.ssl_channel_credentials(ca)) as channel:
            stub = linkage(channel)
            assert await refused(stub.SyncLinkage(sync_request(), timeout=2)) == ("UNAVAILABLE", "")


# -- the operators' listener


async def test_operators_get_metrics_and_readiness(serve: Serve) -> None:
    async with serve() as running, aiohttp.ClientSession() as session:
        port = free_port()
        health_, skew = running.server.health, ClockSkew(running.metrics)
        admin = await start_admin(Address("127.0.0.1", port), running.metrics, health_, skew, shared=False)
        try:
            seen = {}
            for ready in (True, False):
                health_.ready = ready
                for path in ("livez", "readyz", "metrics", "other"):
                    async with session.get(f"http://127.0.0.1:{port}/{path}") as response:
                        seen[path, ready] = response.status
                        text = await response.text()
                        assert path != "metrics" or "# TYPE grpc_server_started_total counter" in text
            with pytest.raises(CannotListen, match=f"127.0.0.1:{port}"):
                await start_admin(Address("127.0.0.1", port), running.metrics, health_, skew, shared=False)
        finally:
            await admin.cleanup()
    assert {key for key, status in seen.items() if status == 200} == {
        *(("livez", ready) for ready in (True, False)),
        *(("metrics", ready) for ready in (True, False)),
        ("readyz", True),
    }
    assert seen["readyz", False] == 503
