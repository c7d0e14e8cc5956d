"""`doctor live` names the step that fails on the way to AlipayHK, and what an answer proves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any, Final

import pytest

from service.commands.cli import main
from tests.alipayhk.upstream import relaying, replying
from tests.certificates import Authority
from tests.e2e.gateway import Settings
from tests.e2e.gateway import run as command
from tests.e2e.material import Material
from tests.e2e.upstream import Peer, Request, Response, Script, Upstream, listening
from tests.e2e.wallet import Wallet, compact, result
from tests.ports import free_port
from tests.raw_http import Listener

REFUSED: Final = result("F", "PARAM_ILLEGAL")
Found = dict[str, tuple[str, str]]
Examined = Callable[..., Awaitable[Found]]


def answering(calls: Script, ahead: timedelta = timedelta()) -> Script:
    """Tell the time to a HEAD, this much ahead of ours; leave the calls to another script."""

    async def script(request: Request, peer: Peer) -> None:
        if not request.line.startswith("HEAD "):
            await calls(request, peer)
        else:
            date = format_datetime(datetime.now(UTC) + ahead, usegmt=True)
            await peer.send(Response(404, (("Date", date),)).wire())

    return script


@pytest.fixture
def examined(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Examined:
    """Return a function that runs the command, and returns status and text of each check."""

    async def examine(settings: Settings, *flags: str, status: int) -> Found:
        with monkeypatch.context() as patched:
            for name, value in settings.items():
                patched.setenv(f"ALIPAYHK_{name}", value)
            assert await asyncio.to_thread(main, ["doctor", "live", "--json", *flags]) == status
        told = json.loads(capsys.readouterr().out)
        assert told["ok"] is (status == 0)
        return {
            f"{each['check']} {each['about']}": (each["status"], each["text"]) for each in told["checks"]
        }

    return examine


def failed(found: Found) -> list[tuple[str, str]]:
    return [
        (check.partition(" ")[0], text) for check, (status, text) in found.items() if status == "failed"
    ]


@asynccontextmanager
async def over_tls(
    settings: Settings, authority: Authority, calls: Script, **how: Any
) -> AsyncIterator[tuple[dict[str, str], Upstream]]:
    """Run an AlipayHK with TLS; yield the settings that reach it."""
    async with listening(authority.server_context()) as secure:
        secure.script = answering(calls, **how)
        yield {**settings, "BASE_URL": secure.url, "UPSTREAM_CA_FILE": str(authority.file)}, secure


async def test_every_step_to_a_server_that_answers_is_told(
    examined: Examined, settings: Settings, material: Material, wallet: Wallet
) -> None:
    async with over_tls(settings, material.upstream_ca, wallet.says(REFUSED)) as (given, secure):
        found = await examined(given, "--call", status=0)
        assert [line for line in secure.requests if line.line.startswith("POST")]
    url = given["BASE_URL"]
    assert found[f"DNS {url}"] == ("ok", "127.0.0.1 is 127.0.0.1")
    assert found[f"TCP {url}"] == ("ok", f"connected to 127.0.0.1:{secure.port}")
    assert found[f"TLS {url}"][1].startswith("TLSv1.3, the certificate has ")
    assert found[f"HTTP {url}"] == ("ok", "it answers HEAD / (HTTP 404; any status will do)")
    assert found[f"clock {url}"][0] == "ok"
    for api in ("SyncLinkage", "BindAccount"):
        status, text = found[f"call {api}"]
        assert status == "ok"
        assert text.startswith(
            "AlipayHK answers F PARAM_ILLEGAL, as it should to a request without content: "
        )


@pytest.mark.parametrize("refuses", [False, True])
async def test_proxy_is_a_step_of_its_own(
    examined: Examined, settings: Settings, material: Material, wallet: Wallet, *, refuses: bool
) -> None:
    refusing = replying(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
    async with (
        over_tls(settings, material.upstream_ca, wallet.says(REFUSED)) as (given, secure),
        Listener(refusing if refuses else relaying) as proxy,
    ):
        given["UPSTREAM_PROXY"] = proxy.url.replace("//", "//egress:p4ssw0rd@")
        found = await examined(given, status=int(refuses))
        await asyncio.gather(*proxy.tasks)
    assert proxy.requests[0].values("Proxy-Authorization") == ["Basic ZWdyZXNzOnA0c3N3MHJk"]
    assert "p4ssw0rd" not in str(found)
    if refuses:
        cause = "it requires a user and password: put them into UPSTREAM_PROXY (HTTP 407)"
        assert failed(found) == [("proxy", cause)]
    else:
        assert found[f"proxy {given['BASE_URL']}"] == ("ok", f"it connects to 127.0.0.1:{secure.port}")


async def test_step_that_fails_is_named(
    examined: Examined, settings: Settings, material: Material, wallet: Wallet
) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    found = await examined({**settings, "BASE_URL": url}, status=1)
    assert failed(found) == [("TCP", "Connection refused")]
    ((step, cause),) = failed(await examined({**settings, "BASE_URL": "https://a.invalid"}, status=1))
    assert (step, cause.partition(" (")[0]) == ("DNS", "the name cannot be resolved")
    async with over_tls(settings, material.upstream_ca, wallet.says(REFUSED)) as (given, _):
        given["UPSTREAM_CA_FILE"] = str(material.foreign_ca.file)
        ((step, cause),) = failed(await examined(given, status=1))
        assert (step, cause.partition(" (")[0]) == ("TLS", "the server's certificate is of an unknown CA")


@pytest.mark.parametrize(
    ("ahead_s", "status", "words"),
    [
        (3600, "failed", "s ahead of ours; 300 s are allowed"),
        (-3600, "failed", "s behind ours; 300 s are allowed"),
        (90, "warning", "s ahead of ours; 300 s are allowed"),
    ],
)
async def test_clock_is_compared_with_the_servers(
    examined: Examined,
    settings: Settings,
    upstream: Upstream,
    wallet: Wallet,
    ahead_s: int,
    status: str,
    words: str,
) -> None:
    upstream.script = answering(wallet.says(), timedelta(seconds=ahead_s))
    found = await examined(settings, status=int(status == "failed"))
    told, text = found[f"clock {upstream.url}"]
    assert told == status
    assert text.endswith(words)


async def test_call_tells_who_does_not_accept_whose_signature(
    examined: Examined, settings: Settings, upstream: Upstream, wallet: Wallet, material: Material
) -> None:
    def unsigned(_: Request) -> Response:
        return Response(200, body=compact(result("F", "INVALID_SIGNATURE")))

    async def refuses(request: Request, peer: Peer) -> None:
        await peer.send(unsigned(request).wire())

    upstream.script = answering(refuses)
    found = failed(await examined(settings, "--call", status=1))
    assert len(found) == 2
    assert all(
        text.startswith("AlipayHK answers INVALID_SIGNATURE, without a signature: it has")
        for _, text in found
    )
    upstream.script = answering(wallet.says(REFUSED))
    other = {**settings, "PUBLIC_KEY_FILES": f"1={material.unknown_key.public_file}"}
    found = failed(await examined(other, "--call", status=1))
    assert [text.partition(":")[0] for _, text in found] == ["SignatureInvalid"] * 2


async def test_keys_that_cannot_work_are_named(
    examined: Examined, settings: Settings, upstream: Upstream, wallet: Wallet, material: Material
) -> None:
    upstream.script = answering(wallet.says())
    files = {
        "1": material.theirs.public_file,
        "2": material.theirs.public_file,
        "3": material.ours.public_file,
    }
    given = {
        **settings,
        "PUBLIC_KEY_FILES": ",".join(f"{version}={file}" for version, file in files.items()),
    }
    found = await examined(given, status=1)
    assert [text.partition(":")[0] for _, text in failed(found)] == [
        f"version 3 ({material.ours.public_file}) is our own public key"
    ]
    assert ("warning", "is the same key as version 2") in found.values()


async def test_people_read_one_line_for_each_check(
    settings: Settings, upstream: Upstream, wallet: Wallet, material: Material
) -> None:
    upstream.script = answering(wallet.says())
    done = await command("doctor", "live", settings=settings)
    words = [line.split(maxsplit=2) for line in done.out.splitlines()]
    assert (done.status, done.err) == (0, "")
    assert [tuple(line[:2]) for line in words] == [
        ("ok", check) for check in ("keys", "keys", "keys", "DNS", "TCP", "HTTP", "clock")
    ]
    assert words[2][2].startswith(
        f"PUBLIC_KEY_FILES 1 ({material.theirs.public_file}): 2048 bits, SHA-256 "
    )


async def test_days_that_certificates_have_left_are_told(
    examined: Examined,
    settings: Settings,
    upstream: Upstream,
    material: Material,
    wallet: Wallet,
    tmp_path: Path,
) -> None:
    upstream.script = answering(wallet.says())
    server = material.callers_ca.issue("days", "127.0.0.1", days=(-1, 100))
    # Of AlipayHK's CAs the last one counts.
    bundle = tmp_path / "bundle.pem"
    each = [material.foreign_ca.issue(f"{days}", "127.0.0.1", days=(-1, days)).chain for days in (20, 200)]
    bundle.write_bytes(b"".join(each))
    tls = {"TLS_CERT_FILE": str(server.chain_file), "TLS_KEY_FILE": str(server.key_file)}
    found = await examined({**settings, **tls, "UPSTREAM_CA_FILE": str(bundle)}, status=0)
    assert found[f"certificates TLS_CERT_FILE ({server.chain_file})"] == ("ok", "99 days left")
    assert found[f"certificates UPSTREAM_CA_FILE ({bundle})"] == ("ok", "199 days left")


async def test_settings_that_cannot_be_used_are_all_named(settings: Settings) -> None:
    done = await command("doctor", "live", settings={**settings, "BASE_URL": "ftp://x", "WORKERS": "0"})
    assert done.status == 78
    assert "BASE_URL" in done.err
    assert "WORKERS" in done.err
