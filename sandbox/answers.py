"""The types of responses, before and after sealing."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from clients.alipayhk.wire.endpoint import Endpoint
from clients.alipayhk.wire.messages import Headers, VerifiedRequest


@dataclass(frozen=True, slots=True)
class Sealing:
    """The input for sealing a response: keys and protocol, the request, and the response's time."""

    endpoint: Endpoint
    request: VerifiedRequest
    time: datetime


@dataclass(frozen=True, slots=True)
class Answer:
    """A response as sent."""

    headers: Headers
    body: bytes = field(repr=False)
    http_status: int = 200


def text_answer(
    http_status: int, text: str, content_type: str = "text/plain", *headers: tuple[str, str]
) -> Answer:
    """Return a plain or HTML page, which no API returns."""
    lines = (("Content-Type", f"{content_type}; charset=UTF-8"), *headers)
    return Answer(headers=lines, body=text.encode(), http_status=http_status)
