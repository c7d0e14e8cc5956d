"""What it means that AlipayHK refused this gateway, by the result code."""

from __future__ import annotations

from typing import Final

HINTS: Final = {
    "INVALID_SIGNATURE": "it has another public key of ours, or a proxy changed the path or the body: "
    "compare the fingerprint with AlipayHK",
    "KEY_NOT_FOUND": "it has no key of ours with the version SIGNING_KEY_VERSION",
    "INVALID_CLIENT": "it does not know CLIENT_ID (for BindAccount, BIND_ACCOUNT_CLIENT_ID)",
    "ACCESS_DENIED": "this client id may not use this API, or AlipayHK does not allow our address",
}
OTHER_HINT: Final = "ask AlipayHK for the path and the form of this API"
SIGNATURE_CODES: Final = {"INVALID_SIGNATURE", "KEY_NOT_FOUND"}
"""The codes of a refusal for the signature."""
