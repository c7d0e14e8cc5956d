"""Messages that are signed without the code under test: the text to sign is written anew, `openssl` signs.

A `Signing` says how a signer makes one message. A mistake changes one step of it.
"""

from __future__ import annotations

import atexit
import base64
import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Final
from urllib.parse import quote

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

from clients.alipayhk.diagnosis import ROWS
from clients.alipayhk.diagnosis.claims import Decrypt, Message
from clients.alipayhk.diagnosis.diagnose import Diagnosis, diagnose
from clients.alipayhk.diagnosis.protocol_row import Known
from clients.alipayhk.wire.messages import Headers, RawRequest, RawResponse
from clients.alipayhk.wire.protocols.envelope_signed import EnvelopeSigned
from clients.alipayhk.wire.protocols.header_signed import HeaderSigned
from tests.certificates import private_pem

Sign = Callable[[RSAPrivateKey, bytes], bytes]
Text = Callable[[bytes], str]
Change = Callable[[bytes], bytes]

CLIENT_ID: Final = "4Q5Y8W0WSG45P907917"
PATH: Final = "/api/open/v1/binding/sync?site=HK"
TIME: Final = "2026-03-01T12:00:05+08:00"
SYNC_REQUEST: Final = (
    '{"requestId":"req-0001","bizTime":1716331341000,"bizType":"BINDING_SYNC","operateType":"BIND",'
    '"externalIdentityType":"UID","externalIdentityValue":"會員/一","userId":"2160000000000001",'
    '"bindingTargetType":"USER_ID"}'
)
SYNC_RESPONSE: Final = (
    '{"result":{"resultStatus":"S","resultCode":"SUCCESS","resultMessage":"成功/ok"},"echo":[1,2.50,true]}'
)
BIND_REQUEST: Final = (
    '{"head":{"clientId":"4Q5Y8W0WSG45P907917","function":"alipay.intl.merchant.account.bind",'
    f'"reserve":"{{}}","reqTime":"{TIME}","version":"1.0.0","reqMsgId":"req-0001"}},'
    '"body":{"merchantAccountId":"2160400000002012","type":"TELECOM","subType":"MOBILE_SERVICE",'
    '"source":"NORMAL","accountId":"88781108","userId":"會員/一","timestamp":"1780849297416"}}'
)
BIND_RESPONSE: Final = (
    '{"head":{"clientId":"4Q5Y8W0WSG45P907917","function":"alipay.intl.merchant.account.bind",'
    f'"reserve":"{{}}","respTime":"{TIME}","version":"1.0.0","reqMsgId":"req-0001"}},'
    '"body":{"result":{"resultStatus":"S","resultCode":"0000","resultMsg":"成功/ok"},"needBind":"false"}}'
)
BODIES: Final = {
    ("header_signed", "request"): SYNC_REQUEST,
    ("header_signed", "response"): SYNC_RESPONSE,
    ("envelope_signed", "request"): BIND_REQUEST,
    ("envelope_signed", "response"): BIND_RESPONSE,
}
KINDS: Final = tuple(BODIES)
PROTOCOLS: Final = {"header_signed": HeaderSigned, "envelope_signed": EnvelopeSigned}


@cache
def _key_file(key: RSAPrivateKey) -> str:
    directory = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, directory)
    file = Path(directory) / "key.pem"
    file.write_bytes(private_pem(key))
    return str(file)


def openssl(*arguments: str, given: bytes) -> bytes:
    """Run `openssl`; return its output."""
    return subprocess.run(["openssl", *arguments], input=given, capture_output=True, check=True).stdout


def digest_signed(*arguments: str) -> Sign:
    """Return a Sign by `openssl dgst` with these arguments."""
    return lambda key, content: openssl("dgst", *arguments, "-sign", _key_file(key), given=content)


by_openssl: Final = digest_signed("-sha256")


def url_base64(signature: bytes) -> str:
    """Write a signature as AlipayHK documents it."""
    return quote(base64.b64encode(signature), safe="")


def same(data: bytes) -> bytes:
    """Return the bytes."""
    return data


def joined(path: str, client_id: str, time: str, body: bytes) -> bytes:
    """Return the content to sign of the header-signed protocol, from its documentation."""
    return b"POST " + path.encode() + b"\n" + client_id.encode() + b"." + time.encode() + b"." + body


@dataclass(frozen=True)
class Signing:
    """How a signer makes a message."""

    protocol: str
    kind: str
    body: bytes
    """What is sent: the HTTP body, or the value of request or response."""
    sent: Change = same
    """Changes the body after it was signed."""
    signed_body: Change = same
    path: str = PATH
    client_id: str = CLIENT_ID
    time: str = TIME
    join: Callable[[str, str, str, bytes], bytes] = joined
    content: Change = same
    sign: Sign = by_openssl
    key_version: str = "1"
    key: RSAPrivateKey | None = None
    text: Text = url_base64
    headers: Headers = ()
    whole: Change = same
    """Changes the HTTP body last."""

    def message(self, key: RSAPrivateKey) -> Message:
        """Sign with a key, or with the key of the mistake."""
        body = self.signed_body(self.body)
        header_signed = self.protocol == "header_signed"
        signed = self.join(self.path, self.client_id, self.time, body) if header_signed else body
        text = self.text(self.sign(self.key or key, self.content(signed)))
        sent = self.sent(self.body)
        if not header_signed:
            sent = self.whole(b'{"%s":%s,"signature":"%s"}' % (self.kind.encode(), sent, text.encode()))
            return self._message((("Content-Type", "application/json; charset=UTF-8"),), sent)
        headers = (
            ("Client-Id", CLIENT_ID),
            ("Content-Type", "application/json; charset=UTF-8"),
            ("Request-Time" if self.kind == "request" else "Response-Time", TIME),
            ("Signature", f"algorithm=RSA256,keyVersion={self.key_version},signature={text}"),
        )
        return self._message(headers, self.whole(sent))

    def _message(self, headers: Headers, body: bytes) -> Message:
        headers = (*headers, *self.headers)
        if self.kind == "request":
            return Message(PATH, RawRequest(PATH, headers, body))
        return Message(PATH, RawResponse(200, headers, body))


def signing(protocol: str, kind: str, **changes: object) -> Signing:
    """Return a correct signing of the sample message of one kind, with changes."""
    return replace(Signing(protocol, kind, BODIES[protocol, kind].encode()), **changes)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Receiver:
    """The receiver of a message, with its keys."""

    known: Known
    decrypt: Decrypt = field(default=lambda _, __: None)

    def diagnosis(self, protocol: str, message: Message) -> Diagnosis:
        """Diagnose a message."""
        row = ROWS[PROTOCOLS[protocol]]
        return diagnose(row, row.claim(message, self.decrypt), self.known)


def receiver(keys: Mapping[str, RSAPublicKey], own: RSAPublicKey | None = None) -> Receiver:
    """Return a receiver with the signer's keys by version."""
    return Receiver(Known(keys, own, hosts=("open.alipay.hk",), client_ids=("OTHER-PRODUCT",)))


def rewritten(body: bytes, **arguments: object) -> bytes:
    """Write a JSON body anew, as Python's json does with these arguments."""
    return json.dumps(json.loads(body), **arguments).encode("utf-8", "surrogatepass")  # type: ignore[arg-type]
