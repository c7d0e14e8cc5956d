"""`alipayhk-gateway doctor live`: check what `serve` will meet, from the keys to AlipayHK's clock."""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

from clients.alipayhk.client import Client
from clients.alipayhk.route_check import Step, steps_to
from clients.alipayhk.tls import context_of
from clients.alipayhk.transport import Attempt
from clients.alipayhk.wire.endpoint import Endpoint
from clients.alipayhk.wire.errors import AnswerError, CallError, ResultError, Unsigned
from clients.alipayhk.wire.keys import fingerprint

from ...config.certificate_files import expiry_times
from ...config.files import path_of
from ...config.risks import ABOUT_TO_EXPIRE, Breaking, risks_of
from ...config.settings import Settings, SettingsError, read_from_environment
from ...outcomes.result_codes import CONFIGURATION_CODES
from ...server.tls import certificate_of
from ...telemetry.logs import code_text
from ...upstream import CONNECT_TIMEOUT_S, endpoints_of, transport_of
from ..options import add_config, refuse
from .refusals import HINTS, OTHER_HINT

SKEW_S: Final = 30.0
"""A larger difference between AlipayHK's clock and ours is a warning."""
EMPTY: Final = b"{}"
"""The content of the call of `--call`: it lacks every required field, so AlipayHK cannot act on it."""
CLOSES_S: Final = 0.25
"""aiohttp closes TLS connections in the background: https://docs.aiohttp.org/en/stable/client_advanced.html."""


class Status(StrEnum):
    """What a check found."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """One check."""

    check: str
    """keys, certificates, settings, clock or call; or a step of the connection, such as DNS or TLS."""
    about: str
    """The setting, base URL or API that was checked."""
    status: Status
    text: str


def configure(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "live",
        help="check the keys, the connection to AlipayHK and its clock",
        description="Exit status: 0 all is well, 1 a check failed, 78 the settings cannot be used.",
    )
    add_config(parser)
    parser.add_argument(
        "--call", action="store_true", help="also make one signed call to each API, without content"
    )
    parser.add_argument("--json", action="store_true", help="write JSON")
    parser.set_defaults(act=_act)


def _act(args: argparse.Namespace) -> int:
    """Check everything; print each finding as soon as it is known."""
    try:
        settings = read_from_environment(args.config)
    except SettingsError as error:
        return refuse(error.faults)
    found = []
    for finding in _findings(settings, call=args.call):
        found.append(finding)
        if not args.json:
            print(f"{finding.status:<8} {finding.check:<12} {finding.about}: {finding.text}", flush=True)
    failed = any(finding.status is Status.FAILED for finding in found)
    if args.json:
        print(json.dumps({"ok": not failed, "checks": [asdict(finding) for finding in found]}, indent=2))
    return int(failed)


def _findings(settings: Settings, *, call: bool) -> Iterator[Finding]:
    now = datetime.now(UTC)
    endpoints = endpoints_of(settings)
    yield from _keys(settings, endpoints)
    yield from _certificates(settings, now)
    for risk in risks_of(settings, now):
        status = Status.FAILED if isinstance(risk, Breaking) else Status.WARNING
        name, _, sentence = risk.partition(" ")
        yield Finding("settings", name, status, sentence)
    for base_url in dict.fromkeys(endpoint.base_url for endpoint in endpoints.values()):
        yield from _connection(settings, base_url)
    if call:
        yield from asyncio.run(_calls(settings, endpoints.values()))


def _keys(settings: Settings, endpoints: Mapping[str, Endpoint]) -> Iterator[Finding]:
    """Yield the fingerprints, to compare with AlipayHK, and the keys that two versions have in common."""
    for api, endpoint in endpoints.items():
        key = endpoint.keys.signing.public_key()
        words = f"version {endpoint.keys.signing_version}, {key.key_size} bits, SHA-256 {fingerprint(key)}"
        yield Finding("keys", f"{api}: our signing key", Status.OK, words)
    seen: dict[str, str] = {}
    for version, file in settings.public_key_files.items():
        words = fingerprint(file.key)
        about = f"PUBLIC_KEY_FILES {version} ({file.path})"
        if words in seen:
            yield Finding("keys", about, Status.WARNING, f"is the same key as version {seen[words]}")
        else:
            yield Finding("keys", about, Status.OK, f"{file.key.key_size} bits, SHA-256 {words}")
        seen.setdefault(words, version)


def _certificates(settings: Settings, now: datetime) -> Iterator[Finding]:
    """Yield the days that the certificates of each file are valid, unless `risks_of` names them."""
    for name, time in expiry_times(certificate_of(settings), settings.upstream_ca_file).items():
        left = datetime.fromtimestamp(time, UTC) - now
        if left >= ABOUT_TO_EXPIRE:
            path = path_of(getattr(settings, name.lower()))
            yield Finding("certificates", f"{name} ({path})", Status.OK, f"{left.days} days left")


def _connection(settings: Settings, base_url: str) -> Iterator[Finding]:
    """Yield each step to a base URL, and what its last one says of the clocks."""
    timeout_s = max(CONNECT_TIMEOUT_S, settings.upstream_timeout_s)
    tls = context_of(path_of(settings.upstream_ca_file))
    for step in steps_to(base_url, proxy=settings.upstream_proxy, tls=tls, timeout_s=timeout_s):
        yield _of_step(step, base_url)
        if step.name == "HTTP" and not step.failed:
            yield _clock(step, base_url, settings.response_time_window_s)


def _of_step(step: Step, base_url: str) -> Finding:
    if step.failed or step.expires is None:
        return Finding(step.name, base_url, Status.FAILED if step.failed else Status.OK, step.text)
    left = step.expires - datetime.now(UTC)
    status = Status.WARNING if left < ABOUT_TO_EXPIRE else Status.OK
    return Finding(step.name, base_url, status, f"{step.text}, the certificate has {left.days} days left")


def _clock(step: Step, base_url: str, window_s: float) -> Finding:
    if step.skew_s is None:
        return Finding("clock", base_url, Status.WARNING, "the server does not tell its time")
    status = Status.OK
    if abs(step.skew_s) > SKEW_S:
        status = Status.FAILED if abs(step.skew_s) > window_s else Status.WARNING
    ahead = "ahead of" if step.skew_s > 0 else "behind"
    text = f"the server's clock is {abs(step.skew_s):.0f} s {ahead} ours; {window_s:.0f} s are allowed"
    return Finding("clock", base_url, status, text)


async def _calls(settings: Settings, endpoints: Iterable[Endpoint]) -> list[Finding]:
    """Call each API without content."""
    transport = transport_of(settings)
    client = Client(transport)
    try:
        return [await _called(client, endpoint) for endpoint in endpoints]
    finally:
        await transport.close()
        await asyncio.sleep(CLOSES_S)


async def _called(client: Client, endpoint: Endpoint) -> Finding:
    request_id = f"doctor-{secrets.token_hex(8)}"
    try:
        await client.call(endpoint, request_id, EMPTY, Attempt())
    except CallError as error:
        status, text = _meaning_of(error, endpoint)
    else:
        status, text = Status.WARNING, "AlipayHK says SUCCESS to a request without content: ask it why"
    return Finding("call", endpoint.api, status, text)


def _meaning_of(error: CallError, endpoint: Endpoint) -> tuple[Status, str]:
    """Return what the end of the call proves."""
    code = ""
    if isinstance(error, ResultError):
        code = error.result.code
        if code not in CONFIGURATION_CODES:
            answer = f"{code_text(error.result.status)} {code_text(code)}"
            proven = (
                "our signature, client id and path are accepted, and PUBLIC_KEY_FILES has AlipayHK's key"
            )
            return (
                Status.OK,
                f"AlipayHK answers {answer}, as it should to a request without content: {proven}",
            )
    elif isinstance(error, Unsigned):
        code = error.claimed_code
    if code in CONFIGURATION_CODES:
        key = fingerprint(endpoint.keys.signing.public_key())
        signed = "" if isinstance(error, ResultError) else ", without a signature"
        return (
            Status.FAILED,
            f"AlipayHK answers {code}{signed}: {HINTS.get(code, OTHER_HINT)} (SHA-256 {key})",
        )
    status = f" (HTTP {error.http_status})" if isinstance(error, AnswerError) and error.http_status else ""
    return Status.FAILED, f"{type(error).__name__}: {error}{status}"
