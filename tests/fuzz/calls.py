"""Target: the bytes of a caller's request."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from google.protobuf.message import DecodeError

from alipayhk.linkage.v1 import linkage_service_pb2 as pb
from clients.alipayhk.wire.strict_json import write_json
from sandbox.validation import bind_account_violations, sync_linkage_violations
from service.server.rpcs import bind_account, sync_linkage
from service.server.validation import violations
from tests.fuzz.properties import is_constant, json_object, same

RPCS: Final = ((sync_linkage.RPC, sync_linkage_violations), (bind_account.RPC, bind_account_violations))


def seeds() -> Iterator[bytes]:
    """Yield valid requests of both RPCs, and one with every kind of fault."""
    linkage = pb.SyncLinkageRequest(
        request_id="req-1",
        biz_time={"seconds": 1_716_331_341, "nanos": 123_456_789},
        operate_type=pb.OPERATE_TYPE_BIND,
        external_identity_type=pb.EXTERNAL_IDENTITY_TYPE_UID,
        external_identity_value="陳大文",
        user_id="2160000000000001",
        binding_target_type=pb.BINDING_TARGET_TYPE_CARD,
        binding_target="card-1",
        external_binding_id="b-1",
        expiry_time={"seconds": 253_402_300_799},
    )
    account = pb.BindAccountRequest(
        request_id="req-1",
        merchant_account_id="m-1",
        type="TELECOM",
        sub_type="MOBILE_SERVICE",
        account_id="88781108",
        user_id="2160000000000001",
        timestamp={"seconds": 1_716_331_341},
        extend_info='{"k":"}{"}',
    )
    by_form = pb.BindAccountRequest()
    by_form.CopyFrom(account)
    by_form.template_form.CopyFrom(pb.TemplateForm(form_code="f", form_values={"b": "2", "a": "\\u1"}))
    yield b"\0" + linkage.SerializeToString()
    yield b"\1" + account.SerializeToString()
    yield b"\1" + by_form.SerializeToString()
    yield (
        b"\0"
        + pb.SyncLinkageRequest(
            request_id="a b", biz_time={"seconds": -1}, user_id="x" * 99
        ).SerializeToString()
    )
    yield b"\1" + pb.BindAccountRequest(extend_info="[NaN", type="\x7f" * 17).SerializeToString()


def call(data: bytes) -> None:
    """A request is refused in constant words, or becomes a body that AlipayHK's documentation allows."""
    rpc, documented = RPCS[(data[0] if data else 0) & 1]
    try:
        request: Any = rpc.request.FromString(data[1:])
    except DecodeError:
        return
    if found := violations(rpc.rules, request):
        assert all(is_constant(violation.description) for violation in found)
        return
    command = rpc.command(request)
    body = rpc.body(command)
    text = write_json(body)
    assert same(json_object(text), dict(body))
    assert documented(body) == []
    linkage, time_ms = rpc.linkage(command), rpc.biz_time_ms(command)
    assert linkage is None or all(isinstance(part, str) for part in linkage)
    assert time_ms is None or time_ms == body["bizTime"]
