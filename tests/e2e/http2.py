"""Write HTTP/2 frames by hand, to send what no client library sends (RFC 9113, RFC 7541 uncompressed)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, CONTINUATION = 0, 1, 3, 4, 6, 7, 9
END_STREAM, END_HEADERS, ACK = 1, 4, 1
Field = tuple[bytes, bytes]
USUAL: Final[tuple[Field, ...]] = (
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", b"/grpc.health.v1.Health/Check"),
    (b":authority", b"localhost"),
    (b"content-type", b"application/grpc"),
    (b"te", b"trailers"),
)
EMPTY_MESSAGE: Final = bytes(5)
"""An empty message with gRPC's length prefix."""


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Write one frame."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def block(*fields: Field) -> bytes:
    """Write header fields as literals without Huffman coding."""
    return b"".join(b"\0" + _text(name) + _text(value) for name, value in fields)


def request(*changes: Field, without: bytes = b"", stream: int = 1, flags: int = END_STREAM) -> bytes:
    """Write a request's HEADERS frame: the usual fields, where `changes` replace fields or add some."""
    changed = dict(changes)
    fields = [(name, changed.pop(name, value)) for name, value in USUAL if name != without]
    fields += [field for field in changes if field[0] in changed]
    return frame(HEADERS, END_HEADERS | flags, stream, block(*fields))


def _text(text: bytes) -> bytes:
    """Write a string without Huffman coding: its length with a prefix of 7 bits, then its bytes."""
    if len(text) < 127:
        return bytes([len(text)]) + text
    rest, length = len(text) - 127, bytearray([127])
    while rest >= 128:
        length.append(rest % 128 + 128)
        rest //= 128
    return bytes([*length, rest]) + text


@dataclass(frozen=True)
class Frame:
    """One received frame."""

    kind: int
    flags: int
    stream: int
    payload: bytes


@dataclass
class Connection:
    """A connection that sends frames written by hand."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, *frames: bytes) -> None:
        """Write frames."""
        self.writer.write(b"".join(frames))

    async def frames(self) -> AsyncIterator[Frame]:
        """Read frames until the connection ends; acknowledge settings and pings."""
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await self.reader.readexactly(9)
                payload = await self.reader.readexactly(int.from_bytes(head[:3], "big"))
                received = Frame(head[3], head[4], int.from_bytes(head[5:], "big"), payload)
                if received.kind in {SETTINGS, PING} and not received.flags & ACK:
                    self.send(frame(received.kind, ACK, 0, payload if received.kind == PING else b""))
                yield received

    async def ended(self, *, stream: int = 1) -> Frame | None:
        """Wait for the frame that ends a stream, or for GOAWAY; None when the connection ends first."""
        async for received in self.frames():
            if received.kind == GOAWAY or (
                received.stream == stream
                and (
                    received.kind == RST_STREAM
                    or (received.kind in {DATA, HEADERS} and received.flags & END_STREAM)
                )
            ):
                return received
        return None


@asynccontextmanager
async def connected(address: str) -> AsyncIterator[Connection]:
    """Connect in plaintext, and send the preface and SETTINGS."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        connection = Connection(reader, writer)
        connection.send(PREFACE, frame(SETTINGS, 0, 0))
        yield connection
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


HOSTILE: Final = {
    "a path that is not UTF-8": request((b":path", b"/\xff")),
    "a path of a known method and a byte that is not UTF-8": request((b":path", b"/a.B/C\xc3\x28")),
    "a path with half a surrogate pair": request((b":path", b"/\xed\xa0\x80")),
    "a path with NUL": request((b":path", b"/grpc.health.v1.Health/Check\0")),
    "a path with a line break": request((b":path", b"/a\r\nb")),
    "a path with bad percent-encoding": request((b":path", b"/%ff%zz%")),
    "a path without a slash": request((b":path", b"x")),
    "an empty path": request((b":path", b"")),
    "the path *": request((b":path", b"*")),
    "a path of slashes": request((b":path", b"////")),
    "no path": request(without=b":path"),
    "a path of 7 KiB": request((b":path", b"/" + b"a" * 7_000)),
    "a path of 12 KiB": request((b":path", b"/" + b"a" * 12_000)),
    "a path of 7 KiB that is not UTF-8": request((b":path", b"/" + b"\xff" * 7_000)),
    "an authority that is not UTF-8": request((b":authority", b"\xff\xfe")),
    "an empty authority": request((b":authority", b"")),
    "an authority with NUL": request((b":authority", b"a\0b")),
    "a host that is not UTF-8": request((b"host", b"\xff"), without=b":authority"),
    "no authority": request(without=b":authority"),
    "no method": request(without=b":method"),
    "a method that is not UTF-8": request((b":method", b"\xff")),
    "the method GET": request((b":method", b"GET")),
    "a scheme that is not UTF-8": request((b":scheme", b"\xff")),
    "no content type": request(without=b"content-type"),
    "a content type that is not UTF-8": request((b"content-type", b"application/grpc\xff")),
    "a TE that is not UTF-8": request((b"te", b"\xff")),
    "a name that is not UTF-8": request((b"x-\xff", b"a")),
    "a name with NUL": request((b"x-\0", b"a")),
    "a name in upper case": request((b"X-Name", b"a")),
    "an empty name": request((b"", b"a")),
    "an unknown pseudo-header": request((b":unknown", b"a")),
    "a value that is not UTF-8": request((b"x-value", b"\xff\xfe")),
    "a value with NUL": request((b"x-value", b"a\0b")),
    "a value with a line break": request((b"x-value", b"a\r\nb")),
    "an empty -bin value": request((b"x-value-bin", b"")),
    "a -bin value that is not base64": request((b"x-value-bin", b"\xff!*")),
    "a -bin value of bytes that are not UTF-8": request((b"x-value-bin", b"//79/A==")),
    "a -bin name that is not UTF-8": request((b"x-\xff-bin", b"YQ==")),
    "an invalid trace": request((b"grpc-trace-bin", b"!"), (b"traceparent", b"\xff")),
    "invalid tags": request((b"grpc-tags-bin", b"\xff")),
    "an invalid timeout": request((b"grpc-timeout", b"\xff")),
    "a timeout of too many digits": request((b"grpc-timeout", b"99999999999999999999S")),
    "a negative timeout": request((b"grpc-timeout", b"-1S")),
    "an encoding that is not UTF-8": request((b"grpc-encoding", b"\xff")),
    "encodings that are not UTF-8": request((b"grpc-accept-encoding", b"\xff,gzip")),
    "a user agent that is not UTF-8": request((b"user-agent", b"\xff")),
    "earlier attempts that are not UTF-8": request((b"grpc-previous-rpc-attempts", b"\xff")),
    "metadata of 12 KiB": request((b"x-value", b"a" * 12_000)),
    "a request for a stream of the server": request(stream=2),
    "a request for stream 0": request(stream=0),
    "an index that no table has": frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\xff\xff\xff\x7f"),
    "a header block cut short": frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\0\x7f"),
    "a header block that never ends": frame(HEADERS, END_STREAM, 1, block(*USUAL)),
    "a CONTINUATION without HEADERS": frame(CONTINUATION, END_HEADERS, 1, block(*USUAL)),
    "DATA for no stream": frame(DATA, END_STREAM, 1, EMPTY_MESSAGE),
    "a message cut short": request(flags=0) + frame(DATA, END_STREAM, 1, b"\0\0\0\0\x09a"),
    "a message of 4 GiB": request(flags=0) + frame(DATA, END_STREAM, 1, b"\0\xff\xff\xff\xff"),
    "a compressed message without its kind": request(flags=0) + frame(DATA, 1, 1, b"\1\0\0\0\x01a"),
    "a message that is reset": request(flags=0) + frame(RST_STREAM, 0, 1, bytes(4)),
    "a frame of an unknown kind": frame(0xFA, 0xFF, 1, b"\xff") + request((b":path", b"/\xff")),
    "HTTP/1.1": b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
}
"""Frames that must not stop a server, each by its name; they follow the preface and SETTINGS."""
