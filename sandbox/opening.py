"""Open a request: verify and read it, or refuse it and say precisely what is wrong."""

from __future__ import annotations

from clients.alipayhk.diagnosis.claims import Claim
from clients.alipayhk.diagnosis.mistakes import mistake
from clients.alipayhk.wire.clock import time_of
from clients.alipayhk.wire.endpoint import Endpoint
from clients.alipayhk.wire.errors import Malformed, SignatureInvalid
from clients.alipayhk.wire.messages import RawRequest, VerifiedRequest, header_values
from clients.alipayhk.wire.protocols import HEADER_SIGNED, PROTOCOLS
from clients.alipayhk.wire.protocols.header_signed import REQUEST_TIME
from clients.alipayhk.wire.strict_json import JsonError, read_object

from .apis import ServedApi


class RequestRejected(Exception):
    """A request that is answered before the wallet sees it."""

    def __init__(self, code: str, cause: str, *, verified: bool = True) -> None:
        super().__init__(cause)
        self.code = code
        """One of `results.RESULT_CODES`."""
        self.cause = cause
        self.verified = verified
        """Whether the signature verified; the answer to one that did not is itself unsigned."""


def open_request(
    api: ServedApi, endpoint: Endpoint, method: str, raw: RawRequest, claim: Claim
) -> VerifiedRequest:
    """Return a request that is verified, in its right place, and whole; else raise Refused."""
    if method != "POST":
        raise RequestRejected("METHOD_NOT_SUPPORTED", f"the method is {method}, not POST", verified=False)
    try:
        request = _verified(endpoint, raw, claim)
    except Malformed as error:
        raise RequestRejected("PARAM_ILLEGAL", _unreadable(raw, claim) or str(error)) from None
    _check_meant_for_us(endpoint, raw, request)
    violations = _time_violations(endpoint, raw) + api.violations(request)
    if violations:
        raise RequestRejected("PARAM_ILLEGAL", "; ".join(violations))
    return request


def _check_meant_for_us(endpoint: Endpoint, raw: RawRequest, request: VerifiedRequest) -> None:
    """Refuse a verified request that is meant for another client, API or media type."""
    if request.client_id != endpoint.client_id:
        raise RequestRejected("INVALID_CLIENT", f"the client id is not {endpoint.client_id}")
    if not _is_text(raw):
        raise RequestRejected(
            "MEDIA_TYPE_NOT_ACCEPTABLE", "the header Content-Type names neither JSON nor text"
        )
    for name, served in (("function", endpoint.function), ("version", endpoint.version)):
        if request.head.get(name, served) != served:
            raise RequestRejected("INVALID_API", f"the {name} in the head is not {served}")


def _verified(endpoint: Endpoint, raw: RawRequest, claim: Claim) -> VerifiedRequest:
    """Verify the signature or raise Refused; raise Malformed when what it covers is no request."""
    if claim.cut_fault:
        raise RequestRejected("INVALID_SIGNATURE", claim.cut_fault, verified=False)
    try:
        return PROTOCOLS[endpoint.protocol].unseal_request(endpoint, raw)
    except SignatureInvalid as error:
        cause = str(error)
    known = endpoint.keys.verifying
    if claim.client_id and claim.client_id != endpoint.client_id:
        cause = f"the client id is not {endpoint.client_id}, and {cause}"
        raise RequestRejected("INVALID_CLIENT", cause, verified=False)
    if claim.key_version is not None and claim.key_version not in known:
        raise RequestRejected(
            "KEY_NOT_FOUND", f"{cause}; known keyVersions: {', '.join(known)}", verified=False
        )
    hint = mistake(endpoint, raw, claim)
    raise RequestRejected("INVALID_SIGNATURE", f"{cause}: {hint}" if hint else cause, verified=False)


def _unreadable(raw: RawRequest, claim: Claim) -> str:
    """Say why a body whose signature verified cannot be read; nothing when the protocol knows better."""
    if len(header_values(raw.headers, "Encrypt")) > 1:
        return "there is more than one header Encrypt"
    if claim.encrypted and claim.decrypted is None:
        return "the body cannot be decrypted: its Encrypt header, AES key, AES profile or base64 is wrong"
    try:
        read_object(claim.decrypted if claim.decrypted is not None else raw.body)
    except JsonError as error:
        return f"the body, {'decrypted' if claim.encrypted else 'as it came'}, cannot be read: {error}"
    return ""


def _time_violations(endpoint: Endpoint, raw: RawRequest) -> list[str]:
    if endpoint.protocol != HEADER_SIGNED:
        return []
    try:
        time_of(header_values(raw.headers, REQUEST_TIME)[0])
    except ValueError:
        return [f"{REQUEST_TIME}: must be an ISO-8601 time with an offset"]
    return []


def _is_text(raw: RawRequest) -> bool:
    """Whether the body is said to be JSON or text: encrypted bodies travel as either."""
    value = next(iter(header_values(raw.headers, "Content-Type")), "")
    media_type = value.partition(";")[0].strip().lower()
    return media_type == "application/json" or media_type.startswith("text/")
