"""The flow of one call: undecodable, invalid, too early, sent; and the handlers that gRPC dispatches on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest

from alipayhk.linkage.v1 import error_reason_pb2 as reasons
from alipayhk.linkage.v1 import linkage_service_pb2 as pb
from clients.alipayhk.wire import errors
from clients.alipayhk.wire.keys import Keys
from clients.alipayhk.wire.strict_json import write_json
from service.config.settings import read_settings
from service.outcomes.call import CURRENT, Call
from service.outcomes.refusal import Refusal, Violation
from service.server.linkage_service import RPCS, LinkageService
from service.server.rpcs import Rpc, bind_account, sync_linkage
from service.telemetry.metrics import Metrics
from service.upstream import endpoints_of
from tests.service.fakes import (
    Details,
    FakeClient,
    bind_request,
    call_of,
    delivery_of,
    fail,
    known,
    sync_request,
)

REQUESTS: Final[dict[Rpc, Callable[..., Any]]] = {
    sync_linkage.RPC: sync_request,
    bind_account.RPC: bind_request,
}
Make = Callable[..., tuple[LinkageService, FakeClient]]


@pytest.fixture(autouse=True)
def call() -> Iterator[Call]:
    """Return the call that the flow answers."""
    current = call_of()
    token = CURRENT.set(current)
    yield current
    CURRENT.reset(token)


@pytest.fixture
def make(environ: dict[str, str], keys: Keys) -> Make:
    """Return what makes a service over a fake client."""
    endpoints = endpoints_of(read_settings(environ))

    def service(behaviour: Any = None) -> tuple[LinkageService, FakeClient]:
        client = FakeClient(behaviour)
        return LinkageService(endpoints, delivery_of(client, Metrics())), client

    return service


async def refusal(answering: Any) -> Refusal:
    with pytest.raises(Refusal) as failure:
        await answering
    return failure.value


@pytest.mark.parametrize("rpc", RPCS.values(), ids=lambda rpc: rpc.name)
async def test_a_valid_request_is_sent_once_and_its_answer_replied(
    make: Make, call: Call, rpc: Rpc
) -> None:
    service, client = make()
    request = REQUESTS[rpc]()
    response: Any = await service.unary(rpc, request)
    assert response.DESCRIPTOR is rpc.response.DESCRIPTOR
    assert response.result.status == "S"
    assert client.bodies == [write_json(rpc.body(rpc.command(request)))]
    assert [attempt.sent for attempt in client.attempts] == [True]
    assert call.circumstances == known(api=rpc.name, idempotent=rpc is sync_linkage.RPC, sent=(True,))


@pytest.mark.parametrize("rpc", RPCS.values(), ids=lambda rpc: rpc.name)
async def test_two_attempts_at_one_request_send_the_same_bytes(make: Make, rpc: Rpc) -> None:
    service, client = make(fail(errors.Unreachable("x")))
    for _ in range(2):
        with pytest.raises(errors.Unreachable):
            await service.unary(rpc, rpc.request.FromString(REQUESTS[rpc]().SerializeToString()))
    assert len(client.bodies) > 2
    assert set(client.bodies) == {write_json(rpc.body(rpc.command(REQUESTS[rpc]())))}


CHANGES: Final[dict[Rpc, tuple[dict[str, Any], dict[str, Any]]]] = {
    sync_linkage.RPC: ({"biz_time": {"seconds": 1_700_000_000, "nanos": 123_999_999}}, {"user_id": "1"}),
    bind_account.RPC: ({"timestamp": {"seconds": 1_700_000_000, "nanos": 123_000_000}}, {"type": "t"}),
}
"""What AlipayHK cannot see, and what it can."""


@pytest.mark.parametrize("rpc", RPCS.values(), ids=lambda rpc: rpc.name)
async def test_the_same_id_replays_the_same_content_and_refuses_another(make: Make, rpc: Rpc) -> None:
    service, client = make()
    same, other = CHANGES[rpc]
    first: Any = await service.unary(rpc, REQUESTS[rpc]())
    again: Any = await service.unary(rpc, REQUESTS[rpc](**same))
    assert (first.replayed, again.replayed) == (False, True)
    again.replayed = False
    assert again == first
    error = await refusal(service.unary(rpc, REQUESTS[rpc](**other)))
    assert error.reason == reasons.ERROR_REASON_REQUEST_ID_REUSED
    assert len(client.attempts) == 1


async def test_the_same_news_under_a_new_id_is_sent_and_other_news_of_that_time_is_not(make: Make) -> None:
    service, client = make()
    rpc = sync_linkage.RPC
    for request_id in ("a", "b"):
        await service.unary(rpc, sync_request(request_id=request_id))
    refusals: dict[str, dict[str, Any]] = {
        "tie": {"operate_type": pb.OPERATE_TYPE_UNBIND},
        "another binding id is other content of the same linkage": {"external_binding_id": "b-1"},
    }
    for request_id, changes in refusals.items():
        error = await refusal(service.unary(rpc, sync_request(request_id=request_id[:3], **changes)))
        assert error.reason == reasons.ERROR_REASON_BIZ_TIME_TIE
    error = await refusal(service.unary(rpc, sync_request(request_id="c", biz_time={"seconds": 1})))
    assert error.reason == reasons.ERROR_REASON_STALE_BIZ_TIME
    await service.unary(rpc, sync_request(request_id="d", biz_time={"seconds": 1}, user_id="another"))
    assert len(client.attempts) == 3


async def test_one_request_id_may_be_used_once_for_each_rpc(make: Make) -> None:
    service, client = make()
    for rpc, request in REQUESTS.items():
        response: Any = await service.unary(rpc, request())
        assert not response.replayed
    assert len(client.attempts) == 2


@pytest.mark.parametrize("rpc", RPCS.values(), ids=lambda rpc: rpc.name)
async def test_what_is_not_valid_is_refused_with_every_violation_and_not_sent(make: Make, rpc: Rpc) -> None:
    service, client = make()
    error = await refusal(service.unary(rpc, rpc.request()))
    assert error.reason == reasons.ERROR_REASON_INVALID_REQUEST
    assert len(error.violations) == 7
    assert client.attempts == []


@pytest.mark.parametrize(
    ("ahead_s", "sent"), [(-1e9, True), (0, True), (298, True), (302, False), (1e9, False)]
)
async def test_a_biz_time_too_far_ahead_is_refused(make: Make, ahead_s: float, sent: bool) -> None:
    service, client = make()
    request = sync_request(biz_time={"seconds": int(time.time() + ahead_s)})
    if sent:
        await service.unary(sync_linkage.RPC, request)
    else:
        error = await refusal(service.unary(sync_linkage.RPC, request))
        assert error.reason == reasons.ERROR_REASON_BIZ_TIME_IN_FUTURE
        words = "is more than 300 s ahead of this gateway's clock"
        assert error.violations == (Violation("biz_time", words),)
    assert len(client.attempts) == sent


async def test_the_shape_is_looked_at_before_the_time(make: Make) -> None:
    service, _ = make()
    request = sync_request(biz_time={"seconds": int(time.time() + 1e6)}, user_id="")
    error = await refusal(service.unary(sync_linkage.RPC, request))
    assert error.reason == reasons.ERROR_REASON_INVALID_REQUEST


async def test_a_bind_account_may_say_any_time(make: Make) -> None:
    service, client = make()
    await service.unary(bind_account.RPC, bind_request(timestamp={"seconds": int(time.time() + 1e6)}))
    assert len(client.attempts) == 1


async def test_grpc_finds_a_handler_for_each_rpc_and_for_nothing_else(make: Make) -> None:
    handler: Any = make()[0].handler()
    for path, rpc in RPCS.items():
        row = handler.service(Details(path))
        assert isinstance(await row.unary_unary(REQUESTS[rpc](), object()), rpc.response)
        assert row.response_serializer(rpc.response()) == b""
    assert handler.service(Details("/alipayhk.linkage.v1.LinkageService/Other")) is None
