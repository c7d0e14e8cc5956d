"""Validation: a valid request is sent; an invalid one is not, and the status names the invalid fields."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from grpc import StatusCode

from alipayhk.linkage.v1 import linkage_service_pb2 as pb
from tests.e2e import caller
from tests.e2e.caller import Reported, not_sent
from tests.e2e.conftest import Rpc
from tests.e2e.samples import BIND, SYNC, at, sync_request
from tests.e2e.upstream import responds

INVALID = not_sent(StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST", "new_request_id")


async def invalid(rpc: Rpc, request: Any) -> Reported:
    """Call with an invalid request; return the reported status."""
    right = responds(rpc.wallet.right)
    return await rpc.refused(right, INVALID, request)


async def test_every_invalid_field_is_named_in_one_status(either: Rpc) -> None:
    empty = pb.SyncLinkageRequest() if either.api is SYNC else pb.BindAccountRequest()
    reported = await invalid(either, empty)
    assert set(reported.fields) >= (
        {"request_id", "biz_time", "operate_type", "external_identity_type", "external_identity_value",
         "user_id", "binding_target_type"}
        if either.api is SYNC
        else {"request_id", "merchant_account_id", "type", "sub_type", "account", "timestamp"}
    )  # fmt: skip


async def test_request_id_of_an_invalid_request_can_be_used_again(either: Rpc) -> None:
    request_id = either.api.request().request_id
    await invalid(either, either.api.request(request_id=request_id, user_id="x" * 65))
    await either.accepted(request=either.api.request(request_id=request_id))


async def test_biz_time_far_in_the_future_is_refused_with_its_field(sync: Rpc) -> None:
    expected = not_sent(StatusCode.INVALID_ARGUMENT, "BIZ_TIME_IN_FUTURE", "new_request_id")
    right = responds(sync.wallet.right)
    for ahead_s in (330, 10**9):
        request = sync_request(biz_time=at(now_s() + ahead_s))
        assert (await sync.refused(right, expected, request)).fields == ["biz_time"]
    await sync.accepted(request=sync_request(biz_time=at(now_s() + 270)))


def now_s() -> int:
    """Return the current time in seconds."""
    return int(pb_now().seconds)


def pb_now() -> Any:
    """Return the current time as a protobuf Timestamp."""
    time = at()
    time.GetCurrentTime()
    return time


UNDECODABLE = [b"\x0a\x02\xc3\x28", b"secret-4711"]


@pytest.mark.parametrize("data", UNDECODABLE)
async def test_undecodable_request_is_invalid_without_details_about_it(either: Rpc, data: bytes) -> None:
    reported = await caller.call(either.gateway.channel, either.api, data)
    caller.check(reported, INVALID)
    assert reported.message == (await invalid(either, either.api.request(request_id=""))).message
    assert reported.violations == [("", "the bytes are not a message of this method's request type")]
    assert either.upstream.requests == []


async def test_unknown_fields_are_ignored(either: Rpc) -> None:
    request: Any = either.api.request()
    data = request.SerializeToString() + b"\xfa\x07\x03new"
    await caller.accepted(either.gateway.channel, either.api, type(request).FromString(data))
    either.check_sent(request)


async def test_too_large_message_is_refused_by_grpc(either: Rpc) -> None:
    large = pb.SyncLinkageRequest(user_id="x" * 70_000)
    reported = await caller.call(either.gateway.channel, either.api, large)
    assert reported.code is StatusCode.RESOURCE_EXHAUSTED
    assert not reported.status.details
    assert either.upstream.requests == []


async def test_unknown_method_is_refused_by_grpc(bind: Rpc) -> None:
    method: Any = bind.gateway.channel.unary_unary(BIND.path.replace("BindAccount", "UnbindAccount"))
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await method(b"")
    reported = caller.reported(raised.value)
    assert (reported.code, list(reported.status.details)) == (StatusCode.UNIMPLEMENTED, [])
