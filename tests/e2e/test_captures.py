"""Exchanges that an operator must examine are captured, sealed; a full disk costs a capture, no outcome."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from clients.alipayhk.captured import Capture, CaptureUnreadable, open_capture
from service.commands.cli import main
from tests import disks
from tests.e2e.caller import Reported, call
from tests.e2e.conftest import Run
from tests.e2e.gateway import WAIT_MAX_S, Gateway, channel_to
from tests.e2e.gateway import run as command
from tests.e2e.material import Material
from tests.e2e.samples import APIS, BIND, SYNC, Api
from tests.e2e.test_privacy import FRAGMENTS, MARKS, check_clean, marked
from tests.e2e.upstream import Response, Script, Upstream, responds
from tests.e2e.wallet import Wallet, compact, result
from tests.ports import free_port

Capturing = Callable[..., AbstractAsyncContextManager[Gateway]]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return the directory of the captures."""
    (place := tmp_path / "captures").mkdir()
    return place


@pytest.fixture
def capturing(run: Run, place: Path, material: Material) -> Capturing:
    """Return a function that runs a gateway that captures for the owner of `unknown_key`."""

    @asynccontextmanager
    async def running(**more: str) -> AsyncIterator[Gateway]:
        given = {"CAPTURE_DIR": str(place), "CAPTURE_RECIPIENT_FILE": str(material.unknown_key.public_file)}
        async with run({**given, **more}) as gateway:
            yield gateway

    return running


def captures(place: Path) -> list[Path]:
    assert {file.suffix for file in place.iterdir()} == {".capture"}
    return sorted(place.iterdir())


async def captured(gateway: Gateway, place: Path, api: Api, **members: Any) -> tuple[Any, dict[str, Any]]:
    """Make a call; return its result and the log line that names its capture."""
    request = marked(api, **members)
    outcome = await call(gateway.channel, api, request)
    line = await gateway.logged(
        lambda record: record.get("request_id") == request.request_id and "capture" in record
    )
    return outcome, line


def opened(file: Path, material: Material) -> Capture:
    return open_capture(json.loads(file.read_bytes()), material.unknown_key.key)


def tampered(wallet: Wallet) -> Script:
    async def script(request: Any, peer: Any) -> None:
        right = wallet.right(request)
        await peer.send(right.but(body=right.body.replace(b'"S"', b'"F"')).wire())

    return script


def bodies(capture: Capture) -> dict[str, bytes]:
    return {each["message"]: base64.b64decode(each["body_base64"]) for each in capture.exchanges}


@pytest.mark.parametrize("api", APIS, ids=str)
async def test_exchange_with_an_invalid_signature_is_captured_whole_and_sealed(
    capturing: Capturing, place: Path, upstream: Upstream, wallet: Wallet, material: Material, api: Api
) -> None:
    async with capturing() as gateway:
        upstream.script = tampered(wallet)
        outcome, line = await captured(gateway, place, api)
        assert outcome.info.reason == "RESPONSE_SIGNATURE_INVALID"
        assert line["event"] == "attempt"
        await check_clean(gateway)
    (file,) = captures(place)
    assert file.name == line["capture"]
    assert oct(file.stat().st_mode & 0o777) == "0o600"
    assert not [mark for mark in FRAGMENTS if mark.encode() in file.read_bytes()]
    capture = opened(file, material)
    assert capture.facts["end"] == "SignatureInvalid"
    assert bodies(capture)["request"] == upstream.requests[0].body
    assert b'"F"' in bodies(capture)["response"]
    assert {each["path"] for each in capture.exchanges} == {upstream.requests[0].target}
    with pytest.raises(CaptureUnreadable, match="sealed for another key"):
        open_capture(json.loads(file.read_bytes()), material.ours.key)


async def test_signed_response_that_cannot_be_read_is_captured(
    capturing: Capturing, place: Path, upstream: Upstream, wallet: Wallet, material: Material
) -> None:
    async with capturing() as gateway:
        upstream.script = responds(lambda request: wallet.signed(request, b'{"result":'))
        outcome, _ = await captured(gateway, place, SYNC)
        assert outcome.info.reason == "RESPONSE_MALFORMED"
        upstream.script = responds(lambda _: Response(502, (), b"<html>"))
        assert isinstance(await call(gateway.channel, SYNC, marked(SYNC), timeout_s=1.5), Reported)
        await check_clean(gateway)
    (file,) = captures(place)
    assert opened(file, material).facts["end"] == "Malformed"
    assert bodies(opened(file, material))["response"] == b'{"result":'


async def test_refusals_of_the_gateway_and_unsigned_responses_are_captured_and_others_are_not(
    capturing: Capturing, place: Path, upstream: Upstream, wallet: Wallet, material: Material
) -> None:
    async with capturing() as gateway:
        upstream.script = wallet.says(result("F", "INVALID_CLIENT"))
        outcome, line = await captured(gateway, place, SYNC)
        assert (outcome.info.reason, line["result_code"]) == ("GATEWAY_REFUSED", "INVALID_CLIENT")
        upstream.script = unsigned
        outcome, line = await captured(gateway, place, BIND)
        assert outcome.info.reason == "RESPONSE_UNSIGNED"
        upstream.script = wallet.says(result("F", "USER_NOT_EXIST"))
        assert isinstance(await call(gateway.channel, SYNC, marked(SYNC)), Reported)
        upstream.script = wallet.says()
        assert not isinstance(await call(gateway.channel, SYNC, marked(SYNC)), Reported)
    assert [opened(file, material).facts["end"] for file in captures(place)] == ["ResultError", "Unsigned"]


def moved(place: Path) -> None:
    place.rename(place.with_name("moved"))


async def unsigned(_: Any, peer: Any, code: str = "INVALID_SIGNATURE") -> None:
    body = compact(result("S" if code == "SUCCESS" else "F", code))
    await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))


async def test_capture_is_diagnosed_and_can_be_shared_without_personal_data(
    capturing: Capturing,
    place: Path,
    upstream: Upstream,
    wallet: Wallet,
    material: Material,
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with capturing() as gateway:
        upstream.script = replace(wallet, key=material.theirs_next.key).says(marked_body())
        outcome, _ = await captured(gateway, place, SYNC)
        assert outcome.info.reason == "RESPONSE_SIGNATURE_INVALID"
    (file,) = captures(place)
    words = ["doctor", "message", str(file), "--public-key-files", f"1={material.theirs.public_file}"]
    assert main(words) == os.EX_CONFIG
    assert "name its recipient's private key with --capture-key" in capsys.readouterr().err
    words += ["--capture-key", str(material.unknown_key.private_file)]
    shares = {flag: place.parent / flag for flag in ("--share", "--share-unmasked")}
    assert main([*words, *(str(word) for pair in shares.items() for word in pair)]) == 1
    out = capsys.readouterr().out
    assert out.startswith("invalid (wrong_key): ")
    masked, unmasked = (json.loads(share.read_text("utf-8")) for share in shares.values())
    assert masked["causes"] == ["wrong_key"]
    assert masked["tracer_id"]
    assert list(masked["keys_sha256"]) == ["1"]
    text = str(masked) + bytes.fromhex(masked["content_to_sign"]["hex"]).decode()
    assert not [mark for mark in FRAGMENTS if mark in text + out]
    assert [mark for mark in FRAGMENTS if mark in unmasked["content_to_sign"]["text"]]
    assert unmasked["personal_data"]
    assert "signed_digest" not in masked
    assert "\nmessage: response, header_signed\n" in out
    of_request = place.parent / "of request"
    words += ["--own-key-file", str(material.theirs.private_file)]
    assert main([*words, "--message", "request", "--share", str(of_request)]) == 1
    assert "\nmessage: request, header_signed\n" in capsys.readouterr().out
    assert json.loads(of_request.read_text("utf-8"))["tracer_id"] == masked["tracer_id"]
    assert main([*words, "--share", str(shares["--share"])]) == os.EX_CONFIG
    assert "cannot be written: File exists" in capsys.readouterr().err


async def test_capture_shows_the_message_in_question(
    capturing: Capturing,
    place: Path,
    upstream: Upstream,
    material: Material,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It is the request if AlipayHK says that it refused it, even if unsigned, and else the response."""
    said = {
        "INVALID_SIGNATURE": (
            "valid: ",
            "request",
            "AlipayHK refused it with INVALID_SIGNATURE, so it has",
        ),
        "SUCCESS": ("undecided: The message has no signature ", "response", "fix: If it is a response, "),
    }
    async with capturing() as gateway:
        for code in said:
            upstream.script = partial(unsigned, code=code)
            await captured(gateway, place, BIND)
    for file, (verdict, message, fix) in zip(captures(place), said.values(), strict=True):
        words = ["doctor", "message", str(file), "--capture-key", str(material.unknown_key.private_file)]
        assert main([*words, "--public-key-files", f"1={material.ours.public_file}"]) in {0, 1}
        out = capsys.readouterr().out
        assert out.startswith(verdict)
        assert f"\nmessage: {message}, envelope_signed\n" in out
        assert fix in out


def marked_body() -> dict[str, object]:
    return result() | {"externalIdentityValue": MARKS["external_identity_value"]}


async def test_capture_next_captures_so_many_good_exchanges(
    capturing: Capturing, place: Path, upstream: Upstream, wallet: Wallet
) -> None:
    async with capturing() as gateway:
        upstream.script = wallet.says()
        done = await command("capture", "next", "2", settings=gateway.settings)
        assert (done.status, done.err) == (0, "")
        await gateway.logged(lambda record: record["event"] == "capture next" and record["count"] == 2)
        for _ in range(2):
            _, line = await captured(gateway, place, SYNC)
            assert line["event"] == "exchange captured"
        await call(gateway.channel, SYNC, marked(SYNC))
    assert len(captures(place)) == 2


async def test_any_worker_captures_the_next_exchanges(
    capturing: Capturing, place: Path, upstream: Upstream, wallet: Wallet
) -> None:
    upstream.script = wallet.says()
    async with capturing(WORKERS="2", LISTEN=f"127.0.0.1:{free_port()}") as gateway:
        await gateway.wait_for_workers(2)
        assert (await command("capture", "next", "3", settings=gateway.settings)).status == 0
        async with asyncio.timeout(WAIT_MAX_S):
            while sum(line["event"] == "exchange captured" for line in gateway.records) < 3:
                async with channel_to(gateway.address) as channel:  # the system chooses its worker
                    await call(channel, SYNC, marked(SYNC))
        for _ in range(4):
            async with channel_to(gateway.address) as channel:
                await call(channel, SYNC, marked(SYNC))
    assert len(captures(place)) == 3


async def test_oldest_captures_go(
    capturing: Capturing, place: Path, upstream: Upstream, wallet: Wallet
) -> None:
    async with capturing(CAPTURE_FILES_MAX="2") as gateway:
        upstream.script = tampered(wallet)
        names = [(await captured(gateway, place, SYNC))[1]["capture"] for _ in range(4)]
    assert [file.name for file in captures(place)] == names[-2:]


async def test_directory_that_cannot_be_written_costs_no_outcome(
    capturing: Capturing, place: Path, upstream: Upstream, wallet: Wallet
) -> None:
    async with capturing() as gateway:
        upstream.script = tampered(wallet)
        moved(place)
        outcome, line = await captured(gateway, place, SYNC)
        assert outcome.info.reason == "RESPONSE_SIGNATURE_INVALID"
        lost = await gateway.logged(lambda record: record["event"] == "capture not written")
        assert (lost["capture"], lost["cause"]) == (line["capture"], "No such file or directory")
        upstream.script = wallet.says()
        assert not isinstance(await call(gateway.channel, SYNC, marked(SYNC)), Reported)


async def test_full_disk_costs_captures_and_no_outcome(
    capturing: Capturing, upstream: Upstream, wallet: Wallet, tmp_path: Path
) -> None:
    with disks.small(tmp_path / "disk") as disk:
        if disk is None:
            pytest.skip("no file system can be mounted here")
        async with capturing(CAPTURE_DIR=str(disk)) as gateway:
            upstream.script = tampered(wallet)
            filler = disks.fill(disk)
            outcome, _ = await captured(gateway, disk, BIND)
            assert outcome.info.reason == "RESPONSE_SIGNATURE_INVALID"
            lost = await gateway.logged(lambda record: record["event"] == "capture not written")
            assert lost["cause"] == "No space left on device"
            assert list(disk.iterdir()) == [filler]
            filler.unlink()
            await captured(gateway, disk, SYNC)
        assert len(captures(disk)) == 1


async def test_settings_and_arguments_are_checked(settings: dict[str, str], place: Path) -> None:
    only = {**settings, "CAPTURE_DIR": str(place)}
    done = await command("config", "check", settings=only)
    assert "CAPTURE_DIR and CAPTURE_RECIPIENT_FILE must be set together" in done.err
    done = await command("config", "check", settings={**settings, "CAPTURE_DIR": str(place / "none")})
    assert "CAPTURE_DIR must be a directory that exists" in done.err
    assert (await command("capture", "next", "0", settings=settings)).status == os.EX_CONFIG
    done = await command("capture", "next", "1", settings=settings)
    assert "CAPTURE_DIR is not set" in done.err
