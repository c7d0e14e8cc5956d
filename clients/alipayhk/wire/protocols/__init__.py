"""The wire protocols: bytes and meaning, without I/O, clock or randomness of their own.

`seal_request` and `unseal_response` are what a client needs; `unseal_request` and `seal_response` are
their mirror, for whoever stands at AlipayHK's end. Seal and unseal are pairs: what one side seals
under an `Endpoint`, the other side unseals under its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final, Protocol

from ..endpoint import Endpoint
from ..messages import (
    RawRequest,
    RawResponse,
    SealedRequest,
    SealedResponse,
    VerifiedRequest,
    VerifiedResponse,
)
from . import envelope_signed, header_signed

RandomBytes = Callable[[int], bytes]


class WireProtocol(Protocol):
    """The shape that every protocol module has."""

    def seal_request(
        self,
        endpoint: Endpoint,
        request_id: str,
        body: bytes,
        *,
        now: datetime,
        random_bytes: RandomBytes,
    ) -> SealedRequest:
        """Encrypt where asked, and sign; `body` is the business content as JSON."""

    def unseal_response(
        self,
        endpoint: Endpoint,
        request_id: str,
        raw: RawResponse,
        *,
        sent_at: datetime,
        now: datetime,
    ) -> VerifiedResponse:
        """Verify the very bytes, then decrypt, then read; raise an error of `errors` otherwise."""

    def unseal_request(self, endpoint: Endpoint, raw: RawRequest) -> VerifiedRequest:
        """Verify, decrypt and read a request; raise SignatureInvalid or Malformed otherwise."""

    def seal_response(
        self,
        endpoint: Endpoint,
        request: VerifiedRequest,
        body: Mapping[str, object],
        *,
        now: datetime,
        random_bytes: RandomBytes,
    ) -> SealedResponse:
        """Encrypt if the request was, and sign."""


HEADER_SIGNED: Final = "header-signed"
ENVELOPE_SIGNED: Final = "envelope-signed"

PROTOCOLS: Final[dict[str, WireProtocol]] = {
    HEADER_SIGNED: header_signed,
    ENVELOPE_SIGNED: envelope_signed,
}
