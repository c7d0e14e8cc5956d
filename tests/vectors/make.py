"""Write the golden vectors into this directory: `python tests/vectors/make.py [directory]`.

This module does not import `clients`: it computes every step independently, from the descriptions of the
two protocols and cryptographic primitives. Each case is one file, with its members in the order of the
steps. A wrapped AES key is random with both paddings, so an existing one is kept as long as it can be
unwrapped.

Sources: https://docs.antom.com/ac/ams/digital_signature (header-signed),
https://docs.alipay.hk/alipayhkdocs/hk/auto_earn/Encrypt_and_decrypt (encryption) and
https://docs.alipay.hk/alipayhkdocs/hk/a_points_display/pre_sign_string_v1 (envelope-signed).
"""

from __future__ import annotations

import base64
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

HERE: Final = Path(__file__).resolve().parent
RANDOM_STEPS: Final = ("wrapped_key", "encrypt_header", "headers")
"""The members that are different each time in the encrypted cases."""

Case = dict[str, object]

JSON_TYPE: Final = "application/json; charset=UTF-8"
PATH: Final = "/api/open/v1/example/path"
CLIENT_ID: Final = "4Q5Y8W0WSG45P907917"
TIME: Final = "2024-05-22T06:42:21+05:30"
FUNCTION: Final = "alipay.intl.merchant.account.bind"
VERSION: Final = "1.0.0"
REQ_MSG_ID: Final = "2f864a23-ddc6-40ec-8c8c-e007922baf85"
AES_KEY: Final = bytes(range(32))
IV: Final = bytes(range(0xA0, 0xB0))

BIND: Final = (
    '{"requestId":"req-0001","bizTime":1716331341000,"bizType":"BINDING_SYNC","operateType":"BIND",'
    '"externalIdentityType":"UID","externalIdentityValue":"u-1","userId":"2160000000000001",'
    '"bindingTargetType":"USER_ID"}'
)
SUCCESS: Final = '{"result":{"resultCode":"SUCCESS","resultStatus":"S","resultMessage":"success"}}'


@dataclass(frozen=True)
class Profile:
    """How a case is encrypted."""

    aes_mode: str = "ECB"
    aes_bits: int = 256
    rsa_padding: str = "PKCS1V15"


def documentation_key() -> rsa.RSAPrivateKey:
    """Return the key that AlipayHK's documentation prints, built from its numbers."""
    numbers = json.loads((HERE / "shared" / "documentation_key.json").read_text("utf-8"))
    n, d, p, q = (int(numbers[name], 16) for name in "ndpq")
    public = rsa.RSAPublicNumbers(numbers["e"], n)
    private = rsa.RSAPrivateNumbers(
        p, q, d, rsa.rsa_crt_dmp1(d, p), rsa.rsa_crt_dmq1(d, q), rsa.rsa_crt_iqmp(p, q), public
    )
    return private.private_key()


KEY: Final = documentation_key()


def signature_of(content: str) -> str:
    """Return the signature of both protocols in base64."""
    return base64.b64encode(KEY.sign(content.encode(), padding.PKCS1v15(), hashes.SHA256())).decode()


def encrypted(profile: Profile, plaintext: str) -> str:
    """Encrypt with the fixed AES key and IV; return the body on the wire."""
    data = plaintext.encode()
    pad = 16 - len(data) % 16
    data += bytes([pad]) * pad
    key = algorithms.AES(AES_KEY[: profile.aes_bits // 8])
    cbc = profile.aes_mode == "CBC"
    encryptor = (Cipher(key, modes.CBC(IV)) if cbc else Cipher(key, modes.ECB())).encryptor()
    ciphertext = encryptor.update(data) + encryptor.finalize()
    return base64.b64encode(IV + ciphertext if cbc else ciphertext).decode()


def key_padding(profile: Profile) -> padding.AsymmetricPadding:
    """Return the padding that wraps the AES key."""
    if profile.rsa_padding == "PKCS1V15":
        return padding.PKCS1v15()
    return padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), label=None)


def wrapped_key(profile: Profile, written: object) -> str:
    """Return the wrapped AES key of the existing file, or a new one."""
    aes_key = AES_KEY[: profile.aes_bits // 8]
    if isinstance(written, str):
        try:
            if KEY.decrypt(base64.b64decode(written), key_padding(profile)) == aes_key:
                return written
        except ValueError:
            pass
    return base64.b64encode(KEY.public_key().encrypt(aes_key, key_padding(profile))).decode()


def header_signed(
    kind: str,
    text: str,
    *,
    path: str = PATH,
    time: str = TIME,
    profile: Profile | None = None,
    written_by_us: bool = True,
    written: Case | None = None,
) -> Case:
    """Compute every step of one header-signed case."""
    case: Case = {"kind": kind, "written_by_us": written_by_us, "path": path, "client_id": CLIENT_ID}
    case |= {"time": time, "plaintext": text}
    body = text
    encrypt_lines = []
    if profile is not None:
        body = encrypted(profile, text)
        wrap = wrapped_key(profile, (written or {}).get("wrapped_key"))
        encrypt = f"algorithm=RSA_AES,keyVersion=1,symmetricKey={quote(wrap, safe='')}"
        case |= {"profile": vars(profile), "aes_key_hex": AES_KEY[: profile.aes_bits // 8].hex()}
        case |= {"iv_hex": IV.hex(), "wrapped_key": wrap, "encrypt_header": encrypt}
        encrypt_lines = [["Encrypt", encrypt]]
    content = f"POST {path}\n{CLIENT_ID}.{time}.{body}"
    signature = signature_of(content)
    line = f"algorithm=RSA256,keyVersion=1,signature={quote(signature, safe='')}"
    headers = [
        ["Client-Id", CLIENT_ID],
        ["Content-Type", JSON_TYPE],
        ["Request-Time" if kind == "request" else "Response-Time", time],
        *encrypt_lines,
        ["Signature", line],
    ]
    case |= {"content_to_sign": content, "signature": signature, "signature_header": line}
    return case | {"headers": headers, "body": body, "opened": json.loads(text)}


def envelope_signed(
    kind: str,
    text: str,
    *,
    time: str = TIME,
    content: str | None = None,
    envelope: str = '{{"{kind}":{content},"signature":"{quoted}"}}',
    opened: str | None = None,
) -> Case:
    """Compute every step of one envelope-signed case.

    `content` and `envelope` are other spellings of the signed content and of the whole body.
    """
    time_name = "reqTime" if kind == "request" else "respTime"
    head = {"clientId": CLIENT_ID, "function": FUNCTION, "reserve": "{}", time_name: time}
    head |= {"version": VERSION, "reqMsgId": REQ_MSG_ID}
    written_by_us = content is None
    if content is None:
        content = '{"head":' + json.dumps(head, separators=(",", ":")) + ',"body":' + text + "}"
    signature = signature_of(content)
    body = envelope.format(
        kind=kind, content=content, signature=signature, quoted=quote(signature, safe="")
    )
    case: Case = {"kind": kind, "written_by_us": written_by_us, "client_id": CLIENT_ID}
    case |= {"function": FUNCTION, "version": VERSION, "req_msg_id": REQ_MSG_ID, "time": time}
    if written_by_us:
        case |= {"plaintext": text}
    case |= {"content_to_sign": content, "signature": signature, "body": body}
    return case | {"opened": json.loads(opened or text)}


HEADER_SIGNED: Final[dict[str, dict[str, object]]] = {
    "request_plain": {"kind": "request", "text": BIND},
    "request_with_a_query": {"kind": "request", "text": BIND, "path": PATH + "?site=HK&v=2"},
    "request_path_with_percent_escapes": {
        "kind": "request",
        "text": BIND,
        "path": "/%7Eu/%e9%A6%99%e6%B8%AF?a=%2f&b=%2F&c=~",
    },
    "request_body_in_chinese": {
        "kind": "request",
        "text": '{"requestId":"req-香港-1","externalIdentityValue":"陳大文","e":"🧧","quote":"\\"}{\\""}',
    },
    "request_with_empty_members": {
        "kind": "request",
        "text": '{"requestId":"req-0002","externalBindingId":"","bindingTarget":"","list":[],"object":{}}',
    },
    "request_time_hong_kong": {"kind": "request", "text": BIND, "time": "2024-05-22T09:12:21+08:00"},
    "request_time_india": {"kind": "request", "text": BIND, "time": "2024-05-22T06:42:21+05:30"},
    "request_time_utc": {"kind": "request", "text": BIND, "time": "2024-05-22T01:12:21+00:00"},
    "request_time_z": {
        "kind": "request",
        "text": BIND,
        "time": "2024-05-22T01:12:21Z",
        "written_by_us": False,
    },
    "request_encrypted_ecb_256": {"kind": "request", "text": BIND, "profile": Profile()},
    "request_encrypted_ecb_128": {"kind": "request", "text": BIND, "profile": Profile(aes_bits=128)},
    "request_encrypted_cbc_256": {"kind": "request", "text": BIND, "profile": Profile("CBC")},
    "request_encrypted_cbc_128": {"kind": "request", "text": BIND, "profile": Profile("CBC", 128)},
    "request_encrypted_oaep_sha256": {
        "kind": "request",
        "text": BIND,
        "profile": Profile(rsa_padding="OAEP_SHA256"),
    },
    "response_success": {"kind": "response", "text": SUCCESS, "time": "2024-05-22T06:42:22+05:30"},
    "response_with_a_query": {"kind": "response", "text": SUCCESS, "path": PATH + "?site=HK&v=2"},
    "response_path_with_percent_escapes": {"kind": "response", "text": SUCCESS, "path": "/%7Eu/%e9?a=%2f"},
    "response_in_chinese": {
        "kind": "response",
        "text": '{"result":{"resultCode":"SUCCESS","resultStatus":"S","resultMessage":"成功 ✓"}}',
    },
    "response_with_empty_members": {
        "kind": "response",
        "text": '{"result":{"resultCode":"","resultStatus":"S","resultMessage":""},"extra":{}}',
    },
    "response_time_z": {
        "kind": "response",
        "text": SUCCESS,
        "time": "2024-05-22T01:12:22Z",
        "written_by_us": False,
    },
    "response_spaced_and_escaped": {
        "kind": "response",
        "text": '{ "result" :\r\n\t{"resultStatus": "\\u0053", "resultMessage":"\\u6210\\u529f\\/"} }\n',
        "written_by_us": False,
    },
    "response_encrypted_ecb_256": {"kind": "response", "text": SUCCESS, "profile": Profile()},
    "response_encrypted_cbc_128_oaep": {
        "kind": "response",
        "text": SUCCESS,
        "profile": Profile("CBC", 128, "OAEP_SHA256"),
    },
}

BIND_ACCOUNT: Final = (
    '{"merchantAccountId":"m-1","subMerchantId":"s-1","type":"TELECOM","subType":"MOBILE_SERVICE",'
    '"source":"BY_TEMPLATE","accountInfo":"{\\"formCode\\":\\"f\\",\\"formValue\\":{\\"fieldCode1\\":'
    '\\"值1\\"}}","openId":"o-1","userId":"2160000000000001","timestamp":"1716331341000",'
    '"extendInfo":"{\\"k\\":\\"}{\\"}"}'
)
BOUND: Final = (
    '{"result":{"resultStatus":"S","resultCode":"0000","resultCodeId":"00000000","resultMsg":"ok",'
    '"resultMessage":"success"},"needBind":"true","accountInfo":{"accountId":"a-1","type":"TELECOM",'
    '"subType":"MOBILE_SERVICE","status":"VALID","autoDebitStatus":"UN_AUTO_DEBIT","merchant":'
    '{"merchantAccountId":"m-1","merchantId":"m-1","subMerchantId":"s-1","merchantName":"商戶",'
    '"merchantEnglishName":"Merchant"},"name":"陳大文","phone":"85212345678"}}'
)
_OK: Final = '{"result":{"resultStatus":"S"}}'
_HEAD: Final = f'"function":"{FUNCTION}","reqMsgId":"{REQ_MSG_ID}"'
_TRICKY: Final = (
    '{ "head" : {' + _HEAD + ' , "note":"\\"}]{[\\\\" },\r\n\t"body": {"result" : '
    '{"resultStatus":"\\u0053","resultMessage":"\\u6210\\u529f \\ud83e\\udde7 \\\\\\" }, '
    '\\"signature\\":\\"x"}, '
    '"deep":[[{"a":"]}"}]] } }'
)

ENVELOPE_SIGNED: Final[dict[str, dict[str, str]]] = {
    "request_minimal": {"kind": "request", "text": '{"merchantAccountId":"m-1"}'},
    "request_every_member": {"kind": "request", "text": BIND_ACCOUNT},
    "request_time_hong_kong": {
        "kind": "request",
        "text": BIND_ACCOUNT,
        "time": "2024-05-22T09:12:21+08:00",
    },
    "response_every_member": {"kind": "response", "text": BOUND},
    "response_failure": {
        "kind": "response",
        "text": '{"result":{"resultStatus":"F","resultCode":"PARAM_ILLEGAL","resultMsg":"非法参数"}}',
    },
    "response_with_escapes_braces_and_spaces": {
        "kind": "response",
        "text": "",
        "content": _TRICKY,
        "envelope": ' {{ "{kind}" :\n{content} , "signature" : "{quoted}" }} ',
        "opened": '{"result":{"resultStatus":"S","resultMessage":"成功 🧧 \\\\\\" }, \\"signature\\":\\"x"'
        '},"deep":[[{"a":"]}"}]]}',
    },
    "response_signature_first_and_not_url_encoded": {
        "kind": "response",
        "text": _OK,
        "content": '{"body":' + _OK + ',"head":{' + _HEAD + "}}",
        "envelope": '{{"signature":"{signature}","extra":[{{"response":"}}"}}],"{kind}":{content}}}',
    },
    "response_member_names_with_unicode_escapes": {
        "kind": "response",
        "text": _OK,
        "content": '{"\\u0068ead":{' + _HEAD + '},"body":' + _OK + "}",
        "envelope": '{{"\\u0072esponse":{content},"\\u0073ignature":"{quoted}"}}',
    },
}


def make(directory: Path) -> None:
    """Write the vectors of both protocols under `directory`."""
    for protocol, rows in (("header_signed", HEADER_SIGNED), ("envelope_signed", ENVELOPE_SIGNED)):
        (directory / protocol).mkdir(parents=True, exist_ok=True)
        for name, row in rows.items():
            file = directory / protocol / f"{name}.json"
            if protocol == "header_signed":
                written = json.loads(file.read_text("utf-8")) if file.exists() else None
                case = header_signed(**row, written=written)
            else:
                case = envelope_signed(**row)
            file.write_text(json.dumps(case, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    make(Path(sys.argv[1]) if sys.argv[1:] else HERE)
