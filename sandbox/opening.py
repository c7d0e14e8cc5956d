"""Verify and read a request, or reject it with the exact reason."""

from __future__ import annotations

from functools import partial

from clients.alipayhk.diagnosis.claims import Claim, Message
from clients.alipayhk.diagnosis.diagnose import Diagnosis, diagnose
from clients.alipayhk.diagnosis.protocol_row import Known
from clients.alipayhk.wire.crypto import CryptoError
from clients.alipayhk.wire.endpoint import Endpoint
from clients.alipayhk.wire.errors import Malformed, SignatureInvalid
from clients.alipayhk.wire.messages import RawRequest, VerifiedRequest
from clients.alipayhk.wire.protocols.header_signed import decrypt_body

from .apis import ServedApi


class RequestRejected(Exception):
    """A request that is rejected before it reaches the wallet."""

    def __init__(
        self, code: str, cause: str, *, verified: bool = True, diagnosis: Diagnosis | None = None
    ) -> None:
        super().__init__(cause)
        self.code = code
        """One of `results.RESULT_CODES`."""
        self.cause = cause
        self.verified = verified
        """Whether the signature verified. If not, the response is unsigned."""
        self.diagnosis = diagnosis
        """Why the signature does not verify; None if the cause says all."""


def open_request(
    api: ServedApi, endpoint: Endpoint, method: str, raw: RawRequest, claim: Claim
) -> VerifiedRequest:
    """Return the request if its signature, its destination and its members are right.

    Otherwise raise RequestRejected.
    """
    if method != "POST":
        raise RequestRejected("METHOD_NOT_SUPPORTED", f"the method is {method}, not POST", verified=False)
    try:
        request = _verified(api, endpoint, raw, claim)
    except Malformed as error:
        raise RequestRejected("PARAM_ILLEGAL", claim.read_fault or str(error)) from None
    _check_destination(endpoint, raw, request)
    violations = api.violations(request)
    if violations:
        raise RequestRejected("PARAM_ILLEGAL", "; ".join(violations))
    return request


def _check_destination(endpoint: Endpoint, raw: RawRequest, request: VerifiedRequest) -> None:
    """Reject a verified request with another client id, media type, or API."""
    if request.client_id != endpoint.client_id:
        raise RequestRejected("INVALID_CLIENT", f"the client id is not {endpoint.client_id}")
    if not _is_text(raw):
        raise RequestRejected(
            "MEDIA_TYPE_NOT_ACCEPTABLE", "the header Content-Type is neither JSON nor text"
        )
    for name, served in endpoint.protocol.required_head.items():
        if request.head.get(name, served) != served:
            raise RequestRejected("INVALID_API", f"the {name} in the head is not {served}")


def _verified(api: ServedApi, endpoint: Endpoint, raw: RawRequest, claim: Claim) -> VerifiedRequest:
    """Return the verified request; raise RequestRejected, or Malformed if its body cannot be read."""
    if claim.cut_fault:
        raise _invalid_signature(api, claim, _known(endpoint), claim.cut_fault)
    try:
        return endpoint.protocol.unseal_request(endpoint, raw)
    except SignatureInvalid as error:
        cause = str(error)
    known = _known(endpoint)
    if claim.client_id and claim.client_id != endpoint.client_id:
        cause = f"the client id is not {endpoint.client_id}, and {cause}"
        raise RequestRejected("INVALID_CLIENT", cause, verified=False)
    if claim.key_version is not None and claim.key_version not in known.verifying:
        raise RequestRejected(
            "KEY_NOT_FOUND", f"{cause}; known keyVersions: {', '.join(known.verifying)}", verified=False
        )
    raise _invalid_signature(api, claim, known, cause)


def _invalid_signature(api: ServedApi, claim: Claim, known: Known, cause: str) -> RequestRejected:
    """Return the rejection with the causes that are proven."""
    diagnosis = diagnose(api.row, claim, known)
    if diagnosis.causes:
        cause = f"{cause} ({', '.join(diagnosis.causes)}). {diagnosis.explanation}"
    return RequestRejected("INVALID_SIGNATURE", cause, verified=False, diagnosis=diagnosis)


def _known(endpoint: Endpoint) -> Known:
    own = endpoint.keys.signing.public_key()
    return Known(endpoint.keys.verifying, own, client_ids=(endpoint.client_id,))


def read_claim(api: ServedApi, endpoint: Endpoint, raw: RawRequest) -> Claim:
    """Read a request before it is verified."""
    return api.row.claim(Message(raw.path, raw), partial(_decrypted, endpoint))


def _decrypted(endpoint: Endpoint, encrypt_header: str, body: bytes) -> bytes | None:
    encryption = endpoint.protocol.encryption
    if encryption is None:
        return None
    try:
        return decrypt_body(encryption, endpoint.keys, encrypt_header, body)
    except CryptoError:
        return None


def _is_text(raw: RawRequest) -> bool:
    """Return whether the Content-Type is JSON or text: an encrypted body can have either."""
    value = raw.value("content-type")
    media_type = value.partition(";")[0].strip().lower()
    return media_type == "application/json" or media_type.startswith("text/")
