"""A status that is sent after the end of its call, on a real server: the caller does not get it."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any, Final

import grpc
import pytest

from alipayhk.linkage.v1 import error_reason_pb2 as reasons
from service.credentials.in_use import InUse
from service.outcomes.refusal import Refusal
from service.outcomes.result_codes import ResultCodes
from service.server.access_log import AccessLog
from service.server.around import Around
from service.server.authorization import Authorization
from service.server.error_translation import ErrorTranslation
from service.server.methods import Methods
from service.server.rpcs import SERVICE
from service.telemetry.metrics import Metrics

WAIT_MAX_S: Final = 30.0
NOTICED_S: Final = 1.0
"""Long enough for the server's gRPC to notice the end of a call, also on a busy machine."""
LABELS: Final = {"grpc_type": "unary", "grpc_service": SERVICE, "grpc_method": "SyncLinkage"}


def call(port: int, timeout_s: float | None, began: threading.Event, ended: threading.Event) -> None:
    """Make a call that ends while the server's event loop is blocked."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        grpc.channel_ready_future(channel).result(WAIT_MAX_S)
        method: Any = channel.unary_unary(f"/{SERVICE}/SyncLinkage")
        calling = method.future(b"", timeout=timeout_s)
        assert began.wait(WAIT_MAX_S)
        calling.cancel() if timeout_s is None else calling.exception(WAIT_MAX_S)
        ended.set()


@pytest.mark.parametrize(("code", "timeout_s"), [("DEADLINE_EXCEEDED", 1.0), ("CANCELLED", None)])
async def test_status_that_its_caller_did_not_get_is_counted_as_cancelled_or_expired(
    code: str, timeout_s: float | None
) -> None:
    began, ended, metrics = threading.Event(), threading.Event(), Metrics()

    async def fails_late(_: object, __: object) -> bytes:
        began.set()
        # gRPC ends the call meanwhile, but this task cannot be cancelled yet.
        ended.wait(WAIT_MAX_S)
        time.sleep(NOTICED_S)  # noqa: ASYNC251
        raise Refusal(reasons.ERROR_REASON_OVERLOADED)

    idempotent = {"SyncLinkage": True}
    access_log = AccessLog(metrics, idempotent, 10.0, 60.0)
    around = Around(access_log, ErrorTranslation(InUse(ResultCodes())), Authorization(InUse(None)))
    rows: dict[str, Any] = {f"/{SERVICE}/SyncLinkage": grpc.unary_unary_rpc_method_handler(fails_late)}
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Methods(around.handlers(rows)),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    await asyncio.to_thread(call, port, timeout_s, began, ended)
    await server.stop(WAIT_MAX_S)
    value = metrics.registry.get_sample_value
    assert value("grpc_server_handled_total", {**LABELS, "grpc_code": code}) == 1
    assert value("grpc_server_handled_total", {**LABELS, "grpc_code": "UNKNOWN"}) is None
    outcome = {"api": "SyncLinkage", "reason": code, "outcome": ""}
    assert value("alipayhk_outcomes_total", outcome) == 1
