"""The client: both RPCs, for asyncio and for plain threads, the same in every other respect."""

from __future__ import annotations

import asyncio
import math
import uuid
from collections.abc import Callable
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
from .errors import LinkageError, RpcFailure
from .passing_on import Metadata, metadata_of_call

TIMEOUT_S: Final = 10.0
"""The deadline of a call that is given none."""
LONGEST_S: Final = 86_400.0
"""The longest deadline; the gateway gives no call as much."""
CLOSED: Final = "the client is closed"


def new_request_id(prefix: str) -> str:
    """Make a request id: ids are one namespace for all callers of an RPC, so prefix yours with your name.

    Keep it with the request: a retry repeats both. A prefix has at most 31 characters, printable ASCII
    without space, so that BindAccount takes the id too.
    """
    if not (0 < len(prefix) < 32 and all("!" <= character <= "~" for character in prefix)):  # noqa: PLR2004
        raise ValueError("a prefix is 1 to 31 characters of printable ASCII without space")
    return f"{prefix}-{uuid.uuid4().hex}"


async def _ended(call: Any) -> object:
    """Wait for a call of asyncio; return its response, or raise LinkageError."""
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise LinkageError.of(error) from None
    except asyncio.CancelledError:
        if (task := asyncio.current_task()) is None or task.cancelling():
            raise
        # It is the call that was cancelled, not this task.
        raise LinkageError(grpc.StatusCode.CANCELLED, "The client was closed during the call.") from None


class _Client:
    """What both clients have in common: a deadline by default, and that a closed one sends nothing."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._closed = False

    def _how(
        self, request: Message, kind: type[Message], timeout_s: float | None, metadata: Metadata
    ) -> dict[str, Any]:
        """Return what a call takes beside its request; raise what is wrong before anything is sent."""
        if not isinstance(request, kind):
            # gRPC would send the bytes of another message, or from asyncio none at all.
            raise TypeError(f"the request is to be a {kind.__name__}")
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        if math.isnan(timeout_s):
            raise ValueError("the deadline is not a number of seconds")
        # gRPC takes infinity, and what is centuries away, for what has passed.
        how = {"timeout": min(timeout_s, LONGEST_S), "metadata": metadata_of_call(metadata)}
        if self._closed:
            raise RuntimeError(CLOSED)
        return how


class LinkageClient(_Client):
    """Calls the gateway from asyncio. One client, made once, serves any number of calls at once."""

    def __init__(
        self,
        target: str,
        *,
        tls: Tls | None = None,
        timeout_s: float = TIMEOUT_S,
        retries: bool = True,
        options: Options = (),
    ) -> None:
        """Take the gateway's `host:port`, where asyncio runs: a client belongs to its event loop.

        Nothing is connected before the first call. Raise RuntimeError where no event loop runs.
        `timeout_s` is the deadline of calls that are given none. With `retries` gRPC sends a request
        again, within its deadline, where the gateway says that this helps and after the wait that it asks
        for. `options` are gRPC's own channel options.
        """
        super().__init__(timeout_s)
        asyncio.get_running_loop()  # gRPC would take another one, and break at the first call
        chosen = channel_options(tls, retries=retries, more=options)
        self._channel = (
            grpc.aio.insecure_channel(target, chosen)
            if tls is None
            else grpc.aio.secure_channel(target, tls.credentials(), chosen)
        )
        self._stub = LinkageServiceStub(self._channel)  # type: ignore[no-untyped-call]

    async def sync_linkage(
        self, request: SyncLinkageRequest, *, timeout_s: float | None = None, metadata: Metadata = ()
    ) -> SyncLinkageResponse:
        """Tell AlipayHK that a membership or card was bound or unbound; raise LinkageError unless OK.

        A call that is cancelled has an unknown outcome: the same request again tells.
        """
        how = self._how(request, SyncLinkageRequest, timeout_s, metadata)
        return cast("SyncLinkageResponse", await _ended(self._stub.SyncLinkage(request, **how)))

    async def bind_account(
        self, request: BindAccountRequest, *, timeout_s: float | None = None, metadata: Metadata = ()
    ) -> BindAccountResponse:
        """Bind a bill account to a wallet user; raise LinkageError unless OK.

        A call that is cancelled has an unknown outcome: the same request again tells.
        """
        how = self._how(request, BindAccountRequest, timeout_s, metadata)
        return cast("BindAccountResponse", await _ended(self._stub.BindAccount(request, **how)))

    async def close(self) -> None:
        """Close the channel; calls under way end with LinkageError, and nobody knows what came of them."""
        self._closed = True
        await self._channel.close()

    async def __aenter__(self) -> Self:
        """Return the client; leaving the block closes it."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the channel."""
        await self.close()


class BlockingLinkageClient(_Client):
    """Calls the gateway from threads, any number at once. Do not share it across a fork."""

    def __init__(
        self,
        target: str,
        *,
        tls: Tls | None = None,
        timeout_s: float = TIMEOUT_S,
        retries: bool = True,
        options: Options = (),
    ) -> None:
        """Take what `LinkageClient` takes."""
        super().__init__(timeout_s)
        chosen = channel_options(tls, retries=retries, more=options)
        self._channel = (
            grpc.insecure_channel(target, chosen)
            if tls is None
            else grpc.secure_channel(target, tls.credentials(), chosen)
        )
        self._stub = LinkageServiceStub(self._channel)  # type: ignore[no-untyped-call]

    def sync_linkage(
        self, request: SyncLinkageRequest, *, timeout_s: float | None = None, metadata: Metadata = ()
    ) -> SyncLinkageResponse:
        """Do what `LinkageClient.sync_linkage` does."""
        how = self._how(request, SyncLinkageRequest, timeout_s, metadata)
        return cast("SyncLinkageResponse", self._answered(self._stub.SyncLinkage, request, how))

    def bind_account(
        self, request: BindAccountRequest, *, timeout_s: float | None = None, metadata: Metadata = ()
    ) -> BindAccountResponse:
        """Do what `LinkageClient.bind_account` does."""
        how = self._how(request, BindAccountRequest, timeout_s, metadata)
        return cast("BindAccountResponse", self._answered(self._stub.BindAccount, request, how))

    def close(self) -> None:
        """Close the channel; calls under way end with LinkageError, and nobody knows what came of them."""
        self._closed = True
        self._channel.close()

    def _answered(self, method: Callable[..., object], request: Message, how: dict[str, Any]) -> object:
        """Make a call; return its response, or raise LinkageError."""
        try:
            return method(request, **how)
        except grpc.RpcError as error:
            raise LinkageError.of(cast("RpcFailure", error)) from None
        except ValueError:
            if not self._closed:
                raise
            raise RuntimeError(CLOSED) from None  # by another thread, just now

    def __enter__(self) -> Self:
        """Return the client; leaving the block closes it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the channel."""
        self.close()
