"""Settings that change the requests or how responses are read, each tested with AlipayHK's side."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from grpc import StatusCode

from tests.e2e import caller
from tests.e2e.caller import alarm, not_sent, rejected
from tests.e2e.conftest import Rpc, Run
from tests.e2e.gateway import Gateway
from tests.e2e.material import Material
from tests.e2e.samples import APIS, BIND, SYNC, at
from tests.e2e.test_forged_responses import shifted
from tests.e2e.test_validation import now_s
from tests.e2e.upstream import Request, Response, Upstream, listening, responds
from tests.e2e.wallet import Wallet, head_of, result


async def test_two_products_have_their_own_hosts_client_ids_and_keys(
    run: Run, upstream: Upstream, wallet: Wallet, material: Material
) -> None:
    bills = Wallet(material.theirs.key, material.ours_for_bills.key.public_key(), client_id="BILLS-4711")
    async with listening() as other:
        settings = {
            "BIND_ACCOUNT_BASE_URL": other.url,
            "BIND_ACCOUNT_CLIENT_ID": bills.client_id,
            "BIND_ACCOUNT_SIGNING_KEY_FILE": str(material.ours_for_bills.private_file),
        }
        async with run(settings) as gateway:
            other.script = bills.says()
            await Rpc(SYNC, gateway, upstream, wallet, idempotent=True).accepted()
            assert other.requests == []
            await Rpc(BIND, gateway, other, bills, idempotent=False).accepted()
            assert len(upstream.requests) == 1


async def test_function_version_and_key_version_are_settings(
    run: Run, upstream: Upstream, wallet: Wallet
) -> None:
    settings = {
        "BIND_ACCOUNT_FUNCTION": "alipay.hk.bind",
        "BIND_ACCOUNT_VERSION": "2.0.0",
        "SIGNING_KEY_VERSION": "7",
    }
    upstream.script = responds(wallet.signed)
    async with run(settings) as gateway:
        for api in APIS:
            await caller.accepted(gateway.channel, api, api.request())
    sync, bind = upstream.requests
    assert sync.header("Signature").startswith("algorithm=RSA256,keyVersion=7,signature=")
    assert (head_of(bind)["function"], head_of(bind)["version"]) == ("alipay.hk.bind", "2.0.0")


@asynccontextmanager
async def rotating(run: Run, material: Material) -> AsyncIterator[Gateway]:
    """Run a gateway with two public keys of AlipayHK."""
    files = f"1={material.theirs.public_file},10={material.theirs_next.public_file}"
    async with run({"PUBLIC_KEY_FILES": files}) as gateway:
        yield gateway


async def test_both_public_keys_are_accepted_during_rotation(
    run: Run, upstream: Upstream, wallet: Wallet, material: Material
) -> None:
    newer = wallet.but(key=material.theirs_next.key, key_version="10")
    async with rotating(run, material) as gateway:
        for api in APIS:
            for signer in (wallet, newer):
                upstream.reset(responds(lambda request, signer=signer: signer.signed(request)))  # type: ignore[misc]
                await Rpc(api, gateway, upstream, wallet, idempotent=api is SYNC).accepted()
        rpc = Rpc(SYNC, gateway, upstream, wallet, idempotent=True)
        await _versions(rpc, newer)


async def _versions(rpc: Rpc, newer: Wallet) -> None:
    """Check that a header without a version uses the newest key, and that a wrong version is refused."""

    def unnamed(request: Request) -> Response:
        response = newer.signed(request)
        return response.setting("Signature", response.header("Signature").replace("keyVersion=10,", ""))

    rpc.upstream.reset(responds(unnamed))
    await rpc.accepted()
    for wrong in (newer.but(key_version="1"), newer.but(key_version="9"), rpc.wallet.but(key_version="10")):
        rpc.upstream.requests.clear()
        script = responds(lambda request, wrong=wrong: wrong.signed(request))  # type: ignore[misc]
        await rpc.refused(script, alarm("RESPONSE_SIGNATURE_INVALID"))


@pytest.mark.parametrize(("age_s", "passes"), [(5, False), (0, True)])
async def test_response_time_window_is_a_setting(
    run: Run, upstream: Upstream, wallet: Wallet, age_s: int, passes: bool
) -> None:
    async with run({"RESPONSE_TIME_WINDOW_S": "2"}) as gateway:
        for api in (BIND, SYNC):  # in this order: a response outside the window stops BindAccount
            rpc = Rpc(api, gateway, upstream, wallet, idempotent=api is SYNC)
            upstream.requests.clear()
            script = responds(lambda request: wallet.signed(request, time=shifted(seconds=-age_s)))
            if passes:
                await rpc.accepted(script)
            else:
                await rpc.refused(script, alarm("RESPONSE_REPLAYED"))


async def test_biz_time_ahead_is_a_setting(run: Run, upstream: Upstream) -> None:
    expected = not_sent(StatusCode.INVALID_ARGUMENT, "BIZ_TIME_IN_FUTURE", "new_request_id")
    async with run({"BIZ_TIME_AHEAD_S": "10"}) as gateway:
        request = SYNC.request(biz_time=at(now_s() + 60))
        await caller.refused(gateway.channel, SYNC, request, expected)
        await caller.accepted(gateway.channel, SYNC, SYNC.request(biz_time=at(now_s())))


async def test_result_codes_file_adds_rows_for_one_rpc(
    run: Run, upstream: Upstream, wallet: Wallet, tmp_path: Path
) -> None:
    rows = tmp_path / "codes.toml"
    rows.write_text('[BindAccount]\nBILL_NOT_FOUND = "NOT_FOUND"\nPARAM_ILLEGAL = "OUT_OF_RANGE"\n')
    meanings = {
        (BIND, "BILL_NOT_FOUND"): StatusCode.NOT_FOUND,
        (BIND, "PARAM_ILLEGAL"): StatusCode.OUT_OF_RANGE,
        (SYNC, "BILL_NOT_FOUND"): StatusCode.FAILED_PRECONDITION,
        (SYNC, "PARAM_ILLEGAL"): StatusCode.INVALID_ARGUMENT,
    }
    async with run({"RESULT_CODES_FILE": str(rows)}) as gateway:
        for (api, code), meaning in meanings.items():
            upstream.requests.clear()
            rpc = Rpc(api, gateway, upstream, wallet, idempotent=api is SYNC)
            await rpc.refused(wallet.says(result("F", code)), rejected(meaning))


@dataclass
class Proxy:
    """An egress proxy for CONNECT, with the heads of the requests that it received."""

    asked: list[bytes] = field(default_factory=list)
    refuses: bool = False
    port: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Tunnel one connection."""
        head = await reader.readuntil(b"\r\n\r\n")
        self.asked.append(head)
        host, _, port = head.split(b" ")[1].decode().rpartition(":")
        if self.refuses:
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            writer.close()
            return
        there, back = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(_pump(reader, back), _pump(there, writer))


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(4096):
            sink.write(data)
    except OSError:
        pass
    finally:
        sink.close()


@asynccontextmanager
async def proxied(
    run: Run, material: Material, wallet: Wallet
) -> AsyncIterator[tuple[Proxy, Upstream, Gateway]]:
    """Run a gateway that connects to AlipayHK over TLS and through a proxy."""
    proxy = Proxy()
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    async with listening(material.upstream_ca.server_context()) as secure:
        secure.script = wallet.says()
        settings = {
            "BASE_URL": secure.url,
            "UPSTREAM_CA_FILE": str(material.upstream_ca.file),
            "UPSTREAM_PROXY": f"http://egress:p4ssw0rd@127.0.0.1:{proxy.port}",
            "DEFAULT_DEADLINE_S": "1.5",
        }
        async with run(settings) as gateway:
            yield proxy, secure, gateway
            assert not [line for line in gateway.out + gateway.err if "p4ssw0rd" in line]
    server.close()


async def test_egress_proxy_is_used_and_sees_no_content(
    run: Run, material: Material, wallet: Wallet
) -> None:
    async with proxied(run, material, wallet) as (proxy, secure, gateway):
        await Rpc(SYNC, gateway, secure, wallet, idempotent=True).accepted()
        (asked,) = proxy.asked
        assert asked.startswith(f"CONNECT 127.0.0.1:{secure.port} HTTP/1.1\r\n".encode())
        assert b"Proxy-Authorization: Basic " in asked
        assert b"Signature" not in asked


async def test_proxy_that_refuses_is_unreachable(run: Run, material: Material, wallet: Wallet) -> None:
    async with proxied(run, material, wallet) as (proxy, secure, gateway):
        proxy.refuses = True
        for api in APIS:
            expected = not_sent(StatusCode.UNAVAILABLE, "UPSTREAM_UNREACHABLE")
            await caller.refused(gateway.channel, api, api.request(), expected, timeout_s=None)
        assert secure.connections == 0
