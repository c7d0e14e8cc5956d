"""The flow of one call, from validation to the reply, and the handlers to which gRPC dispatches."""

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
from service.server.methods import Methods
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
    """Return the current call."""
    current = call_of()
    token = CURRENT.set(current)
    yield current
    CURRENT.reset(token)


@pytest.fixture
def make(environ: dict[str, str], keys: Keys) -> Make:
    """Return a function that creates a service with a fake client."""
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
async def test_a_valid_request_is_sent_once_and_gets_the_response(make: Make, call: Call, rpc: Rpc) -> None:
    service, client = make()
    request = REQUESTS[rpc]()
    response: Any = await service.unary(rpc, request)
    assert response.DESCRIPTOR is rpc.response.DESCRIPTOR
    assert response.result.status == "S"
    assert client.bodies == [write_json(rpc.body(rpc.command(request)))]
    assert [attempt.sent for attempt in client.attempts] == [True]
    assert call.circumstances == known(api=rpc.name, idempotent=rpc is sync_linkage.RPC, sent=(True,))


@pytest.mark.parametrize("rpc", RPCS.values(), ids=lambda rpc: rpc.name)
async def test_all_attempts_at_a_request_send_the_same_bytes(make: Make, rpc: Rpc) -> None:
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
"""For each RPC, a change that does not change the body for AlipayHK, and a change that does."""


@pytest.mark.parametrize("rpc", RPCS.values(), ids=lambda rpc: rpc.name)
async def test_a_used_id_replays_the_same_content_and_refuses_other_content(make: Make, rpc: Rpc) -> None:
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


async def test_an_update_with_a_used_biz_time_is_sent_only_with_the_same_content(make: Make) -> None:
    service, client = make()
    rpc = sync_linkage.RPC
    for request_id in ("a", "b"):
        await service.unary(rpc, sync_request(request_id=request_id))
    other_contents: tuple[dict[str, Any], ...] = (
        {"operate_type": pb.OPERATE_TYPE_UNBIND},
        {"external_binding_id": "b-1"},
    )
    for number, changes in enumerate(other_contents):
        error = await refusal(service.unary(rpc, sync_request(request_id=f"tie-{number}", **changes)))
        assert error.reason == reasons.ERROR_REASON_BIZ_TIME_TIE
    error = await refusal(service.unary(rpc, sync_request(request_id="c", biz_time={"seconds": 1})))
    assert error.reason == reasons.ERROR_REASON_STALE_BIZ_TIME
    await service.unary(rpc, sync_request(request_id="d", biz_time={"seconds": 1}, user_id="another"))
    assert len(client.attempts) == 3


async def test_a_request_id_can_be_used_once_for_each_rpc(make: Make) -> None:
    service, client = make()
    for rpc, request in REQUESTS.items():
        response: Any = await service.unary(rpc, request())
        assert not response.replayed
    assert len(client.attempts) == 2


@pytest.mark.parametrize("rpc", RPCS.values(), ids=lambda rpc: rpc.name)
async def test_an_invalid_request_is_refused_with_every_violation_and_not_sent(
    make: Make, rpc: Rpc
) -> None:
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


async def test_the_fields_are_validated_before_the_biz_time(make: Make) -> None:
    service, _ = make()
    request = sync_request(biz_time={"seconds": int(time.time() + 1e6)}, user_id="")
    error = await refusal(service.unary(sync_linkage.RPC, request))
    assert error.reason == reasons.ERROR_REASON_INVALID_REQUEST


async def test_a_bind_account_can_have_any_timestamp(make: Make) -> None:
    service, client = make()
    await service.unary(bind_account.RPC, bind_request(timestamp={"seconds": int(time.time() + 1e6)}))
    assert len(client.attempts) == 1


async def test_grpc_finds_a_handler_for_each_rpc_and_no_other_method(make: Make) -> None:
    handler: Any = Methods(make()[0].handlers())
    for path, rpc in RPCS.items():
        row = handler.service(Details(path))
        assert isinstance(await row.unary_unary(REQUESTS[rpc](), object()), rpc.response)
        assert row.response_serializer(rpc.response()) == b""
    assert handler.service(Details("/alipayhk.linkage.v1.LinkageService/Other")) is None
