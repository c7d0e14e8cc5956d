"""The table of targets: each reads bytes from outside, and fails if a property does not hold."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Final, NamedTuple

from tests.fuzz import calls, doctor, files, http, sealed, texts

Seeds = Callable[[], Iterable[bytes]]


class Target(NamedTuple):
    """One function of bytes. The first line of its docstring is the property that it checks."""

    run: Callable[[bytes], None]
    seeds: Seeds


def _of(*seeds: bytes) -> Seeds:
    return partial(iter, seeds)


def _json_seeds() -> Iterable[bytes]:
    bodies = (case["body"].encode() for case in sealed.vectors("envelope_signed"))
    contents = sealed.signed("envelope_signed")
    odd = (b'{"a":1,"a":2}', b"{}", b' {"a":[1e999,-0.0,1E5,NaN,-Infinity]}', b'{"\\ud800":"\\udc00x"}')
    return (*bodies, *contents, *odd, b"[" * 40, b'{"a":' * 33 + b"1" + b"}" * 33, b"\xef\xbb\xbf{}")


_HEADER_SEEDS: Final = _of(
    b"algorithm=RSA256,keyVersion=1,signature=AAAA%2BB%3D%3D",
    b" algorithm = RSA_AES , symmetricKey=\r\n AAA%0d%0A=, ",
    b"a=1,A=2",
    b"a=b=c,,",
)
_BASE64_SEEDS: Final = _of(b"AAEC/+8=", b"AAEC%2F%2b8%3D", b"AA\r\nEC%0D%0a", b"AB==", b"%41%4", b"\xff")
_TIME_SEEDS: Final = _of(
    b"2024-05-22T06:42:22+05:30",
    b"2024-05-22t01:12:22z",
    b"2024-05-22T09:12:22.123456789+08:00[Asia/Hong_Kong]",
    b"1716340342000",
    b"0001-01-01T00:00:00+23:59:59.999999",
    b"9999-12-31T24:00:00-23:59",
    b"2024-W21-3T01:12:22Z",
    b"20240522T011222Z",
)
_RESPONSE_HEADER_SEEDS: Final = _of(
    b"120\0Wed, 22 May 2024 01:12:21 GMT\0trace-1\0algorithm=RSA256, keyVersion=1 ,signature=x",
    b"Wed, 22 May 2024 01:12:41 GMT\0Wed, 22 May 2024 01:12:21 GMT\0\x7f\xe9\0KEYVERSION=a.b-c_d",
    b"Mon, 1 Jan 0001 00:00:00 +2359\0Fri, 31 Dec 9999 23:59:59 -2359\0\0keyVersion=",
)

TARGETS: Final[dict[str, Target]] = {
    "strict_json": Target(texts.strict_json, _json_seeds),
    "envelope_cutting": Target(texts.envelope_cutting, _json_seeds),
    "header_values": Target(texts.header_values, _HEADER_SEEDS),
    "base64": Target(texts.base64_texts, _BASE64_SEEDS),
    "times": Target(texts.times, _TIME_SEEDS),
    "response_headers": Target(texts.response_headers, _RESPONSE_HEADER_SEEDS),
    "header_message": Target(sealed.header_message, sealed.header_seeds),
    "envelope_message": Target(sealed.envelope_message, sealed.envelope_seeds),
    "signed_header_content": Target(sealed.signed_header_content, sealed.signed_seeds),
    "signed_envelope_content": Target(sealed.signed_envelope_content, sealed.signed_seeds),
    "encrypted_body": Target(sealed.encrypted_body, sealed.encrypted_seeds),
    "sealed_requests": Target(sealed.sealed_requests, sealed.signed_seeds),
    "key_file": Target(files.key_file, files.key_seeds),
    "certificate_names": Target(files.certificate_names, files.certificate_seeds),
    "certificate_file": Target(files.certificate_file, files.pem_seeds),
    "callers_file": Target(files.callers, files.callers_seeds),
    "result_codes_file": Target(files.result_codes, files.result_codes_seeds),
    "settings_file": Target(files.settings, files.settings_seeds),
    "call": Target(calls.call, calls.seeds),
    "response_bytes": Target(http.response_bytes, http.head_seeds),
    "response_head": Target(http.response_head, http.head_seeds),
    "content_coding": Target(http.content_codings, http.coding_seeds),
    "doctor_message": Target(doctor.doctor_message, doctor.message_seeds),
    "sandbox_http": Target(http.sandbox_http, http.sandbox_seeds),
    "sandbox_exchange": Target(http.sandbox_exchange, http.exchange_seeds),
}
