"""Write a diagnosis for other people, for example AlipayHK's support.

What is masked must not be found out by trying: so there is no digest of the content, and no signature,
because a public key recovers the digest from it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Final

from clients.alipayhk.diagnosis.causes import Cause
from clients.alipayhk.diagnosis.diagnose import Diagnosis
from clients.alipayhk.wire.keys import fingerprint

from .exchange import Exchange, Unusable
from .knowledge import Knowledge
from .masking import masked
from .visible import decoded

PERSONAL: Final = "This file contains personal data: the contents are not masked."


def write_share(
    file: Path, diagnosis: Diagnosis, exchange: Exchange, knowledge: Knowledge, *, unmasked: bool
) -> None:
    """Write the file, which must not exist; raise Unusable."""
    members: dict[str, Any] = {"personal_data": PERSONAL} if unmasked else {}
    members |= {
        "verdict": diagnosis.verdict,
        "causes": list(diagnosis.causes),
        "explanation": diagnosis.explanation,
        "fix": diagnosis.fix,
        "protocol": exchange.protocol,
        "message": exchange.message,
        "tracer_id": exchange.tracer_id,
        "key_version": diagnosis.key_version,
        "keys_sha256": {version: fingerprint(key) for version, key in knowledge.known.verifying.items()},
        "content_to_sign": _shown(diagnosis.content_to_sign, unmasked=unmasked),
        "signed_content": _shown(diagnosis.signed_content, unmasked=unmasked),
    }
    if unmasked and diagnosis.signed_digest is not None:
        members["signed_digest"] = diagnosis.signed_digest.hex()
    if not unmasked and Cause.DOUBLE_HASH in diagnosis.causes:
        members["signed_content"] = None
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
            json.dump(members, opened, indent=2)
    except OSError as error:
        raise Unusable(f"{file} cannot be written: {error.strerror}.") from None


def _shown(content: bytes | None, *, unmasked: bool) -> dict[str, str] | None:
    """Return a content as text and as the hex of the text's bytes, which show what no text shows."""
    if content is None:
        return None
    if unmasked:
        return {"text": decoded(content), "hex": content.hex(" ")}
    text = masked(decoded(content))
    return {"text": text, "hex": text.encode("utf-8", "backslashreplace").hex(" ")}
