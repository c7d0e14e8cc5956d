"""Both clients under OpenTelemetry's own instrumentation of gRPC clients."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from opentelemetry.instrumentation.grpc import GrpcAioInstrumentorClient, GrpcInstrumentorClient
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode, format_span_id, set_tracer_provider

from alipayhk_linkage import BlockingLinkageClient, LinkageClient, LinkageError, SyncLinkageRequest
from tests.linkage.fake_gateway import Gateway, a_gateway

REQUEST = SyncLinkageRequest()
CANCELLED_S = 1.0
"""How long a call that nobody waits for may go on, in seconds."""
LEFT_S = 3.0
"""The deadline of a call that its caller leaves, in seconds."""


class Holding(Gateway):
    """Holds its calls for ever, or refuses them."""

    refuses = False

    def __init__(self) -> None:
        super().__init__()
        self.started, self.cancelled = asyncio.Event(), asyncio.Event()

    async def called(self, context: Any) -> None:
        await super().called(context)
        self.started.set()
        if self.refuses:
            detail = AnyMessage()
            metadata = {"outcome": "rejected", "retry": "new_request_id"}
            detail.Pack(ErrorInfo(domain="linkage.alipayhk", reason="WALLET_REJECTED", metadata=metadata))
            status = Status(code=5, message="x", details=[detail]).SerializeToString()
            await context.abort(grpc.StatusCode.NOT_FOUND, "x", (("grpc-status-details-bin", status),))
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()


@pytest.fixture(scope="module")
def exporter() -> InMemorySpanExporter:
    """Return an exporter of the process, because the instrumentation for threads has no other one."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    set_tracer_provider(provider)
    return exporter


@pytest.fixture
def spans(exporter: InMemorySpanExporter) -> Iterator[InMemorySpanExporter]:
    """Instrument gRPC's clients; return the exporter of their spans."""
    kinds: tuple[Any, ...] = (GrpcAioInstrumentorClient, GrpcInstrumentorClient)
    instrumentors = [kind() for kind in kinds]
    for instrumentor in instrumentors:
        instrumentor.instrument()
    yield exporter
    for instrumentor in instrumentors:
        instrumentor.uninstrument()
    exporter.clear()


@pytest_asyncio.fixture(loop_scope="session")
async def holding() -> AsyncIterator[tuple[Holding, str]]:
    """Run a gateway that holds its calls; return it with its address."""
    async with a_gateway(servicer := Holding()) as (_, target):
        yield servicer, target


async def called(target: str) -> None:
    """Call from a task."""
    async with LinkageClient(target) as client:
        await client.sync_linkage(REQUEST)


async def called_in_a_thread(target: str) -> None:
    """Connect and call from a thread."""
    with BlockingLinkageClient(target) as client:
        assert await asyncio.to_thread(client.connect, timeout_s=30)
        await asyncio.to_thread(client.sync_linkage, REQUEST)


@pytest.mark.parametrize("calling", [called, called_in_a_thread])
async def test_context_reaches_the_gateway_and_the_outcome_of_an_error_the_caller(
    holding: tuple[Holding, str],
    spans: InMemorySpanExporter,
    calling: Callable[[str], Awaitable[None]],
) -> None:
    servicer, target = holding
    servicer.refuses = True
    with pytest.raises(LinkageError) as raised:
        await calling(target)
    assert (raised.value.reason, raised.value.outcome) == ("WALLET_REJECTED", "rejected")
    (span,) = spans.get_finished_spans()
    assert span.status.status_code is StatusCode.ERROR
    assert servicer.metadata[0]["traceparent"].split("-")[2] == format_span_id(span.context.span_id)


async def test_cancelled_task_ends_and_can_learn_the_outcome_later(
    holding: tuple[Holding, str], spans: InMemorySpanExporter
) -> None:
    servicer, target = holding
    async with LinkageClient(target) as client:
        calling = asyncio.create_task(client.sync_linkage(REQUEST, timeout_s=LEFT_S))
        await servicer.started.wait()
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
        assert calling.cancelled()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await client.sync_linkage(REQUEST, timeout_s=LEFT_S)
        servicer.refuses = True
        with pytest.raises(LinkageError) as raised:
            await client.sync_linkage(REQUEST)
    assert raised.value.outcome == "rejected"


async def test_expired_deadline_is_told_and_is_an_error_of_the_span(
    holding: tuple[Holding, str], spans: InMemorySpanExporter
) -> None:
    async with LinkageClient(holding[1]) as client:
        with pytest.raises(LinkageError) as raised:
            await client.sync_linkage(REQUEST, timeout_s=1.0)
    assert (raised.value.code.name, raised.value.outcome) == ("DEADLINE_EXCEEDED", "unknown")
    (span,) = spans.get_finished_spans()
    assert span.status.status_code is StatusCode.ERROR


async def test_closing_a_client_ends_its_calls_as_unknown(
    holding: tuple[Holding, str], spans: InMemorySpanExporter
) -> None:
    servicer, target = holding
    client = LinkageClient(target)
    calling = asyncio.create_task(client.sync_linkage(REQUEST))
    await servicer.started.wait()
    await client.close()
    with pytest.raises(LinkageError) as raised:
        await calling
    assert (raised.value.code.name, raised.value.outcome) == ("CANCELLED", "unknown")


@pytest.mark.xfail(
    raises=TimeoutError,
    strict=True,
    reason="open-telemetry/opentelemetry-python-contrib#3271; docs/clients/python.md says what to know",
)
async def test_call_ends_when_its_task_is_cancelled(
    holding: tuple[Holding, str], spans: InMemorySpanExporter
) -> None:
    servicer, target = holding
    async with LinkageClient(target) as client:
        calling = asyncio.create_task(client.sync_linkage(REQUEST, timeout_s=LEFT_S))
        await servicer.started.wait()
        calling.cancel()
        async with asyncio.timeout(CANCELLED_S):
            await servicer.cancelled.wait()
