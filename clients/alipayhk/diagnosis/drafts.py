"""A draft of the signed content, and a hypothesis: how a mistake changes a draft.

A hypothesis is a function from a draft to the drafts that a signer signs who makes this mistake. It changes
one thing only, so that two hypotheses can be applied one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .causes import Cause


@dataclass(frozen=True, slots=True)
class Frame:
    """The signed text before the body of a header-signed message."""

    path: str
    client_id: str
    time: str
    line_break: str = "\n"

    def text(self) -> str:
        """Return the text, which ends with the dot before the body."""
        return f"POST {self.path}{self.line_break}{self.client_id}.{self.time}."


@dataclass(frozen=True, slots=True)
class Draft:
    """Signed content in its parts."""

    body: bytes = b""
    frame: Frame | None = None
    """None if there is nothing before the body."""

    def content(self) -> bytes:
        """Return the bytes."""
        # A header that is not UTF-8 arrives with surrogates.
        return self.body if self.frame is None else _bytes(self.frame.text()) + self.body


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape" if not text.isascii() else "strict")


Variant = tuple[str, Draft]
"""A noun phrase that continues "The signature covers …", and the draft."""
Variants = Callable[[Draft], Iterator[Variant]]


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """One mistake."""

    cause: Cause
    variants: Variants
    alone: bool = False
    """Whether it has too many variants to be combined with other mistakes."""
