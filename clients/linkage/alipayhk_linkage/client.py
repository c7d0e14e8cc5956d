"""The clients for asyncio and for threads. Both have the same RPCs, arguments and errors."""

from __future__ import annotations

import asyncio
import math
import time
import uuid
from collections.abc import Callable
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, Final, Self, cast

import grpc
import grpc.aio
from google.protobuf.message import Message

from alipayhk.linkage.v1.linkage_service_pb2 import (
    BindAccountRequest,
    BindAccountResponse,
    SyncLinkageRequest,
    SyncLinkageResponse,
)
from alipayhk.linkage.v1.linkage_service_pb2_grpc import LinkageServiceStub

from .channel import Options, Tls, channel_options
from .errors import NO_MESSAGE, LinkageError, RpcFailure
from .trace_context import Metadata, metadata_of_call

TIMEOUT_S: Final = 10.0
"""The default deadline of a call."""
LONGEST_S: Final = 86_400.0
"""The longest deadline. The gateway shortens every deadline to less than this."""
_READY: Final = grpc.ChannelConnectivity.READY
CLOSED: Final = "the client is closed"


def new_request_id(prefix: str) -> str:
    """Return a new request id that starts with `prefix`.

    All callers of an RPC share one namespace of request ids, so use your service's name as the prefix.
    Store the id with the request, because a retry repeats both. The prefix has 1 to 31 characters of
    printable ASCII without space, so that the id fits BindAccount's limit of 64. Raise ValueError for any
    other prefix.
    """
    if not (0 < len(prefix) < 32 and all("!" <= character <= "~" for character in prefix)):  # noqa: PLR2004
        raise ValueError("the prefix must be 1 to 31 characters of printable ASCII without space")
    return f"{prefix}-{uuid.uuid4().hex}"


def _with_message(response: object) -> object:
    """Return a response; raise LinkageError if the call ended with the status OK and without a message."""
    if response is None:
        raise LinkageError(grpc.StatusCode.INTERNAL, NO_MESSAGE)
    return response


async def _response_of(call: Any) -> object:
    """Wait for an asyncio call; return its response, or raise LinkageError."""
    try:
        return _with_message(await call)
    except grpc.aio.AioRpcError as error:
        raise LinkageError.of(error) from None
    except asyncio.CancelledError:
        if (task := asyncio.current_task()) is None or task.cancelling():
            raise
        # The call was cancelled, not this task: the channel was closed.
        raise LinkageError(grpc.StatusCode.CANCELLED, "The client was closed during the call.") from None


class _Client:
    """The common part of both clients: the default deadline, and the checks before a call."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._closed = False

    def _call_options(
        self, request: Message, kind: type[Message], timeout_s: float | None, metadata: Metadata
    ) -> dict[str, Any]:
        """Check the arguments of a call before anything is sent; return its timeout and metadata."""
        if not isinstance(request, kind):
            # gRPC would send the bytes of the wrong message, or, with asyncio, none at all.
            raise TypeError(f"the request must be a {kind.__name__}")
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        if math.isnan(timeout_s):
            raise ValueError("timeout_s must be a number of seconds, not NaN")
        # gRPC treats infinity, and a deadline centuries away, as a deadline in the past.
        options = {"timeout": min(timeout_s, LONGEST_S), "metadata": metadata_of_call(metadata)}
        if self._closed:
            raise RuntimeError(CLOSED)
        return options


class LinkageClient(_Client):
    """A client for asyncio. Create it once, and use it for any number of concurrent calls."""

    def __init__(
        self,
        target: str,
        *,
        tls: Tls | None = None,
        timeout_s: float = TIMEOUT_S,
        retries: bool = True,
        shared_ledger: bool = False,
        options: Options = (),
    ) -> None:
        """Create a client for the gateway at `target`, which is `host:port`.

        The client belongs to the running event loop; raise RuntimeError if none runs. It connects with the
        first call. `timeout_s` is the default deadline of a call, in seconds. With `retries`, gRPC sends a
        request again within its deadline if the gateway asks for it, after the wait that the gateway names.
        With `shared_ledger`, calls are spread over all addresses of the target: set it only if the gateways
        behind the name share one ledger. `options` are gRPC channel options.
        """
        super().__init__(timeout_s)
        asyncio.get_running_loop()  # raise here: gRPC would take another loop and fail at the first call
        chosen = channel_options(tls, retries=retries, shared_ledger=shared_ledger, more=options)
        self._channel = (
            grpc.aio.insecure_channel(target, chosen)
            if tls is None
            else grpc.aio.secure_channel(target, tls.credentials(), chosen)
        )
        self._stub = LinkageServiceStub(self._channel)  # type: ignore[no-untyped-call]

    async def sync_linkage(
        self, request: SyncLinkageRequest, *, timeout_s: float | None = None, metadata: Metadata = ()
    ) -> SyncLinkageResponse:
        """Notify AlipayHK that a membership or card was bound or unbound; raise LinkageError unless OK.

        A cancelled call has the outcome `unknown`: send the same request again to learn its outcome.
        """
        options = self._call_options(request, SyncLinkageRequest, timeout_s, metadata)
        return cast("SyncLinkageResponse", await _response_of(self._stub.SyncLinkage(request, **options)))

    async def bind_account(
        self, request: BindAccountRequest, *, timeout_s: float | None = None, metadata: Metadata = ()
    ) -> BindAccountResponse:
        """Bind a bill account to a wallet user; raise LinkageError unless OK.

        A cancelled call has the outcome `unknown`: send the same request again to learn its outcome.
        """
        options = self._call_options(request, BindAccountRequest, timeout_s, metadata)
        return cast("BindAccountResponse", await _response_of(self._stub.BindAccount(request, **options)))

    async def close(self) -> None:
        """Close the channel. Calls in progress raise LinkageError with the outcome `unknown`."""
        self._closed = True
        await self._channel.close()

    async def __aenter__(self) -> Self:
        """Return the client. Leaving the block closes it."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the channel."""
        await self.close()


class BlockingLinkageClient(_Client):
    """A client for any number of threads. Do not share it across a fork."""

    def __init__(
        self,
        target: str,
        *,
        tls: Tls | None = None,
        timeout_s: float = TIMEOUT_S,
        retries: bool = True,
        shared_ledger: bool = False,
        options: Options = (),
    ) -> None:
        """Create a client with the same arguments as `LinkageClient`. It needs no event loop."""
        super().__init__(timeout_s)
        chosen = channel_options(tls, retries=retries, shared_ledger=shared_ledger, more=options)
        self._channel = (
            grpc.insecure_channel(target, chosen)
            if tls is None
            else grpc.secure_channel(target, tls.credentials(), chosen)
        )
        self._stub = LinkageServiceStub(self._channel)  # type: ignore[no-untyped-call]

    def sync_linkage(
        self, request: SyncLinkageRequest, *, timeout_s: float | None = None, metadata: Metadata = ()
    ) -> SyncLinkageResponse:
        """Call SyncLinkage; see `LinkageClient.sync_linkage`."""
        options = self._call_options(request, SyncLinkageRequest, timeout_s, metadata)
        return cast("SyncLinkageResponse", self._call(self._stub.SyncLinkage, request, options))

    def bind_account(
        self, request: BindAccountRequest, *, timeout_s: float | None = None, metadata: Metadata = ()
    ) -> BindAccountResponse:
        """Call BindAccount; see `LinkageClient.bind_account`."""
        options = self._call_options(request, BindAccountRequest, timeout_s, metadata)
        return cast("BindAccountResponse", self._call(self._stub.BindAccount, request, options))

    def connect(self, *, timeout_s: float, patience_s: float = 0) -> bool:
        """Connect before the first call; return whether the connection is established.

        Return False `timeout_s` seconds from now, or `patience_s` after the first failure. Without a
        connection nothing can have been sent, which the status of a call does not show.
        """
        states: SimpleQueue[grpc.ChannelConnectivity] = SimpleQueue()
        deadline_s, failed = time.monotonic() + timeout_s, False
        self._channel.subscribe(states.put, try_to_connect=True)
        try:
            while (state := states.get(timeout=max(deadline_s - time.monotonic(), 0))) is not _READY:
                if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE and not failed:
                    failed, deadline_s = True, min(deadline_s, time.monotonic() + patience_s)
        except Empty:
            return False
        finally:
            self._channel.unsubscribe(states.put)
        return True

    def close(self) -> None:
        """Close the channel. Calls in progress raise LinkageError with the outcome `unknown`."""
        self._closed = True
        self._channel.close()

    def _call(self, method: Callable[..., object], request: Message, options: dict[str, Any]) -> object:
        """Call an RPC; return its response, or raise LinkageError."""
        try:
            response = method(request, **options)
        except grpc.RpcError as error:
            raise LinkageError.of(cast("RpcFailure", error)) from None
        except ValueError:
            if not self._closed:
                raise
            raise RuntimeError(CLOSED) from None  # another thread closed it during this call
        return _with_message(response)

    def __enter__(self) -> Self:
        """Return the client. Leaving the block closes it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the channel."""
        self.close()
