"""Replace the signature of a sealed response: by none, by a wrong one, or by two.

An `Edit` turns the text of the correct signature into another text.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from clients.alipayhk.diagnosis.protocol_row import Edit, ProtocolRow
from clients.alipayhk.wire.messages import SealedResponse

from .answers import Answer

Resign = Callable[[ProtocolRow, Answer], Answer]
"""Replaces the signature of a response; the row is that of its protocol."""


def with_signatures(*edits: Edit) -> Resign:
    """Return a Resign that writes one signature for each edit, in order."""

    def resign(row: ProtocolRow, answer: Answer) -> Answer:
        sealed = row.with_signatures(SealedResponse(answer.headers, answer.body), edits)
        return replace(answer, headers=sealed.headers, body=sealed.body)

    return resign


def with_signature_pair(key: str, value: str) -> Resign:
    """Return a Resign that changes the value of `key` in the header Signature."""

    def resign(_: ProtocolRow, answer: Answer) -> Answer:
        def edit(line: str) -> str:
            pairs = (pair.partition("=") for pair in line.split(","))
            return ",".join(f"{name}={value if name == key else text}" for name, _, text in pairs)

        headers = ((name, edit(line) if name == "Signature" else line) for name, line in answer.headers)
        return replace(answer, headers=tuple(headers))

    return resign


def same(signature: str) -> str:
    """Return the signature unchanged."""
    return signature


def empty(_: str) -> str:
    """Return an empty signature."""
    return ""


def corrupted(signature: str) -> str:
    """Change the first letter: still base64 of the right length, but not a valid signature."""
    return ("B" if signature[0] == "A" else "A") + signature[1:]
