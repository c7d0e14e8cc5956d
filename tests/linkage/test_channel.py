"""Channel options, TLS, retries, deadlines and metadata of the clients."""

from __future__ import annotations

import asyncio
import json
import math
import os
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest

from alipayhk_linkage import (
    RETRY_SERVICE_CONFIG,
    SHARED_LEDGER_SERVICE_CONFIG,
    BindAccountRequest,
    BlockingLinkageClient,
    LinkageClient,
    LinkageError,
    SyncLinkageRequest,
    Tls,
    channel_options,
    new_request_id,
    trace_context,
)
from tests.linkage.fake_gateway import Gateway, a_gateway
from tests.peers.processes import ROOT

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
CERTIFICATE = b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----"
KEY = b"-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----"


@pytest.mark.parametrize(
    "code",
    [
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.CANCELLED,
    ],
)
async def test_grpc_retries_when_the_gateway_asks_for_it(
    gateway: tuple[Gateway, str], code: grpc.StatusCode
) -> None:
    servicer, target = gateway
    servicer.codes, servicer.pushbacks = [code, code], ["10", None]
    async with LinkageClient(target) as client:
        await client.bind_account(BindAccountRequest())
    attempts = [metadata.get("grpc-previous-rpc-attempts") for metadata in servicer.metadata]
    assert attempts == [None, "1", "2"]


@pytest.mark.parametrize(
    ("code", "pushback"), [(grpc.StatusCode.UNAVAILABLE, "-1"), (grpc.StatusCode.INTERNAL, None)]
)
async def test_grpc_does_not_retry_when_the_gateway_forbids_it(
    gateway: tuple[Gateway, str], code: grpc.StatusCode, pushback: str | None
) -> None:
    servicer, target = gateway
    servicer.codes, servicer.pushbacks = [code], [pushback]
    async with LinkageClient(target) as client:
        with pytest.raises(LinkageError) as raised:
            await client.sync_linkage(SyncLinkageRequest())
    assert raised.value.code is code
    assert len(servicer.metadata) == 1


async def test_retries_can_be_switched_off(gateway: tuple[Gateway, str]) -> None:
    servicer, target = gateway
    servicer.codes, servicer.pushbacks = [grpc.StatusCode.UNAVAILABLE], ["10"]
    async with LinkageClient(target, retries=False) as client:
        with pytest.raises(LinkageError):
            await client.sync_linkage(SyncLinkageRequest())
    assert len(servicer.metadata) == 1


async def test_every_call_has_a_deadline(gateway: tuple[Gateway, str]) -> None:
    servicer, target = gateway
    async with LinkageClient(target, timeout_s=7) as client:
        await client.sync_linkage(SyncLinkageRequest())
        await client.sync_linkage(SyncLinkageRequest(), timeout_s=3)
    async with LinkageClient(target) as client:
        await client.sync_linkage(SyncLinkageRequest())
    assert [round(left_s) for left_s in servicer.time_left_s] == [7, 3, 10]


@pytest.mark.parametrize("timeout_s", [math.inf, 1e10])
async def test_an_infinite_deadline_is_not_in_the_past(
    gateway: tuple[Gateway, str], timeout_s: float
) -> None:
    servicer, target = gateway
    async with LinkageClient(target) as client:
        await client.sync_linkage(SyncLinkageRequest(), timeout_s=timeout_s)
    assert servicer.time_left_s[0] > 3600


async def test_trace_context_and_request_id_are_forwarded(gateway: tuple[Gateway, str]) -> None:
    servicer, target = gateway
    headers = {
        "TraceParent": TRACEPARENT,
        "tracestate": "a=1",
        "X-Request-Id": "edge-7",
        "cookie": "secret",
    }
    async with LinkageClient(target) as client:
        with trace_context(headers):
            await client.sync_linkage(SyncLinkageRequest())
            await client.bind_account(
                BindAccountRequest(), metadata=[("x-request-id", "mine"), ("n-bin", b"\0")]
            )
        await client.sync_linkage(SyncLinkageRequest())
    first, second, third = servicer.metadata
    assert (first["traceparent"], first["tracestate"], first["x-request-id"]) == (
        TRACEPARENT,
        "a=1",
        "edge-7",
    )
    assert "cookie" not in first
    assert (second["traceparent"], second["x-request-id"]) == (TRACEPARENT, "mine")
    assert second["n-bin"] == b"\0"
    assert third.keys().isdisjoint(("traceparent", "tracestate", "x-request-id"))


@pytest.mark.parametrize(
    "headers",
    [
        {"traceparent": "00-" + "0" * 32 + "-b7ad6b7169203331-01"},
        {"traceparent": "ff" + TRACEPARENT[2:]},
        {"traceparent": TRACEPARENT.upper()},
        {"traceparent": TRACEPARENT + "-00"},
        {"traceparent": "01" + TRACEPARENT[2:] + "-會員"},
        {"traceparent": "01" + TRACEPARENT[2:] + "-" + "x" * 10_000},
        {"x-request-id": "two words"},
        {"x-request-id": "line\nbreak"},
        {"x-request-id": "會員"},
        {"x-request-id": "x" * 129},
        {"tracestate": ""},
        {"x-request-id": None},
    ],
)
async def test_malformed_trace_context_is_not_forwarded(gateway: tuple[Gateway, str], headers: Any) -> None:
    servicer, target = gateway
    async with LinkageClient(target) as client:
        with trace_context(headers):
            await client.sync_linkage(SyncLinkageRequest())
    assert servicer.metadata[0].keys().isdisjoint(headers)


def test_all_languages_have_the_same_service_configs() -> None:
    shared, clients = json.loads(SHARED_LEDGER_SERVICE_CONFIG), ROOT / "clients"
    assert (clients / "retry_service_config.json").read_text("utf-8") == RETRY_SERVICE_CONFIG
    assert json.loads((clients / "retry_service_config.shared_ledger.json").read_text("utf-8")) == shared
    assert shared.pop("loadBalancingConfig") == [{"round_robin": {}}]
    assert shared == json.loads(RETRY_SERVICE_CONFIG)
    policy = shared["methodConfig"][0]["retryPolicy"]
    assert policy["retryableStatusCodes"] == ["UNAVAILABLE", "RESOURCE_EXHAUSTED", "ABORTED", "CANCELLED"]


@pytest.mark.parametrize("shared_ledger", [False, True])
@pytest.mark.parametrize("retries", [False, True])
async def test_calls_are_spread_only_with_a_shared_ledger(*, retries: bool, shared_ledger: bool) -> None:
    options: dict[str, Any] = {"retries": retries} | ({"shared_ledger": True} if shared_ledger else {})
    async with a_gateway() as (one, first), a_gateway() as (other, second):
        target = f"ipv4:{first},{second}"

        async def is_spread(call: Callable[[], Awaitable[object]]) -> bool:
            one.metadata.clear()
            other.metadata.clear()
            # Calls reach an address only after its connection is established.
            async with asyncio.timeout(20):
                for _ in range(20):
                    await call()
                while shared_ledger and not (one.metadata and other.metadata):
                    await call()
            return bool(one.metadata and other.metadata)

        async with LinkageClient(target, **options) as client:
            assert await is_spread(lambda: client.sync_linkage(SyncLinkageRequest())) is shared_ledger
        with BlockingLinkageClient(target, **options) as blocking:
            sync_linkage = partial(asyncio.to_thread, blocking.sync_linkage, SyncLinkageRequest())
            assert await is_spread(sync_linkage) is shared_ledger


def test_given_options_override_the_defaults() -> None:
    options = dict(
        channel_options(Tls(server_name="gw"), retries=True, more=(("grpc.enable_http_proxy", 1),))
    )
    assert options["grpc.enable_http_proxy"] == 1
    assert options["grpc.ssl_target_name_override"] == "gw"


def test_pings_detect_a_silently_dropped_connection() -> None:
    options = dict(channel_options(None, retries=False))
    # The gateway allows a ping every 10 s. gRPC's default ping timeout of 60 s must be overridden.
    assert options["grpc.keepalive_time_ms"] == 20_000
    assert options["grpc.keepalive_timeout_ms"] == options["grpc.http2.ping_timeout_ms"] == 5_000
    assert options["grpc.keepalive_permit_without_calls"] == 1
    assert options["grpc.http2.max_pings_without_data"] == 0


@pytest.mark.parametrize("half", [{"cert": b"c"}, {"key": b"k"}])
def test_a_client_certificate_without_its_key_is_refused(half: Any) -> None:
    with pytest.raises(ValueError, match="must be given together"):
        Tls(**half)


@pytest.mark.parametrize("pem", [b"", b"hello", CERTIFICATE])
def test_a_key_that_is_not_pem_is_refused(pem: bytes) -> None:
    with pytest.raises(ValueError, match="the key of the client certificate contains no PEM private key"):
        Tls(cert=CERTIFICATE, key=pem)


@pytest.mark.parametrize("pem", [b"", b"hello", KEY])
def test_a_certificate_that_is_not_pem_is_refused_and_not_ignored(pem: bytes) -> None:
    with pytest.raises(ValueError, match="the CA contains no PEM certificate"):
        Tls(ca=pem)
    with pytest.raises(ValueError, match="the client certificate contains no PEM certificate"):
        Tls(cert=pem, key=KEY)


def test_a_pem_that_was_cut_off_is_refused() -> None:
    rows: tuple[tuple[str, Any], ...] = (
        ("the CA", {"ca": CERTIFICATE + CERTIFICATE[:-20]}),
        ("the client certificate", {"cert": CERTIFICATE[:-1], "key": KEY}),
        ("the key of the client certificate", {"cert": CERTIFICATE, "key": KEY[:-10]}),
    )
    for name, cut in rows:
        with pytest.raises(
            ValueError, match=f"^{name} is incomplete or was cut off: a BEGIN line has no END"
        ):
            Tls(**cut)


def test_a_pipe_is_refused_and_not_read(tmp_path: Path) -> None:
    os.mkfifo(pipe := tmp_path / "pipe")
    rows: list[dict[str, Any]] = [{"ca_file": pipe}, {"cert_file": pipe}, {"key_file": pipe}]
    for row in rows:
        with pytest.raises(OSError, match="a pipe, a socket or a device, and must be a regular file"):
            Tls.from_files(**row)


def test_request_ids_have_the_prefix_and_are_unique() -> None:
    first, second = new_request_id("loyalty"), new_request_id("loyalty")
    assert first != second
    assert first.startswith("loyalty-")
    assert len(new_request_id("x" * 31)) == 64


@pytest.mark.parametrize("prefix", ["", "x" * 32, "two words", "會員"])
def test_a_prefix_that_is_invalid_in_request_ids_is_refused(prefix: str) -> None:
    with pytest.raises(ValueError, match="the prefix must be"):
        new_request_id(prefix)


def test_a_refused_connection_has_the_outcome_unknown() -> None:
    request = BindAccountRequest(request_id="a", user_id="secret")
    with (
        BlockingLinkageClient("127.0.0.1:1", retries=False) as client,
        pytest.raises(LinkageError) as raised,
    ):
        client.bind_account(request, timeout_s=5)
    assert raised.value.outcome == "unknown"
    assert "secret" not in str(raised.value)
