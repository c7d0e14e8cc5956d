"""Spans of calls and attempts, as a collector receives them over OTLP.

In `make full` they pass through OpenTelemetry's own Collector, too, which is compiled from otelcol/.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Iterator
from importlib.metadata import version
from typing import Any, Final

import grpc
import pytest
import pytest_asyncio

from tests.e2e import caller
from tests.e2e.caller import Reported
from tests.e2e.collector import Collector, Received, collecting, forwarded
from tests.e2e.conftest import Run
from tests.e2e.gateway import Gateway, Record, channel_to
from tests.e2e.samples import BIND, PATHS, SYNC, Api, fresh_request
from tests.e2e.upstream import Peer, Request, Response, Script, Upstream, hangs, responds
from tests.e2e.wallet import Wallet, result
from tests.ports import free_port

TRACE: Final = "0af7651916cd43dd8448eb211c80319c"
SPAN: Final = "b7ad6b7169203331"
SAMPLED: Final = f"00-{TRACE}-{SPAN}-01"
END_S: Final = 20.0
"""A gateway that waited for its collector would take longer to end, in seconds."""


@pytest.fixture(scope="module", params=["directly", pytest.param("forwarded", marks=pytest.mark.full)])
def collector(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Collector]:
    """Return a collector, which gets the spans directly or from OpenTelemetry's own Collector."""
    with collecting() as collector:
        if request.param == "directly":
            yield collector
        else:
            with forwarded(collector, tmp_path_factory.mktemp("otelcol")):
                yield collector


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def traced(run: Run, collector: Collector) -> AsyncIterator[Gateway]:
    """Return a gateway that exports its spans; its default deadline is 1 s."""
    async with run({"DEFAULT_DEADLINE_S": "1"}, environ=collector.environ) as gateway:
        yield gateway


@pytest.fixture(autouse=True)
def answers(upstream: Upstream, wallet: Wallet) -> None:
    """Let AlipayHK answer every request with a success, until a test changes that."""
    upstream.script = wallet.says()


def answers_after(until: asyncio.Event, wallet: Wallet) -> Script:
    """Answer with a success when the event is set."""

    async def script(received: Request, peer: Peer) -> None:
        await until.wait()
        await wallet.says()(received, peer)

    return script


async def call(
    gateway: Gateway, api: Api, request: Any, *, traceparent: str = "", timeout_s: float | None = 10
) -> Any:
    """Call with a parent; return the response or the status."""
    metadata = (("traceparent", traceparent),) if traceparent else ()
    method: Any = gateway.channel.unary_unary(api.path, response_deserializer=api.response.FromString)
    try:
        return await method(request.SerializeToString(), metadata=metadata, timeout=timeout_s)
    except grpc.aio.AioRpcError as error:
        return caller.reported(error)


async def test_call_is_the_child_of_the_callers_span_and_its_attempts_are_its_children(
    traced: Gateway, collector: Collector, upstream: Upstream, wallet: Wallet
) -> None:
    request, answers = fresh_request(SYNC), iter([responds(lambda _: Response(503)), wallet.says()])

    async def script(received: Request, peer: Peer) -> None:
        await next(answers)(received, peer)

    upstream.script = script
    await call(traced, SYNC, request, traceparent=SAMPLED)
    line = await traced.call_logged(request.request_id)
    span = await asyncio.to_thread(collector.call, request.request_id)
    assert (span.span.trace_id.hex(), span.span.parent_span_id.hex()) == (TRACE, SPAN)
    assert (line["trace_id"], line["span_id"]) == (TRACE, span.span.span_id.hex())
    assert (span.span.name, span.is_call, span.status) == (SYNC.path[1:], True, "UNSET")
    assert span.attributes == {
        "rpc.system.name": "grpc",
        "rpc.method": SYNC.path[1:],
        "rpc.response.status_code": "OK",
        "alipayhk.request_id": request.request_id,
        "alipayhk.attempts": 2,
    }
    failed, succeeded = await asyncio.to_thread(collector.attempts, span, 2)
    host, _, port = upstream.url.removeprefix("http://").partition(":")
    path, _, _ = PATHS[SYNC.name].partition("?")
    about = {
        "http.request.method": "POST",
        "url.full": upstream.url + PATHS[SYNC.name],
        "server.address": host,
        "server.port": int(port),
        "alipayhk.api": SYNC.name,
    }
    assert [each.span.name for each in (failed, succeeded)] == [f"POST {path}"] * 2
    assert [each.span.kind for each in (failed, succeeded)] == [failed.span.SPAN_KIND_CLIENT] * 2
    assert (failed.status, succeeded.status) == ("ERROR", "UNSET")
    ended = failed.attributes.items() - about.items()
    assert ended >= {
        ("http.response.status_code", 503),
        ("error.type", "Unsigned"),
        ("alipayhk.end", "Unsigned"),
    }
    assert succeeded.attributes == {
        **about,
        "http.request.resend_count": 1,
        "http.response.status_code": 200,
        "alipayhk.end": "success",
    }
    assert span.resource["service.name"] == "alipayhk-gateway"
    assert span.resource["service.version"] == version("alipayhk-gateway")
    assert span.resource["process.pid"] == traced.process.pid


async def ended(traced: Gateway, collector: Collector, request: Any, code: str) -> tuple[Any, Any]:
    """Return the span of a call that ended with a code, and that of its one attempt."""
    line = await traced.call_logged(request.request_id)
    span = await asyncio.to_thread(collector.call, request.request_id)
    (attempt,) = await asyncio.to_thread(collector.attempts, span, 1)
    assert (line["code"], span.attributes["rpc.response.status_code"]) == (code, code)
    return span, attempt


async def test_expired_deadline_is_an_error(
    traced: Gateway, collector: Collector, upstream: Upstream
) -> None:
    upstream.script, request = hangs, fresh_request(BIND)
    await call(traced, BIND, request, timeout_s=None)
    span, _ = await ended(traced, collector, request, "DEADLINE_EXCEEDED")
    assert (span.status, span.attributes["error.type"]) == ("ERROR", "DEADLINE_EXCEEDED")
    reported = {name: span.attributes[f"alipayhk.{name}"] for name in ("reason", "outcome", "retry")}
    assert reported == {"reason": "UPSTREAM_TIMEOUT", "outcome": "unknown", "retry": "operator"}


async def test_call_that_its_caller_cancels_is_no_error_of_the_gateway(
    traced: Gateway, collector: Collector, upstream: Upstream, wallet: Wallet
) -> None:
    until, request = asyncio.Event(), fresh_request(SYNC)
    upstream.reset(answers_after(until, wallet))
    calling = asyncio.create_task(call(traced, SYNC, request))
    await upstream.wait_for_request()
    calling.cancel()
    await traced.cancel_logged(request.request_id)
    until.set()
    span, attempt = await ended(traced, collector, request, "CANCELLED")
    assert (span.status, "error.type" in span.attributes) == ("UNSET", False)
    # The attempt was sent, so it ran to its end.
    assert (attempt.status, attempt.attributes["alipayhk.end"]) == ("UNSET", "success")


async def test_rejection_by_alipayhk_is_no_error_of_the_gateway(
    traced: Gateway, collector: Collector, upstream: Upstream, wallet: Wallet
) -> None:
    upstream.script, request = wallet.says(result("F", "USER_NOT_EXIST", "")), fresh_request(SYNC)
    await call(traced, SYNC, request)
    span, attempt = await ended(traced, collector, request, "NOT_FOUND")
    assert (span.status, attempt.status) == ("UNSET", "UNSET")
    assert span.attributes["alipayhk.result_code"] == "USER_NOT_EXIST"


async def test_connection_that_fails_is_an_error_of_the_attempt(
    traced: Gateway, collector: Collector, upstream: Upstream
) -> None:
    upstream.script, request = responds(lambda _: Response(200, (), b"{}")), fresh_request(BIND)
    await call(traced, BIND, request)
    span, attempt = await ended(traced, collector, request, "UNKNOWN")
    assert (span.status, attempt.status) == ("ERROR", "ERROR")
    assert attempt.attributes["error.type"] == attempt.attributes["alipayhk.end"] == "Unsigned"


async def test_call_that_joins_another_one_is_linked_to_it(
    traced: Gateway, collector: Collector, upstream: Upstream, wallet: Wallet
) -> None:
    until, request = asyncio.Event(), fresh_request(SYNC)
    upstream.reset(answers_after(until, wallet))
    first = asyncio.create_task(call(traced, SYNC, request))
    await upstream.wait_for_request()
    second = await call(traced, SYNC, request, traceparent=SAMPLED, timeout_s=None)
    assert second.info.reason == "UPSTREAM_TIMEOUT"
    until.set()
    assert not isinstance(await first, Reported)

    def found(spans: list[Received]) -> list[Received]:
        return [each for each in spans if each.attributes.get("alipayhk.request_id") == request.request_id]

    await asyncio.to_thread(collector.wait_for, lambda spans: len(found(spans)) == 2)
    joined, started = found(collector.spans)
    assert joined.span.trace_id.hex() == TRACE
    assert [link.span_id for link in joined.span.links] == [started.span.span_id]
    assert await asyncio.to_thread(collector.attempts, started, 1)
    assert await asyncio.to_thread(collector.attempts, joined, 0) == []


@pytest.mark.parametrize("parent", ["", f"00-{TRACE}-{SPAN}", f"00-{'0' * 32}-{SPAN}-01", "marked-zq47"])
async def test_call_without_a_valid_parent_starts_a_trace(
    traced: Gateway, collector: Collector, parent: str
) -> None:
    request = fresh_request(SYNC)
    await call(traced, SYNC, request, traceparent=parent)
    span = await asyncio.to_thread(collector.call, request.request_id)
    assert span.span.parent_span_id == b""
    assert span.span.trace_id.hex() == (await traced.call_logged(request.request_id))["trace_id"] != TRACE


async def test_call_of_a_trace_that_is_not_sampled_is_logged_with_its_trace_only(
    traced: Gateway, collector: Collector
) -> None:
    unsampled, sampled = fresh_request(SYNC), fresh_request(SYNC)
    await call(traced, SYNC, unsampled, traceparent=f"00-{TRACE}-{SPAN}-00")
    assert (await traced.call_logged(unsampled.request_id))["trace_id"] == TRACE
    await call(traced, SYNC, sampled)
    await asyncio.to_thread(collector.call, sampled.request_id)
    ids = [each.attributes.get("alipayhk.request_id") for each in collector.spans]
    assert unsampled.request_id not in ids


async def test_each_worker_exports_its_spans(run: Run, collector: Collector) -> None:
    environ = {**collector.environ, "OTEL_SERVICE_NAME": "linkage"}

    def pids() -> set[object]:
        named = [each for each in collector.spans if each.resource["service.name"] == "linkage"]
        return {each.resource["process.pid"] for each in named}

    more = {"WORKERS": "2", "LISTEN": f"127.0.0.1:{free_port()}"}
    async with run(more, environ=environ) as gateway:
        await gateway.wait_for_workers(2)
        while len(pids()) < 2:
            async with channel_to(gateway.address) as channel:
                request = fresh_request(SYNC)
                await caller.accepted(channel, SYNC, request)
            await asyncio.to_thread(collector.call, request.request_id)


async def test_collector_that_never_answers_delays_neither_calls_nor_the_end(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        environ = {
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"http://127.0.0.1:{silent.getsockname()[1]}/v1/traces",
            "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT": "600",
            "OTEL_BSP_SCHEDULE_DELAY": "1",
        }
        async with run(environ=environ) as gateway:
            for _ in range(20):
                assert not isinstance(await call(gateway, SYNC, fresh_request(SYNC)), Reported)
            gateway.terminate()
            async with asyncio.timeout(END_S):
                assert await gateway.ended() == 0
    assert {"shutdown finished"} <= {line["event"] for line in gateway.records}


async def test_gateway_says_once_that_its_collector_is_gone(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
        "OTEL_BSP_SCHEDULE_DELAY": "1",
    }

    def failed(line: Record) -> bool:
        return bool(line["event"] == "trace export failed")

    async with run(environ=environ) as gateway:
        for _ in range(3):
            await caller.accepted(gateway.channel, SYNC, fresh_request(SYNC))
            await gateway.logged(failed)
    assert len(list(filter(failed, gateway.records))) == 1
    assert json.dumps(gateway.records).count(str(port)) == 0
