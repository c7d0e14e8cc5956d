"""One message as it was read from a file: an exchange as JSON, or the parts that another format has."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass, field
from typing import Final

from clients.alipayhk.diagnosis import ROWS
from clients.alipayhk.diagnosis.claims import Message
from clients.alipayhk.wire.content_coding import undone
from clients.alipayhk.wire.errors import Truncated
from clients.alipayhk.wire.messages import Headers, RawRequest, RawResponse, header_values

PROTOCOLS: Final = tuple(protocol.name for protocol in ROWS)
"""The first one is meant if a message does not say it."""
MESSAGES: Final = ("request", "response")
BODY_BYTES_MAX: Final = 8 * 1024 * 1024


class Unusable(Exception):
    """The input cannot be used. The message is one sentence for a person, without a value of the input."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """The parts of one message; a part that its format lacks is None."""

    protocol: str | None = None
    message: str | None = None
    path: str | None = None
    """Path and query of the request, also for a response."""
    headers: Headers = ()
    body: bytes = field(default=b"", repr=False)
    response_headers: Headers = ()
    """Of a request, the headers of its response, if the format has them."""
    refused_with: str = ""
    """Of a request, the code with which AlipayHK refused it, if the format has it."""

    @property
    def tracer_id(self) -> str | None:
        """AlipayHK's id of the exchange."""
        return next(iter(header_values((*self.headers, *self.response_headers), "tracer-id")), None)

    def as_message(self) -> Message:
        """Return the message as the receiver gets it; raise Unusable."""
        path = self.path or ""
        if self.message == "request":
            return Message(path, RawRequest(path, self.headers, self.body))
        raw = RawResponse(200, self.headers, self.body)
        try:
            # As the gateway does: the signature covers a response without its content coding.
            return Message(
                path,
                raw.with_body(undone(raw.body, raw.values("content-encoding"), bytes_max=BODY_BYTES_MAX)),
            )
        except Truncated:
            return Message(path, raw)


def json_value(text: str) -> object:
    """Parse JSON; raise Unusable."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise Unusable("The input starts like JSON, but it is not JSON that can be read.") from None


def exchange_of(members: dict[str, object]) -> Exchange:
    """Read an exchange from JSON; raise Unusable."""
    unknown = members.keys() - {"protocol", "message", "path", "headers", "body", "body_base64"}
    if unknown:
        raise Unusable(
            "The exchange has a member other than protocol, message, path, headers, body, body_base64."
        )
    return Exchange(
        protocol=_one_of(members, "protocol", PROTOCOLS),
        message=_one_of(members, "message", MESSAGES),
        path=None if members.get("path") is None else text_of(members["path"], "path"),
        headers=_headers(members.get("headers", [])),
        body=_body(members),
    )


def text_of(value: object, name: str) -> str:
    """Return a string that UTF-8 can represent; raise Unusable."""
    if not isinstance(value, str):
        raise Unusable(f"The member {name} must be a string.")
    if not value.isascii():
        bytes_of(value, name)
    return value


def bytes_of(text: str, name: str) -> bytes:
    """Encode as UTF-8; raise Unusable."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise Unusable(f"The member {name} has a lone surrogate: use body_base64 for such bytes.") from None


def _one_of(members: dict[str, object], name: str, allowed: tuple[str, ...]) -> str | None:
    value = members.get(name)
    if value is not None and value not in allowed:
        raise Unusable(f"The member {name} must be {' or '.join(allowed)}.")
    return value if isinstance(value, str) else None


def _headers(value: object) -> Headers:
    pairs = list(value.items()) if isinstance(value, dict) else value
    headers: Headers = ()
    for pair in pairs if isinstance(pairs, list) else [None]:
        if not isinstance(pair, list | tuple) or len(pair) != 2:  # noqa: PLR2004
            raise Unusable("The member headers must be a list of pairs: [[name, value], …].")
        headers += ((text_of(pair[0], "headers"), text_of(pair[1], "headers")),)
    return headers


def _body(members: dict[str, object]) -> bytes:
    if ("body" in members) == ("body_base64" in members):
        raise Unusable("The exchange must have exactly one of body and body_base64.")
    if "body" in members:
        return bytes_of(text_of(members["body"], "body"), "body")
    try:
        return base64.b64decode(text_of(members["body_base64"], "body_base64"), validate=True)
    except (binascii.Error, ValueError):
        raise Unusable("The member body_base64 is not base64.") from None
