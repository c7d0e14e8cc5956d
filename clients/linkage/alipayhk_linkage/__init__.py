"""The client of the AlipayHK gateway.

    tls = Tls.from_files("ca.pem", "me.pem", "me.key")
    async with LinkageClient("gateway.internal:50051", tls=tls) as client:
        try:
            response = await client.sync_linkage(request)
        except LinkageError as error:
            if error.outcome == "unknown":
                ...  # keep the request, and send it again with the same id to learn its outcome

`BlockingLinkageClient` is the same client without asyncio. `trace_context` forwards the W3C trace context.
The messages are those of `alipayhk.linkage.v1`, generated from the gateway's protos.
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

from .channel import RETRY_SERVICE_CONFIG, SHARED_LEDGER_SERVICE_CONFIG, Tls, channel_options
from .client import BlockingLinkageClient, LinkageClient, new_request_id
from .errors import LinkageError, Outcome, Retry, Violation
from .trace_context import trace_context

__all__ = [
    "RETRY_SERVICE_CONFIG",
    "SHARED_LEDGER_SERVICE_CONFIG",
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
    "trace_context",
]
