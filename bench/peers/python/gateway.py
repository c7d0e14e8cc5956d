"""A gateway as a user of Python would write it: SyncLinkage, without a ledger, metrics and log.

With `--fast` it uses uvloop and orjson.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import aiohttp
import grpc
import orjson
import uvloop
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from alipayhk.linkage.v1 import linkage_service_pb2 as pb
from alipayhk.linkage.v1 import linkage_service_pb2_grpc as pb_grpc

OPERATE_TYPES = {pb.OPERATE_TYPE_BIND: "BIND", pb.OPERATE_TYPE_UNBIND: "UNBIND"}
IDENTITY_TYPES = {pb.EXTERNAL_IDENTITY_TYPE_UID: "UID", pb.EXTERNAL_IDENTITY_TYPE_PHONE: "PHONE"}
TARGET_TYPES = {
    pb.BINDING_TARGET_TYPE_USER_ID: "USER_ID",
    pb.BINDING_TARGET_TYPE_CARD: "CARD",
    pb.BINDING_TARGET_TYPE_PHONE: "PHONE",
}


def json_bytes(members: object) -> bytes:
    """Write JSON with the standard library."""
    return json.dumps(members, ensure_ascii=False, separators=(",", ":")).encode()


class Linkage(pb_grpc.LinkageServiceServicer):
    """The service."""

    def __init__(self, args: argparse.Namespace, session: aiohttp.ClientSession) -> None:
        self.session = session
        self.path, self.client_id = args.path, args.client_id
        self.url = args.base_url + args.path
        key = serialization.load_pem_private_key(args.signing_key.read_bytes(), None)
        public = serialization.load_pem_public_key(args.public_key.read_bytes())
        assert isinstance(key, rsa.RSAPrivateKey)
        assert isinstance(public, rsa.RSAPublicKey)
        self.key, self.public = key, public
        self.dumps: Callable[[object], bytes] = orjson.dumps if args.fast else json_bytes
        self.loads: Callable[[bytes], Any] = orjson.loads if args.fast else json.loads

    async def SyncLinkage(  # noqa: N802
        self,
        request: pb.SyncLinkageRequest,
        context: grpc.aio.ServicerContext[pb.SyncLinkageRequest, pb.SyncLinkageResponse],
    ) -> pb.SyncLinkageResponse:
        """Sign, post, verify and reply."""
        members = {
            "requestId": request.request_id,
            "bizTime": request.biz_time.ToMilliseconds(),
            "bizType": "BINDING_SYNC",
            "externalBindingId": request.external_binding_id or None,
            "operateType": OPERATE_TYPES[request.operate_type],
            "externalIdentityType": IDENTITY_TYPES[request.external_identity_type],
            "externalIdentityValue": request.external_identity_value,
            "userId": request.user_id,
            "bindingTargetType": TARGET_TYPES[request.binding_target_type],
            "bindingTarget": request.binding_target or None,
        }
        body = self.dumps({name: value for name, value in members.items() if value is not None})
        time = datetime.now(UTC).isoformat(timespec="seconds")
        content = self.signed(self.client_id, time, body)
        signature = base64.b64encode(self.key.sign(content, padding.PKCS1v15(), hashes.SHA256())).decode()
        headers = {
            "Client-Id": self.client_id,
            "Content-Type": "application/json; charset=UTF-8",
            "Request-Time": time,
            "Signature": f"algorithm=RSA256,keyVersion=1,signature={quote(signature, safe='')}",
        }
        async with self.session.post(self.url, data=body, headers=headers) as response:
            answer = await response.read()
        time = response.headers["Response-Time"]
        text = response.headers["Signature"].partition("signature=")[2]
        content = self.signed(response.headers["Client-Id"], time, answer)
        self.public.verify(base64.b64decode(unquote(text)), content, padding.PKCS1v15(), hashes.SHA256())
        result = self.loads(answer)["result"]
        if result["resultStatus"] != "S":
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, result["resultCode"])
        reply = pb.SyncLinkageResponse(
            result=pb.Result(
                status=result["resultStatus"], code=result["resultCode"], message=result["resultMessage"]
            ),
            tracer_id=response.headers["Tracer-Id"],
        )
        reply.response_time.FromDatetime(datetime.fromisoformat(time))
        return reply

    def signed(self, client_id: str, time: str, body: bytes) -> bytes:
        """Return the content that a signature covers."""
        return f"POST {self.path}\n{client_id}.{time}.".encode() + body


async def serve(args: argparse.Namespace) -> None:
    """Serve until the process is stopped."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=4)) as session:
        server = grpc.aio.server()
        pb_grpc.add_LinkageServiceServicer_to_server(Linkage(args, session), server)  # type: ignore[no-untyped-call]
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        print(f"listening on 127.0.0.1:{port}", flush=True)
        await server.wait_for_termination()


def main() -> None:
    """Parse the command line and serve."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--base-url", required=True)
    parser.add_argument("--path", required=True)
    parser.add_argument("--client-id", required=True)
    parser.add_argument("--signing-key", type=Path, required=True)
    parser.add_argument("--public-key", type=Path, required=True)
    parser.add_argument("--fast", action="store_true")
    args = parser.parse_args()
    (uvloop.run if args.fast else asyncio.run)(serve(args))


if __name__ == "__main__":
    main()
