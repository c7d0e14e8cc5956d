"""Header-signed responses; an invalid one is named after the bug that would accept it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from clients.alipayhk.wire import crypto, errors
from clients.alipayhk.wire.endpoint import Encryption, Endpoint
from clients.alipayhk.wire.messages import RawRequest, RawResponse
from clients.alipayhk.wire.result import Result
from tests.alipayhk.sides import (
    ANSWERED_AT,
    CLIENT_ID,
    NOW,
    OK_BODY,
    PATH,
    SENT_AT,
    Sides,
    encrypted_answer,
    header,
    header_answer,
    quoted,
    signature_text,
    with_header,
    with_signature,
)


@pytest.fixture
def sides(header_sides: Sides) -> Sides:
    """Return both sides of a header-signed API."""
    return header_sides


def flipped(text: str, at: int = 0) -> str:
    """Flip one bit of one character."""
    return text[:at] + chr(ord(text[at]) ^ 1) + text[at + 1 :]


def flipped_bytes(data: bytes, bit: int) -> bytes:
    """Flip one bit."""
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def refuses(sides: Sides, raw: RawResponse, failure: type[errors.CallError]) -> errors.CallError:
    """Unseal a response that must fail with exactly this error class; return the error."""
    with pytest.raises(errors.CallError) as caught:
        sides.open(raw)
    assert type(caught.value) is failure
    assert caught.value.sent
    return caught.value


def test_correct_response_is_accepted(sides: Sides) -> None:
    raw = replace(header_answer(sides, extra=(("Tracer-Id", "t-1"),)), http_status=500)
    opened = sides.open(raw)
    assert (opened.http_status, opened.tracer_id) == (500, "t-1")
    assert opened.result == Result("S", "SUCCESS", message="success")
    assert opened.response_time == datetime.fromisoformat(ANSWERED_AT)


@pytest.mark.parametrize("bit", [0, 7, 8, 100, len(OK_BODY) * 8 - 1])
def test_a_bit_flipped_in_the_body_is_refused(sides: Sides, bit: int) -> None:
    raw = replace(header_answer(sides), body=flipped_bytes(OK_BODY, bit))
    refuses(sides, raw, errors.SignatureInvalid)


@pytest.mark.parametrize("bit", [0, 1, 1023, 2047])
def test_a_bit_flipped_in_the_signature_is_refused(sides: Sides, bit: int) -> None:
    raw = header_answer(sides)
    signature = flipped_bytes(crypto.base64_bytes(signature_text(raw)), bit)
    refuses(sides, with_signature(raw, crypto.url_base64_text(signature)), errors.SignatureInvalid)


Alteration = Callable[[RawResponse], RawResponse]

ALTERATIONS: dict[str, Alteration] = {
    "time by a bit": lambda raw: with_header(raw, "Response-Time", flipped(ANSWERED_AT, 3)),
    "time of the same moment": lambda raw: with_header(raw, "Response-Time", "2024-05-22T01:12:22+00:00"),
    "client id by a bit": lambda raw: with_header(raw, "Client-Id", flipped(CLIENT_ID)),
    "client id in lower case": lambda raw: with_header(raw, "Client-Id", CLIENT_ID.lower()),
    "no client id": lambda raw: with_header(raw, "Client-Id"),
    "an empty client id": lambda raw: with_header(raw, "Client-Id", ""),
    "two client ids": lambda raw: with_header(raw, "Client-Id", CLIENT_ID, CLIENT_ID),
    "no time": lambda raw: with_header(raw, "Response-Time"),
    "an empty time": lambda raw: with_header(raw, "Response-Time", ""),
    "two times": lambda raw: with_header(raw, "Response-Time", ANSWERED_AT, ANSWERED_AT),
    "Request-Time for Response-Time": lambda raw: with_header(
        with_header(raw, "Response-Time"), "Request-Time", ANSWERED_AT
    ),
    "text after the body": lambda raw: replace(raw, body=raw.body + b"\n"),
    "half of the body": lambda raw: replace(raw, body=raw.body[: len(raw.body) // 2]),
    "no body": lambda raw: replace(raw, body=b""),
}


@pytest.mark.parametrize("alter", ALTERATIONS.values(), ids=ALTERATIONS.keys())
def test_altered_response_is_refused(sides: Sides, alter: Alteration) -> None:
    refuses(sides, alter(header_answer(sides)), errors.SignatureInvalid)


@pytest.mark.parametrize(
    ("values", "count"), [((), "absent"), (("",), "empty"), ((CLIENT_ID, ""), "repeated")], ids=str
)
def test_error_says_whether_a_header_is_absent_empty_or_repeated(
    sides: Sides, values: tuple[str, ...], count: str
) -> None:
    raw = with_header(header_answer(sides), "Client-Id", *values)
    assert str(refuses(sides, raw, errors.SignatureInvalid)) == f"the header Client-Id is {count}"


def test_dot_between_client_id_and_time_cannot_be_moved(sides: Sides) -> None:
    moved = header_answer(sides, client_id=CLIENT_ID + ".x", time=ANSWERED_AT)
    raw = with_header(with_header(moved, "Client-Id", CLIENT_ID), "Response-Time", "x." + ANSWERED_AT)
    # The signed text is the same in both cases. It is refused because `x.` cannot start a time.
    refuses(sides, raw, errors.Malformed)


def signed(**pairs: str) -> Alteration:
    """Return an edit of the header Signature: these pairs, with the response's signature unless given."""

    def alter(raw: RawResponse) -> RawResponse:
        values = {"signature": quoted(signature_text(raw))} | pairs
        return with_header(raw, "Signature", ",".join(f"{key}={value}" for key, value in values.items()))

    return alter


def spelled(template: str) -> Alteration:
    """Return an edit that writes the header Signature in another spelling."""
    return lambda raw: with_header(
        raw, "Signature", template.format(quoted=quoted(signature_text(raw)), plain=signature_text(raw))
    )


def wrapped(text: str, line_break: str) -> str:
    """Return percent-encoded base64 with a line break after every 64 characters, and at the end."""
    return "".join(quoted(text[at : at + 64]) + line_break for at in range(0, len(text), 64))


REFUSED_SIGNATURES: dict[str, Alteration] = {
    "empty header": lambda raw: with_header(raw, "Signature", ""),
    "blank header": lambda raw: with_header(raw, "Signature", " "),
    "empty signature": signed(algorithm="RSA256", keyVersion="1", signature=""),
    "no signature": spelled("algorithm=RSA256,keyVersion=1"),
    "algorithm ECC224": signed(algorithm="ECC224", keyVersion="1"),
    "algorithm none": signed(algorithm="none", keyVersion="1"),
    "empty algorithm": signed(algorithm="", keyVersion="1"),
    "unknown keyVersion": signed(algorithm="RSA256", keyVersion="2"),
    "empty keyVersion": signed(algorithm="RSA256", keyVersion=""),
    "keyVersion 01": signed(algorithm="RSA256", keyVersion="01"),
    "keyVersion twice": spelled("keyVersion=1,keyversion=1,signature={quoted}"),
    "signature twice": spelled("signature={quoted},signature={quoted}"),
    "two commas": spelled("signature={quoted},,"),
    "a comma first": spelled(",signature={quoted}"),
    "a pair without =": spelled("RSA256,signature={quoted}"),
    "a pair without a key": spelled("=RSA256,signature={quoted}"),
    "not pairs at all": spelled("{quoted}"),
    "quoted": spelled('signature="{quoted}"'),
    "encoded twice": lambda raw: with_signature(raw, quoted(quoted(signature_text(raw)))),
    "not base64": signed(signature="%%%"),
    "not ASCII": signed(signature="é" * 344),
    "bytes that are no UTF-8": signed(signature="%ff%fe"),
    "one byte short": lambda raw: with_signature(
        raw, crypto.url_base64_text(crypto.base64_bytes(signature_text(raw))[:-1])
    ),
    "a zero byte in front": lambda raw: with_signature(
        raw, crypto.url_base64_text(b"\0" + crypto.base64_bytes(signature_text(raw)))
    ),
}


@pytest.mark.parametrize("alter", REFUSED_SIGNATURES.values(), ids=REFUSED_SIGNATURES.keys())
def test_impossible_signature_header_is_refused(sides: Sides, alter: Alteration) -> None:
    refuses(sides, alter(header_answer(sides)), errors.SignatureInvalid)


ACCEPTED_SIGNATURES: dict[str, Alteration] = {
    "plain base64": spelled("algorithm=RSA256,keyVersion=1,signature={plain}"),
    "spaces after the commas": spelled("algorithm=RSA256, keyVersion=1, signature={quoted}"),
    "spaces and tabs around all": spelled("  algorithm=RSA256 ,\tkeyVersion=1 , signature={quoted} "),
    "another case": spelled("ALGORITHM=rsa256,KEYVERSION=1,Signature={quoted}"),
    "another order": spelled("signature={quoted},keyVersion=1,algorithm=RSA256"),
    "no algorithm": spelled("keyVersion=1,signature={quoted}"),
    "no keyVersion": spelled("algorithm=RSA256,signature={quoted}"),
    "spaces around =": spelled("algorithm = RSA256,keyVersion= 1,signature =\t{quoted}"),
    "a comma at the end": spelled("algorithm=RSA256,keyVersion=1,signature={quoted}, "),
    "line breaks": lambda raw: with_signature(raw, wrapped(signature_text(raw), "%0D%0A")),
    "a line feed at the end": lambda raw: with_signature(raw, quoted(signature_text(raw) + "\n")),
    "line feeds in lower case": lambda raw: with_signature(raw, wrapped(signature_text(raw), "%0a")),
    "a pair that nobody knows": spelled("algorithm=RSA256,keyVersion=1,x=y=z,signature={quoted}"),
}


@pytest.mark.parametrize("alter", ACCEPTED_SIGNATURES.values(), ids=ACCEPTED_SIGNATURES.keys())
def test_other_spellings_of_the_signature_header_are_accepted(sides: Sides, alter: Alteration) -> None:
    assert sides.open(alter(header_answer(sides))).result.status == "S"


def test_percent_escapes_in_lower_case_are_accepted(sides: Sides) -> None:
    raw = answer_whose_signature_has(sides, "+/=")
    text = quoted(signature_text(raw))
    lower = text.replace("%2B", "%2b").replace("%2F", "%2f").replace("%3D", "%3d")
    assert lower != text
    assert sides.open(with_signature(raw, lower)).result.status == "S"


def answer_whose_signature_has(sides: Sides, characters: str) -> RawResponse:
    """Return a correct response with a signature that contains all of these characters."""
    for number in range(1000):
        raw = header_answer(sides, OK_BODY + b" " * number)
        if all(character in signature_text(raw) for character in characters):
            return raw
    raise AssertionError("no such signature")


def test_a_plus_in_a_signature_is_not_a_space(sides: Sides) -> None:
    raw = answer_whose_signature_has(sides, "+")
    text = signature_text(raw)
    # An unescaped plus, and another character that is escaped, so that the text is percent-decoded.
    assert sides.open(with_signature(raw, text.replace("=", "%3D"))).result.status == "S"
    spaced = with_signature(raw, text.replace("+", " ").replace("=", "%3D"))
    refuses(sides, spaced, errors.SignatureInvalid)


def test_base64_with_spare_bits_is_not_canonical(sides: Sides) -> None:
    raw = header_answer(sides)
    text = signature_text(raw)
    assert text.endswith("==")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    spare = text[:-3] + alphabet[alphabet.index(text[-3]) + 1] + "=="
    refuses(sides, with_signature(raw, quoted(spare)), errors.SignatureInvalid)


@pytest.mark.parametrize("change", ["{}=", "{}\0", " {}", "{}AAAA", "{}!"])
def test_base64_with_additional_characters_is_refused(sides: Sides, change: str) -> None:
    raw = header_answer(sides)
    refuses(sides, with_signature(raw, quoted(change.format(signature_text(raw)))), errors.SignatureInvalid)


def test_base64_without_its_padding_is_refused(sides: Sides) -> None:
    raw = header_answer(sides)
    refuses(sides, with_signature(raw, signature_text(raw).rstrip("=")), errors.SignatureInvalid)


def test_a_second_signature_header_is_refused(sides: Sides) -> None:
    raw = header_answer(sides)
    line = header(raw, "Signature")
    for second in (line, "", "algorithm=RSA256,keyVersion=1,signature=AAAA"):
        refuses(sides, with_header(raw, "Signature", line, second), errors.SignatureInvalid)
        refuses(sides, with_header(raw, "Signature", second, line), errors.SignatureInvalid)
    other_case = replace(raw, headers=(*raw.headers, ("signature", line)))
    refuses(sides, other_case, errors.SignatureInvalid)


def test_header_names_are_read_in_any_case(sides: Sides) -> None:
    raw = encrypted_answer(sides)
    for change in (str.lower, str.upper):
        headers = tuple((change(name), value) for name, value in raw.headers)
        assert sides.open(replace(raw, headers=headers)).result.status == "S"


@pytest.mark.parametrize("http_status", [200, 302, 403, 500, 502])
def test_unsigned_success_is_refused(sides: Sides, http_status: int) -> None:
    raw = RawResponse(http_status, (("Client-Id", CLIENT_ID), ("Response-Time", ANSWERED_AT)), OK_BODY)
    error = refuses(sides, raw, errors.Unsigned)
    assert isinstance(error, errors.Unsigned)
    assert (error.http_status, error.claimed_code) == (http_status, "SUCCESS")


def test_a_signature_over_another_path_is_refused(sides: Sides) -> None:
    for path in (PATH + "/", PATH + "?", PATH.upper(), "/"):
        raw = header_answer(sides.but(path=path))
        refuses(sides, raw, errors.SignatureInvalid)


def test_own_request_sent_back_is_refused(sides: Sides) -> None:
    sealed = sides.seal(OK_BODY)
    headers = tuple(
        (name.replace("Request-Time", "Response-Time"), value) for name, value in sealed.headers
    )
    refuses(sides, RawResponse(200, headers, sealed.body), errors.SignatureInvalid)


def test_signature_with_an_unknown_key_is_refused(sides: Sides, stranger: RSAPrivateKey) -> None:
    keys = replace(sides.wallet.keys, signing=stranger)
    strange = Sides(sides.us, replace(sides.wallet, keys=keys))
    refuses(sides, header_answer(strange), errors.SignatureInvalid)


def with_keys(endpoint: Endpoint, *private: RSAPrivateKey) -> Endpoint:
    """Return the endpoint with these keys to verify and decrypt, newest first."""
    versions = [str(len(private) - index) for index in range(len(private))]
    verifying = {version: key.public_key() for version, key in zip(versions, private, strict=True)}
    decrypting = dict(zip(versions, private, strict=True))
    return replace(endpoint, keys=replace(endpoint.keys, verifying=verifying, decrypting=decrypting))


def test_a_named_key_version_is_the_only_one_tried(
    sides: Sides, theirs: RSAPrivateKey, stranger: RSAPrivateKey
) -> None:
    rotated = Sides(with_keys(sides.us, stranger, theirs), sides.wallet)
    raw = header_answer(sides)
    assert rotated.open(raw).result.status == "S"
    refuses(rotated, signed(keyVersion="2")(raw), errors.SignatureInvalid)


def test_an_absent_key_version_means_the_newest(
    sides: Sides, theirs: RSAPrivateKey, stranger: RSAPrivateKey
) -> None:
    raw = spelled("algorithm=RSA256,signature={quoted}")(header_answer(sides))
    newest = Sides(with_keys(sides.us, theirs, stranger), sides.wallet)
    older = Sides(with_keys(sides.us, stranger, theirs), sides.wallet)
    assert newest.open(raw).result.status == "S"
    refuses(older, raw, errors.SignatureInvalid)


def test_signature_without_any_key_is_refused_and_does_not_crash(sides: Sides) -> None:
    keyless = Sides(with_keys(sides.us), sides.wallet)
    raw = header_answer(sides)
    refuses(keyless, raw, errors.SignatureInvalid)
    refuses(keyless, spelled("signature={quoted}")(raw), errors.SignatureInvalid)


def test_a_response_to_another_client_id_is_refused(sides: Sides) -> None:
    refuses(sides, header_answer(sides, client_id="ANOTHER"), errors.Replayed)
    refuses(sides, header_answer(sides, client_id=CLIENT_ID + " "), errors.Replayed)


WINDOW = timedelta(seconds=300)
SECOND = timedelta(seconds=1)


@pytest.mark.parametrize(
    ("time", "accepted"),
    [
        pytest.param(SENT_AT.replace(microsecond=0) - WINDOW, True, id="the first second of the window"),
        pytest.param(SENT_AT.replace(microsecond=0) - WINDOW - SECOND, False, id="a second before it"),
        pytest.param(NOW.replace(microsecond=0) + WINDOW, True, id="the last second of the window"),
        pytest.param(NOW.replace(microsecond=0) + WINDOW + SECOND, False, id="a second after it"),
        pytest.param(SENT_AT.replace(microsecond=0), True, id="the second of sending, cut off"),
        pytest.param(SENT_AT - timedelta(days=365), False, id="a year old"),
    ],
)
def test_an_old_or_early_signed_success_is_refused(sides: Sides, time: datetime, accepted: bool) -> None:
    raw = header_answer(sides, time=time.isoformat(timespec="seconds"))
    if accepted:
        assert sides.open(raw).response_time == time
    else:
        error = refuses(sides, raw, errors.OutsideWindow)
        assert isinstance(error, errors.OutsideWindow)
        assert abs(error.skew_s - (time - SENT_AT).total_seconds()) <= 1


def test_time_of_a_response_to_another_client_is_not_used(sides: Sides) -> None:
    time = (SENT_AT - timedelta(days=365)).isoformat(timespec="seconds")
    refuses(sides, header_answer(sides, client_id="ANOTHER", time=time), errors.Replayed)


def test_second_of_sending_is_accepted_with_a_window_of_zero(sides: Sides) -> None:
    narrow = sides.but(response_time_window_s=0.0)
    raw = header_answer(sides, time=SENT_AT.isoformat(timespec="seconds"))
    assert narrow.open(raw).response_time == SENT_AT.replace(microsecond=0)


@pytest.mark.parametrize(
    "time",
    [
        "2024-05-22",
        "2024-05-22T06:42:22",
        "2024-05-22T09:12:22[Asia/Hong_Kong]",
        "2024-05-22T09:12:22+08:00[]",
        "1716340342",
        "17163403420000",
        "1716340342000.0",
        "\u0661716340342000",
        "yesterday",
        "2024-13-01T00:00:00Z",
        "0",
        "+08:00",
    ],
)
def test_signed_time_that_is_not_a_time_is_malformed(sides: Sides, time: str) -> None:
    refuses(sides, header_answer(sides, time=time), errors.Malformed)


@pytest.mark.parametrize(
    "time",
    [
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59-23:59",
        "9999-12-31T23:59:59.999999-23:59",
        "0001-01-01T00:00:00-23:59",
    ],
)
def test_signed_time_at_the_limit_of_datetime_is_replayed(sides: Sides, time: str) -> None:
    refuses(sides, header_answer(sides, time=time), errors.OutsideWindow)


SAME_MOMENT = (
    "1716340342000",
    "1716340342999",
    "2024-05-22T06:42:22.123+05:30",
    "2024-05-22T06:42:22.1234567+05:30",
    "2024-05-22T01:12:22Z",
    "2024-05-22t01:12:22z",
    "2024-05-22T09:12:22+0800",
    "2024-05-22T09:12:22+08",
    "2024-05-22T09:12:22+08:00[Asia/Hong_Kong]",
    "2024-05-22T09:12:22.5+0800[Asia/Hong_Kong]",
    "2024-05-22T01:12:22Z[Etc/GMT+0]",
)


@pytest.mark.parametrize("time", SAME_MOMENT)
def test_time_in_a_harmless_variant_is_read(sides: Sides, time: str) -> None:
    opened = sides.open(header_answer(sides, time=time))
    assert opened.response_time is not None
    assert opened.response_time.replace(microsecond=0) == datetime.fromisoformat(ANSWERED_AT)


@pytest.mark.parametrize(
    "time", ["1716340042000", "1716340643000", "2023-05-22T09:12:22+08[Asia/Hong_Kong]"]
)
def test_time_window_also_holds_for_variants(sides: Sides, time: str) -> None:
    error = refuses(
        sides.but(response_time_window_s=298.0), header_answer(sides, time=time), errors.OutsideWindow
    )
    assert isinstance(error, errors.OutsideWindow)
    assert abs(error.skew_s) > 298


@pytest.mark.parametrize(
    "time", ["2024-05-22T09:12:22+08:00", "2024-05-22T06:42:22+05:30", "2024-05-22T01:12:22Z"]
)
def test_same_moment_in_any_time_zone_is_accepted(sides: Sides, time: str) -> None:
    opened = sides.open(header_answer(sides, time=time))
    assert opened.response_time == datetime.fromisoformat(ANSWERED_AT)


def test_two_correct_responses_in_one_second_with_equal_bytes_are_both_accepted(sides: Sides) -> None:
    first, second = header_answer(sides), header_answer(sides)
    assert first == second
    assert [sides.open(raw).result.status for raw in (first, second)] == ["S", "S"]


def test_variants_are_not_read_in_requests(sides: Sides) -> None:
    sealed = sides.seal(OK_BODY)
    headers = dict(sealed.headers)
    signature = headers["Signature"]
    for variant in (signature + ",", signature + "%0A", signature.replace("keyVersion=", "keyVersion= ")):
        with pytest.raises(errors.SignatureInvalid):
            sides.receive(sealed.path, tuple((headers | {"Signature": variant}).items()), sealed.body)
    with_mark = sides.seal(b"\xef\xbb\xbf" + OK_BODY)
    with pytest.raises(errors.Malformed):
        sides.receive(with_mark.path, with_mark.headers, with_mark.body)


def test_a_request_is_refused_by_the_same_rules(sides: Sides) -> None:
    sealed = sides.seal(OK_BODY)
    raw = RawRequest(sealed.path, sealed.headers, sealed.body)
    assert sides.receive(raw.path, raw.headers, raw.body).client_id == CLIENT_ID
    for broken in (
        replace(raw, path=raw.path + "?"),
        replace(raw, body=raw.body + b" "),
        replace(raw, headers=tuple(line for line in raw.headers if line[0] != "Signature")),
        replace(raw, headers=(*raw.headers, *raw.headers)),
    ):
        with pytest.raises(errors.SignatureInvalid):
            sides.receive(broken.path, broken.headers, broken.body)


def test_configured_content_type_is_sent_with_encrypted_requests_only(sides: Sides) -> None:
    encryption = Encryption(content_type="text/plain; charset=UTF-8")
    for encrypted, content_type in (
        (True, "text/plain; charset=UTF-8"),
        (False, "application/json; charset=UTF-8"),
    ):
        sealed = sides.speaking(encryption=encryption, encrypt_requests=encrypted).seal(OK_BODY)
        assert ("Content-Type", content_type) in sealed.headers
        assert ("Encrypt" in dict(sealed.headers)) == encrypted
