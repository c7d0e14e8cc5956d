"""Admission refuses calls while the backlog is long: their details and counts, and the served calls."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo, RequestInfo, RetryInfo
from google.rpc.status_pb2 import Status

from service.outcomes.call import Undecodable
from service.server.admission import OPEN_MAX, SEND_S, WATCHES_MAX, Admission
from service.server.backlog import Backlog
from service.server.first_message import MESSAGE_S
from service.server.rpcs import SERVICE
from service.telemetry.metrics import Metrics
from tests.service.fakes import Details, FakeContext, LogStream, bind_request, sync_request

SYNC: Final = f"/{SERVICE}/SyncLinkage"
BIND: Final = f"/{SERVICE}/BindAccount"
CHECK: Final = "/grpc.health.v1.Health/Check"
REFLECTION: Final = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
DEADLINE_MAX_S: Final = 60.0


class LongBacklog(Backlog):
    """A backlog that is always long."""

    def __init__(self, *, light: bool = False) -> None:
        super().__init__(lambda: 0)
        self.light = light

    def accept(self) -> bool:
        super().accept()
        return True

    def is_light(self, peer: str) -> bool:
        return self.light


class PeerContext(FakeContext):
    """A call on a known connection; with `ended` it ends before it gets a status."""

    ended = False

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()) -> None:
        if self.ended:
            raise grpc.aio.InternalError
        await super().abort(code, details, trailing_metadata)


class Door:
    """Admission in front of a handler that answers."""

    def __init__(self, backlog: Backlog) -> None:
        self.backlog = backlog
        self.metrics = Metrics()
        self.served: list[object] = []
        idempotent = {"SyncLinkage": True, "BindAccount": False}
        self.admission = Admission(
            {
                **{path: grpc.stream_unary_rpc_method_handler(self.answer) for path in (SYNC, BIND, CHECK)},
                REFLECTION: grpc.stream_stream_rpc_method_handler(self.answer),
            },
            backlog,
            self.metrics,
            idempotent,
            deadline_max_s=DEADLINE_MAX_S,
        )

    async def answer(self, _: object, context: PeerContext) -> str:
        """Serve a call."""
        self.served.append(await context.read())
        return "answer"

    async def handler(self, path: str, metadata: Any = ()) -> Any:
        """Return the handler that gRPC calls."""
        return await asyncio.create_task(self.accept(path, metadata))

    async def accept(self, path: str, metadata: Any = ()) -> Any:
        """Accept a call that runs in the current task."""
        details = Details(path)
        details.invocation_metadata = metadata
        return self.admission.service(details)

    async def hold(self, path: str) -> None:
        """Accept a call that never ends."""
        await self.accept(path)
        await asyncio.Event().wait()

    async def refused(self, path: str, context: PeerContext) -> Status:
        """Make a call and check that it is refused; return its status."""
        with pytest.raises(grpc.aio.AbortError):
            await (await self.handler(path, context.metadata)).stream_unary(None, context)
        ((code, message, trailers),) = context.aborted
        status = Status.FromString(dict(trailers)["grpc-status-details-bin"])
        assert (status.code, status.message) == (code.value[0], message)
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        return status

    def counted(self, name: str, **labels: str) -> float | None:
        """Return a metric."""
        return self.metrics.registry.get_sample_value(name, labels)


def detail(status: Status, kind: Any) -> Any:
    """Return the one detail of a kind, or None."""
    found = [each for each in status.details if each.Is(kind.DESCRIPTOR)]
    assert len(found) <= 1
    if not found:
        return None
    message = kind()
    found[0].Unpack(message)
    return message


def pushback_ms(context: PeerContext) -> int:
    ((_, _, trailers),) = context.aborted
    return int(dict(trailers)["grpc-retry-pushback-ms"])


async def test_a_gap_after_a_burst_is_reported_to_the_backlog_and_none_within_it() -> None:
    gaps: list[int] = []

    class Noting(Backlog):
        def seems_empty(self) -> None:
            gaps.append(self.accepted)

    door = Door(Noting(lambda: 0))
    for _ in range(2):
        for _ in range(100):
            await door.handler(SYNC)
        await asyncio.sleep(0.1)
    assert gaps == [100, 200]


@pytest.mark.parametrize(("path", "request_"), [(SYNC, sync_request()), (BIND, bind_request())])
async def test_a_refused_call_has_the_usual_details(path: str, request_: Any) -> None:
    door, context = Door(LongBacklog()), PeerContext()
    context.message = request_
    status = await door.refused(path, context)
    info = detail(status, ErrorInfo)
    assert (info.reason, info.domain) == ("OVERLOADED", "linkage.alipayhk")
    assert dict(info.metadata) == {"outcome": "not_sent", "retry": "same_request_id"}
    assert detail(status, RequestInfo).request_id == request_.request_id
    assert detail(status, RetryInfo).retry_delay.ToMilliseconds() == pushback_ms(context) == 1000
    assert not door.served


@pytest.mark.parametrize("request_", [Undecodable(), sync_request(request_id="no id"), grpc.aio.EOF])
async def test_a_refusal_has_no_request_info_without_a_valid_request_id(request_: object) -> None:
    context = PeerContext()
    context.message = request_
    status = await Door(LongBacklog()).refused(SYNC, context)
    assert detail(status, RequestInfo) is None
    assert detail(status, ErrorInfo).reason == "OVERLOADED"


@pytest.mark.parametrize(("left_s", "ms"), [(None, 1000), (1.6, 1000), (1.4, -1)])
async def test_pushback_forbids_a_retry_that_does_not_fit_into_the_deadline(
    left_s: float | None, ms: int
) -> None:
    context = PeerContext(remaining_s=left_s)
    status = await Door(LongBacklog()).refused(SYNC, context)
    assert pushback_ms(context) == ms
    assert detail(status, RetryInfo) is not None


async def test_a_refused_retry_has_the_outcome_unknown() -> None:
    context = PeerContext(metadata=(("grpc-previous-rpc-attempts", "1"),))
    status = await Door(LongBacklog()).refused(SYNC, context)
    assert detail(status, ErrorInfo).metadata["outcome"] == "unknown"


async def test_a_call_of_a_light_connection_is_served() -> None:
    door = Door(LongBacklog(light=True))
    handler = await door.handler(SYNC)
    assert await handler.stream_unary(None, PeerContext()) == "answer"
    assert door.served == [sync_request()]


async def test_the_handlers_of_calls_have_the_codec_of_the_method_also_while_the_backlog_is_long() -> None:
    door = Door(LongBacklog())
    row: Any = grpc.stream_unary_rpc_method_handler(door.answer, bytes.decode, str.encode)
    idempotent = {"SyncLinkage": True, "BindAccount": False}
    door.admission = Admission({SYNC: row}, door.backlog, door.metrics, idempotent, deadline_max_s=1)
    handler = await door.handler(SYNC)
    assert handler is not row
    assert (handler.request_deserializer(b"x"), handler.response_serializer("y")) == ("x", b"y")


async def test_unknown_methods_have_no_handler_and_are_counted_as_open() -> None:
    door = Door(LongBacklog())
    opened = door.backlog.accepted
    assert await door.handler("/no.Such/Method") is None
    await asyncio.sleep(0)
    assert (door.backlog.accepted, door.backlog.open) == (opened + 1, 0)


@pytest.mark.parametrize(("backlog", "path"), [(Backlog(lambda: 0), SYNC), (LongBacklog(), CHECK)])
async def test_other_methods_and_calls_without_a_backlog_are_served(backlog: Backlog, path: str) -> None:
    handler = await Door(backlog).handler(path)
    assert await handler.stream_unary(None, PeerContext()) == "answer"


@pytest.mark.parametrize(
    ("path", "retried", "left_s", "ms"),
    [(CHECK, False, 10.0, 1000), (SYNC, True, 1.4, -1), (CHECK, True, 1.4, -1), (SYNC, True, None, 1000)],
)
async def test_calls_beyond_the_memory_limit_are_refused_before_their_messages_are_read(
    path: str, retried: bool, left_s: float | None, ms: int
) -> None:
    metadata = (("grpc-previous-rpc-attempts", "1"),) if retried else ()
    door, context = Door(Backlog(lambda: 0)), PeerContext(remaining_s=left_s, metadata=metadata)
    door.backlog.open = OPEN_MAX
    handler = await door.handler(path, metadata)
    assert handler.request_streaming
    with pytest.raises(grpc.aio.AbortError):
        await handler.stream_stream(None, context)
    ((code, _, trailers),) = context.aborted
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    info = detail(Status.FromString(dict(trailers)["grpc-status-details-bin"]), ErrorInfo)
    outcome = "unknown" if retried else "not_sent"
    assert (info.reason, info.metadata["outcome"]) == ("OVERLOADED", outcome)
    assert pushback_ms(context) == ms
    labels = {"api": "SyncLinkage", "reason": "OVERLOADED", "outcome": outcome}
    assert door.counted("alipayhk_outcomes_total", **labels) == (1 if path == SYNC else None)


async def test_endless_reflection_calls_leave_capacity_for_calls() -> None:
    door = Door(Backlog(lambda: 0))
    held = [asyncio.create_task(door.hold(REFLECTION)) for _ in range(WATCHES_MAX)]
    await asyncio.sleep(0)
    context = PeerContext()
    with pytest.raises(grpc.aio.AbortError):
        await (await door.handler(REFLECTION)).stream_stream(None, context)
    assert await (await door.handler(SYNC)).stream_unary(None, PeerContext()) == "answer"
    held.pop().cancel()
    await asyncio.sleep(0.01)
    assert await (await door.handler(REFLECTION)).stream_stream(None, context) == "answer"
    for task in held:
        task.cancel()


async def test_at_the_limit_calls_with_unread_responses_are_cancelled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_s = time.monotonic()
    monkeypatch.setattr("service.server.admission.time.monotonic", lambda: now_s)
    door = Door(Backlog(lambda: 0))
    old = asyncio.create_task(door.hold(SYNC))
    await asyncio.sleep(0)
    now_s += MESSAGE_S + DEADLINE_MAX_S + SEND_S + 1
    young, watch = asyncio.create_task(door.hold(SYNC)), asyncio.create_task(door.hold(REFLECTION))
    await asyncio.sleep(0)
    assert not old.cancelling()
    door.backlog.open = OPEN_MAX
    await door.handler(SYNC)
    assert (old.cancelling(), young.cancelling(), watch.cancelling()) == (1, 0, 0)
    for task in (young, watch):
        task.cancel()


async def test_an_accepted_call_counts_as_open_until_its_task_ends() -> None:
    door = Door(Backlog(lambda: 0))
    await door.handler(SYNC)
    await asyncio.sleep(0)
    assert door.backlog.open == 0


async def test_refusals_are_counted_singly_and_logged_together(log_lines: LogStream) -> None:
    door = Door(LongBacklog())
    for _ in range(50):
        await door.refused(SYNC, PeerContext())
    labels = {"grpc_type": "unary", "grpc_service": SERVICE, "grpc_method": "SyncLinkage"}
    assert door.counted("grpc_server_started_total", **labels) == 50
    assert door.counted("grpc_server_handled_total", **labels, grpc_code="RESOURCE_EXHAUSTED") == 50
    assert door.counted("grpc_server_handling_seconds_count", **labels) == 50
    outcome = {"api": "SyncLinkage", "reason": "OVERLOADED", "outcome": "not_sent"}
    assert door.counted("alipayhk_outcomes_total", **outcome) == 50
    lines = log_lines.of("calls refused")
    assert 0 < len(lines) < 50
    assert {(line["level"], line["method"], line["reason"]) for line in lines} == {
        ("warning", SYNC, "OVERLOADED")
    }


@pytest.mark.parametrize(("left_s", "code"), [(0.0, "DEADLINE_EXCEEDED"), (5.0, "CANCELLED")])
async def test_an_undelivered_refusal_is_counted_as_cancelled_or_deadline_exceeded(
    left_s: float, code: str
) -> None:
    door, context = Door(LongBacklog()), PeerContext(remaining_s=left_s)
    context.ended = True
    with pytest.raises(grpc.aio.InternalError):
        await (await door.handler(SYNC)).stream_unary(None, context)
    outcome = {"api": "SyncLinkage", "reason": code, "outcome": ""}
    assert door.counted("alipayhk_outcomes_total", **outcome) == 1
