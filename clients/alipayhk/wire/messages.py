"""What travels: three types for three states, so that unverified bytes cannot pass for verified ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from .result import Result

JSON_CONTENT_TYPE: Final = "application/json; charset=UTF-8"
TRACER_ID_MAX: Final = 128
RETRY_AFTER_DIGITS_MAX: Final = 6

Headers = tuple[tuple[str, str], ...]
"""Header lines in the order sent, as name and value; a name may stand more than once."""


def header_values(headers: Headers, name: str) -> list[str]:
    """Return every value of a header, whatever the case of its name."""
    return [value for key, value in headers if key.lower() == name.lower()]


@dataclass(frozen=True, slots=True)
class PlainRequest:
    """A request before it is sealed."""

    request_id: str
    body: bytes = field(repr=False)
    """The business content as JSON."""
    time: datetime
    """When the request is sealed, written into it as Request-Time or reqTime."""


@dataclass(frozen=True, slots=True)
class PlainResponse:
    """A response before it is sealed."""

    body: Mapping[str, object] = field(repr=False)
    time: datetime
    """When the response is sealed, written into it as Response-Time or respTime."""
    tracer_id: str = ""
    """The header Tracer-Id, in protocols that have one; empty: no header."""


@dataclass(frozen=True, slots=True)
class SealedRequest:
    """A request as it goes over the wire: encrypted where asked, and signed."""

    path: str
    headers: Headers
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class SealedResponse:
    """A response as it goes over the wire: encrypted where the request was, and signed."""

    headers: Headers
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class RawRequest:
    """A request as it came; nothing in it is known to be true."""

    path: str
    """Path and query, byte for byte as on the request line."""
    headers: Headers
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class RawResponse:
    """An answer as it came; nothing in it is known to be true."""

    http_status: int
    headers: Headers
    body: bytes = field(repr=False)
    end_announced: bool = True
    """Whether HTTP said where the body ends; else it ended because the connection did."""

    @property
    def tracer_id(self) -> str:
        """The header Tracer-Id, which no signature covers: printable ASCII, bounded, for people."""
        value = next(iter(header_values(self.headers, "Tracer-Id")), "")
        return "".join(character for character in value if " " <= character <= "~")[:TRACER_ID_MAX]

    @property
    def retry_after_s(self) -> float:
        """The header Retry-After in its form of whole seconds; 0 when absent or in another form."""
        value = next(iter(header_values(self.headers, "Retry-After")), "").strip()
        return (
            float(value)
            if value.isascii() and value.isdigit() and len(value) <= RETRY_AFTER_DIGITS_MAX
            else 0.0
        )


@dataclass(frozen=True, slots=True)
class VerifiedRequest:
    """A request whose signature verified."""

    client_id: str
    body: Mapping[str, object] = field(repr=False)
    head: Mapping[str, object] = field(default_factory=dict)
    """The metadata that the signature covers: the head of an envelope, or the signed headers."""
    encrypted: bool = False


@dataclass(frozen=True, slots=True)
class VerifiedResponse:
    """An answer whose signature verified, and which is an answer to our request."""

    http_status: int
    result: Result
    body: Mapping[str, object] = field(repr=False)
    response_time: datetime | None = None
    tracer_id: str = ""
