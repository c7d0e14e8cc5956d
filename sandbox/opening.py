"""Verify and read a request, or reject it with the exact reason."""

from __future__ import annotations

from clients.alipayhk.diagnosis.claims import Claim
from clients.alipayhk.diagnosis.mistakes import mistake
from clients.alipayhk.wire.endpoint import Endpoint
from clients.alipayhk.wire.errors import Malformed, SignatureInvalid
from clients.alipayhk.wire.messages import RawRequest, VerifiedRequest

from .apis import ServedApi


class RequestRejected(Exception):
    """A request that is rejected before it reaches the wallet."""

    def __init__(self, code: str, cause: str, *, verified: bool = True) -> None:
        super().__init__(cause)
        self.code = code
        """One of `results.RESULT_CODES`."""
        self.cause = cause
        self.verified = verified
        """Whether the signature verified. If not, the response is unsigned."""


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
        raise RequestRejected("INVALID_SIGNATURE", claim.cut_fault, verified=False)
    try:
        return endpoint.protocol.unseal_request(endpoint, raw)
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
    hint = mistake(endpoint, claim, api.diagnosis.guesses(raw, claim))
    raise RequestRejected("INVALID_SIGNATURE", f"{cause}: {hint}" if hint else cause, verified=False)


def _is_text(raw: RawRequest) -> bool:
    """Return whether the Content-Type is JSON or text: an encrypted body can have either."""
    value = raw.value("content-type")
    media_type = value.partition(";")[0].strip().lower()
    return media_type == "application/json" or media_type.startswith("text/")
