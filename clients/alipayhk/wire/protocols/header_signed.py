r"""The header-signed protocol ("API structure v2"): metadata in HTTP headers, bodies optionally encrypted.

Headers: https://docs.alipay.hk/alipayhkdocs/hk/gcmc/apifund. The signature covers

    POST <path[?query]>\n<client-id>.<time>.<body as on the wire>

The time is Request-Time in a request and Response-Time in a response; the path is the request's in both.
AlipayHK's pages do not print this text, those of its sibling do:
https://docs.antom.com/ac/ams/digital_signature
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import ClassVar, Final

from .. import crypto, lenient
from ..clock import response_time_of, time_text
from ..crypto import CryptoError
from ..endpoint import Encryption, Endpoint
from ..errors import Malformed, NotEncrypted, Replayed, SignatureInvalid
from ..keys import Key, Keys
from ..messages import (
    JSON_CONTENT_TYPE,
    Headers,
    PlainRequest,
    PlainResponse,
    RawRequest,
    RawResponse,
    SealedRequest,
    SealedResponse,
    VerifiedRequest,
    VerifiedResponse,
)
from ..strict_json import JsonError, read_object, write_json
from .header_text import (
    ENCRYPTION_ALGORITHM,
    SHORT_ENCRYPTION_ALGORITHM,
    SIGNATURE_ALGORITHM,
    encrypt_header,
    header_pairs,
    signature_header,
)
from .result_body import verified_response
from .unsigned import unsigned

REQUEST_TIME: Final = "Request-Time"
RESPONSE_TIME: Final = "Response-Time"


@dataclass(frozen=True, slots=True)
class HeaderSigned:
    """The protocol with its settings."""

    encryption: Encryption = field(default_factory=Encryption)
    encrypt_requests: bool = False
    encrypted_answers_only: bool = False
    """Whether a response that is not encrypted is refused."""

    name: ClassVar[str] = "header_signed"

    @property
    def required_head(self) -> Mapping[str, str]:
        """Return nothing: the metadata is in headers."""
        return {}

    def seal_request(self, endpoint: Endpoint, request: PlainRequest) -> SealedRequest:
        """Encrypt the request if `encrypt_requests` is set, and sign it."""
        headers, body = self._seal(
            endpoint,
            request.body,
            client_id=endpoint.client_id,
            time_line=(REQUEST_TIME, time_text(request.time)),
            encrypted=self.encrypt_requests,
        )
        return SealedRequest(path=endpoint.path, headers=headers, body=body)

    def unseal_response(
        self, endpoint: Endpoint, request: PlainRequest, raw: RawResponse, *, now: datetime
    ) -> VerifiedResponse:
        """Verify the received bytes, decrypt and read them; raise an error of `errors` otherwise."""
        if "signature" not in raw.by_name:
            raise unsigned(raw, "the response has no header Signature", now)
        client_id, time = _verify(endpoint.keys, raw, endpoint.path, RESPONSE_TIME, leniently=True)
        if client_id != endpoint.client_id:
            raise Replayed("the response belongs to another client id")
        response_time = response_time_of(
            time, sent_at=request.time, now=now, window_s=endpoint.response_time_window_s
        )
        if self.encrypted_answers_only and "encrypt" not in raw.by_name:
            raise NotEncrypted("the response has no header Encrypt")
        body = self._read(endpoint.keys, raw, leniently=True)
        return verified_response(raw, body, response_time)

    def unseal_request(self, endpoint: Endpoint, raw: RawRequest) -> VerifiedRequest:
        """Verify, decrypt and read a request; raise SignatureInvalid or Malformed otherwise."""
        client_id, time = _verify(endpoint.keys, raw, raw.path, REQUEST_TIME)
        return VerifiedRequest(
            client_id=client_id,
            body=self._read(endpoint.keys, raw),
            head={REQUEST_TIME: time},
            encrypted="encrypt" in raw.by_name,
        )

    def seal_response(
        self, endpoint: Endpoint, request: VerifiedRequest, response: PlainResponse
    ) -> SealedResponse:
        """Encrypt the response if the request was encrypted, and sign it; no signature covers Tracer-Id."""
        headers, body = self._seal(
            endpoint,
            write_json(response.body),
            client_id=request.client_id,
            time_line=(RESPONSE_TIME, time_text(response.time)),
            encrypted=request.encrypted,
        )
        tracer_line = (("Tracer-Id", response.tracer_id),) if response.tracer_id else ()
        return SealedResponse(headers=(*headers, *tracer_line), body=body)

    def _seal(
        self,
        endpoint: Endpoint,
        body: bytes,
        *,
        client_id: str,
        time_line: tuple[str, str],
        encrypted: bool,
    ) -> tuple[Headers, bytes]:
        """Encrypt first, then sign the ciphertext; return the headers and the body.

        https://docs.alipay.hk/alipayhkdocs/hk/auto_earn/Encrypt_and_decrypt
        """
        content_type = JSON_CONTENT_TYPE
        encrypt_lines: Headers = ()
        if encrypted:
            value, body = encrypt_body(self.encryption, endpoint.keys, body)
            content_type, encrypt_lines = self.encryption.content_type, (("Encrypt", value),)
        content = content_to_sign(endpoint.path, client_id, time_line[1], body)
        signature = crypto.sign(endpoint.keys.signing, content)
        headers: Headers = (
            ("Client-Id", client_id),
            ("Content-Type", content_type),
            time_line,
            *encrypt_lines,
            ("Signature", signature_header(endpoint.keys.signing_version, signature)),
        )
        return headers, body

    def _read(
        self, keys: Keys, raw: RawRequest | RawResponse, *, leniently: bool = False
    ) -> dict[str, object]:
        """Decrypt the body if it has a header Encrypt, and read it; every failure is the same error."""
        encrypt_lines, body = raw.by_name.get("encrypt", ()), raw.body
        try:
            if len(encrypt_lines) > 1:
                raise CryptoError("there is more than one header Encrypt")
            if encrypt_lines:
                body = decrypt_body(self.encryption, keys, encrypt_lines[0], body, leniently=leniently)
            return read_object(lenient.json_bytes(body) if leniently else body, huge_as_infinite=leniently)
        except (CryptoError, JsonError):
            raise Malformed("the body cannot be decrypted or read") from None


def content_to_sign(path: str, client_id: str, time: str, body: bytes) -> bytes:
    """Return the exact bytes that are signed: `time` is the header's text, `body` is as on the wire."""
    return f"POST {path}\n{client_id}.{time}.".encode() + body


def encrypt_body(encryption: Encryption, keys: Keys, plaintext: bytes) -> tuple[str, bytes]:
    """Encrypt a body with a new AES key; return the value of the header Encrypt and the body as base64.

    https://docs.alipay.hk/alipayhkdocs/hk/auto_earn/Encrypt_and_decrypt. It does not name mode and padding:
    they are agreed at onboarding, and the default is what the SDKs of the gateway family use.
    """
    aes_key = encryption.random_bytes(encryption.profile.key_bytes)
    iv = encryption.random_bytes(crypto.AES_BLOCK_BYTES)
    ciphertext = crypto.encrypt(encryption.profile, aes_key, iv, plaintext)
    wrapped = crypto.wrap_key(encryption.profile, keys.verifying[encryption.key_version], aes_key)
    return encrypt_header(encryption.key_version, wrapped), crypto.base64_text(ciphertext).encode()


def decrypt_body(
    encryption: Encryption, keys: Keys, encrypt_header_value: str, body: bytes, *, leniently: bool = False
) -> bytes:
    """Decrypt a body that has a header Encrypt; every failure raises the same CryptoError."""
    algorithms = (ENCRYPTION_ALGORITHM, SHORT_ENCRYPTION_ALGORITHM)[: 1 + leniently]
    try:
        pairs = header_pairs(encrypt_header_value, leniently=leniently)
        if pairs.get("algorithm", ENCRYPTION_ALGORITHM).upper() not in algorithms:
            raise CryptoError("the body cannot be decrypted")
        key = _by_version(keys.decrypting, pairs)
        wrapped = crypto.url_base64_bytes(pairs["symmetrickey"])
        aes_key = crypto.unwrap_key(encryption.profile, key, wrapped)
        text = body.decode("ascii")
        ciphertext = crypto.base64_bytes(lenient.base64_text(text) if leniently else text)
        return crypto.decrypt(encryption.profile, aes_key, ciphertext)
    except (CryptoError, KeyError, ValueError):
        raise CryptoError("the body cannot be decrypted") from None


def _verify(
    keys: Keys, raw: RawRequest | RawResponse, path: str, time_header: str, *, leniently: bool = False
) -> tuple[str, str]:
    """Verify the signature over the received bytes; return the client id and the time that it covers."""
    client_id = _only(raw, "Client-Id")
    time = _only(raw, time_header)
    try:
        pairs = header_pairs(_only(raw, "Signature"), leniently=leniently)
    except ValueError as error:
        raise SignatureInvalid(f"the header Signature is {error}") from None
    if pairs.get("algorithm", SIGNATURE_ALGORITHM).upper() != SIGNATURE_ALGORITHM:
        raise SignatureInvalid("the header Signature names an algorithm other than RSA256")
    try:
        key = _by_version(keys.verifying, pairs)
    except KeyError:
        raise SignatureInvalid("the header Signature names an unknown keyVersion") from None
    try:
        signature = crypto.url_base64_bytes(pairs.get("signature", ""))
        crypto.verify(key, signature, content_to_sign(path, client_id, time, raw.body))
    except CryptoError as error:
        raise SignatureInvalid(str(error)) from None
    return client_id, time


def _by_version(keys: Mapping[str, Key], pairs: Mapping[str, str]) -> Key:
    """Return the key that `keyVersion` names, or the newest key if it is absent; else raise KeyError."""
    version = pairs.get("keyversion")
    return keys[next(iter(keys), "") if version is None else version]


def _only(raw: RawRequest | RawResponse, name: str) -> str:
    """Return the value of a header that must be present once and not be empty."""
    values = raw.by_name.get(name.lower(), ())
    if len(values) != 1 or not values[0]:
        count = "empty" if len(values) == 1 else "absent" if not values else "repeated"
        raise SignatureInvalid(f"the header {name} is {count}")
    return values[0]
