"""Targets: JSON, base64, times and the values of headers."""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from datetime import timedelta
from typing import Final
from urllib.parse import unquote

from clients.alipayhk.wire import lenient
from clients.alipayhk.wire.clock import lenient_time_of, response_time_of, time_of
from clients.alipayhk.wire.crypto import CryptoError, url_base64_bytes
from clients.alipayhk.wire.errors import Malformed, OutsideWindow
from clients.alipayhk.wire.messages import RETRY_AFTER_DIGITS_MAX, TRACER_ID_MAX, RawResponse
from clients.alipayhk.wire.protocols.header_text import header_pairs
from clients.alipayhk.wire.strict_json import JsonError, member_bytes, read_object, write_json
from tests.alipayhk.sides import NOW, SENT_AT
from tests.fuzz.properties import check_error, has_infinity, json_object, result_of, same

WINDOW_S: Final = 300.0
_SPACE: Final = rb"[ \t\r\n]*"
_NAME: Final = _SPACE + rb'("(?:[^"\\]|\\.)*")' + _SPACE + b":" + _SPACE
_BEFORE_FIRST: Final = re.compile(_SPACE + b"{" + _NAME, re.DOTALL)
_BEFORE_OTHER: Final = re.compile(_SPACE + b"," + _NAME, re.DOTALL)
_AFTER_VALUES: Final = re.compile(_SPACE + b"}" + _SPACE)
_EMPTY: Final = re.compile(_SPACE + b"{" + _SPACE + b"}" + _SPACE)
_KEY_VERSION: Final = re.compile(r"[A-Za-z0-9._-]{0,32}")


def strict_json(data: bytes) -> None:
    """`read_object` returns what `json` returns, and refuses what two readers could read differently."""
    expected = json_object(data)
    leniently = result_of(JsonError, read_object, data, huge_as_infinite=True)
    assert same(leniently, expected)
    value = result_of(JsonError, read_object, data)
    assert same(value, None if has_infinity(expected) else expected)
    if value is not None:
        assert same(read_object(write_json(value)), value)


def envelope_cutting(data: bytes) -> None:
    """`member_bytes` returns exact slices, in order, and cuts every object that can be read."""
    value = json_object(data)
    members = result_of(JsonError, member_bytes, data)
    if members is None:
        assert value is None
        return
    at = 0
    for name, cut in members:
        before = (_BEFORE_OTHER if at else _BEFORE_FIRST).match(data, at)
        assert before
        assert json.loads(before[1]) == name
        at = before.end() + len(cut)
        assert cut
        assert data[before.end() : at] == cut
    assert (_AFTER_VALUES if members else _EMPTY).fullmatch(data, at)
    if value is not None:
        read = [read_object(b'{"":' + cut + b"}", huge_as_infinite=True)[""] for _, cut in members]
        assert same(read, list(value.values()))


def header_values(data: bytes) -> None:
    """Leniency about the values of Signature and Encrypt changes white space and line breaks only."""
    text = data.decode("latin-1")
    strict = result_of(ValueError, header_pairs, text)
    leniently = result_of(ValueError, header_pairs, text, leniently=True)
    for pairs in (strict, leniently):
        assert pairs is None or all(
            name == name.lower() and "," not in name + value and "=" not in name
            for name, value in pairs.items()
        )
    if re.search(r"[\s\x1c-\x1f]|%0[AaDd]|,$", text) is None:
        assert strict == leniently
    if strict is not None and leniently is not None:
        assert [_squeezed(pair) for pair in strict.items()] == [_squeezed(p) for p in leniently.items()]


def base64_texts(data: bytes) -> None:
    """Base64 has one spelling; leniency removes line breaks, and changes no byte that is decoded."""
    text = data.decode("latin-1")
    strict = result_of(CryptoError, url_base64_bytes, text)
    if strict is not None:
        assert base64.b64encode(strict).decode() == (unquote(text) if "%" in text else text)
    leniently = result_of(CryptoError, url_base64_bytes, lenient.base64_text(text))
    if leniently is not None:
        kept = re.sub(r"[\r\n]", "", re.sub(r"%0[AaDd]|[\r\n]", "", text))
        assert binascii.a2b_base64(unquote(kept), strict_mode=True) == leniently
    if strict is not None and "%0" not in text:
        assert strict == leniently


def times(data: bytes) -> None:
    """A response's time is accepted only within the window, and leniency changes no time."""
    text = data.decode("utf-8", "replace")
    value: object = int(text) if re.fullmatch(r"-?[0-9]{1,400}", text) and len(text) % 2 else text
    strict = result_of(ValueError, time_of, text)
    leniently = result_of(ValueError, lenient_time_of, value)
    if strict is not None and text == text.upper():
        assert leniently == strict
    try:
        accepted = response_time_of(value, sent_at=SENT_AT, now=NOW, window_s=WINDOW_S)
    except OutsideWindow as error:
        check_error(error)
        assert leniently is not None
        assert math.isfinite(error.skew_s)
        assert abs(error.skew_s) >= WINDOW_S - 1
    except Malformed as error:
        check_error(error)
        assert leniently is None
    else:
        window = timedelta(seconds=WINDOW_S)
        assert accepted == leniently
        assert SENT_AT.replace(microsecond=0) - window <= accepted <= NOW + window


def response_headers(data: bytes) -> None:
    """What logs and waits use of an unverified response is short, printable and finite."""
    retry_after, date, tracer_id, signature, *_ = [*data.decode("latin-1").split("\0"), *[""] * 4]
    named = {"Retry-After": retry_after, "Date": date, "Tracer-Id": tracer_id, "Signature": signature}
    raw = RawResponse(503, tuple(named.items()), b"")
    wait_s = raw.retry_after_s(NOW)
    assert 0.0 <= wait_s < 10**12
    assert raw.tracer_id.isascii()
    assert raw.tracer_id.isprintable()
    assert len(raw.tracer_id) <= TRACER_ID_MAX
    assert _KEY_VERSION.fullmatch(raw.key_version)
    assert raw.key_version in signature
    if retry_after.isdigit() and retry_after.isascii() and len(retry_after) <= RETRY_AFTER_DIGITS_MAX:
        assert wait_s == int(retry_after)


def _squeezed(pair: tuple[str, str]) -> str:
    """Return a pair without what leniency removes."""
    text = "=".join(pair)
    while (shorter := re.sub(r"[\s\x1c-\x1f]|%0[AaDd]", "", text)) != text:
        text = shorter
    return text
