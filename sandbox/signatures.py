"""Other signatures on a sealed answer: none, a wrong one, two.

An edit takes the signature's text, percent-encoded base64, and returns another; as many edits, so many
signatures does the answer bear.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from clients.alipayhk.wire.messages import Headers
from clients.alipayhk.wire.protocols import ENVELOPE_SIGNED, HEADER_SIGNED

from .answers import Answer

Edit = Callable[[str], str]
Resign = Callable[[str, Answer], Answer]
"""Put other signatures on an answer of a protocol."""

_MARK: Final = b',"signature":"'


def with_signatures(*edits: Edit) -> Resign:
    """Sign with every edit of the right signature, in order."""
    return lambda protocol, answer: _RESIGN[protocol](answer, edits)


def with_signature_pair(key: str, value: str) -> Resign:
    """Name another `key=value` in the header Signature, whatever it was."""

    def resign(_: str, answer: Answer) -> Answer:
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


def _resign_headers(answer: Answer, edits: tuple[Edit, ...]) -> Answer:
    headers: Headers = ()
    for name, line in answer.headers:
        if name != "Signature":
            headers += ((name, line),)
            continue
        start, mark, signature = line.partition("signature=")
        headers += tuple((name, start + mark + edit(signature)) for edit in edits)
    return replace(answer, headers=headers)


def _resign_envelope(answer: Answer, edits: tuple[Edit, ...]) -> Answer:
    content, _, rest = answer.body.rpartition(_MARK)
    signature = rest.removesuffix(b'"}').decode()
    lines = b"".join(_MARK + edit(signature).encode() + b'"' for edit in edits)
    return replace(answer, body=content + lines + b"}")


_RESIGN: Final = {HEADER_SIGNED: _resign_headers, ENVELOPE_SIGNED: _resign_envelope}
