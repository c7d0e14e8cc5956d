"""What arrived and what was answered: the last thousand requests, bodies cut to a bound."""

from __future__ import annotations

from collections import deque
from dataclasses import asdict, dataclass
from typing import Final

from clients.alipayhk.wire.messages import Headers

ENTRIES_MAX: Final = 1_000
BODY_BYTES_MAX: Final = 8 * 1024


@dataclass(frozen=True, slots=True)
class Entry:
    """One request and its answer."""

    number: int
    time: str
    api: str
    """Empty for a path where no API is."""
    request_id: str
    method: str
    path: str
    headers: Headers
    body: str
    """As on the wire."""
    decrypted_body: str | None
    """None for a body that came plain, or cannot be decrypted."""
    content_to_sign: str
    """The content that was expected to have been signed."""
    verified: bool
    verdict: str
    fault: str
    """The fault that the answer was asked to have; empty for the ordinary answer."""
    http_status: int
    answer_headers: Headers
    answer_body: str
    """As sealed: a fault in its delivery is not seen here."""

    def log_text(self) -> str:
        """Write one line; where the signature was refused, also what it should have covered."""
        fault = f" +{self.fault}" if self.fault else ""
        line = f"#{self.number} {self.api or self.path} {self.request_id or '-'}{fault}: {self.verdict}"
        if self.verified or not self.content_to_sign:
            return line
        return f"{line}\nexpected to have been signed:\n{self.content_to_sign}"


class Journal:
    """The last requests, newest last."""

    def __init__(self, *, entries_max: int = ENTRIES_MAX) -> None:
        self._entries: deque[Entry] = deque(maxlen=entries_max)
        self._arrived = 0

    def next_number(self) -> int:
        """Count a request."""
        self._arrived += 1
        return self._arrived

    def record(self, entry: Entry) -> None:
        """Keep an entry, and drop the oldest past the bound."""
        self._entries.append(entry)

    def entries(self, *, api: str | None = None, request_id: str | None = None) -> list[dict[str, object]]:
        """Show the entries of an API, of a request id, or all."""
        return [
            asdict(entry)
            for entry in self._entries
            if api in (None, entry.api) and request_id in (None, entry.request_id)
        ]

    def reset(self) -> None:
        """Forget everything; numbers go on, so that no two requests ever share one."""
        self._entries.clear()


def body_text(body: bytes) -> str:
    """Write a body for people, cut to the bound."""
    text = body[:BODY_BYTES_MAX].decode("utf-8", "replace")
    return text if len(body) <= BODY_BYTES_MAX else f"{text}… ({len(body)} bytes in all)"
