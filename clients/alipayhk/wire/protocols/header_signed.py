r"""The header-signed protocol ("API structure v2"): metadata in HTTP headers, RSA_AES encryption.

    POST <path[?query]>\n<client-id>.<time>.<body as on the wire>

is what is signed, for a request with Request-Time and for a response with Response-Time (and still
the path of the request). Encryption comes first, so that the signature covers the ciphertext.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final

from .. import crypto
from ..clock import response_time_of, time_text
from ..crypto import CryptoError
from ..endpoint import Endpoint
from ..errors import Malformed, NotEncrypted, Replayed, SignatureInvalid
from ..keys import Key
from ..messages import (
    JSON_CONTENT_TYPE,
    Headers,
    RawRequest,
    RawResponse,
    SealedRequest,
    SealedResponse,
    VerifiedRequest,
    VerifiedResponse,
    header_values,
)
from ..strict_json import JsonError, read_object, write_json
from .header_text import (
    ENCRYPTION_ALGORITHM,
    SIGNATURE_ALGORITHM,
    encrypt_header,
    header_pairs,
    signature_header,
)
from .result_body import result_of
from .unsigned import unsigned

REQUEST_TIME: Final = "Request-Time"
RESPONSE_TIME: Final = "Response-Time"


def content_to_sign(path: str, client_id: str, time: str, body: bytes) -> bytes:
    """Return the exact bytes that are signed."""
    return f"POST {path}\n{client_id}.{time}.".encode() + body


def seal_request(
    endpoint: Endpoint,
    request_id: str,  # noqa: ARG001  (it stands in the body already)
    body: bytes,
    *,
    now: datetime,
    random_bytes: Callable[[int], bytes],
) -> SealedRequest:
    """Encrypt where asked, and sign; `body` is the business content as JSON."""
    headers, body = _seal(
        endpoint,
        body,
        time_header=REQUEST_TIME,
        time=time_text(now),
        client_id=endpoint.client_id,
        encrypted=endpoint.encrypt_requests,
        random_bytes=random_bytes,
    )
    return SealedRequest(path=endpoint.path, headers=headers, body=body)


def unseal_response(
    endpoint: Endpoint,
    request_id: str,  # noqa: ARG001  (this protocol's answers do not echo it)
    raw: RawResponse,
    *,
    sent_at: datetime,
    now: datetime,
) -> VerifiedResponse:
    """Verify the very bytes, then decrypt, then read; raise an error of `errors` otherwise."""
    if not header_values(raw.headers, "Signature"):
        raise unsigned(raw, "the answer has no header Signature")
    client_id, time = _verify(endpoint, raw.headers, raw.body, endpoint.path, RESPONSE_TIME)
    if client_id != endpoint.client_id:
        raise Replayed("the answer is to another client id")
    response_time = response_time_of(
        time, sent_at=sent_at, now=now, window_s=endpoint.response_time_window_s
    )
    if endpoint.encrypted_answers_only and not header_values(raw.headers, "Encrypt"):
        raise NotEncrypted("the answer has no header Encrypt")
    body = _read(endpoint, raw.headers, raw.body, huge_as_infinite=True)
    return VerifiedResponse(
        http_status=raw.http_status,
        result=result_of(body),
        body=body,
        response_time=response_time,
        tracer_id=raw.tracer_id,
    )


def unseal_request(endpoint: Endpoint, raw: RawRequest) -> VerifiedRequest:
    """Verify, decrypt and read a request; raise SignatureInvalid or Malformed otherwise."""
    client_id, _ = _verify(endpoint, raw.headers, raw.body, raw.path, REQUEST_TIME)
    return VerifiedRequest(
        client_id=client_id,
        body=_read(endpoint, raw.headers, raw.body),
        encrypted=bool(header_values(raw.headers, "Encrypt")),
    )


def seal_response(
    endpoint: Endpoint,
    request: VerifiedRequest,
    body: Mapping[str, object],
    *,
    now: datetime,
    random_bytes: Callable[[int], bytes],
) -> SealedResponse:
    """Encrypt if the request was, and sign."""
    headers, sealed = _seal(
        endpoint,
        write_json(body),
        time_header=RESPONSE_TIME,
        time=time_text(now),
        client_id=request.client_id,
        encrypted=request.encrypted,
        random_bytes=random_bytes,
    )
    return SealedResponse(headers=headers, body=sealed)


def encrypt_body(
    endpoint: Endpoint, plaintext: bytes, random_bytes: Callable[[int], bytes]
) -> tuple[str, bytes]:
    """Encrypt a body under a fresh AES key; return the header Encrypt and the text on the wire."""
    encryption = endpoint.encryption
    aes_key = random_bytes(encryption.profile.key_bytes)
    iv = random_bytes(crypto.AES_BLOCK_BYTES)
    ciphertext = crypto.encrypt(encryption.profile, aes_key, iv, plaintext)
    reader = endpoint.keys.verifying[encryption.key_version]
    wrapped = crypto.wrap_key(encryption.profile, reader, aes_key)
    return encrypt_header(encryption.key_version, wrapped), crypto.base64_text(ciphertext).encode()


def decrypt_body(endpoint: Endpoint, encrypt_header_value: str, body: bytes) -> bytes:
    """Decrypt a body that came with a header Encrypt; every way to fail is the same CryptoError."""
    profile = endpoint.encryption.profile
    try:
        pairs = header_pairs(encrypt_header_value)
        if pairs.get("algorithm", ENCRYPTION_ALGORITHM).upper() != ENCRYPTION_ALGORITHM:
            raise CryptoError("the body cannot be decrypted")
        key = _by_version(endpoint.keys.decrypting, pairs)
        wrapped = crypto.url_base64_bytes(pairs["symmetrickey"])
        aes_key = crypto.unwrap_key(profile, key, wrapped)
        ciphertext = crypto.base64_bytes(body.decode("ascii"))
        return crypto.decrypt(profile, aes_key, ciphertext)
    except (CryptoError, KeyError, ValueError):
        raise CryptoError("the body cannot be decrypted") from None


def _seal(
    endpoint: Endpoint,
    body: bytes,
    *,
    time_header: str,
    time: str,
    client_id: str,
    encrypted: bool,
    random_bytes: Callable[[int], bytes],
) -> tuple[Headers, bytes]:
    content_type = JSON_CONTENT_TYPE
    encrypt_lines: Headers = ()
    if encrypted:
        value, body = encrypt_body(endpoint, body, random_bytes)
        content_type, encrypt_lines = endpoint.encryption.content_type, (("Encrypt", value),)
    content = content_to_sign(endpoint.path, client_id, time, body)
    signature = crypto.sign(endpoint.keys.signing, content)
    headers: Headers = (
        ("Client-Id", client_id),
        ("Content-Type", content_type),
        (time_header, time),
        *encrypt_lines,
        ("Signature", signature_header(endpoint.keys.signing_version, signature)),
    )
    return headers, body


def _verify(
    endpoint: Endpoint, headers: Headers, body: bytes, path: str, time_header: str
) -> tuple[str, str]:
    """Verify a signature over the bytes as they came; return the client id and time it covers."""
    client_id = _only(headers, "Client-Id")
    time = _only(headers, time_header)
    try:
        pairs = header_pairs(_only(headers, "Signature"))
    except ValueError as error:
        raise SignatureInvalid(f"the header Signature is {error}") from None
    if pairs.get("algorithm", SIGNATURE_ALGORITHM).upper() != SIGNATURE_ALGORITHM:
        raise SignatureInvalid("the header Signature names another algorithm than RSA256")
    try:
        key = _by_version(endpoint.keys.verifying, pairs)
    except KeyError:
        raise SignatureInvalid("the header Signature names a keyVersion that is not known") from None
    try:
        signature = crypto.url_base64_bytes(pairs.get("signature", ""))
        crypto.verify(key, signature, content_to_sign(path, client_id, time, body))
    except CryptoError as error:
        raise SignatureInvalid(str(error)) from None
    return client_id, time


def _read(
    endpoint: Endpoint, headers: Headers, body: bytes, *, huge_as_infinite: bool = False
) -> dict[str, object]:
    """Decrypt if and only if Encrypt is present, and read; one public error for every failure."""
    encrypt_lines = header_values(headers, "Encrypt")
    try:
        if len(encrypt_lines) > 1:
            raise CryptoError("there is more than one header Encrypt")
        if encrypt_lines:
            body = decrypt_body(endpoint, encrypt_lines[0], body)
        return read_object(body, huge_as_infinite=huge_as_infinite)
    except (CryptoError, JsonError):
        raise Malformed("the body cannot be decrypted or read") from None


def _by_version(keys: Mapping[str, Key], pairs: Mapping[str, str]) -> Key:
    """Return the key that `keyVersion` names, or the newest where it is absent; else KeyError."""
    return keys[pairs.get("keyversion", next(iter(keys), ""))]


def _only(headers: Headers, name: str) -> str:
    values = header_values(headers, name)
    if len(values) != 1 or not values[0]:
        count = "empty" if len(values) == 1 else "absent" if not values else "there more than once"
        raise SignatureInvalid(f"the header {name} is {count}")
    return values[0]
