"""A client that tries again by itself shows its caller the last status only; what came before may stand."""

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
from tests.e2e.samples import APIS, BIND, SERVICE, Api, apart
from tests.e2e.upstream import Upstream
from tests.ledger.trouble import removed
from tests.ports import free_port
from tests.scenarios.conftest import Stage
from tests.scenarios.scene import LEDGER_UNAVAILABLE, Scene

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


def unknown(expected: Expected) -> Expected:
    """Expect the same with an outcome that nobody knows."""
    return Expected(expected.code, expected.reason, "unknown", expected.retry, expected.pushback_ms)


async def call(
    channel: grpc.aio.Channel, api: Api, request: Any, metadata: Metadata = (), timeout_s: float = 8.0
) -> Reported:
    """Call with metadata, and be told of a failure."""
    method: Any = channel.unary_unary(api.path, response_deserializer=api.response.FromString)
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await method(request.SerializeToString(), timeout=timeout_s, metadata=metadata)
    return reported(failed.value)


@asynccontextmanager
async def retrying(address: str) -> AsyncIterator[grpc.aio.Channel]:
    """Open a channel that tries once more by itself."""
    options = [("grpc.service_config", json.dumps(RETRY_POLICY)), ("grpc.enable_retries", 1)]
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        yield channel


async def calls_logged(scene: Scene, request: Any, count: int) -> None:
    """Wait until the gateway has logged so many calls for a request."""
    await scene.gateway.logged(lambda _: len(scene.gateway.call_records(request.request_id)) == count)


@pytest.mark.parametrize("api", APIS, ids=lambda api: api.name)
async def test_a_clients_own_retry_is_not_told_that_nothing_was_sent(
    stage: Stage, tmp_path: Path, api: Api
) -> None:
    async with stage() as scene, retrying(scene.gateway.address) as channel:
        plain, retried = apart(api), apart(api)
        with removed(tmp_path / "ledger.db"):
            check(await call(scene.gateway.channel, api, plain), LEDGER_UNAVAILABLE, plain)
            check(await call(channel, api, retried), unknown(LEDGER_UNAVAILABLE), retried)
        await calls_logged(scene, plain, 1)
        await calls_logged(scene, retried, 2)
        assert scene.sent(retried) == 0


@pytest.mark.parametrize("api", APIS, ids=lambda api: api.name)
async def test_a_proxys_retry_is_told_what_was_looked_up_and_no_more(stage: Stage, api: Api) -> None:
    async with stage({"BASE_URL": f"http://127.0.0.1:{free_port()}"}) as scene:
        channel = scene.gateway.channel
        for metadata in (*FIRST_TRIES, MARKED):
            request = apart(api)
            check(await call(channel, api, request, metadata, timeout_s=0.4), UNREACHABLE, request)
            request = apart(api, user_id="\x00")
            check(await call(channel, api, request, metadata), INVALID, request)
        for metadata, expected in (
            *((first, DEADLINE_TOO_SHORT) for first in FIRST_TRIES),
            (MARKED, unknown(DEADLINE_TOO_SHORT)),
        ):
            request = apart(api)
            answer = await call(channel, api, request, metadata, timeout_s=0.09)
            # On a busy machine its own deadline may come first.
            if answer.status.details:
                check(answer, expected, request)


async def test_a_ledger_that_forgets_proves_nothing(run: Run, upstream: Upstream) -> None:
    nowhere = {"LEDGER_URL": "memory:", "BASE_URL": f"http://127.0.0.1:{free_port()}"}
    async with run(nowhere) as gateway:
        for metadata in FIRST_TRIES:
            request = apart(BIND)
            check(await call(gateway.channel, BIND, request, metadata, timeout_s=0.4), UNREACHABLE, request)
        request = apart(BIND)
        answer = await call(gateway.channel, BIND, request, MARKED, timeout_s=0.4)
        check(answer, unknown(UNREACHABLE), request)
        assert upstream.requests == []
