"""Read what a received message says about itself, before its signature is verified."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ..wire.messages import RawRequest, RawResponse, VerifiedRequest
from ..wire.strict_json import IncompleteJson, JsonError, member_bytes, read_object
from .causes import Cause
from .drafts import Draft

Decrypt = Callable[[str, bytes], bytes | None]
"""Takes the value of the header Encrypt and the body; returns the decrypted body, or None."""


@dataclass(frozen=True, slots=True)
class Message:
    """A received message."""

    path: str
    """Path and query of the request; of a response, those of its request."""
    raw: RawRequest | RawResponse

    @property
    def is_response(self) -> bool:
        """Whether it is a response, which the gateway reads leniently (`wire.lenient`)."""
        return isinstance(self.raw, RawResponse)


@dataclass(frozen=True, slots=True)
class Claim:
    """The parts of a message that could be read; a part that could not be read is empty."""

    client_id: str = ""
    draft: Draft = field(default_factory=Draft)
    """The content that the signature should cover, in its parts."""
    signature: str = ""
    """The signature as received: base64, which may be percent-encoded."""
    leniently: bool = False
    """Whether the receiver accepts line breaks in the signature."""
    key_version: str | None = None
    """The keyVersion in the message; None if it has none."""
    body: Mapping[str, object] = field(default_factory=dict)
    head: Mapping[str, object] = field(default_factory=dict)
    encrypted: bool = False
    decrypted: bytes | None = None
    """The decrypted body; None if the body is not encrypted or cannot be decrypted."""
    unwrapped: tuple[Cause, str, bytes] | None = None
    """The content of an envelope that its receiver cannot read, with the cause and a noun phrase of it."""
    cut_fault: str = ""
    """Why an envelope cannot be split into signed content and signature; empty if it can."""
    read_fault: str = ""
    """Why the body cannot be decrypted or read as a JSON object; empty if it can."""
    refusal: str = ""
    """Why the receiver refuses the message whatever its signature covers; empty if it does not."""
    cut_off: str = ""
    """How the message shows that its end is missing; empty if it does not."""
    others: Mapping[str, str] = field(default_factory=dict)
    """All headers by name in lower case, for other paths, times and client ids than the signed ones."""

    @property
    def content(self) -> bytes:
        """The exact bytes that the signature should cover."""
        return self.draft.content()

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


def other_headers(message: Message) -> dict[str, str]:
    """Return the first value of each header, by its name in lower case."""
    return {name: values[0] for name, values in message.raw.by_name.items()}


def missing_end(message: Message) -> str:
    """Return how a message shows that its end is missing; empty if it does not."""
    length = message.raw.value("content-length").strip()
    is_number = length.isascii() and length.isdigit() and len(length) < len(str(2**63))
    if is_number and int(length) > len(message.raw.body) and not message.raw.values("content-encoding"):
        return f"has {len(message.raw.body)} bytes, and its Content-Length is {int(length)}"
    if not message.raw.body:
        return ""
    try:
        member_bytes(message.raw.body)
    except IncompleteJson:
        return "ends inside its JSON"
    except JsonError:
        pass
    return ""
