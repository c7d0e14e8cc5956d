"""Collect the head of a response, and repair it where aiohttp's parser refuses what has one meaning only.

The signature decides what a response is worth, so a harmless fault in its head must not lose the response.
Three faults are repaired:

    a line that is not a header      It is removed. If it names Content-Length or Transfer-Encoding, it is
                                     kept with its fault, because it can change where the body ends.
    several equal Content-Lengths    One is kept: https://www.rfc-editor.org/rfc/rfc9110#section-8.6
    Content-Length with chunked      Content-Length is removed, because Transfer-Encoding overrides it:
                                     https://www.rfc-editor.org/rfc/rfc9112#section-6.3

Another reader may find another end of such a response, so its connection must be closed after it.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from itertools import chain
from typing import Final

import aiohttp

HEAD_BYTES_MAX: Final = 64 * 1024
"""How many bytes the head of one response may have."""
HEADERS_MAX: Final = 512
"""How many header lines the head of one response may have."""
_END: Final = re.compile(rb"\r?\n\r?\n")
_END_BYTES_MAX: Final = 4
_OTHERS: Final = (
    rb"(?:(?!(?i:content-length|transfer-encoding):)[!#$%&'*+.^_`|~0-9A-Za-z-]++:.*+(?<=\r)\n)*+"
)
_USUAL: Final = re.compile(
    rb"HTTP/1\.1 (\d{3})(?=[ \r]).*+(?<=\r)\n"
    + _OTHERS
    + rb"(?:(?i:content-length): ?(\d{1,6})\r\n|(?i:transfer-encoding): ?chunked\r\n)"
    + _OTHERS
    + rb"\r\n"
)
_LONE_CR: Final = re.compile(rb"\r(?!\n)")
_START: Final = b"HTTP/"
_STATUS_LINE: Final = re.compile(rb"HTTP/\d\.\d (\d{3})[ \r\n]")
_NAME: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):")
_LINE_END: Final = re.compile(rb"\r?\n")
_LENGTH: Final = b"content-length"
_ENCODING: Final = b"transfer-encoding"
_PARSER_REASON: Final = re.compile(r"(?:Bad status line:\s+)?([A-Z][A-Za-z'/ -]{0,99}):\n")
"""llhttp's constant sentence, before the received bytes that aiohttp quotes after it."""


class HeadTooLarge(aiohttp.ClientError):
    """The head of the response is larger than allowed."""


class UnreadableHead(aiohttp.ClientError):
    """The response is HTTP with a status, and the parser refuses the rest of its head."""

    def __init__(self, cause: str, http_status: int) -> None:
        super().__init__(cause)
        self.http_status = http_status


class UnreadableBody(aiohttp.ClientPayloadError):
    """The parser refuses the body of the response, for example a broken chunk."""


class ResponseHead:
    """The head that is being received on one connection."""

    def __init__(self) -> None:
        self._received = bytearray()
        self.http_status = 0
        """The status of the last head; 0 if none was complete, or if it does not start as HTTP does."""
        self.repaired = False
        """Whether the last head was repaired."""
        self.body_bytes: int | None = None
        """Size of the body after the last head; None if that is not simple to say."""

    def take(self, data: bytes) -> tuple[bytes, bytes]:
        """Add received bytes; return the bytes to parse now, and the bytes after the end of the head.

        The bytes to parse are a whole head, and empty while the head is incomplete. Bytes that are not HTTP
        are returned as they are, and the parser refuses them.
        """
        if not self._received and (usual := _usual(data)):
            self.http_status, self.repaired = int(usual[1]), False
            self.body_bytes = int(usual[2]) if usual[2] and self.http_status == HTTPStatus.OK else None
            return data[: usual.end()], data[usual.end() :]
        searched = max(len(self._received) - _END_BYTES_MAX, 0)
        self._received += data if self._received else data.lstrip(b"\r\n")
        if not self._may_be_http():
            return self._cut(len(self._received))
        end = _END.search(self._received, searched)
        if (end.end() if end else len(self._received)) > HEAD_BYTES_MAX:
            raise HeadTooLarge("the response's head is larger than 64 KiB")
        if end is None:
            return b"", b""
        head, rest = self._cut(end.end())
        return self._read(head), rest

    def _may_be_http(self) -> bool:
        if b"\n" in self._received[: HEAD_BYTES_MAX + 1]:
            return _STATUS_LINE.match(self._received) is not None
        return self._received.startswith(_START[: len(self._received)])

    def _cut(self, at: int) -> tuple[bytes, bytes]:
        head, rest = bytes(self._received[:at]), bytes(self._received[at:])
        self._received.clear()
        self.http_status, self.repaired, self.body_bytes = 0, False, None
        return head, rest

    def _read(self, head: bytes) -> bytes:
        """Return a complete head, repaired if it has to be."""
        status = _STATUS_LINE.match(head)
        self.http_status = int(status[1]) if status else 0
        if head.count(b"\n") > HEADERS_MAX + 2:
            raise HeadTooLarge("the response has more than 512 headers")
        first, *lines = _LINE_END.split(head)[:-2]
        headers = _unfolded(lines)
        kept = _with_one_length([header for header in headers if _is_kept(header)])
        if kept == headers or _LONE_CR.search(head):  # aiohttp's parser takes some CRs for line ends
            return head
        self.repaired = True
        return b"\r\n".join([first, *chain.from_iterable(kept), b"", b""])


def _usual(data: bytes) -> re.Match[bytes] | None:
    """Match a complete head without faults, with one header that says where the body ends, or nothing."""
    head = _USUAL.match(data)
    if head is None or head.end() > HEAD_BYTES_MAX:
        return None
    lines = data.count(b"\n", 0, head.end())
    return head if lines <= HEADERS_MAX + 2 and data.count(b"\r", 0, head.end()) == lines else None


def parser_reason(message: str, error: BaseException | None) -> str:
    """Return why the parser refused a response, without the received bytes that `message` quotes."""
    reason = _PARSER_REASON.match(message)
    return reason[1] if reason else type(error).__name__


def _unfolded(lines: list[bytes]) -> list[list[bytes]]:
    """Group each header line with its continuation lines, which start with white space."""
    headers: list[list[bytes]] = []
    for line in lines:
        if headers and line[:1] in (b" ", b"\t"):
            headers[-1].append(line)
        else:
            headers.append([line])
    return headers


def _is_kept(header: list[bytes]) -> bool:
    line = header[0]
    return _NAME.match(line) is not None or line.partition(b":")[0].strip().lower() in (_LENGTH, _ENCODING)


def _with_one_length(headers: list[list[bytes]]) -> list[list[bytes]]:
    """Keep one of several equal Content-Lengths; remove all if the encoding is `chunked`."""
    lengths = [header for header in headers if _name(header) == _LENGTH]
    encodings = [_value(header).lower() for header in headers if _name(header) == _ENCODING]
    others = [header for header in headers if _name(header) != _LENGTH]
    if encodings == [b"chunked"]:
        return others
    values = [value.strip() for header in lengths for value in _value(header).split(b",")]
    if len(values) > 1 and len(set(values)) == 1:
        return [[b"Content-Length: " + values[0]], *others]
    return headers


def _name(header: list[bytes]) -> bytes:
    match = _NAME.match(header[0])
    return match[1].lower() if match else b""


def _value(header: list[bytes]) -> bytes:
    return b" ".join(header).partition(b":")[2].strip()
