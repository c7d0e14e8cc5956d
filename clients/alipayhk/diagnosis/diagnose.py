"""From a message and keys to a diagnosis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from .causes import FIXES, Cause
from .claims import Claim
from .protocol_row import Known, ProtocolRow
from .search import Found, Searched, search
from .signature import Clause, Decoded, Recovered, decodings, pss_signatures, recovered


class Verdict(StrEnum):
    """Whether the signature verifies, and whether the cause is known if it does not."""

    VALID = "valid"
    INVALID = "invalid"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What is known about a message's signature. It contains the content: personal data."""

    verdict: Verdict
    explanation: str
    """One sentence without any value of the message."""
    fix: str
    """What to do: one sentence for each cause."""
    content_to_sign: bytes = field(repr=False)
    causes: tuple[Cause, ...] = ()
    key_version: str | None = None
    """The version of the key that made the signature, as far as it is known."""
    signed_content: bytes | None = field(default=None, repr=False)
    signed_digest: bytes | None = None


def diagnose(row: ProtocolRow, claim: Claim, known: Known) -> Diagnosis:
    """Say whether a signature verifies and, if it does not, why.

    A cause is named only if it is proven: its content has exactly the digest that the right key recovers
    from the signature. WRONG_KEY, OWN_KEY and TRUNCATED have no such content.
    """
    if not claim.signature or (claim.cut_fault and claim.unwrapped is None):
        return _unsigned(claim)
    ways = list(decodings(claim.signature, leniently=claim.leniently))
    keys = _named_first(claim, known)
    hypotheses = row.hypotheses(claim, known)
    made = recovered(ways, keys)
    if made is not None:
        return _of_signed(row, claim, known, made, search(claim.draft, hypotheses, made.is_signed))
    for made in pss_signatures(ways, keys):
        searched = search(claim.draft, hypotheses, made.is_signed)
        if searched.found:
            break
    return _of_signed(row, claim, known, made, searched) if made else _of_no_key(claim, known, ways)


def _named_first(claim: Claim, known: Known) -> dict[str, RSAPublicKey]:
    """Return the keys by version, the one that the message names before all others."""
    named = {version: key for version, key in known.verifying.items() if version == claim.key_version}
    return {**named, **known.verifying}


def _of_signed(
    row: ProtocolRow, claim: Claim, known: Known, made: Recovered, searched: Searched
) -> Diagnosis:
    """Return the diagnosis of a signature that a known key made."""
    found = searched.found
    clauses = (*_of_version(row, claim, known, made), *made.clauses, *(found.clauses if found else ()))
    valid = found is not None and not clauses and not claim.refusal
    explanation, verdict = _VALID, Verdict.VALID
    causes = tuple(dict.fromkeys(cause for cause, _ in clauses)) if found else ()
    if causes:
        explanation, verdict = _sentence([text for _, text in clauses]), Verdict.INVALID
    elif claim.cut_off and found is None:
        return _cut_off(claim, made)
    elif not valid:
        verdict = Verdict.UNDECIDED
        explanation = f"The message {claim.refusal}." if found else _of_unknown(made, searched)
    return Diagnosis(
        verdict=verdict,
        explanation=explanation,
        fix="" if valid else " ".join(FIXES[cause] for cause in causes) or _fix_of_unknown(found),
        content_to_sign=claim.content,
        causes=causes,
        key_version=made.version,
        signed_content=found.draft.content() if found else None,
        signed_digest=made.digest,
    )


def _of_unknown(made: Recovered, searched: Searched) -> str:
    """Say what is known of a signature over unknown content."""
    scheme = f"The signature is made with {_NAMES[made.algorithm]}. " if made.algorithm in _NAMES else ""
    return scheme + _UNKNOWN_CONTENT + ("" if searched.is_complete else _INCOMPLETE)


def _of_version(row: ProtocolRow, claim: Claim, known: Known, made: Recovered) -> tuple[Clause, ...]:
    """Say that the message names another key than the one that made the signature."""
    named = claim.key_version if claim.key_version is not None else next(iter(known.verifying), None)
    if not row.names_key or named == made.version:
        return ()
    if claim.key_version is None:
        told = "not with the newest key, and the message names no version"
    else:
        told = "not with the key that the message names"
    return ((Cause.OTHER_KEY_VERSION, f"is made with the key of version {made.version}, {told}"),)


def _sentence(clauses: Sequence[str]) -> str:
    return f"The signature {', and it '.join(clauses)}."


def _cut_off(claim: Claim, made: Recovered | None = None) -> Diagnosis:
    return Diagnosis(
        verdict=Verdict.INVALID,
        explanation=f"The message is cut off: it {claim.cut_off}.",
        fix=FIXES[Cause.TRUNCATED],
        content_to_sign=claim.content,
        causes=(Cause.TRUNCATED,),
        key_version=made.version if made else None,
        signed_digest=made.digest if made else None,
    )


def _unsigned(claim: Claim) -> Diagnosis:
    """Return the diagnosis of a message without a signature that can be read."""
    if claim.cut_off:
        return _cut_off(claim)
    reason = claim.cut_fault or claim.refusal
    return Diagnosis(
        verdict=Verdict.UNDECIDED,
        explanation=f"The message has no signature that can be read ({reason})."
        if reason
        else _NO_SIGNATURE,
        fix=_FIX_UNSIGNED,
        content_to_sign=claim.content,
    )


def _of_no_key(claim: Claim, known: Known, ways: list[Decoded]) -> Diagnosis:
    """Return the diagnosis of a signature that no known key made."""
    own = known.own.public_numbers() if known.own else None
    cause: Cause | None = Cause.WRONG_KEY
    explanation = _WRONG_KEY
    if not ways:
        cause, explanation = None, "The signature is not base64 in any form."
    elif own in [key.public_numbers() for key in known.verifying.values()]:
        cause, explanation = Cause.OWN_KEY, "Our own public key is where the signer's public key belongs."
    elif known.own is not None and recovered(ways, {"own": known.own}):
        explanation = _MADE_WITH_OWN
    return Diagnosis(
        verdict=Verdict.INVALID if cause else Verdict.UNDECIDED,
        explanation=explanation,
        fix=FIXES[cause or Cause.SIGNATURE_ENCODING],
        content_to_sign=claim.content,
        causes=(cause,) if cause else (),
    )


def _fix_of_unknown(found: Found | None) -> str:
    return _FIX_UNKNOWN if found is None else "Ask the signer to send the message as AlipayHK documents it."


_NAMES: Final = {
    "sha1": "SHA-1",
    "md5": "MD5",
    "sha224": "SHA-224",
    "sha384": "SHA-384",
    "sha512": "SHA-512",
    "pss": "the padding PSS",
}
_VALID: Final = "The signature verifies."
_NO_SIGNATURE: Final = "The message has no signature."
_FIX_UNSIGNED: Final = (
    "If it is a response, diagnose its request: AlipayHK does not sign the response to a request whose"
    " signature it refused."
)
_WRONG_KEY: Final = "None of the given keys made the signature, or the signature was damaged on its way."
_MADE_WITH_OWN: Final = "The signature is made with our own key, and the given keys are others."
_UNKNOWN_CONTENT: Final = (
    "A given key made the signature, but it covers other content: neither this message nor a mistake that"
    " was tried has the signed digest."
)
_INCOMPLETE: Final = " The message is too large to try every combination of two mistakes."
_FIX_UNKNOWN: Final = (
    "Compare the content to sign with what the signer signed, byte by byte; something may have changed the"
    " message after it was signed."
)
