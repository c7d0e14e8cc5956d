"""The last 1000 requests and their responses, with bodies cut to 8 KiB."""

from __future__ import annotations

from collections import deque
from dataclasses import asdict, dataclass
from typing import Final

from clients.alipayhk.wire.messages import Headers

ENTRIES_MAX: Final = 1_000
BODY_BYTES_MAX: Final = 8 * 1024


@dataclass(frozen=True, slots=True)
class Entry:
    """One request and its response."""

    number: int
    time: str
    api: str
    """The name of the API; empty if no API has this path."""
    request_id: str
    method: str
    path: str
    headers: Headers
    body: str
    """The body as received."""
    decrypted_body: str | None
    """None if the body was not encrypted or cannot be decrypted."""
    content_to_sign: str
    """The content that the signature should cover."""
    signed_content: str | None
    """The content that a signature that does not match covers; None if it is not known."""
    causes: tuple[str, ...]
    """Why the signature does not match, as far as it is proven; `alipayhk-gateway doctor` explains them."""
    verified: bool
    verdict: str
    fault: str
    """The name of the response's fault; empty if it has no fault."""
    http_status: int
    answer_headers: Headers
    answer_body: str
    """The body as sealed. A fault in sending it is not visible here."""

    def log_text(self) -> str:
        """Return one line; if the signature did not verify, also what it should cover and what it covers.

        The client chooses these texts, and must not be able to forge lines of the log.
        """
        fault = f" +{self.fault}" if self.fault else ""
        line = f"#{self.number} {self.api or self.path} {self.request_id or '-'}{fault}: {self.verdict}"
        if self.verified or not self.content_to_sign:
            return printable(line)
        text = f"{printable(line)}\nthe signature should cover:{_quoted(self.content_to_sign)}"
        if self.signed_content is None:
            return text
        return f"{text}\nit covers:{_quoted(self.signed_content)}"


class Journal:
    """The last requests, newest last."""

    def __init__(self, *, entries_max: int = ENTRIES_MAX) -> None:
        self._entries: deque[Entry] = deque(maxlen=entries_max)
        self._arrived = 0

    def next_number(self) -> int:
        """Return the number of the next request."""
        self._arrived += 1
        return self._arrived

    def record(self, entry: Entry) -> None:
        """Add an entry; if there are too many, delete the oldest."""
        self._entries.append(entry)

    def entries(self, *, api: str | None = None, request_id: str | None = None) -> list[dict[str, object]]:
        """Return the entries of an API, of a request id, or all of them."""
        return [
            asdict(entry)
            for entry in self._entries
            if api in (None, entry.api) and request_id in (None, entry.request_id)
        ]

    def reset(self) -> None:
        """Delete all entries. Numbers continue, so that two requests never have the same number."""
        self._entries.clear()


def _quoted(content: str) -> str:
    return "".join(f"\n  | {printable(part)}" for part in content.split("\n"))


def printable(text: str) -> str:
    """Escape line breaks, and characters that control a terminal or the direction of text."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


def body_text(body: bytes) -> str:
    """Return a body as text, cut to 8 KiB."""
    text = body[:BODY_BYTES_MAX].decode("utf-8", "replace")
    return text if len(body) <= BODY_BYTES_MAX else f"{text}… ({len(body)} bytes in all)"
