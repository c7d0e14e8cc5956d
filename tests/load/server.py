"""A gRPC server with known behaviour: `python -m tests.load.server KIND [NUMBER]`.

It prints its address, and the number of calls that have arrived, after each COUNTED of them.

answers        responds immediately
stalls         responds immediately, except in the first 100 ms of every second
capped RATE    processes one call after the other, RATE per second
slow MS        responds to each call after MS milliseconds
refuses        fails every call with OVERLOADED, like the gateway
rude           fails every call with a reason that contains terminal control characters
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
from collections.abc import Awaitable, Callable

import grpc
import grpc.aio
from google.protobuf.any_pb2 import Any
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

Context = grpc.aio.ServicerContext[bytes, bytes]
Serve = Callable[[bytes, Context], Awaitable[bytes]]

SERVICE = "alipayhk.linkage.v1.LinkageService"
STALL_S = 0.1
COUNTED = 25


async def answers(request: bytes, context: Context) -> bytes:
    return b""


async def stalls(request: bytes, context: Context) -> bytes:
    if (into := time.monotonic() % 1) < STALL_S:
        await asyncio.sleep(STALL_S - into)
    return b""


def fails(reason: str) -> Serve:
    async def serve(request: bytes, context: Context) -> bytes:
        detail = Any()
        metadata = {"outcome": "not_sent", "retry": "same_request_id"}
        detail.Pack(ErrorInfo(reason=reason, domain="linkage.alipayhk", metadata=metadata))
        status = Status(code=grpc.StatusCode.RESOURCE_EXHAUSTED.value[0], details=[detail])
        context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "")
        raise AssertionError

    return serve


def slow(ms: str) -> Serve:
    async def serve(request: bytes, context: Context) -> bytes:
        await asyncio.sleep(float(ms) / 1000)
        return b""

    return serve


def capped(rate: str) -> Serve:
    free_at = 0.0

    async def serve(request: bytes, context: Context) -> bytes:
        nonlocal free_at
        now = time.monotonic()
        free_at = max(free_at, now) + 1 / float(rate)
        await asyncio.sleep(free_at - now)
        return b""

    return serve


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def counted(serve: Serve) -> Serve:
    arrived = itertools.count(1)

    async def counting(request: bytes, context: Context) -> bytes:
        number = next(arrived)
        if number % COUNTED == 0:
            say(f"{number} calls")
        return await serve(request, context)

    return counting


async def main(kind: str, *numbers: str) -> None:
    kinds: dict[str, Serve] = {
        "answers": answers,
        "stalls": stalls,
        "refuses": fails("OVERLOADED"),
        "rude": fails("\x1b[2JBOO\n"),
    }
    serve = counted(kinds[kind] if kind in kinds else {"capped": capped, "slow": slow}[kind](*numbers))
    rpcs: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        name: grpc.unary_unary_rpc_method_handler(serve) for name in ("SyncLinkage", "BindAccount")
    }
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, rpcs),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    say(f"serving on 127.0.0.1:{port}")
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
