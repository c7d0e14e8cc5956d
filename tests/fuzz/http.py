"""Targets: heads and codings of responses, and the sandbox without sockets."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import re
import socket
import zlib
from collections.abc import Iterator
from datetime import timedelta
from functools import cache
from typing import Any, Final, NamedTuple

from aiohttp import ClientError, web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpResponseParser

from clients.alipayhk.connections import expect_response
from clients.alipayhk.pairing import PairedProtocol, UnexpectedBytes
from clients.alipayhk.response_head import (
    HEAD_BYTES_MAX,
    HEADERS_MAX,
    HeadTooLarge,
    ResponseHead,
    UnreadableHead,
    parser_reason,
)
from clients.alipayhk.wire import content_coding
from clients.alipayhk.wire.endpoint import Endpoint
from clients.alipayhk.wire.errors import CallError, Truncated
from clients.alipayhk.wire.messages import PlainRequest, RawRequest, RawResponse
from clients.alipayhk.wire.strict_json import write_json
from sandbox.exchange import Exchange
from sandbox.faults import FAULTS
from sandbox.server import application
from tests.alipayhk.sides import NOW, SENT_AT
from tests.alipayhk.test_response_heads import READ
from tests.fuzz.properties import check_error, is_constant, json_object
from tests.fuzz.sealed import ENVELOPE, HEADER
from tests.sandbox.callers import CLIENT_ID, PATHS, bind_body, sync_body

BYTES_MAX: Final = 1_000

# -- heads


class Parsed(NamedTuple):
    """What aiohttp's parser makes of a response."""

    code: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    has_ended: bool


def _parsed(data: bytes) -> Parsed | str:
    """Parse a response with aiohttp, or return why it is refused."""
    parser = HttpResponseParser(
        BaseProtocol(_loop()),
        _loop(),
        2**16,
        max_line_size=HEAD_BYTES_MAX,
        max_field_size=HEAD_BYTES_MAX,
        max_headers=HEADERS_MAX,
        read_until_eof=True,
        auto_decompress=False,
    )
    try:
        messages, _, _ = parser.feed_data(data)
    except HttpProcessingError as error:
        return parser_reason(error.message, error.__cause__ or error.__context__)
    if not messages:
        return "incomplete"
    message, payload = messages[0]
    body = b"".join(getattr(payload, "_buffer", ()))
    return Parsed(message.code, message.raw_headers, body, payload.is_eof())


def head_seeds() -> Iterator[bytes]:
    """Yield responses whose heads have one meaning, and responses whose heads have none."""
    yield from (bytes([at]) + written for at, written in enumerate(READ.values()) if len(written) < 1_000)
    yield b"\x07HTTP/1.1 200 OK\nContent-Length: 2\nContent-Length: 3\n\n{}"
    yield b"\x03HTTP/1.0 500 \r\nTransfer-Encoding: a, chunked\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}"
    yield b"\x00HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No\r\nX: 1\r\n 2\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"


def response_head(data: bytes) -> None:
    """The repair of a head changes nothing that has one meaning, however the bytes are divided."""
    size, data = (data[0] if data else 0) or 1, data[1:]
    whole = _taken(data, len(data) or 1)
    assert whole == _taken(data, size)
    if whole is None:
        return
    head, rest, status, is_repaired = whole
    if not is_repaired:
        assert not head or data.lstrip(b"\r\n") == head + rest
        return
    if _BLANK_LINE.match(data):
        return
    before, after = _parsed(data.lstrip(b"\r\n")), _parsed(head + rest)
    if isinstance(after, Parsed):
        assert after.code == status
        _check_framing(data, after)
    if isinstance(before, Parsed):
        assert isinstance(after, Parsed), f"the repaired head is refused: {after}"
        assert (after.code, after.body, after.has_ended) == (before.code, before.body, before.has_ended)
        assert set(after.headers) <= set(before.headers)


_LINES_OF_HEAD: Final = re.compile(rb"\s*[^\n]*\n(.*?\n)\r?\n", re.DOTALL)
_REASON: Final = re.compile("[A-Za-z'/ -]{1,100}")
_BLANK_LINE: Final = re.compile(rb"\s*[^\n]*\n[ \t]")
"""A head whose first header line starts with white space. The parser takes some of them for the end of the
head; a reader can ignore such lines: https://www.rfc-editor.org/rfc/rfc9112#section-2.2"""
_FRAMING: Final = re.compile(
    rb"^(content-length|transfer-encoding):([^\n]*)\n", re.IGNORECASE | re.MULTILINE
)


def _check_framing(data: bytes, after: Parsed) -> None:
    """Fail if a repaired head has other lengths or encodings than the original."""
    lines = _LINES_OF_HEAD.match(data)
    assert lines
    if re.search(rb"\n[ \t]", lines[1]):
        return  # a value on several lines: the parser may join them in its own way
    before, now = (
        {
            name: [
                value.strip()
                for key, values in headers
                if key.lower() == name
                for value in values.split(b",")
            ]
            for name in (b"content-length", b"transfer-encoding")
        }
        for headers in (_FRAMING.findall(lines[1]), after.headers)
    )
    assert now[b"transfer-encoding"] == before[b"transfer-encoding"]
    is_chunked = [value.lower() for value in before[b"transfer-encoding"]] == [b"chunked"]
    assert now[b"content-length"] == ([] if is_chunked else before[b"content-length"][:1])
    assert is_chunked or len(set(before[b"content-length"])) <= 1


def _taken(data: bytes, size: int) -> tuple[bytes, bytes, int, bool] | None:
    """Give a head the data in pieces; return what it returns, with the rest of the data, or None."""
    head = ResponseHead()
    for at in range(0, len(data), size):
        try:
            found, rest = head.take(data[at : at + size])
        except HeadTooLarge as error:
            check_error(error)
            return None
        if found:
            rest += data[at + size :]
            # Bytes that are not HTTP are returned as they come; the parser refuses the first of them.
            parts = (found, rest) if head.http_status else (found + rest, b"")
            return *parts, head.http_status, head.repaired
        assert not rest
    return b"", b"", 0, False


def response_bytes(data: bytes) -> None:
    """A connection accepts the same response however its bytes are divided, and no error quotes them."""
    size, data = (data[0] if data else 0) or 1, data[1:]
    whole = _accepted(data, len(data) or 1)
    assert whole == _accepted(data, size)
    parsed = _parsed(data.lstrip(b"\r\n"))
    if whole is not None and isinstance(parsed, Parsed) and not _BLANK_LINE.match(data):
        assert parsed.code < 200 or (whole.code, whole.body) == (parsed.code, parsed.body)


def _accepted(data: bytes, size: int) -> Parsed | None:
    """Receive a response in pieces on a connection; return it if it is complete, also after other bytes."""
    connection, protocol = _Connection(), PairedProtocol(_loop())
    protocol.connection_made(connection)
    expect_response(protocol)
    protocol.start_timeout()
    for at in range(0, len(data), size):
        if not connection.is_closing():
            protocol.data_received(data[at : at + size])
    protocol.connection_lost(None)
    if isinstance(error := protocol.exception(), UnreadableHead | UnexpectedBytes | HeadTooLarge):
        assert _REASON.fullmatch(str(error)) or is_constant(str(error))
    try:
        message, payload = _loop().run_until_complete(protocol.read())
    except (ClientError, HttpProcessingError):
        return None
    if not payload.is_eof() or payload.exception() is not None:
        return None
    return Parsed(
        message.code, message.raw_headers, b"".join(getattr(payload, "_buffer", ())), has_ended=True
    )


# -- codings


def coding_seeds() -> Iterator[bytes]:
    """Yield bodies in each coding: whole, cut, too large, and with another name than their format."""
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    raw = deflate.compress(b"{}") + deflate.flush()
    packed = gzip.compress(b'{"result":{}}', mtime=0)
    bodies = [
        packed,
        packed[:-5],
        packed + b"x",
        zlib.compress(b"{}"),
        raw,
        gzip.compress(b"0" * 10**6, mtime=0),
    ]
    for name in (b"gzip", b"deflate", b"X-GZIP", b"gzip, gzip", b"br", b", identity,gzip"):
        yield from (name + b"\n" + body for body in bodies)


def content_codings(data: bytes) -> None:
    """A body is decompressed within its limit, whole or not, and anything else is returned unchanged."""
    coding, _, body = data.partition(b"\n")
    try:
        undone = content_coding.undone(body, (coding.decode("latin-1"),), bytes_max=BYTES_MAX)
    except Truncated as error:
        check_error(error)
        return
    if undone != body:
        assert len(undone) <= BYTES_MAX
        assert undone in (_inflated(body, wbits) for wbits in (31, 15, -15))
    plain = body[:BYTES_MAX]
    packed = gzip.compress(plain, 1, mtime=0)
    assert content_coding.undone(packed, (" GZip ",), bytes_max=len(plain)) == plain
    for wrong in (packed[:-1], packed[: len(packed) // 2 + 5]):
        try:
            cut = content_coding.undone(wrong, ("gzip",), bytes_max=len(plain))
        except Truncated:
            continue
        raise AssertionError(f"{len(cut)} bytes of a response that was cut were accepted")


def _inflated(body: bytes, wbits: int) -> bytes | None:
    inflater = zlib.decompressobj(wbits)
    try:
        data = inflater.decompress(body, BYTES_MAX + 1)
    except zlib.error:
        return None
    return data if inflater.eof else None


# -- the sandbox


class _Connection(asyncio.Transport):
    """A connection, and its socket, that keeps what is written."""

    family = socket.AF_UNIX

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "socket": self})
        self.written = b""
        self._is_closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self._is_closing

    def close(self) -> None:
        self._is_closing = True

    abort = close

    def setsockopt(self, *_: object) -> None:
        """Accept the option that a fault sets before it resets the connection."""

    def pause_reading(self) -> None:
        """Do nothing: all bytes were received."""

    resume_reading = pause_reading


class _Errors(logging.Handler):
    """Keeps what aiohttp logs when a handler fails."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[Any] = []

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else record.getMessage()
        if not isinstance(error, HttpProcessingError):  # that one means that the bytes are not HTTP
            self.found.append(error)


@cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


@cache
def _errors() -> _Errors:
    logger, errors = logging.getLogger("aiohttp.server"), _Errors()
    logger.addHandler(errors)
    logger.propagate = False
    logger.setLevel(logging.ERROR)
    return errors


@cache
def _exchange() -> Exchange:
    return Exchange(_endpoints(), now=lambda: NOW)


@cache
def _endpoints() -> dict[str, Endpoint]:
    sides = {"SyncLinkage": HEADER, "BindAccount": ENVELOPE}
    return {api: side.but(path=PATHS[api], client_id=CLIENT_ID).wallet for api, side in sides.items()}


@cache
def _server() -> web.Server:
    async def no_sleep(_: float) -> None:
        """Let no response wait."""

    runner = web.AppRunner(
        application(_exchange(), no_sleep, "127.0.0.1"),
        access_log=None,
        handler_cancellation=True,
        auto_decompress=False,
    )
    _loop().run_until_complete(runner.setup())
    assert runner.server is not None
    return runner.server


def _received(data: bytes) -> bytes:
    """Return what the sandbox writes on a connection on which it receives these bytes."""

    server = _server()

    async def serve() -> bytes:
        handler, connection = server(), _Connection()
        handler.connection_made(connection)
        handler.data_received(data)
        for _ in range(20):
            await asyncio.sleep(0)
        handler.connection_lost(None)
        for _ in range(3):
            await asyncio.sleep(0)
        return connection.written

    return _loop().run_until_complete(serve())


def _http(method: str, path: str, headers: Any = (), body: bytes = b"") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body


SIGNED_IDS: Final = {"req-1", "req-2", "req-3"}


def sandbox_seeds() -> Iterator[bytes]:
    """Yield signed requests to both APIs, and requests to the console."""
    user = sync_body()["userId"]
    bodies = (
        ("SyncLinkage", "req-1", sync_body("req-1")),
        ("SyncLinkage", "req-2", sync_body("req-2", userId=f"{user}+RESET")),
        ("SyncLinkage", "req-3", sync_body("req-3", operateType="UNBIND")),
        ("BindAccount", "req-1", bind_body()),
        ("BindAccount", "req-2", bind_body(userId=f"{user}+TRUNCATE")),
    )
    for api, request_id, body in bodies:
        endpoint = _endpoints()[api]
        plain = PlainRequest(request_id, write_json(body), SENT_AT)
        sealed = endpoint.protocol.seal_request(endpoint, plain)
        yield _http("POST", sealed.path, sealed.headers, sealed.body)
        yield _http("PUT", sealed.path, sealed.headers[:-1], sealed.body)
    for page in ("", "requests?api=SyncLinkage&request_id=x", "wallet", "faults", "nothing", "reset"):
        yield _http("GET", f"/__sandbox/{page}")
    yield _http("POST", "/__sandbox/answers", (), b'{"answers":[{"fault":"HANG"},{"fault":"DELAY_5"}]}')
    yield _http(
        "POST", "/__sandbox/reset", (("Origin", "http://localhost"), ("Sec-Fetch-Site", "same-origin"))
    )
    yield b"GET http://localhost/x?y=%zz HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"


def sandbox_http(data: bytes) -> None:
    """The sandbox's handlers never fail, its console still works, and only signed requests have effects."""
    exchange, errors = _exchange(), _errors()
    exchange.reset()
    errors.found.clear()
    _received(data)
    _check_console()
    if errors.found:
        raise AssertionError(f"a handler failed: {errors.found[0]!r}") from _exception_of(errors.found[0])
    requests: Any = exchange.wallet.snapshot()["requests"]
    for api, counts in requests.items():
        assert counts.keys() <= SIGNED_IDS, api
        assert all(count["effects"] <= 1 for count in counts.values())


def _exception_of(found: object) -> BaseException | None:
    return found if isinstance(found, BaseException) else None


def _check_console() -> None:
    """Fail if a page of the console cannot be read."""
    for page in ("requests", "wallet"):
        head, _, body = _received(_http("GET", f"/__sandbox/{page}")).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), f"{page}: {head.splitlines()[:1]}"
        assert isinstance(json.loads(body), dict)


def exchange_seeds() -> Iterator[bytes]:
    """Yield bodies of both APIs with each fault."""
    for at, name in enumerate(("", *FAULTS)):
        user = f"2160000000000001+{name}" if name else "2160000000000001"
        yield bytes([at * 2]) + write_json(sync_body("req-1", userId=user, expiryTime=1_716_331_341_000))
        yield bytes([at * 2 + 1]) + write_json(bind_body(userId=user))
    form = '{"formCode":"f","formValue":{"a":"b"}}'
    yield b"\1" + write_json(
        bind_body(source="BY_TEMPLATE", accountId=None, accountInfo=form, extendInfo="{}")
    )


def sandbox_exchange(data: bytes) -> None:
    """The sandbox answers every signed body, twice with one effect, and logs it in lines that are safe."""
    choice, body = (data[0] if data else 0), data[1:]
    api = ("SyncLinkage", "BindAccount")[choice & 1]
    exchange, endpoint = _exchange(), _endpoints()[api]
    exchange.reset()
    plain = PlainRequest("req-1", body, NOW)
    sealed = endpoint.protocol.seal_request(endpoint, plain)
    raw = RawRequest(sealed.path, sealed.headers, sealed.body)
    first = exchange.answer("POST", raw)
    effects = _effects(exchange)
    second = exchange.answer("POST", raw)
    assert _effects(exchange) == effects
    for exchanged in (first, second):
        entry, answer = exchanged.entry, exchanged.answer
        assert entry.verified or api == "BindAccount", "a signed request was not verified"
        lines = entry.log_text().split("\n")
        assert len(lines) == 1 or not entry.verified
        assert all(line.isprintable() for line in lines)
        response = RawResponse(answer.http_status, answer.headers, answer.body)
        try:
            opened = endpoint.protocol.unseal_response(
                endpoint, plain, response, now=NOW + timedelta(seconds=1)
            )
        except CallError as error:
            check_error(error)
        else:
            assert opened.result.status != "S" or json_object(body) is not None or api == "BindAccount"
    json.dumps(exchange.journal.entries(), ensure_ascii=False).encode()
    json.dumps(exchange.wallet.snapshot(), ensure_ascii=False).encode()


def _effects(exchange: Exchange) -> int:
    requests: Any = exchange.wallet.snapshot()["requests"]
    return sum(count["effects"] for counts in requests.values() for count in counts.values())
