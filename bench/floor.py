"""The parts that no gateway in Python can avoid, one per command: `python -m bench.floor PART ...`.

`echo` serves SyncLinkage on uvloop with a constant response, until it is stopped. The others do one thing
for some seconds and print its CPU time in microseconds.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import aiohttp
import grpc
import uvloop
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from alipayhk.linkage.v1 import linkage_service_pb2 as pb
from alipayhk.linkage.v1 import linkage_service_pb2_grpc as pb_grpc
from tests.e2e.samples import sync_body

CONTENT: Final = sync_body("bench-000000000001")
IN_FLIGHT: Final = 16


class Echo(pb_grpc.LinkageServiceServicer):
    """Returns a constant."""

    async def SyncLinkage(  # noqa: N802
        self,
        request: pb.SyncLinkageRequest,
        context: grpc.aio.ServicerContext[pb.SyncLinkageRequest, pb.SyncLinkageResponse],
    ) -> pb.SyncLinkageResponse:
        """Return a response of the usual size."""
        del request, context
        result = pb.Result(status="S", code="SUCCESS", message="success")
        return pb.SyncLinkageResponse(result=result, tracer_id="bench00000000000000000001")


async def echo() -> None:
    """Serve until the process is stopped."""
    server = grpc.aio.server()
    pb_grpc.add_LinkageServiceServicer_to_server(Echo(), server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"listening on 127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


async def posts(url: str, seconds: float, *, fresh: bool) -> float:
    """POST concurrently; return the CPU time per request."""
    requests = 0

    async def work(session: aiohttp.ClientSession, until: float) -> None:
        nonlocal requests
        while time.monotonic() < until:
            async with session.post(url, data=CONTENT, headers={"Signature": "x" * 380}) as response:
                await response.read()
            requests += 1

    connector = aiohttp.TCPConnector(force_close=fresh)
    async with aiohttp.ClientSession(connector=connector) as session:
        await work(session, time.monotonic() + seconds / 4)
        requests, before = 0, time.process_time()
        until = time.monotonic() + seconds
        await asyncio.gather(*(work(session, until) for _ in range(IN_FLIGHT)))
        return (time.process_time() - before) / requests * 1e6


def repeated(operation: Callable[[], object], seconds: float) -> float:
    """Repeat an operation; return its CPU time."""
    operation()
    count, before, until = 0, time.process_time(), time.monotonic() + seconds
    while time.monotonic() < until:
        operation()
        count += 1
    return (time.process_time() - before) / count * 1e6


def main() -> None:
    """Run one part."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parts = ("echo", "post", "post-fresh", "sign", "verify", "wrap", "unwrap")
    parser.add_argument("part", choices=parts)
    parser.add_argument("--url", help="of the upstream, for post")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--signing-key", type=Path)
    parser.add_argument("--public-key", type=Path)
    args = parser.parse_args()
    if args.part == "echo":
        uvloop.run(echo())
    elif args.part.startswith("post"):
        fresh = args.part == "post-fresh"
        print(uvloop.run(posts(args.url, args.seconds, fresh=fresh)))
    else:
        print(repeated(operations(args)[args.part], args.seconds))


def operations(args: argparse.Namespace) -> dict[str, Callable[[], object]]:
    """Return the operations with an RSA key: `public_key` is the one of `signing_key`."""
    private = serialization.load_pem_private_key(args.signing_key.read_bytes(), None)
    public = serialization.load_pem_public_key(args.public_key.read_bytes())
    assert isinstance(private, rsa.RSAPrivateKey)
    assert isinstance(public, rsa.RSAPublicKey)
    pkcs1, sha256 = padding.PKCS1v15(), hashes.SHA256()
    signature, wrapped = private.sign(CONTENT, pkcs1, sha256), public.encrypt(bytes(32), pkcs1)
    return {
        "sign": lambda: private.sign(CONTENT, pkcs1, sha256),
        "verify": lambda: public.verify(signature, CONTENT, pkcs1, sha256),
        "wrap": lambda: public.encrypt(bytes(32), pkcs1),
        "unwrap": lambda: private.decrypt(wrapped, pkcs1),
    }


if __name__ == "__main__":
    main()
