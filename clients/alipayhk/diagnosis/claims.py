"""Read what a received request says about itself, before its signature is verified."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..wire.messages import VerifiedRequest
from ..wire.strict_json import JsonError, read_object


@dataclass(frozen=True, slots=True)
class Claim:
    """The parts of a request that could be read; a part that could not be read is empty."""

    client_id: str = ""
    content: bytes = b""
    """The exact bytes that the signature should cover."""
    signature: str = ""
    """The signature as received: base64, which may be percent-encoded."""
    key_version: str | None = None
    """The keyVersion in the request; None if it has none."""
    body: Mapping[str, object] = field(default_factory=dict)
    head: Mapping[str, object] = field(default_factory=dict)
    encrypted: bool = False
    decrypted: bytes | None = None
    """The decrypted body; None if the body is not encrypted or cannot be decrypted."""
    cut_fault: str = ""
    """Why an envelope cannot be split into signed content and signature; empty if it can."""
    read_fault: str = ""
    """Why the body cannot be decrypted or read as a JSON object; empty if it can."""

    def as_verified(self) -> VerifiedRequest:
        """Return the claim as if it were verified: the response to a rejected request repeats its data."""
        return VerifiedRequest(
            client_id=self.client_id, body=self.body, head=self.head, encrypted=self.encrypted
        )


def object_or_empty(data: bytes) -> dict[str, object]:
    """Return the JSON object in `data`, or an empty one if it cannot be read."""
    try:
        return read_object(data)
    except JsonError:
        return {}


def body_fault(data: bytes, state: str) -> str:
    """Return why `data` is not a JSON object; empty if it is. `state`: `as received` or `decrypted`."""
    try:
        read_object(data)
    except JsonError as error:
        return f"the body, {state}, cannot be read: {error}"
    return ""
