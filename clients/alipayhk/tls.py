"""TLS to AlipayHK: which certificates are accepted, and why a connection failed."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Final

_HOST_CODES: Final = frozenset({62, 63, 64})
_STRICT_CODES: Final = frozenset(range(80, 95))
_CERTIFICATE_FAULTS: Final[dict[int, str]] = {
    9: "the certificate of the server, or of its CA, is not yet valid",
    10: "the certificate of the server, or of its CA, has expired",
    **dict.fromkeys((2, 18, 19, 20, 21), "the server's certificate is of an unknown CA"),
    **dict.fromkeys(
        _HOST_CODES,
        "the server's certificate is for another host; only its subjectAltName counts, not its common name",
    ),
    **dict.fromkeys(
        _STRICT_CODES,
        "the certificate of the server, or of its CA, breaks a rule of RFC 5280"
        " that Python checks from 3.13 on (VERIFY_X509_STRICT)",
    ),
}
"""Sentences by OpenSSL's code: https://docs.openssl.org/3.0/man3/X509_STORE_CTX_get_error/."""
_OTHER_CERTIFICATE_FAULT: Final = "the server's certificate is not valid"

_FAULTS: Final[dict[str, str]] = {
    "ALERT_CERTIFICATE_REQUIRED": "the server requires a client certificate, and the gateway has none",
    "ALERT_HANDSHAKE_FAILURE": "the server refused the TLS handshake:"
    " it requires a client certificate, or has no cipher in common with the gateway",
    "ALERT_PROTOCOL_VERSION": "the server has no TLS version in common with the gateway",
    "UNSUPPORTED_PROTOCOL": "the server has no TLS version in common with the gateway",
    "ALERT_UNRECOGNIZED_NAME": "the server does not know this host name",
    "WRONG_VERSION_NUMBER": "the server sent bytes that are not TLS",
    "RECORD_LAYER_FAILURE": "the server sent bytes that are not TLS",
}
"""Sentences by the suffix of OpenSSL's reason; the prefix depends on the version."""
_OTHER_FAULT: Final = "TLS failed"
_REASON_CHARACTERS_MAX: Final = 100


def context_of(ca_file: Path | None = None) -> ssl.SSLContext:
    """Return what a connection to AlipayHK needs; without `ca_file`, the system's CAs are trusted.

    A common name is never read as a host name: https://www.rfc-editor.org/rfc/rfc9525#section-2.
    """
    context = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
    context.hostname_checks_common_name = False
    return context


def fault_of(error: BaseException) -> str | None:
    """Return why TLS failed, with OpenSSL's own reason; None if the error is not one of TLS.

    The text contains nothing that was received: OpenSSL's reasons are entries of its tables.
    """
    fault = None
    link: BaseException | None = error
    while link is not None:
        # aiohttp wraps an SSLError in errors that are SSLErrors too: the innermost one has the reason.
        fault = link if isinstance(link, ssl.SSLError) else fault
        link = link.__cause__
    if fault is None:
        return None
    if isinstance(fault, ssl.SSLCertVerificationError):
        sentence = _CERTIFICATE_FAULTS.get(fault.verify_code, _OTHER_CERTIFICATE_FAULT)
        reason = fault.verify_message.partition(",")[0]  # OpenSSL adds the host after a comma
    else:
        reason = getattr(fault, "reason", None) or type(fault).__name__
        sentence = next((text for end, text in _FAULTS.items() if reason.endswith(end)), _OTHER_FAULT)
    readable = "".join(character for character in reason if " " <= character <= "~")
    return f"{sentence} (OpenSSL: {readable[:_REASON_CHARACTERS_MAX]})"
