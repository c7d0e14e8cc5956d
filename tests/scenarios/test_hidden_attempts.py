"""A client that retries shows its caller only the last status, but an earlier attempt may have effect."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
from grpc import StatusCode

from tests.e2e.caller import Expected, Reported, check, not_sent, reported
from tests.e2e.conftest import Run
from tests.e2e.gateway import Settings
from tests.e2e.samples import APIS, BIND, SERVICE, Api, fresh_request
from tests.e2e.upstream import Upstream
from tests.ledger.trouble import removed
from tests.ports import free_port
from tests.scenarios.conftest import RunSystem
from tests.scenarios.system import LEDGER_UNAVAILABLE, System

Metadata = Sequence[tuple[str, str]]
UNREACHABLE: Final = not_sent(StatusCode.UNAVAILABLE, "UPSTREAM_UNREACHABLE")
INVALID: Final = not_sent(StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST", "new_request_id")
DEADLINE_TOO_SHORT: Final = not_sent(StatusCode.DEADLINE_EXCEEDED, "DEADLINE_TOO_SHORT")
MARKED: Final = (("x-envoy-attempt-count", "2"),)
FIRST_TRIES: Final[tuple[Metadata, ...]] = ((), (("x-envoy-attempt-count", "1"),))
RETRY_POLICY: Final = {
    "methodConfig": [
        {
            "name": [{"service": SERVICE}],
            "retryPolicy": {
                "maxAttempts": 2,
                "initialBackoff": "0.1s",
                "maxBackoff": "0.1s",
                "backoffMultiplier": 1,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}


def unreachable_alipayhk() -> Settings:
    """Return settings for a closed port, and for a deadline of calls that have none of their own.

    A call gets UNREACHABLE just before its deadline; on a busy machine its own one could expire first.
    """
    return {"BASE_URL": f"http://127.0.0.1:{free_port()}", "DEFAULT_DEADLINE_S": "1.5"}


def unknown(expected: Expected) -> Expected:
    """Expect the same status with an unknown outcome."""
    return Expected(expected.code, expected.reason, "unknown", expected.retry, expected.pushback_ms)


async def call(
    channel: grpc.aio.Channel,
    api: Api,
    request: Any,
    metadata: Metadata = (),
    timeout_s: float | None = 8.0,
) -> Reported:
    """Call with metadata; return the reported failure."""
    method: Any = channel.unary_unary(api.path, response_deserializer=api.response.FromString)
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await method(request.SerializeToString(), timeout=timeout_s, metadata=metadata)
    return reported(failed.value)


@asynccontextmanager
async def retrying(address: str) -> AsyncIterator[grpc.aio.Channel]:
    """Open a channel that retries once."""
    options = [("grpc.service_config", json.dumps(RETRY_POLICY)), ("grpc.enable_retries", 1)]
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        yield channel


async def calls_logged(system: System, request: Any, count: int) -> None:
    """Wait until the gateway has logged this number of calls for a request."""
    await system.gateway.logged(lambda _: len(system.gateway.call_records(request.request_id)) == count)


@pytest.mark.parametrize("api", APIS, ids=lambda api: api.name)
async def test_retry_by_a_client_does_not_report_not_sent(
    run_system: RunSystem, tmp_path: Path, api: Api
) -> None:
    async with run_system() as system, retrying(system.gateway.address) as channel:
        plain, retried = fresh_request(api), fresh_request(api)
        with removed(tmp_path / "ledger.db"):
            check(await call(system.gateway.channel, api, plain), LEDGER_UNAVAILABLE, plain)
            check(await call(channel, api, retried), unknown(LEDGER_UNAVAILABLE), retried)
        await calls_logged(system, plain, 1)
        await calls_logged(system, retried, 2)
        assert system.sent(retried) == 0


@pytest.mark.parametrize("api", APIS, ids=lambda api: api.name)
async def test_retry_by_a_proxy_reports_not_sent_only_with_proof(run_system: RunSystem, api: Api) -> None:
    async with run_system(unreachable_alipayhk()) as system:
        channel = system.gateway.channel
        for metadata in (*FIRST_TRIES, MARKED):
            request = fresh_request(api)
            check(await call(channel, api, request, metadata, timeout_s=None), UNREACHABLE, request)
            request = fresh_request(api, user_id="\x00")
            check(await call(channel, api, request, metadata), INVALID, request)
        for metadata, expected in (
            *((first, DEADLINE_TOO_SHORT) for first in FIRST_TRIES),
            (MARKED, unknown(DEADLINE_TOO_SHORT)),
        ):
            request = fresh_request(api)
            result = await call(channel, api, request, metadata, timeout_s=0.09)
            # On a busy machine gRPC's own deadline may expire first.
            if result.status.details:
                check(result, expected, request)


async def test_ledger_in_memory_is_no_proof_of_not_sent(run: Run, upstream: Upstream) -> None:
    async with run({**unreachable_alipayhk(), "LEDGER_URL": "memory:"}) as gateway:
        for metadata in FIRST_TRIES:
            request = fresh_request(BIND)
            result = await call(gateway.channel, BIND, request, metadata, timeout_s=None)
            check(result, UNREACHABLE, request)
        request = fresh_request(BIND)
        result = await call(gateway.channel, BIND, request, MARKED, timeout_s=None)
        check(result, unknown(UNREACHABLE), request)
        assert upstream.requests == []
