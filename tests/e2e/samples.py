"""Both RPCs: a sample request with every field, and the exact bytes that AlipayHK must receive for it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from alipayhk.linkage.v1 import linkage_service_pb2 as pb

SERVICE: Final = "alipayhk.linkage.v1.LinkageService"
CLIENT_ID: Final = "4Q5Y8W0WSG45P907917"
FUNCTION: Final = "alipay.intl.merchant.account.bind"
PATHS: Final = {"SyncLinkage": "/a/%7Eb?c=%2fd", "BindAccount": "/gateway/account/bind"}

_numbers: Final = itertools.count(1)


def new_id() -> str:
    """Return a request id that no other test uses."""
    return f"e2e-{next(_numbers):06}"


def at(seconds: int = 1_716_331_341, nanos: int = 123_999_999) -> Timestamp:
    """Return a timestamp; the gateway truncates it to milliseconds."""
    return Timestamp(seconds=seconds, nanos=nanos)


def sync_request(**changes: Any) -> pb.SyncLinkageRequest:
    """Return a request with every field; None removes a field."""
    members: dict[str, Any] = {
        "request_id": new_id(),
        "biz_time": at(),
        "operate_type": pb.OPERATE_TYPE_BIND,
        "external_identity_type": pb.EXTERNAL_IDENTITY_TYPE_UID,
        "external_identity_value": "會員-0001",
        "user_id": "2160000000000001",
        "binding_target_type": pb.BINDING_TARGET_TYPE_CARD,
        "binding_target": "6222020000000042",
        "external_binding_id": "binding-42",
        "expiry_time": at(1_900_000_000, 456_000_000),
    }
    return pb.SyncLinkageRequest(**_present(members | changes))


def sync_body(request_id: str) -> bytes:
    """Return the bytes that AlipayHK must receive for `sync_request`."""
    return (
        f'{{"requestId":{json.dumps(request_id)},"bizTime":1716331341123,"bizType":"BINDING_SYNC",'
        '"externalBindingId":"binding-42","operateType":"BIND","externalIdentityType":"UID",'
        '"externalIdentityValue":"會員-0001","userId":"2160000000000001","bindingTargetType":"CARD",'
        '"bindingTarget":"6222020000000042","expiryTime":1900000000456}'
    ).encode()


def fresh_request(api: Api, **changes: Any) -> Any:
    """Return a request for a new linkage, so that it never queues behind another request."""
    own = {"external_identity_value": f"會員-{new_id()}"} if api is SYNC else {}
    return api.request(**(own | changes))


def bind_request(**changes: Any) -> pb.BindAccountRequest:
    """Return a request with every field except a form; None removes a field."""
    members: dict[str, Any] = {
        "request_id": new_id(),
        "merchant_account_id": "2160400000002012",
        "sub_merchant_id": "4555212345",
        "type": "TELECOM",
        "sub_type": "MOBILE_SERVICE",
        "account_id": "賬戶-88781108",
        "open_id": "692345124065fb70986efea85c123456",
        "user_id": "2160000000000001",
        "timestamp": at(),
        "extend_info": '{"channel": "app"}',
    }
    return pb.BindAccountRequest(**_present(members | changes))


def bind_body(_: str) -> bytes:
    """Return the bytes that AlipayHK must receive for `bind_request`."""
    return (
        '{"merchantAccountId":"2160400000002012","subMerchantId":"4555212345","type":"TELECOM",'
        '"subType":"MOBILE_SERVICE","source":"NORMAL","accountId":"賬戶-88781108",'
        '"openId":"692345124065fb70986efea85c123456","userId":"2160000000000001",'
        '"timestamp":"1716331341123","extendInfo":"{\\"channel\\": \\"app\\"}"}'
    ).encode()


def _present(members: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}


@dataclass(frozen=True, eq=False)
class Api:
    """One RPC."""

    name: str
    response: type[Message]
    # Any: no protobuf type describes "a message with the field request_id".
    request: Callable[..., Any] = field(repr=False)
    body: Callable[[str], bytes] = field(repr=False)
    """Maps a request id to the business content of the sample request."""
    success: Mapping[str, object] = field(repr=False)

    @property
    def path(self) -> str:
        """The full method name, as in the HTTP/2 path."""
        return f"/{SERVICE}/{self.name}"

    def __str__(self) -> str:
        return self.name


SYNC: Final = Api(
    "SyncLinkage",
    pb.SyncLinkageResponse,
    sync_request,
    sync_body,
    {"result": {"resultCode": "SUCCESS", "resultStatus": "S", "resultMessage": "success"}},
)
BIND: Final = Api(
    "BindAccount",
    pb.BindAccountResponse,
    bind_request,
    bind_body,
    {
        "result": {
            "resultStatus": "S",
            "resultCode": "0000",
            "resultCodeId": "00000000",
            "resultMessage": "SUCCESS",
        },
        "needBind": "true",
        "accountInfo": {
            "accountId": "88701108",
            "type": "TELECOM",
            "subType": "MOBILE_SERVICE",
            "status": "VALID",
            "autoDebitStatus": "UN_AUTO_DEBIT",
            "merchant": {
                "merchantAccountId": "2088031633039071",
                "subMerchantId": "4555219051",
                "merchantName": "中國移動",
                "merchantEnglishName": "China Mobile",
            },
            "name": "陳大文",
            "phone": "85291234567",
        },
    },
)
APIS: Final = (SYNC, BIND)
