"""The callers of a chaos run: each keeps its request id and content until it knows the outcome.

New requests start at a given average rate, however long earlier ones take. Some callers make two concurrent
calls, some repeat a finished request, some reuse an id with other content, and some send stale updates.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

import grpc

from alipayhk.linkage.v1 import linkage_service_pb2 as pb
from alipayhk_linkage.errors import LinkageError
from tests.chaos.history import BIND, SYNC, Call, Request
from tests.chaos.proxy import content_of
from tests.chaos.world import World

KNOWN_MAX_S: Final = 100.0
"""Time from the last fault until every caller must know its outcome: longer than a lease after a jump."""
WAIT_FIRST_S: Final = 0.2
WAIT_MAX_S: Final = 4.0
OPERATOR_S: Final = 1.0
"""Time until a caller repeats a request that a person must resolve."""
TIMEOUTS_S: Final = (1.0, 2.0, 5.0)
WAITING_MAX_S: Final = 10.0
"""No new request starts while more callers wait than start in this time: the machine is too slow."""
ORDER_REASONS: Final = frozenset({"STALE_BIZ_TIME", "BIZ_TIME_TIE"})
REFUSED_WITH: Final = ("USER_NOT_EXIST", "PARAM_ILLEGAL", "USER_STATUS_ABNORMAL")
DELAYS: Final = ("", "+DELAY_20", "+DELAY_100", "+DELAY_400")
CHANNELS_EACH: Final = 2
"""Connections for each worker: the kernel distributes connections, not calls."""
OPTIONS: Final = (
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
)
METHODS: Final[dict[str, tuple[str, Any]]] = {
    SYNC: ("/alipayhk.linkage.v1.LinkageService/SyncLinkage", pb.SyncLinkageResponse),
    BIND: ("/alipayhk.linkage.v1.LinkageService/BindAccount", pb.BindAccountResponse),
}


class Workload:
    """Makes requests, and records every call."""

    def __init__(self, world: World, channels: list[tuple[str, grpc.aio.Channel]]) -> None:
        self.skipped = 0
        """Requests that did not start, because too many callers waited."""
        self.load_s = 0.0
        """Time during which new requests were made, in seconds."""
        self._world = world
        self._history = world.history
        self._dice = world.options.dice("workload")
        self._channels = channels
        self._number = 0
        self._callers: set[asyncio.Task[None]] = set()
        world.burst = self._start

    async def run(self, faults: asyncio.Task[None]) -> None:
        """Make requests at the rate until the faults are over; then let every caller learn its outcome."""
        try:
            await self._run(faults)
        finally:
            unfinished = set(self._callers)
            for task in unfinished:
                task.cancel()
            await asyncio.gather(*unfinished, return_exceptions=True)

    async def _run(self, faults: asyncio.Task[None]) -> None:
        due = started = time.monotonic()
        while not faults.done():
            due += self._dice.expovariate(self._world.options.rate)
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            if len(self._callers) >= self._world.options.rate * WAITING_MAX_S:
                self.skipped += 1
                await asyncio.sleep(0)
            else:
                self._start(1)
            self.load_s = time.monotonic() - started
        await faults
        if self._callers:
            done, _ = await asyncio.wait(self._callers, timeout=KNOWN_MAX_S)
            for task in done:
                task.result()

    def _start(self, count: int) -> None:
        for _ in range(count):
            task = asyncio.create_task(self._caller(*self._next()))
            self._callers.add(task)
            task.add_done_callback(self._callers.discard)

    def _next(self) -> tuple[Request, Any, Any]:
        """Return a new request, its message, and the message of the same id with other content."""
        self._number += 1
        api = SYNC if self._number % 2 else BIND
        refused_with = self._dice.choice(REFUSED_WITH) if self._dice.random() < 0.15 else ""
        user = "2160000000000001" + (f"+{refused_with}" if refused_with else self._dice.choice(DELAYS))
        build = self._sync if api == SYNC else self._bind
        request, message, changed = build(f"chaos-{self._number}", user, refused_with)
        self._history.requests[request.key] = request
        return request, message, changed

    def _sync(self, request_id: str, user: str, refused_with: str) -> tuple[Request, Any, Any]:
        """Update a linkage; four consecutive requests share one, and every tenth request is stale."""
        number, now_ms = self._number // 2, time.time_ns() // 1_000_000
        group, biz_time_ms = number // 4, now_ms + number
        if number % 10 == 9:
            behind = min(group, round(self._world.options.rate / 4))
            group, biz_time_ms = group - behind, biz_time_ms - 1_000 * 60
        user = "2160000000000001" + ("" if not refused_with else f"+{refused_with}")
        if not refused_with:
            user += DELAYS[group % len(DELAYS)]  # the user is part of the linkage
        operate = "UNBIND" if number % 10 == 1 else "BIND"
        members = {
            "operateType": operate,
            "externalIdentityValue": f"member-{group}",
            "userId": user,
            "bizTime": biz_time_ms,
        }
        message = pb.SyncLinkageRequest(
            request_id=request_id,
            operate_type=f"OPERATE_TYPE_{operate}",
            external_identity_type=pb.EXTERNAL_IDENTITY_TYPE_UID,
            external_identity_value=f"member-{group}",
            user_id=user,
            binding_target_type=pb.BINDING_TARGET_TYPE_USER_ID,
        )
        message.biz_time.FromMilliseconds(biz_time_ms)
        changed = pb.SyncLinkageRequest()
        changed.CopyFrom(message)
        changed.external_identity_value += "-changed"
        linkage = f"member-{group}|{user}"
        request = Request((SYNC, request_id), content_of(SYNC, members), linkage, biz_time_ms, refused_with)
        return request, message, changed

    def _bind(self, request_id: str, user: str, refused_with: str) -> tuple[Request, Any, Any]:
        now_ms, account = time.time_ns() // 1_000_000, str(10_000_000 + self._number)
        message = pb.BindAccountRequest(
            request_id=request_id,
            merchant_account_id="2160400000002012",
            type="TELECOM",
            sub_type="MOBILE_SERVICE",
            account_id=account,
            user_id=user,
        )
        message.timestamp.FromMilliseconds(now_ms)
        members = {
            "accountId": account,
            "userId": user,
            "timestamp": now_ms,
            "merchantAccountId": message.merchant_account_id,
        }
        changed = pb.BindAccountRequest()
        changed.CopyFrom(message)
        changed.account_id = f"{account}9"
        key = (BIND, request_id)
        return Request(key, content_of(BIND, members), "", 0, refused_with, account), message, changed

    async def _caller(self, request: Request, message: Any, changed: Any) -> None:
        """Call until the outcome is known; then sometimes call again, or misuse the id."""
        twice, again = self._dice.random() < 0.4, self._dice.random() < 0.3
        misuse, pause_s = self._dice.random() < 0.05, self._dice.uniform(0.2, 4.0)
        known = [self._until_known(request, message) for _ in range(2 if twice else 1)]
        is_final = all(await asyncio.gather(*known))
        if is_final and (again or misuse):
            await asyncio.sleep(pause_s)
            await self._call(
                request, changed if misuse else message, "changed" if misuse else request.content
            )

    async def _until_known(self, request: Request, message: Any) -> bool:
        """Repeat one request as the status advises; return whether its outcome is final.

        It waits as long as the status says, because callers that retry without a wait overload a gateway
        that has just started.
        """
        retry = 0
        while True:
            call, error = await self._call(request, message, request.content)
            if call.is_final or call.reason in ORDER_REASONS:
                return call.is_final
            wait_s = min(WAIT_MAX_S, WAIT_FIRST_S * 2**retry) * random.uniform(0.5, 1)
            advised_s = (error.retry_after_s if error else None) or 0.0
            operator_s = OPERATOR_S if call.retry == "operator" else 0.0
            await asyncio.sleep(max(wait_s, advised_s, operator_s))
            retry += 1

    async def _call(self, request: Request, message: Any, content: str) -> tuple[Call, LinkageError | None]:
        gateway, channel = self._dice.choice(self._channels)
        method, response_type = METHODS[request.key[0]]
        invoke = channel.unary_unary(
            method,
            request_serializer=type(message).SerializeToString,
            response_deserializer=response_type.FromString,
        )
        call, error = Call(request.key, content, gateway, time.monotonic()), None
        self._history.calls.append(call)
        try:
            response = await invoke(message, timeout=self._dice.choice(TIMEOUTS_S))
        except grpc.aio.AioRpcError as failure:
            error = LinkageError.of(failure)
            _note_error(call, error)
        else:
            _note_response(call, response)
        call.ended = time.monotonic()
        return call, error


def _note_response(call: Call, response: Any) -> None:
    call.outcome, call.grpc_code = "OK", "OK"
    call.status, call.result_code = response.result.status, response.result.code
    call.tracer = getattr(response, "tracer_id", "")
    call.replayed, call.resolved = response.replayed, response.resolved_by_operator
    if call.key[0] == BIND:
        call.account = response.account.account_id


def _note_error(call: Call, error: LinkageError) -> None:
    facts = error.metadata
    call.outcome, call.retry, call.reason = str(error.outcome), str(error.retry), error.reason
    call.grpc_code = error.code.name
    call.status, call.result_code = facts.get("result_status", ""), facts.get("result_code", "")
    call.tracer, call.replayed = facts.get("tracer_id", ""), "replayed" in facts
    call.resolved = call.outcome == "rejected" and not call.result_code


@asynccontextmanager
async def connected(world: World) -> AsyncIterator[Workload]:
    """Connect to every gateway, with several connections to a gateway with workers."""
    async with AsyncExitStack() as stack:
        channels = []
        for gateway in world.gateways:
            for _ in range(gateway.workers * CHANNELS_EACH):
                channel = grpc.aio.insecure_channel(gateway.address, options=OPTIONS)
                channels.append((gateway.name, await stack.enter_async_context(channel)))
        yield Workload(world, channels)
