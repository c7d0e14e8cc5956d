"""Targets: messages of both protocols, altered after signing, or signed with arbitrary content.

An altered message is text: `path`, HTTP status, kind, profile and whether its end was announced, separated
by tabs; then lines of headers; an empty line; the body. Line breaks within a header are written as NUL.

The key is the one that AlipayHK's documentation prints. It is the key of both sides, so that the golden
vectors verify, and an input that found a fault finds it again in another process.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product, starmap
from pathlib import Path
from typing import Any, Final, get_args

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7

from clients.alipayhk.wire import crypto
from clients.alipayhk.wire.crypto import AesMode, EncryptionProfile, RsaPadding
from clients.alipayhk.wire.endpoint import Encryption
from clients.alipayhk.wire.errors import (
    CallError,
    Malformed,
    Replayed,
    ResultError,
    SignatureInvalid,
    Unsigned,
)
from clients.alipayhk.wire.messages import Headers, RawRequest, RawResponse, VerifiedRequest, header_values
from clients.alipayhk.wire.protocols.envelope_signed import sealed_envelope
from clients.alipayhk.wire.protocols.header_signed import content_to_sign, encrypt_body
from clients.alipayhk.wire.protocols.header_text import signature_header
from clients.alipayhk.wire.strict_json import member_bytes, write_json
from service.server.rpcs import Rpc, bind_account, sync_linkage
from tests.alipayhk.sides import (
    ANSWERED_AT,
    ENVELOPE_SIGNED,
    FUNCTION,
    HEADER_SIGNED,
    NOW,
    PATH,
    SENT_AT,
    Sides,
    both_sides,
)
from tests.fuzz.properties import check_error, json_object, same
from tests.vectors import make

VECTORS: Final = Path(make.__file__).parent
HEADER: Final = both_sides(HEADER_SIGNED, make.KEY, make.KEY)
ENVELOPE: Final = both_sides(ENVELOPE_SIGNED, make.KEY, make.KEY)
PROFILES: Final = tuple(
    starmap(EncryptionProfile, product(get_args(AesMode), (128, 256), get_args(RsaPadding)))
)
BOM: Final = b"\xef\xbb\xbf"
UNREADABLE: Final = "the body cannot be decrypted or read"
Case = dict[str, Any]


@cache
def vectors(protocol: str) -> tuple[Case, ...]:
    """Return the golden vectors of a protocol."""
    return tuple(
        json.loads(file.read_text("utf-8")) for file in sorted((VECTORS / protocol).glob("*.json"))
    )


@cache
def signed(protocol: str) -> dict[bytes, Case]:
    """Return every content that the key has signed, with its vector. Nothing else can verify."""
    return {case["content_to_sign"].encode(): case for case in vectors(protocol)}


@dataclass(frozen=True)
class Message:
    """A message as received, and the configuration of its receiver."""

    path: str
    status: int
    is_request: bool
    profile: int
    end_announced: bool
    headers: Headers
    body: bytes

    @classmethod
    def of(cls, data: bytes) -> Message:
        """Read a message; whatever is missing has a default."""
        head, _, body = data.partition(b"\n\n")
        first, *lines = head.decode("latin-1").split("\n")
        path, status, kind, profile, end, *_ = [*first.split("\t"), "", "", "", ""]
        pairs = (line.replace("\0", "\n").partition(": ") for line in lines)
        return cls(
            path=path,
            status=int(status) if status.isascii() and status.isdigit() and len(status) == 3 else 200,
            is_request=kind == "request",
            profile=len(profile) % len(PROFILES),
            end_announced=not end,
            headers=tuple((name, value) for name, _, value in pairs),
            body=body,
        )

    def __bytes__(self) -> bytes:
        kind, end = "request" if self.is_request else "", "" if self.end_announced else "closed"
        first = "\t".join([self.path, str(self.status), kind, "p" * self.profile, end])
        lines = [first, *(f"{name}: {value}" for name, value in self.headers)]
        return "\n".join(lines).encode("latin-1") + b"\n\n" + self.body

    def opened_by(self, sides: Sides, request_id: str) -> Any:
        """Unseal it; return None if it is refused."""
        if self.is_request:
            raw = RawRequest(self.path, self.headers, self.body)
            return _or_error(sides.us.protocol.unseal_request, sides.us, raw)
        raw_response = RawResponse(self.status, self.headers, self.body, self.end_announced)
        return _or_error(sides.open, raw_response, request_id=request_id)


def _or_error(read: Any, *arguments: Any, **options: Any) -> Any:
    """Return what `read` returns, or the documented error that it raises."""
    try:
        return read(*arguments, **options)
    except CallError as error:
        check_error(error)
        assert error.sent
        assert not isinstance(error, ResultError)
        return error


def _of_vector(case: Case) -> bytes:
    profile = EncryptionProfile(**case.get("profile", {}))
    headers = tuple((name, value) for name, value in case.get("headers", ()))
    path, is_request = case.get("path", PATH), case["kind"] == "request"
    message = Message(path, 200, is_request, PROFILES.index(profile), True, headers, case["body"].encode())
    return bytes(message)


def header_seeds() -> Iterator[bytes]:
    """Yield the golden vectors of the header-signed protocol."""
    return (_of_vector(case) for case in vectors("header_signed"))


def envelope_seeds() -> Iterator[bytes]:
    """Yield the golden vectors of the envelope-signed protocol."""
    return (_of_vector(case) for case in vectors("envelope_signed"))


def header_message(data: bytes) -> None:
    """An altered header-signed message verifies only as the signed one, with the same meaning."""
    message = Message.of(data)
    sides = HEADER.but(path=message.path).speaking(encryption=Encryption(PROFILES[message.profile]))
    opened = message.opened_by(sides, "")
    if isinstance(opened, SignatureInvalid | Unsigned):
        return
    time_name = "Request-Time" if message.is_request else "Response-Time"
    ((client_id,), (time,)) = (header_values(message.headers, name) for name in ("Client-Id", time_name))
    content = content_to_sign(message.path, client_id, time, message.body)
    case = signed("header_signed")[content]
    if isinstance(opened, Malformed):
        assert str(opened) in (UNREADABLE, "the response has no result")
    elif not isinstance(opened, CallError):
        assert same(opened.body, case["opened"])
        assert opened.client_id == case["client_id"] if message.is_request else opened.response_time


def envelope_message(data: bytes) -> None:
    """An altered envelope verifies only with the signed bytes, and has the meaning of the signed one."""
    message = Message.of(data)
    opened = message.opened_by(ENVELOPE, make.REQ_MSG_ID)
    if isinstance(opened, SignatureInvalid | Unsigned | Malformed):
        return
    if isinstance(opened, CallError) and not isinstance(opened, Replayed):
        assert not message.end_announced
        return
    member = "request" if message.is_request else "response"
    (content,) = (
        cut
        for name, cut in member_bytes(message.body.removeprefix(b"" if message.is_request else BOM))
        if name == member
    )
    case = signed("envelope_signed")[content]
    if not isinstance(opened, Replayed):
        assert same(opened.body, case["opened"])


def signed_seeds() -> Iterator[bytes]:
    """Yield each spelling of a seal with bodies from the golden vectors."""
    bodies = [write_json(case["opened"]) for name in PROTOCOLS for case in vectors(name)]
    return (bytes([at % 256]) + bodies[at % len(bodies)] for at in range(0, 512, 7))


PROTOCOLS: Final = ("header_signed", "envelope_signed")


def signed_header_content(data: bytes) -> None:
    """A correctly signed body is read as `json` reads it, or refused; a success is never refused.

    The bits of the first byte: encrypted, a byte order mark, lenient spellings of encryption and of the
    signature, and in the upper three the profile.
    """
    choice, plain = (data[0] if data else 0), data[1:]
    profile = PROFILES[choice >> 5 & 7]
    body = BOM + plain if choice & 2 else plain
    sides = HEADER.speaking(encryption=Encryption(profile))
    extra: Headers = ()
    if choice & 1:
        encrypt_line, body = encrypt_body(sides.encryption, sides.wallet.keys, body)
        if choice & 4:
            encrypt_line = encrypt_line.replace("RSA_AES", "RSA").replace(",", " , ") + ","
            body = b"\r\n".join(body[at : at + 64] for at in range(0, len(body), 64)) + b"\n"
        extra = (("Encrypt", encrypt_line),)
    signature = crypto.sign(make.KEY, content_to_sign(PATH, make.CLIENT_ID, ANSWERED_AT, body))
    line = signature_header("1", signature)
    if choice & 8:
        line = line.replace("%2B", "+").replace("RSA256", "rsa256").replace("keyVersion=", "KeyVersion = ")
    headers = (("client-id", make.CLIENT_ID), ("Response-Time", ANSWERED_AT), ("SIGNATURE", line), *extra)
    opened = _or_error(sides.open, RawResponse(200 + choice, headers, body))
    _check_body(opened, json_object(plain), sync_linkage.RPC)


def signed_envelope_content(data: bytes) -> None:
    """A correctly signed envelope is read as `json` reads it, or refused; a success is never refused.

    The bits of the first byte: the head is fixed, the order of members, how the signature is spelled, a
    byte order mark.
    """
    choice, content = (data[0] if data else 0), data[1:]
    if choice & 1:
        content = _FIXED_HEAD + content + b"}"
    signature = crypto.sign(make.KEY, content)
    body = sealed_envelope("response", content, signature)
    if choice & 2:
        body = b'{"signature":"' + _spelled(signature, choice) + b'","response":' + content + b"} "
    if choice & 4:
        body = BOM + body
    opened = _or_error(ENVELOPE.open, RawResponse(200, (), body), request_id=make.REQ_MSG_ID)
    envelope, outer = json_object(content), json_object(body.removeprefix(BOM))
    if isinstance(opened, CallError) and (envelope is None or outer is None):
        return
    assert envelope is not None, "a content was accepted that is not a JSON object"
    head, inner = envelope.get("head", {}), envelope.get("body")
    if isinstance(head, dict) and isinstance(inner, dict) and not isinstance(opened, Replayed):
        if not isinstance(opened, CallError) or head == _HEAD:
            _check_body(opened, inner, bind_account.RPC)
    else:
        assert isinstance(opened, CallError)


_HEAD: Final = {"function": FUNCTION, "reqMsgId": make.REQ_MSG_ID, "respTime": ANSWERED_AT}
_FIXED_HEAD: Final = b'{"head":' + write_json(_HEAD) + b',"body":'


def _spelled(signature: bytes, choice: int) -> bytes:
    """Return one of the spellings of a signature in an envelope."""
    text = base64.b64encode(signature)
    lines = [text[:76], text[76:]] if choice & 16 else [text]
    if choice & 8:
        lines = [line.replace(b"/", b"\\/").replace(b"+", b"\\u002b") for line in lines]
    return b"\\r\\n".join(lines)


def _check_body(opened: Any, body: dict[str, object] | None, rpc: Rpc) -> None:
    """Compare an opened response, or its error, with the body as `json` reads it; make the RPC's reply."""
    result = next(
        (value for name in ("result", "resultInfo") if isinstance(value := (body or {}).get(name), dict)),
        {},
    )
    status = result.get("resultStatus")
    code = result.get("resultCode")
    has_code = isinstance(code, str | int) and not isinstance(code, bool) and code != ""
    if isinstance(opened, CallError):
        assert isinstance(opened, Malformed)
        assert not isinstance(status, str) or (status == "F" and not has_code), "a result was lost"
    else:
        assert same(opened.body, body)
        reply: Any = rpc.response.FromString(rpc.reply(opened).SerializeToString())
        assert reply.result.status == opened.result.status == status
        assert isinstance(code, str | int) or opened.result.code == ""
        assert opened.result.status != "F" or opened.result.code


def encrypted_seeds() -> Iterator[bytes]:
    """Yield header and body of each encrypted vector."""
    for case in vectors("header_signed"):
        if "profile" in case:
            number = PROFILES.index(EncryptionProfile(**case["profile"]))
            yield bytes([number]) + case["encrypt_header"].encode() + b"\n" + case["body"].encode()


def encrypted_body(data: bytes) -> None:
    """A signed response with any header Encrypt and any body is decrypted exactly, or refused.

    All refusals are the same error, because their differences would help to decrypt other messages.
    """
    profile = PROFILES[(data[0] if data else 0) % len(PROFILES)]
    line, _, body = data[1:].partition(b"\n")
    signature = crypto.sign(make.KEY, content_to_sign(PATH, make.CLIENT_ID, ANSWERED_AT, body))
    headers = (
        ("Client-Id", make.CLIENT_ID),
        ("Response-Time", ANSWERED_AT),
        ("Signature", signature_header("1", signature)),
        ("Encrypt", line.decode("latin-1").replace("\0", "\n")),
    )
    sides = HEADER.speaking(encryption=Encryption(profile))
    opened = _or_error(sides.open, RawResponse(200, headers, body))
    if not isinstance(opened, CallError):
        assert same(opened.body, json_object(_decrypted(profile, body).removeprefix(BOM)))
    else:
        assert isinstance(opened, Malformed)
        no_result = "the response has no result", "the result has no status"
        assert str(opened) in (UNREADABLE, *no_result, "the result has status F and no code")


def _decrypted(profile: EncryptionProfile, body: bytes) -> bytes:
    """Decrypt with the AES key of all golden vectors, without code of the project."""
    text = body.decode().replace("%0D", "").replace("%0A", "").replace("%0d", "").replace("%0a", "")
    data = base64.b64decode("".join(text.split()))
    key = algorithms.AES(make.AES_KEY[: profile.key_bytes])
    is_cbc = profile.aes_mode == "CBC"
    iv, data = (data[:16], data[16:]) if is_cbc else (b"", data)
    decryptor = (Cipher(key, modes.CBC(iv)) if is_cbc else Cipher(key, modes.ECB())).decryptor()
    unpadder = PKCS7(128).unpadder()
    return unpadder.update(decryptor.update(data) + decryptor.finalize()) + unpadder.finalize()


def sealed_requests(data: bytes) -> None:
    """Each side opens exactly what the other has sealed, with any body, in both directions."""
    choice, body = (data[0] if data else 0), data[1:]
    sides = ENVELOPE if choice & 1 else HEADER
    if not choice & 1 and choice & 2:
        sides = HEADER.with_profile(PROFILES[choice >> 2 & 7])
    value = json_object(body)
    sealed = sides.seal(body, time=SENT_AT)
    opened = _or_error(sides.receive, sealed.path, sealed.headers, sealed.body)
    if isinstance(opened, CallError):
        assert isinstance(opened, Malformed | SignatureInvalid)
        assert value is None or _is_refused_as_request(value)
        return
    assert isinstance(opened, VerifiedRequest)
    if value is None:
        # A body that is not an object can complete an envelope in another way: its bytes are signed so.
        assert choice & 1
        return
    assert same(opened.body, value)
    answered = {"result": {"resultStatus": "S"}, "echo": value}
    if _depth_allows(answered):
        assert same(sides.open(sides.reply(opened, answered, NOW)).body, answered)


def _is_refused_as_request(value: dict[str, object]) -> bool:
    """Return whether strict reading refuses an object: because of a huge number or its depth."""
    try:
        text = write_json({"head": {}, "body": value})
    except ValueError:
        return True
    return json_object(text) is None


def _depth_allows(answered: dict[str, object]) -> bool:
    return json_object(write_json({"head": {}, "body": answered})) is not None
