"""The path around a call: its order, the status for the caller, metrics and access log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, Final

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from alipayhk.linkage.v1 import error_reason_pb2 as reasons
from alipayhk.linkage.v1 import linkage_service_pb2 as pb
from clients.alipayhk.wire import errors
from service.credentials.callers import ANYBODY, Caller, Callers, Name
from service.credentials.in_use import InUse
from service.outcomes.call import CURRENT, Call, Undecodable
from service.outcomes.circumstances import Circumstances
from service.outcomes.refusal import Refusal
from service.outcomes.result_codes import ResultCodes
from service.server.access_log import AccessLog
from service.server.around import Around
from service.server.authorization import Authorization
from service.server.error_translation import ErrorTranslation
from service.telemetry.logs import set_up_logs
from service.telemetry.metrics import Metrics
from tests.service.fakes import FakeContext, LogStream, bind_request, known, refused, sync_request

SERVICE: Final = "alipayhk.linkage.v1.LinkageService"
SYNC: Final = f"/{SERVICE}/SyncLinkage"
BIND: Final = f"/{SERVICE}/BindAccount"
WATCH: Final = "/grpc.health.v1.Health/Watch"
REFLECT: Final = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"

Handler = Any


class Stack:
    """The path of a call as in the server, around any handler."""

    def __init__(self, *, callers: Callers | None = None) -> None:
        self.metrics = Metrics()
        access_log = AccessLog(self.metrics, {"SyncLinkage": True, "BindAccount": False}, 10.0, 60.0)
        self.around = Around(
            access_log, ErrorTranslation(InUse(ResultCodes())), Authorization(InUse(callers))
        )

    def handler(self, path: str, inner: Handler) -> Handler:
        """Return the handler that gRPC calls."""
        return self.around.handlers({path: inner})[path]

    async def unary(
        self,
        path: str,
        behaviour: Callable[[Any, Any], Awaitable[Any]],
        context: FakeContext,
        request: Any = None,
    ) -> Any:
        """Make one unary call."""
        handler = self.handler(path, grpc.unary_unary_rpc_method_handler(behaviour))
        context.message = sync_request() if request is None else request
        return await handler.stream_unary(None, context)

    def counted(self, name: str, **labels: str) -> float:
        """Return a metric."""
        return self.metrics.registry.get_sample_value(name, labels) or 0.0

    def handled(self, path: str, code: str, kind: str = "unary") -> float:
        """Return the number of calls with this code, and check that all started calls have ended."""
        service, _, method = path[1:].partition("/")
        labels = {"grpc_type": kind, "grpc_service": service, "grpc_method": method}
        started = self.counted("grpc_server_started_total", **labels)
        assert started == self.counted("grpc_server_handling_seconds_count", **labels)
        return self.counted("grpc_server_handled_total", **labels, grpc_code=code)

    def outcomes(self, api: str, reason: str, outcome: str = "") -> float:
        """Return the number of calls with this reason and outcome."""
        return self.counted("alipayhk_outcomes_total", api=api, reason=reason, outcome=outcome)


def raising(error: BaseException) -> Callable[[Any, Any], Awaitable[Any]]:
    async def behaviour(_: Any, __: Any) -> Any:
        raise error

    return behaviour


async def answering(_: Any, __: Any) -> str:
    return "answer"


def info(context: FakeContext) -> Any:
    """Return the ErrorInfo of the one abort."""
    ((_, __, trailers),) = context.aborted
    status = Status.FromString(dict(trailers)["grpc-status-details-bin"])
    found = ErrorInfo()
    assert status.details[0].Unpack(found)
    return found


@pytest.fixture(autouse=True)
def no_call_is_current() -> Iterator[None]:
    """Keep the call of one test from the next one."""
    token = CURRENT.set(Call(0.0, Circumstances()))
    yield
    CURRENT.reset(token)


# -- which handlers are wrapped


async def test_a_wrapped_handler_keeps_its_codec() -> None:
    inner = grpc.unary_unary_rpc_method_handler(
        answering, request_deserializer=bytes.decode, response_serializer=str.encode
    )
    handler = Stack().handler(SYNC, inner)
    assert handler.request_deserializer(b"bytes") == "bytes"
    assert handler.response_serializer is inner.response_serializer
    without = Stack().handler(SYNC, grpc.unary_unary_rpc_method_handler(answering))
    assert (without.request_deserializer, without.response_serializer) == (None, None)


async def test_an_unsupported_kind_of_handler_raises() -> None:
    with pytest.raises(NotImplementedError):
        Stack().handler(SYNC, grpc.stream_unary_rpc_method_handler(answering))


async def test_an_rpc_has_only_what_alerts_need_before_its_first_call() -> None:
    """`increase` does not see the first one if there was no 0 before it."""
    stack = Stack()
    for method in (SYNC, WATCH):
        stack.handler(method, grpc.unary_unary_rpc_method_handler(answering))
    lines = stack.metrics.exposed(shared=False).decode().splitlines()
    internal = (
        'grpc_server_handled_total{grpc_code="INTERNAL",grpc_method="SyncLinkage",'
        'grpc_service="alipayhk.linkage.v1.LinkageService",grpc_type="unary"} 0.0'
    )
    assert [line for line in lines if line.startswith(("grpc_", "alipayhk_outcomes"))] == [
        internal,
        'alipayhk_outcomes_total{api="SyncLinkage",outcome="rejected",reason="GATEWAY_REFUSED"} 0.0',
        'alipayhk_outcomes_total{api="SyncLinkage",outcome="unknown",reason="GATEWAY_REFUSED"} 0.0',
    ]
    assert reasons.ErrorReason.Value("ERROR_REASON_GATEWAY_REFUSED")


# -- metrics by kind


async def test_a_unary_call_is_counted_by_its_code() -> None:
    stack = Stack()
    assert await stack.unary(SYNC, answering, FakeContext()) == "answer"
    assert stack.handled(SYNC, "OK") == 1
    assert stack.outcomes("SyncLinkage", "OK") == 1


async def yielding(request: Any, _: Any) -> AsyncIterator[Any]:
    yield request
    for number in range(3):
        yield number


async def writing(request: Any, context: Any) -> None:
    await context.write(request)


@pytest.mark.parametrize(
    ("make", "kind", "requests"),
    [
        (grpc.unary_stream_rpc_method_handler, "server_stream", None),
        (grpc.stream_stream_rpc_method_handler, "bidi_stream", sync_request()),
    ],
)
async def test_a_stream_is_counted_by_its_kind(make: Any, kind: str, requests: Any) -> None:
    stack, context = Stack(), FakeContext()
    await stack.handler(WATCH, make(yielding)).stream_stream(requests, context)
    assert context.written == [sync_request(), 0, 1, 2]
    assert stack.handled(WATCH, "OK", kind) == 1
    stack, context = Stack(), FakeContext()
    await stack.handler(WATCH, make(writing)).stream_stream(requests, context)
    assert context.written == [sync_request()]
    assert stack.handled(WATCH, "OK", kind) == 1


async def test_a_failing_stream_reveals_no_more_than_a_unary_call() -> None:
    async def failing(_: Any, __: Any) -> AsyncIterator[int]:
        yield 1
        raise KeyError("SECRET")

    stack, context = Stack(), FakeContext()
    handler = stack.handler(REFLECT, grpc.stream_stream_rpc_method_handler(failing))
    with pytest.raises(grpc.aio.AbortError):
        await handler.stream_stream(object(), context)
    assert context.written == [1]
    assert "SECRET" not in repr(context.aborted)
    assert stack.handled(REFLECT, "INTERNAL", "bidi_stream") == 1


async def test_calls_of_other_services_have_no_outcome(log_lines: LogStream) -> None:
    stack = Stack()
    handler = stack.handler(WATCH, grpc.unary_stream_rpc_method_handler(yielding))
    await handler.stream_stream(None, FakeContext())
    assert b"alipayhk_outcomes_total{" not in stack.metrics.exposed(shared=False)
    assert [line["level"] for line in log_lines.of("call")] == ["debug"]


# -- the status for the caller


FAILURES: Final[dict[str, tuple[Exception, grpc.StatusCode, str]]] = {
    "a refusal": (
        Refusal(reasons.ERROR_REASON_OVERLOADED),
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "OVERLOADED",
    ),
    "a failure of AlipayHK": (
        errors.SignatureInvalid("SECRET"),
        grpc.StatusCode.INTERNAL,
        "RESPONSE_SIGNATURE_INVALID",
    ),
    "a result": (refused("F", "USER_NOT_EXIST"), grpc.StatusCode.NOT_FOUND, "WALLET_REJECTED"),
    "a bug": (KeyError("SECRET"), grpc.StatusCode.INTERNAL, "GATEWAY_BUG"),
    "a bug of gRPC's own kind": (
        grpc.aio.UsageError("SECRET"),
        grpc.StatusCode.INTERNAL,
        "GATEWAY_BUG",
    ),
    "a timeout of Python's own": (TimeoutError("SECRET"), grpc.StatusCode.INTERNAL, "GATEWAY_BUG"),
}


@pytest.mark.parametrize(("error", "code", "reason"), FAILURES.values(), ids=FAILURES.keys())
async def test_every_failure_is_reported_counted_and_logged(
    error: Exception, code: grpc.StatusCode, reason: str, log_lines: LogStream
) -> None:
    stack, context = Stack(), FakeContext()
    with pytest.raises(grpc.aio.AbortError):
        await stack.unary(SYNC, raising(error), context)
    assert [(aborted[0], info(context).reason) for aborted in context.aborted] == [(code, reason)]
    assert "SECRET" not in repr(context.aborted)
    assert stack.handled(SYNC, code.name) == 1
    assert stack.outcomes("SyncLinkage", reason, info(context).metadata["outcome"]) == 1
    (line,) = log_lines.of("call")
    assert (line["method"], line["code"], line["reason"], line["request_id"]) == (
        SYNC,
        code.name,
        reason,
        "req-1",
    )
    assert line["retry"] == info(context).metadata["retry"]
    assert "dropped" not in line


async def test_a_cause_is_logged_and_a_bug_is_logged_with_its_stack_and_no_text(
    log_lines: LogStream,
) -> None:
    unusable = Refusal(reasons.ERROR_REASON_LEDGER_UNAVAILABLE, cause="SQLITE_FULL")
    overloaded = Refusal(reasons.ERROR_REASON_OVERLOADED)
    for error in (errors.ConnectionLost("ClientOSError"), unusable, overloaded, KeyError("SECRET")):
        with pytest.raises(grpc.aio.AbortError):
            await Stack().unary(SYNC, raising(error), context := FakeContext())
    *refused, bug = log_lines.of("call")
    assert [line.get("cause") for line in refused] == ["ClientOSError", "SQLITE_FULL", None]
    assert bug["error_class"] == "KeyError"
    assert bug["error_id"] == info(context).metadata["error_id"]
    assert any("test_around.py" in frame for frame in bug["stack"])
    assert "cause" not in bug
    assert "SECRET" not in log_lines.getvalue()


LEVELS: Final[dict[str, tuple[Exception, str, dict[str, Any]]]] = {
    "rejection": (
        refused("F", "USER_NOT_EXIST"),
        "info",
        {
            "http_status": 200,
            "tracer_id": "tracer-1",
            "result_status": "F",
            "result_code": "USER_NOT_EXIST",
        },
    ),
    "not sent": (Refusal(reasons.ERROR_REASON_OVERLOADED), "info", {}),
    "unknown": (errors.Timeout("time"), "warning", {}),
    "in doubt": (Refusal(reasons.ERROR_REASON_OUTCOME_IN_DOUBT), "warning", {}),
    "bad signature, signed": (
        refused("F", "INVALID_SIGNATURE", "85291234567"),
        "error",
        {
            "http_status": 200,
            "tracer_id": "tracer-1",
            "result_status": "F",
            "result_code": "INVALID_SIGNATURE",
        },
    ),
    "bad signature, unsigned": (
        errors.Unsigned("unsigned", http_status=401, claimed_code="INVALID_SIGNATURE"),
        "error",
        {"http_status": 401, "unverified_result_code": "INVALID_SIGNATURE"},
    ),
    "personal data as a code": (
        errors.Unsigned("unsigned", http_status=200, claimed_code="85291234567"),
        "warning",
        {"http_status": 200, "unverified_result_code": "other"},
    ),
    "clock skew": (errors.OutsideWindow(-400.4), "error", {"clock_skew_s": -400}),
}


@pytest.mark.parametrize(("error", "level", "facts"), LEVELS.values(), ids=LEVELS.keys())
async def test_call_that_needs_an_operator_is_a_warning_or_an_error_with_the_facts(
    error: Exception, level: str, facts: dict[str, Any], log_lines: LogStream
) -> None:
    with pytest.raises(grpc.aio.AbortError):
        await Stack().unary(SYNC, raising(error), FakeContext())
    (line,) = log_lines.of("call")
    assert line["level"] == level
    names = {
        "http_status", "tracer_id", "result_status", "result_code", "unverified_result_code", "clock_skew_s"
    }  # fmt: skip
    assert {name: line[name] for name in names & line.keys()} == facts
    assert "85291234567" not in log_lines.getvalue()


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
@pytest.mark.parametrize("path", [SYNC, "/grpc.health.v1.Health/Check", REFLECT])
async def test_a_bug_is_logged_with_the_error_id_that_the_caller_gets(path: str, level: str) -> None:
    set_up_logs(level, stream := LogStream())
    with pytest.raises(grpc.aio.AbortError):
        await Stack().unary(path, raising(KeyError("SECRET")), context := FakeContext())
    (line,) = stream.of("call")
    assert (line["level"], line["method"]) == ("error", path)
    assert line["error_id"] == info(context).metadata["error_id"]
    assert line["stack"]


async def test_an_abort_passes_through_unchanged(log_lines: LogStream) -> None:
    async def aborting(_: Any, context: FakeContext) -> None:
        await context.abort(grpc.StatusCode.NOT_FOUND, "some text")

    stack, context = Stack(), FakeContext()
    with pytest.raises(grpc.aio.AbortError):
        await stack.unary(SYNC, aborting, context)
    assert context.aborted == [(grpc.StatusCode.NOT_FOUND, "some text", ())]
    assert stack.handled(SYNC, "NOT_FOUND") == 1
    assert stack.outcomes("SyncLinkage", "NOT_FOUND") == 1


@pytest.mark.parametrize(
    ("given", "name"),
    [(grpc.StatusCode.ABORTED, "ABORTED"), (10, "ABORTED"), (0, "OK"), (99, "UNKNOWN"), (None, "UNKNOWN")],
)
async def test_the_code_of_an_abort_is_counted_by_its_name(given: object, name: str) -> None:
    async def aborting(_: Any, context: FakeContext) -> None:
        context.code_given = given
        raise grpc.aio.AbortError

    stack = Stack()
    with pytest.raises(grpc.aio.AbortError):
        await stack.unary(SYNC, aborting, FakeContext())
    assert stack.handled(SYNC, name) == 1


@pytest.mark.parametrize(
    ("remaining_s", "code"),
    [(5.0, "CANCELLED"), (0.0, "DEADLINE_EXCEEDED"), (-0.1, "DEADLINE_EXCEEDED"), (None, "CANCELLED")],
)
async def test_a_cancelled_call_is_counted_by_its_cause(
    remaining_s: float | None, code: str, log_lines: LogStream
) -> None:
    stack, context = Stack(), FakeContext(remaining_s=remaining_s)
    with pytest.raises(asyncio.CancelledError):
        await stack.unary(SYNC, raising(asyncio.CancelledError()), context)
    assert context.aborted == []
    assert stack.handled(SYNC, code) == 1
    assert stack.outcomes("SyncLinkage", code) == 1
    assert [line["code"] for line in log_lines.of("call")] == [code]


# -- undecodable bytes


def undecodable(_: bytes) -> None:
    raise ValueError("SECRET")


@pytest.mark.parametrize(
    ("make", "attribute"),
    [
        (grpc.unary_unary_rpc_method_handler, "stream_unary"),
        (grpc.unary_stream_rpc_method_handler, "stream_stream"),
    ],
)
async def test_an_undecodable_request_does_not_reach_the_handler(make: Any, attribute: str) -> None:
    stack, context, reached = Stack(), FakeContext(), []

    async def reaching(_: Any, __: Any) -> None:
        reached.append(True)

    handler = stack.handler(WATCH, make(reaching, request_deserializer=undecodable))
    context.message = handler.request_deserializer(b"\xff")
    with pytest.raises(grpc.aio.AbortError):
        await getattr(handler, attribute)(None, context)
    assert not reached
    assert context.aborted[0][0] is grpc.StatusCode.INVALID_ARGUMENT
    assert (info(context).reason, info(context).metadata["outcome"]) == ("INVALID_REQUEST", "not_sent")
    assert "SECRET" not in repr(context.aborted)


async def test_an_undecodable_stream_fails_when_it_is_read() -> None:
    async def reading(requests: Any, _: Any) -> AsyncIterator[object]:
        async for request in requests:
            yield request

    async def requests() -> AsyncIterator[object]:
        yield handler.request_deserializer(b"\xff")

    stack, context = Stack(), FakeContext()
    row: Any = grpc.stream_stream_rpc_method_handler(reading, request_deserializer=undecodable)
    handler = stack.handler(REFLECT, row)
    with pytest.raises(grpc.aio.AbortError):
        await handler.stream_stream(requests(), context)
    assert (context.aborted[0][0].name, info(context).reason) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
    assert "SECRET" not in repr(context.aborted)
    assert stack.handled(REFLECT, "INVALID_ARGUMENT", "bidi_stream") == 1


async def test_a_denied_caller_with_undecodable_bytes_gets_unauthenticated() -> None:
    with pytest.raises(grpc.aio.AbortError):
        await Stack(callers=CALLERS).unary(SYNC, answering, context := FakeContext(), Undecodable())
    assert info(context).reason == "CALLER_UNAUTHENTICATED"


# -- the call's record


async def recorded(request: Any, *, path: str = SYNC, **context: Any) -> Call:
    calls: list[Call] = []

    async def looking(_: Any, __: Any) -> None:
        calls.append(CURRENT.get())

    await Stack().unary(path, looking, FakeContext(**context), request)
    (call,) = calls
    return call


async def test_a_new_call_has_its_request_id_caller_and_deadline() -> None:
    call = await recorded(sync_request())
    assert call.circumstances == Circumstances("SyncLinkage", idempotent=True)
    assert (call.request_id, call.caller, call.reported) == ("req-1", ANYBODY, {})
    assert 9.5 < call.left_s < 10.0


async def test_bind_account_is_not_idempotent() -> None:
    call = await recorded(bind_request(), path=BIND)
    assert call.circumstances == Circumstances("BindAccount", idempotent=False)


@pytest.mark.parametrize(
    ("name", "value", "retried"),
    [
        ("grpc-previous-rpc-attempts", "1", True),
        ("grpc-previous-rpc-attempts", "4", True),
        ("grpc-previous-rpc-attempts", "0", False),
        ("grpc-previous-rpc-attempts", "9" * 5000, True),
        ("x-envoy-attempt-count", "0", False),
        ("x-envoy-attempt-count", "1", False),
        ("x-envoy-attempt-count", "2", True),
        ("x-envoy-attempt-count", "11", True),
        ("x-envoy-attempt-count", "", True),
        ("x-envoy-attempt-count", "many", True),
        ("x-attempt-count", "2", False),
        ("grpc-trace-bin", b"1", False),
    ],
)
async def test_a_call_with_a_retry_mark_of_client_or_proxy_is_recorded_as_retried(
    name: str, value: str | bytes, retried: bool
) -> None:
    call = await recorded(sync_request(), metadata=(("user-agent", "x"), (name, value)))
    assert call.circumstances == Circumstances("SyncLinkage", idempotent=True, retried=retried)


async def test_an_unauthenticated_retry_has_the_outcome_unknown() -> None:
    reported = []
    for metadata in ((), (("grpc-previous-rpc-attempts", "1"),)):
        context = FakeContext(sans=("unknown",), metadata=metadata)
        with pytest.raises(grpc.aio.AbortError):
            await Stack(callers=CALLERS).unary(SYNC, answering, context)
        reported.append((info(context).reason, info(context).metadata["outcome"]))
    assert reported == [("CALLER_UNAUTHENTICATED", "not_sent"), ("CALLER_UNAUTHENTICATED", "unknown")]


@pytest.mark.parametrize("request_", [pb.SyncLinkageRequest(request_id="not valid"), object()])
async def test_a_request_without_a_valid_id_is_recorded_without_it(request_: object) -> None:
    assert (await recorded(request_)).request_id == ""


@pytest.mark.parametrize(("remaining_s", "left_s"), [(None, 10.0), (5.0, 5.0), (600.0, 60.0), (0.0, 0.0)])
async def test_a_call_gets_the_callers_deadline_within_limits(
    remaining_s: float | None, left_s: float
) -> None:
    call = await recorded(sync_request(), remaining_s=remaining_s)
    assert left_s - 0.5 < call.left_s <= left_s


@pytest.mark.parametrize(("sent", "outcome"), [(False, "not_sent"), (True, "unknown")])
async def test_the_outcome_of_a_bug_depends_on_the_recorded_attempts(sent: bool, outcome: str) -> None:
    async def sending(_: Any, __: Any) -> None:
        CURRENT.get().circumstances = known(sent=(sent,))
        raise KeyError("SECRET")

    context = FakeContext()
    with pytest.raises(grpc.aio.AbortError):
        await Stack().unary(SYNC, sending, context)
    assert (info(context).metadata["outcome"], info(context).metadata["attempts"]) == (outcome, "1")


# -- the allow-list


LOYALTY: Final = Caller("loyalty", frozenset({"SyncLinkage"}))
CALLERS: Final = Callers({Name("URI", "spiffe://corp/loyalty"): LOYALTY})
KNOWN: Final = ("unknown", "spiffe://corp/loyalty")


async def test_an_allowed_caller_reaches_its_methods(log_lines: LogStream) -> None:
    stack = Stack(callers=CALLERS)

    async def looking(_: Any, __: Any) -> Caller:
        return CURRENT.get().caller

    assert await stack.unary(SYNC, looking, FakeContext(sans=KNOWN)) is LOYALTY
    assert log_lines.of("call")[0]["caller"] == "loyalty"


@pytest.mark.parametrize(
    ("path", "sans", "code", "reason"),
    [
        (SYNC, (), "UNAUTHENTICATED", "CALLER_UNAUTHENTICATED"),
        (SYNC, ("unknown",), "UNAUTHENTICATED", "CALLER_UNAUTHENTICATED"),
        (SYNC, ("spiffe://corp/loyalty/",), "UNAUTHENTICATED", "CALLER_UNAUTHENTICATED"),
        (SYNC, ("spiffe://corp/loyalty", "a\0b"), "UNAUTHENTICATED", "CALLER_UNAUTHENTICATED"),
        (REFLECT, ("unknown",), "UNAUTHENTICATED", "CALLER_UNAUTHENTICATED"),
        (BIND, KNOWN, "PERMISSION_DENIED", "CALLER_NOT_ALLOWED"),
    ],
)
async def test_a_caller_outside_the_list_is_denied_before_the_handler(
    path: str, sans: tuple[str, ...], code: str, reason: str
) -> None:
    stack, context, reached = Stack(callers=CALLERS), FakeContext(sans=sans), []

    async def reaching(_: Any, __: Any) -> None:
        reached.append(True)

    with pytest.raises(grpc.aio.AbortError):
        await stack.unary(path, reaching, context, object())
    assert not reached
    assert context.aborted[0][0].name == code
    assert (info(context).reason, info(context).metadata["outcome"]) == (reason, "not_sent")
    assert stack.handled(path, code) == 1


async def test_a_caller_without_permission_for_a_method_is_logged_by_name(log_lines: LogStream) -> None:
    with pytest.raises(grpc.aio.AbortError):
        await Stack(callers=CALLERS).unary(BIND, answering, FakeContext(sans=KNOWN), bind_request())
    (line,) = log_lines.of("call")
    assert (line["caller"], line["reason"]) == ("loyalty", "CALLER_NOT_ALLOWED")


@pytest.mark.parametrize("path", [REFLECT, "/grpc.health.v1.Health/Check"])
async def test_health_is_open_to_all_and_reflection_to_every_known_caller(path: str) -> None:
    assert (
        await Stack(callers=CALLERS).unary(path, answering, FakeContext(sans=KNOWN), object()) == "answer"
    )
    if "Health" in path:
        assert await Stack(callers=CALLERS).unary(path, answering, FakeContext(), object()) == "answer"


async def test_every_caller_reaches_everything_if_there_is_no_list() -> None:
    for path in (SYNC, BIND, REFLECT):
        assert await Stack().unary(path, answering, FakeContext(), object()) == "answer"
