"""What is sent back, and what it is sealed from."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from clients.alipayhk.wire.endpoint import Endpoint
from clients.alipayhk.wire.messages import Headers, VerifiedRequest


@dataclass(frozen=True, slots=True)
class Sealing:
    """What an answer is sealed with: whose keys, to which request, at what time."""

    endpoint: Endpoint
    request: VerifiedRequest
    time: datetime


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer as it goes over the wire."""

    headers: Headers
    body: bytes = field(repr=False)
    http_status: int = 200


def text_answer(
    http_status: int, text: str, content_type: str = "text/plain", *headers: tuple[str, str]
) -> Answer:
    """Answer with a page, as no API does."""
    lines = (("Content-Type", f"{content_type}; charset=UTF-8"), *headers)
    return Answer(headers=lines, body=text.encode(), http_status=http_status)
