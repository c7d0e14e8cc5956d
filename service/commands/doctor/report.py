"""Print a diagnosis, as text or as JSON."""

from __future__ import annotations

import json
from textwrap import indent
from typing import Final

from clients.alipayhk.diagnosis.causes import Cause
from clients.alipayhk.diagnosis.diagnose import Diagnosis

from .exchange import Exchange
from .masking import masked
from .visible import decoded, differences, visible

_NOT_TEXT: Final = {Cause.DOUBLE_HASH, Cause.COMPRESSED}
"""Causes for which one of the two contents is not text."""


def as_json(diagnosis: Diagnosis) -> str:
    """Return the diagnosis as JSON, which has the exact contents: it is for programs, and personal data."""
    signed, digest = diagnosis.signed_content, diagnosis.signed_digest
    return json.dumps(
        {
            "verdict": diagnosis.verdict,
            "cause": next(iter(diagnosis.causes), None),
            "causes": list(diagnosis.causes),
            "explanation": diagnosis.explanation,
            "fix": diagnosis.fix,
            "key_version": diagnosis.key_version,
            "content_to_sign": decoded(diagnosis.content_to_sign),
            "signed_content": None if signed is None else decoded(signed),
            "signed_digest": None if digest is None else digest.hex(),
        },
        indent=2,
    )


def as_text(diagnosis: Diagnosis, exchange: Exchange, *, unmasked: bool) -> str:
    """Return the diagnosis for a person; identity values are masked unless `unmasked`."""

    def shown(content: bytes) -> str:
        text = decoded(content)
        return text if unmasked else masked(text)

    causes = f" ({', '.join(diagnosis.causes)})" if diagnosis.causes else ""
    lines = [f"{diagnosis.verdict}{causes}: {diagnosis.explanation}"]
    lines += [f"fix: {diagnosis.fix}"] if diagnosis.fix else []
    lines += [f"message: {exchange.message}, {exchange.protocol}"]
    version = diagnosis.key_version
    lines += [f"made with the key of version: {version}"] if version is not None else []
    if diagnosis.content_to_sign:
        masks = "" if unmasked else ", values masked"
        expected = shown(diagnosis.content_to_sign)
        lines += [f"content to sign ({len(diagnosis.content_to_sign)} bytes{masks}):"]
        lines += [indent(visible(expected), "  | ", lambda _: True)]
        signed = diagnosis.signed_content
        is_text = _NOT_TEXT.isdisjoint(diagnosis.causes)
        if signed is not None and signed != diagnosis.content_to_sign and is_text:
            lines += [f"signed instead ({len(signed)} bytes{masks}); [-missing-] {{+added+}}:"]
            lines += [f"  | {differences(expected, shown(signed))}"]
    if diagnosis.signed_digest is not None and unmasked:
        lines += [f"signed digest: {diagnosis.signed_digest.hex()}"]
    return "\n".join(lines)
