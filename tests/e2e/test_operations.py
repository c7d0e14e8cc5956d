"""The interfaces for operators: health, reflection, metrics, logs and the pages of the admin listener."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc import StatusCode

from tests.e2e import caller
from tests.e2e.caller import Reported, not_sent
from tests.e2e.conftest import Rpc, Run
from tests.e2e.gateway import WAIT_MAX_S, Gateway
from tests.e2e.material import Material
from tests.e2e.operations import REFLECTIONS, SERVING, health, metrics, names, reflect, watching
from tests.e2e.samples import SERVICE, SYNC
from tests.e2e.wallet import result
from tests.ports import free_port

LABELS = 'grpc_method="{name}",grpc_service="alipayhk.linkage.v1.LinkageService",grpc_type="unary"'


@pytest.mark.parametrize("service", ["", SERVICE, "liveness"])
async def test_health_is_serving_for_each_service_name(gateway: Gateway, service: str) -> None:
    assert await health(gateway.channel, service) == SERVING
    async with watching(gateway.channel, service) as statuses:
        assert await anext(statuses) == SERVING


@pytest.mark.parametrize("reflection", REFLECTIONS)
async def test_reflection_lists_the_service(gateway: Gateway, reflection: str) -> None:
    response = await reflect(gateway.channel, reflection, list_services="")
    services = {service.name for service in response.list_services_response.service}
    assert {SERVICE, "grpc.health.v1.Health"} <= services


@pytest.mark.parametrize("reflection", REFLECTIONS)
@pytest.mark.parametrize(
    ("symbol", "file"),
    [
        (SERVICE, "alipayhk/linkage/v1/linkage_service.proto"),
        ("alipayhk.linkage.v1.ErrorReason", "alipayhk/linkage/v1/error_reason.proto"),
        ("google.rpc.ErrorInfo", "google/rpc/error_details.proto"),
    ],
)
async def test_reflection_knows_the_service_and_the_details_of_its_errors(
    gateway: Gateway, reflection: str, symbol: str, file: str
) -> None:
    response = await reflect(gateway.channel, reflection, file_containing_symbol=symbol)
    files = [
        FileDescriptorProto.FromString(data)
        for data in response.file_descriptor_response.file_descriptor_proto
    ]
    assert file in [found.name for found in files]


@pytest.mark.parametrize(
    "path",
    [
        *(f"/grpc.health.v1.Health/{name}" for name in ("Check", "Watch")),
        *(f"/{reflection}/ServerReflectionInfo" for reflection in REFLECTIONS),
    ],
)
async def test_undecodable_bytes_are_invalid_and_not_described(gateway: Gateway, path: str) -> None:
    method: Any = gateway.channel.unary_stream(path)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await method(b"\xff\xff", timeout=5).read()
    assert raised.value.code() is StatusCode.INVALID_ARGUMENT
    assert "grpc-status-details-bin" in dict(raised.value.trailing_metadata() or ())
    assert "serializ" not in str(raised.value.details())
    assert "pars" not in str(raised.value.details())


async def test_every_call_is_counted_under_the_metric_names_of_grpc(either: Rpc) -> None:
    labels = LABELS.format(name=either.api.name)
    counted = (
        f"grpc_server_started_total{{{labels}}}",
        f'grpc_server_handled_total{{grpc_code="OK",{labels}}}',
        f'grpc_server_handled_total{{grpc_code="NOT_FOUND",{labels}}}',
        f"grpc_server_handling_seconds_count{{{labels}}}",
    )
    before = await metrics(either.gateway)
    await either.accepted()
    either.upstream.reset(either.wallet.says(result("F", "USER_NOT_EXIST")))
    request = either.api.request()
    await caller.call(either.gateway.channel, either.api, request)
    await either.gateway.call_logged(request.request_id)
    after = await metrics(either.gateway)
    assert [after.get(name, 0) - before.get(name, 0) for name in counted] == [2, 1, 1, 2]


async def test_attempts_are_counted_under_the_gateways_metric_names(either: Rpc) -> None:
    before = await metrics(either.gateway)
    await either.accepted()
    after = await metrics(either.gateway)
    ours = {
        name: value - before.get(name, 0) for name, value in after.items() if f'"{either.api.name}"' in name
    }
    attempts = [value for name, value in ours.items() if name.startswith("alipayhk_upstream_") and value]
    assert attempts
    assert {name for name in names(after) if not name.startswith(("grpc_server_", "alipayhk_"))} == set()


async def test_labels_contain_no_text_of_a_caller(gateway: Gateway) -> None:
    method: Any = gateway.channel.unary_unary(f"/{SERVICE}/marked-4711-method")
    with pytest.raises(grpc.aio.AioRpcError):
        await method(b"")
    assert not [name for name in await metrics(gateway) if "marked-4711" in name]


async def test_health_listener_serves_only_health(run: Run) -> None:
    address = f"127.0.0.1:{free_port()}"
    async with run({"HEALTH_LISTEN": address}), grpc.aio.insecure_channel(address) as channel:
        assert await health(channel) == SERVING
        reported = await caller.call(channel, SYNC, SYNC.request())
        assert isinstance(reported, Reported)
        assert reported.code is StatusCode.UNIMPLEMENTED
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await reflect(channel, REFLECTIONS[0], list_services="")
        assert raised.value.code() is StatusCode.UNIMPLEMENTED


async def test_every_call_has_one_line_in_the_log(either: Rpc) -> None:
    request = either.api.request()
    await either.accepted(request=request)
    request_id: str = request.request_id
    await either.gateway.call_logged(request_id)
    (line,) = either.gateway.call_records(request_id)
    assert (line["code"], line["method"], line["attempts"]) == ("OK", either.api.path, 1)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", line["time"])


async def test_log_level_is_a_setting(run: Run, upstream: object) -> None:
    expected = not_sent(StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST", "new_request_id")
    async with run({"LOG_LEVEL": "debug"}) as gateway:
        await health(gateway.channel)
        await gateway.logged(lambda record: record.get("method") == "/grpc.health.v1.Health/Check")
        await caller.refused(gateway.channel, SYNC, SYNC.request(request_id=""), expected)
    assert {record["event"] for record in gateway.records} >= {
        "gateway started",
        "call",
        "shutdown started",
        "shutdown finished",
    }


@pytest.mark.parametrize("environ", [{}, {"GRPC_VERBOSITY": "INFO"}], ids=["off", "asked for"])
async def test_lines_of_grpc_are_off_unless_the_environment_sets_their_verbosity(
    run: Run, material: Material, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str]
) -> None:
    """A failed handshake is one that gRPC itself reports without the variable, as with INFO."""
    monkeypatch.delenv("GRPC_VERBOSITY", raising=False)
    server = material.callers_ca.issue("verbose", "127.0.0.1")
    tls = {"TLS_CERT_FILE": str(server.chain_file), "TLS_KEY_FILE": str(server.key_file)}
    async with run(tls, environ=environ) as gateway:
        host, _, port = gateway.address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        async with asyncio.timeout(WAIT_MAX_S):
            await reader.read()  # until gRPC closes the connection
        writer.close()
        await writer.wait_closed()
    assert ("handshake" in "".join(gateway.err).lower()) is bool(environ), gateway.err
    assert environ or gateway.err == []
