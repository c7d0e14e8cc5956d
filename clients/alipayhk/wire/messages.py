"""Requests and responses before sealing, on the wire, and after verification: one type for each state.

A function that needs verified content takes a `VerifiedRequest` or `VerifiedResponse`, so nothing
unverified can be passed to it by mistake.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from .result import Result

JSON_CONTENT_TYPE: Final = "application/json; charset=UTF-8"
TRACER_ID_MAX: Final = 128
RETRY_AFTER_DIGITS_MAX: Final = 6
_KEY_VERSION: Final = re.compile(
    r"(?:^|,)\s*keyVersion=\s*(?P<version>[A-Za-z0-9._-]{1,32})\s*(?:,|$)", re.IGNORECASE | re.ASCII
)
_NOT_PRINTABLE: Final = re.compile(r"[^ -~]")
HTTP_DATE_MAX: Final = 64

Headers = tuple[tuple[str, str], ...]
"""Header lines in the order sent, as name and value. A name may occur more than once."""


def header_values(headers: Headers, name: str) -> list[str]:
    """Return all values of a header; the case of its name does not matter."""
    name = name.lower()
    return [value for key, value in headers if key.lower() == name]


class _Received:
    """A received message, whose headers are looked up often."""

    headers: Headers
    by_name: Mapping[str, list[str]]
    """The values of each header, by its name in lower case."""

    def __post_init__(self) -> None:
        """Index the headers."""
        by_name: dict[str, list[str]] = {}
        for name, value in self.headers:
            key = name.lower()
            if key in by_name:
                by_name[key].append(value)
            else:
                by_name[key] = [value]
        vars(self)["by_name"] = by_name

    def values(self, name: str) -> Sequence[str]:
        """Return all values of a header, given its name in lower case."""
        return self.by_name.get(name, ())

    def value(self, name: str) -> str:
        """Return the first value of a header, given its name in lower case; empty if it is absent."""
        values = self.by_name.get(name)
        return values[0] if values else ""


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
    """A request to send: signed, and encrypted if the protocol is set to do so."""

    path: str
    headers: Headers
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class SealedResponse:
    """A response to send: signed, and encrypted if the request was."""

    headers: Headers
    body: bytes = field(repr=False)


@dataclass(frozen=True)
class RawRequest(_Received):
    """A received request, not verified."""

    path: str
    """Path and query, byte for byte as in the request line."""
    headers: Headers
    body: bytes = field(repr=False)


@dataclass(frozen=True)
class RawResponse(_Received):
    """A received response, not verified."""

    http_status: int
    headers: Headers
    body: bytes = field(repr=False)
    end_announced: bool = True
    """Whether HTTP announced where the body ends. If not, the body ended when the connection closed."""

    def with_body(self, body: bytes) -> RawResponse:
        """Return the same response with another body."""
        whole = object.__new__(RawResponse)
        vars(whole).update(vars(self), body=body)  # with the index of its headers
        return whole

    @property
    def tracer_id(self) -> str:
        """The header Tracer-Id, reduced to printable ASCII and 128 characters; empty if it is absent.

        "An ID for tracing this request": https://docs.alipay.hk/alipayhkdocs/hk/gcmc/apifund. No signature
        covers it.
        """
        value = self.value("tracer-id")
        printable = value if value.isascii() and value.isprintable() else _NOT_PRINTABLE.sub("", value)
        return printable[:TRACER_ID_MAX]

    @property
    def key_version(self) -> str:
        """The keyVersion that the header Signature names, not verified; empty if it names none.

        It is for the log, so anything but 1 to 32 letters, digits, dots, dashes and underscores is empty.
        """
        match = _KEY_VERSION.search(self.value("signature"))
        return match["version"] if match else ""

    def retry_after_s(self, now: datetime) -> float:
        """Return the header Retry-After in seconds; 0 if it is absent, unreadable or in the past.

        It is a number of seconds or a date. A date is compared with the header Date, which the same clock
        wrote, or with `now` if that is absent: https://www.rfc-editor.org/rfc/rfc9110#section-10.2.3
        """
        value = self.value("retry-after").strip()
        if value.isascii() and value.isdigit():
            return float(value) if len(value) <= RETRY_AFTER_DIGITS_MAX else 0.0
        date = _http_date(value)
        if date is None:
            return 0.0
        sent_at = _http_date(self.value("date")) or now
        return max((date - sent_at).total_seconds(), 0.0)


def _http_date(text: str) -> datetime | None:
    """Return the time that a header names, in UTC if it has no zone; None if it cannot be read."""
    try:
        date = parsedate_to_datetime(text[:HTTP_DATE_MAX])
    except (ValueError, OverflowError):
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class VerifiedRequest:
    """A request with a valid signature."""

    client_id: str
    body: Mapping[str, object] = field(repr=False)
    head: Mapping[str, object] = field(default_factory=dict)
    """The metadata that the signature covers: the head of an envelope, or the signed headers."""
    encrypted: bool = False


@dataclass(frozen=True, slots=True)
class VerifiedResponse:
    """A response with a valid signature that belongs to our request."""

    http_status: int
    result: Result
    body: Mapping[str, object] = field(repr=False)
    response_time: datetime | None = None
    tracer_id: str = ""


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request as it was sent, and its response as it was received."""

    request: SealedRequest
    response: RawResponse
