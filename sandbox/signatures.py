"""Other signatures on a sealed answer: none, a wrong one, two.

An edit takes the signature's text, percent-encoded base64, and returns another; as many edits, so many
signatures does the answer bear.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from clients.alipayhk.diagnosis.mistakes import Diagnosis, Edit
from clients.alipayhk.wire.messages import SealedResponse

from .answers import Answer

Resign = Callable[[Diagnosis, Answer], Answer]
"""Put other signatures on an answer of a protocol."""


def with_signatures(*edits: Edit) -> Resign:
    """Sign with every edit of the right signature, in order."""

    def resign(diagnosis: Diagnosis, answer: Answer) -> Answer:
        sealed = diagnosis.with_signatures(SealedResponse(answer.headers, answer.body), edits)
        return replace(answer, headers=sealed.headers, body=sealed.body)

    return resign


def with_signature_pair(key: str, value: str) -> Resign:
    """Name another `key=value` in the header Signature, whatever it was."""

    def resign(_: Diagnosis, answer: Answer) -> Answer:
        def edit(line: str) -> str:
            pairs = (pair.partition("=") for pair in line.split(","))
            return ",".join(f"{name}={value if name == key else text}" for name, _, text in pairs)

        headers = ((name, edit(line) if name == "Signature" else line) for name, line in answer.headers)
        return replace(answer, headers=tuple(headers))

    return resign


def same(signature: str) -> str:
    """Leave a signature as it is."""
    return signature


def empty(_: str) -> str:
    """Leave nothing of a signature."""
    return ""


def spoilt(signature: str) -> str:
    """Change one letter, so that it is still base64 of the right length and verifies nothing."""
    return ("B" if signature[0] == "A" else "A") + signature[1:]
