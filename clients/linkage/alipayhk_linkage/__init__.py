"""The client of the AlipayHK gateway.

    tls = Tls.from_files("ca.pem", "me.pem", "me.key")
    async with LinkageClient("gateway.internal:50051", tls=tls) as client:
        try:
            response = await client.sync_linkage(request)
        except LinkageError as error:
            if error.outcome == "unknown":
                ...  # keep the request: the same one again, with the same id, tells

`BlockingLinkageClient` is the same without asyncio. `passing_on` carries trace context along. The messages
are those of `alipayhk.linkage.v1`, generated from the gateway's protos.
"""

from alipayhk.linkage.v1.error_reason_pb2 import ErrorReason
from alipayhk.linkage.v1.linkage_service_pb2 import (
    Account,
    BindAccountRequest,
    BindAccountResponse,
    BindingTargetType,
    ExternalIdentityType,
    Merchant,
    OperateType,
    Result,
    SyncLinkageRequest,
    SyncLinkageResponse,
    TemplateForm,
)

from .channel import RETRY_SERVICE_CONFIG, Tls, channel_options
from .client import BlockingLinkageClient, LinkageClient, new_request_id
from .errors import LinkageError, Outcome, Retry, Violation
from .passing_on import passing_on

__all__ = [
    "RETRY_SERVICE_CONFIG",
    "Account",
    "BindAccountRequest",
    "BindAccountResponse",
    "BindingTargetType",
    "BlockingLinkageClient",
    "ErrorReason",
    "ExternalIdentityType",
    "LinkageClient",
    "LinkageError",
    "Merchant",
    "OperateType",
    "Outcome",
    "Result",
    "Retry",
    "SyncLinkageRequest",
    "SyncLinkageResponse",
    "TemplateForm",
    "Tls",
    "Violation",
    "channel_options",
    "new_request_id",
    "passing_on",
]
