"""Captures: exchanges with AlipayHK that an operator wants to examine, each sealed in a file.

A thread seals and writes, so no call waits for it. A queue that is full, or a disk that is full or slow,
drops captures, never outcomes.

`capture next N` leaves a file with N in the directory. The worker that reads it leaves N empty files, the
tickets. Every worker looks for tickets twice a second, and removes one for each good exchange that it
captures; if another worker was faster, it drops that capture. So the workers capture N together.
"""

from __future__ import annotations

import asyncio
import base64
import os
import random
import secrets
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from threading import Semaphore
from typing import Final

from alipayhk.linkage.v1 import error_reason_pb2 as reasons
from clients.alipayhk.captured import Capture, seal_capture
from clients.alipayhk.client import Watch
from clients.alipayhk.wire.endpoint import Endpoint
from clients.alipayhk.wire.errors import CallError, Malformed, ResultError, SignatureInvalid, Unsigned
from clients.alipayhk.wire.keys import fingerprint
from clients.alipayhk.wire.messages import Exchange, RawResponse, SealedRequest
from clients.alipayhk.wire.result import FAILURE

from ..config.settings import Settings
from ..outcomes.result_codes import CONFIGURATION_CODES
from ..outcomes.verdict import row_of_unsigned
from ..telemetry.logs import log
from .gauges import running

SUFFIX: Final = ".capture"
NEXT: Final = "next"
"""The file with the number of good exchanges to capture."""
TICKET: Final = ".ticket-"
"""The start of the names of the files that each allow one capture of a good exchange."""
NEXT_MAX: Final = 1_000
LOOKS_EVERY_S: Final = 0.5
WAITING_MAX: Final = 16
"""Captures that wait for the disk; more are dropped."""


class Captures:
    """Captures of one process, in a directory."""

    def __init__(self, directory: Path, seal: Callable[[Capture], bytes], files_max: int) -> None:
        self._directory = directory
        self._seal = seal
        self._files_max = files_max
        self._thread = ThreadPoolExecutor(1, "captures")
        self._free = Semaphore(WAITING_MAX)
        self._tickets = list[Path]()
        self._taken = set[Path | None]()
        """The tickets of captures that wait for the disk."""

    def watch(self, endpoint: Endpoint, exchange: Exchange, error: CallError | None) -> str:
        """Capture an exchange if it is wanted; return the name of its file, else an empty text."""
        if not (_is_wanted(error) if error else self._tickets):
            return ""
        if not self._free.acquire(blocking=False):
            log.warning("capture dropped", cause="too many captures wait for the disk")
            return ""
        self._taken.add(ticket := None if error else self._tickets.pop())
        now = datetime.now(UTC)
        name = f"{now:%Y%m%dT%H%M%S.%fZ}-{endpoint.api}-{secrets.token_hex(4)}{SUFFIX}"
        facts = {"api": endpoint.api, "time": now.isoformat(timespec="milliseconds")}
        facts["end"] = type(error).__name__ if error else "success"
        facts["refused_with"] = _refusal(error)
        self._thread.submit(self._keep, name, ticket, facts, endpoint, exchange)
        return name

    async def look(self) -> None:
        """Look for `capture next`, until cancelled."""
        while True:
            left = await asyncio.to_thread(self._left)
            self._tickets = [ticket for ticket in left if ticket not in self._taken]
            await asyncio.sleep(LOOKS_EVERY_S)

    def close(self) -> None:
        """Stop; captures that are not written yet are written, or lost if the disk hangs."""
        self._thread.shutdown(wait=False)

    def _left(self) -> list[Path]:
        """Return the tickets that are left, with those of a new `capture next`."""
        taken = self._directory / f".taken-{os.getpid()}"
        with suppress(OSError, ValueError):  # no such file, as a rule
            (self._directory / NEXT).rename(taken)  # one process gets it
            text = taken.read_text("ascii")
            taken.unlink()
            count = min(int(text), NEXT_MAX)
            for _ in range(count):
                (self._directory / f"{TICKET}{secrets.token_hex(4)}").touch()
            log.info("capture next", count=count)
        tickets = list[Path]()
        with suppress(OSError):
            tickets += self._directory.glob(f"{TICKET}*")
        random.shuffle(tickets)  # so that few workers want the same one
        return tickets

    def _keep(
        self, name: str, ticket: Path | None, facts: dict[str, str], endpoint: Endpoint, exchange: Exchange
    ) -> None:
        try:
            if ticket is not None and not _is_removed(ticket):
                log.info("capture dropped", capture=name, cause="another worker has captured in its place")
                return
            self._write(name, self._seal(_capture_of(facts, endpoint, exchange)))
            self._drop_oldest()
        except Exception as error:  # noqa: BLE001  (nothing else sees it)
            cause = getattr(error, "strerror", None) or type(error).__name__
            log.warning("capture not written", capture=name, cause=cause)
        finally:
            self._taken.discard(ticket)
            self._free.release()

    def _write(self, name: str, content: bytes) -> None:
        unfinished = self._directory / f".{name}"
        try:
            descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            unfinished.rename(self._directory / name)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise

    def _drop_oldest(self) -> None:
        names = sorted(each.name for each in self._directory.glob(f"*{SUFFIX}"))
        for name in names[: -self._files_max]:
            with suppress(FileNotFoundError):  # another worker
                (self._directory / name).unlink()


def _is_removed(file: Path) -> bool:
    """Remove a file; return whether it was there."""
    try:
        file.unlink()
    except FileNotFoundError:
        return False
    return True


def ask_for_next(directory: Path, count: int) -> None:
    """Leave the file that asks for so many good exchanges; raise OSError."""
    unfinished = directory / f".{NEXT}-{secrets.token_hex(4)}"
    try:
        # Anyone who runs the gateway can take it: it contains a number.
        unfinished.write_text(f"{count}\n", "ascii")
        unfinished.replace(directory / NEXT)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise


def _is_wanted(error: CallError) -> bool:
    """Whether a signature, or how the exchange was made, is in question, and not the caller's request."""
    if isinstance(error, ResultError):
        return error.result.status == FAILURE and error.result.code in CONFIGURATION_CODES
    if isinstance(error, Unsigned):  # not a page of a proxy, or a refusal because of the rate
        return row_of_unsigned(error).reason == reasons.ERROR_REASON_RESPONSE_UNSIGNED
    return isinstance(error, SignatureInvalid | Malformed)


def _refusal(error: CallError | None) -> str:
    """Return the code with which AlipayHK refused the request, empty if it did not; it may be unsigned."""
    code = error.claimed_code if isinstance(error, Unsigned) else ""
    code = error.result.code if isinstance(error, ResultError) else code
    return code if code in CONFIGURATION_CODES else ""


def _capture_of(facts: dict[str, str], endpoint: Endpoint, exchange: Exchange) -> Capture:
    """Return the exchange in the form that `doctor message` reads, with the fingerprints of the keys."""
    keys = endpoint.keys
    prints = {f"PUBLIC_KEY_FILES {version}": fingerprint(key) for version, key in keys.verifying.items()}
    prints[f"our key {keys.signing_version}"] = fingerprint(keys.signing.public_key())
    messages: dict[str, SealedRequest | RawResponse]
    messages = {"request": exchange.request, "response": exchange.response}
    return Capture(
        facts | prints,
        [
            {
                "protocol": endpoint.protocol.name,
                "message": kind,
                "path": endpoint.path,
                "headers": [list(line) for line in message.headers],
                "body_base64": base64.b64encode(message.body).decode(),
            }
            for kind, message in messages.items()
        ],
    )


@asynccontextmanager
async def capturing(settings: Settings) -> AsyncIterator[Watch | None]:
    """Yield what captures exchanges, for the client; None without CAPTURE_DIR."""
    place, recipient = settings.capture.dir, settings.capture.recipient_file
    if place is None or recipient is None:
        yield None
        return
    captures = Captures(place, partial(seal_capture, recipient=recipient.key), settings.capture.files_max)
    try:
        async with running(captures.look()):
            yield captures.watch
    finally:
        captures.close()
