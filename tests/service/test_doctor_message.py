"""`doctor message`: every format is read, the exit status says the verdict, and values are masked."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import pytest

from service.commands.cli import main
from service.commands.doctor.masking import masked
from service.commands.doctor.visible import decoded
from tests.alipayhk.diagnosis.signers import CLIENT_ID, KINDS, PATH, Signing, signing
from tests.service.files import KeyRing

Captured = pytest.CaptureFixture[str]
Doctor = Callable[..., tuple[int, str, str]]
MEMBERS: Final = {
    "verdict",
    "cause",
    "causes",
    "explanation",
    "fix",
    "key_version",
    "content_to_sign",
    "signed_content",
    "signed_digest",
}
IDENTITIES: Final = tuple(f"IDENTITY{number}" for number in range(12))
"""Twelve values that must not be in the text output."""


@pytest.fixture
def doctor(tmp_path: Path, ring: KeyRing, capsys: Captured) -> Doctor:
    """Return a function that diagnoses a file with this content; it returns status, output and errors."""

    def run(data: bytes | str, *flags: str, keys: str | None = None) -> tuple[int, str, str]:
        file = tmp_path / "message"
        file.write_bytes(data if isinstance(data, bytes) else data.encode())
        given = f"1={ring.public}" if keys is None else keys
        status = main(
            ["doctor", "message", str(file), *(["--public-key-files", given] if given else []), *flags]
        )
        return status, *capsys.readouterr()

    return run


def as_exchange(signing_: Signing, ring: KeyRing, **changes: Any) -> str:
    message = signing_.message(ring.theirs)
    members = {
        "protocol": signing_.protocol,
        "message": signing_.kind,
        "path": message.path,
        "headers": message.raw.headers,
        "body": message.raw.body.decode(),
    }
    return json.dumps({name: value for name, value in (members | changes).items() if value is not None})


def as_http(signing_: Signing, ring: KeyRing, line_break: str = "\r\n") -> bytes:
    raw = signing_.message(ring.theirs).raw
    first = f"POST {PATH} HTTP/1.1" if signing_.kind == "request" else "HTTP/1.1 200 OK"
    lines = [first, *(f"{name}: {value}" for name, value in raw.headers), "", ""]
    return line_break.join(lines).encode() + raw.body


def as_har(signing_: Signing, ring: KeyRing) -> str:
    raw = signing_.message(ring.theirs).raw
    headers = [{"name": name, "value": value} for name, value in raw.headers]
    request: dict[str, Any] = {"method": "POST", "url": f"https://open.alipay.hk{PATH}", "headers": []}
    response: dict[str, Any] = {"status": 200, "headers": []}
    if signing_.kind == "request":
        request |= {"headers": headers, "postData": {"text": raw.body.decode()}}
    else:
        encoded = base64.b64encode(raw.body).decode()
        response |= {"headers": headers, "content": {"text": encoded, "encoding": "base64"}}
    other = {"request": {"url": "https://x/", "headers": []}, "response": {}}
    return json.dumps({"log": {"entries": [other, {"request": request, "response": response}]}})


def as_curl(signing_: Signing, ring: KeyRing) -> str:
    raw = signing_.message(ring.theirs).raw
    headers = [f"-H {shlex.quote(f'{name}: {value}')}" for name, value in raw.headers]
    body = raw.body.decode().replace("\\", "\\\\").replace("會", "\\u6703").replace("'", "\\'")
    lines = [
        f"curl 'https://open.alipay.hk{PATH}'",
        "-X POST",
        *headers,
        "--compressed",
        f"--data-raw $'{body}'",
    ]
    return " \\\n  ".join(lines)


each_kind = pytest.mark.parametrize(("protocol", "kind"), KINDS)


FORMATS: Final = [
    pytest.param(as_format, *kind, id=f"{as_format.__name__} {' '.join(kind)}")
    for kind in KINDS
    for as_format in (as_exchange, as_http, as_har, as_curl)
    if (as_format, kind[1]) != (as_curl, "response")
]


@pytest.mark.parametrize(("as_format", "protocol", "kind"), FORMATS)
def test_every_format_is_read(
    as_format: Callable[[Signing, KeyRing], str | bytes],
    protocol: str,
    kind: str,
    doctor: Doctor,
    ring: KeyRing,
) -> None:
    sound = signing(protocol, kind)
    flags = {as_http: ["--path", PATH], as_har: ["--entry", "2", "--message", kind]}.get(as_format, [])
    status, out, _ = doctor(as_format(sound, ring), *flags, "--json")
    assert (status, json.loads(out)["verdict"]) == (0, "valid")
    status, out, _ = doctor(
        as_format(replace(sound, content=lambda content: content + b"\n"), ring), *flags, "--json"
    )
    assert (status, json.loads(out)["causes"]) == (1, ["trailing_newline"])


@each_kind
def test_json_has_the_members_of_the_contract(
    protocol: str, kind: str, doctor: Doctor, ring: KeyRing
) -> None:
    wrong = signing(protocol, kind, content=lambda content: content + b"\n")
    _, out, _ = doctor(as_exchange(wrong, ring), "--json")
    found = json.loads(out)
    assert found.keys() == MEMBERS
    assert found["cause"] == "trailing_newline"
    assert found["signed_content"] == found["content_to_sign"] + "\n"
    assert len(found["signed_digest"]) == 64
    _, out, _ = doctor(as_exchange(replace(wrong, content=lambda _: b"?"), ring), "--json")
    assert json.loads(out) | {"fix": "", "explanation": "", "content_to_sign": ""} == {
        **dict.fromkeys(MEMBERS, ""),
        "verdict": "undecided",
        "cause": None,
        "causes": [],
        "key_version": "1",
        "signed_content": None,
        "signed_digest": "8a8de823d5ed3e12746a62ef169bcf372be0ca44f0a1236abc35df05d96928e1",
    }


def test_body_of_an_exchange_can_be_base64(doctor: Doctor, ring: KeyRing) -> None:
    sent = signing("header_signed", "response", sent=gzip.compress)
    body = base64.b64encode(sent.message(ring.theirs).raw.body).decode()
    exchange = json.dumps(
        {
            "protocol": "header_signed",
            "message": "response",
            "path": PATH,
            "headers": sent.message(ring.theirs).raw.headers,
            "body_base64": body,
        }
    )
    assert doctor(exchange)[0] == 1
    # The gateway undoes a content coding that the response names.
    coded = json.loads(exchange)
    coded["headers"].append(["Content-Encoding", "gzip"])
    assert doctor(json.dumps(coded))[0] == 0


def test_compressed_response_shows_its_protocol(doctor: Doctor, ring: KeyRing) -> None:
    zipped = signing(
        "envelope_signed", "response", whole=gzip.compress, headers=(("Content-Encoding", "gzip"),)
    )
    status, out, _ = doctor(as_http(zipped, ring))
    assert status == 0
    assert "\nmessage: response, envelope_signed\n" in out


def test_shared_request_of_a_har_file_has_the_tracer_id_of_its_response(
    doctor: Doctor, ring: KeyRing, tmp_path: Path
) -> None:
    har = json.loads(as_har(signing("header_signed", "request"), ring))
    traced = [{"name": "tracer-id", "value": "0a1b2c"}]
    har["log"]["entries"][1]["response"]["headers"] = traced
    share = tmp_path / "share"
    flags = ("--entry", "2", "--message", "request", "--share", str(share))
    assert doctor(json.dumps(har), *flags)[0] == 0
    assert json.loads(share.read_text("utf-8"))["tracer_id"] == "0a1b2c"


def test_raw_message_ends_where_its_length_says(doctor: Doctor, ring: KeyRing) -> None:
    sound = signing("header_signed", "request")
    length = len(sound.message(ring.theirs).raw.body)
    http = as_http(replace(sound, headers=(("Content-Length", str(length)),)), ring, "\n")
    assert doctor(http + b"\n")[0] == 0
    body = sound.message(ring.theirs).raw.body
    chunked = as_http(replace(sound, headers=(("Transfer-Encoding", "chunked"),)), ring)
    chunks = b"%x\r\n%b\r\n%x;a=b\r\n%b\r\n0\r\n\r\n" % (10, body[:10], length - 10, body[10:])
    assert doctor(chunked.replace(body, chunks))[0] == 0
    assert doctor(chunked)[0] == 0


def test_standard_input_is_read(ring: KeyRing, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    data = as_exchange(signing("header_signed", "request"), ring).encode()
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(data)))
    assert main(["doctor", "message", "-", "--public-key-files", f"1={ring.public}"]) == 0
    assert capsys.readouterr().out.startswith("valid: The signature verifies.\n")


def test_keys_path_and_client_id_can_come_from_the_settings(
    doctor: Doctor, ring: KeyRing, environ: dict[str, str], tmp_path: Path
) -> None:
    lines = (f'{name.removeprefix("ALIPAYHK_").lower()} = "{value}"' for name, value in environ.items())
    config = tmp_path / "gateway.toml"
    config.write_text("\n".join(lines) + "\n", "utf-8")
    response = as_exchange(signing("envelope_signed", "response"), ring)
    assert doctor(response, "--config", str(config), keys="")[0] == 0
    ours = signing("envelope_signed", "request", key=ring.ours)
    assert doctor(as_exchange(ours, ring), "--config", str(config), keys="")[0] == 0
    status, out, _ = doctor(response, "--config", str(config), "--json", keys=f"1={ring.other_public}")
    assert (status, json.loads(out)["cause"]) == (1, "wrong_key")
    assert doctor(response, "--config", str(tmp_path / "no.toml"), keys="")[0] == 78


def test_own_key_is_recognised(doctor: Doctor, ring: KeyRing) -> None:
    exchange = as_exchange(signing("header_signed", "response"), ring)
    keys = f"1={ring.other_public}"
    status, out, _ = doctor(exchange, "--own-key-file", str(ring.other_private), "--json", keys=keys)
    assert (status, json.loads(out)["cause"]) == (1, "own_key")


@pytest.mark.parametrize("protocol", ["header_signed", "envelope_signed"])
@pytest.mark.parametrize("content", ["body + newline", "hash", "other", "body", "spaces"])
def test_text_output_shows_no_identity_value(
    content: str, protocol: str, doctor: Doctor, ring: KeyRing
) -> None:
    members = {f"member{number}": value for number, value in enumerate(IDENTITIES[:6])}
    nested = json.dumps({"formValue": {"phone": IDENTITIES[6]}})
    body = {
        **members,
        "userId": IDENTITIES[7],
        "accountInfo": nested,
        "list": [IDENTITIES[8], {"name": f"陳{IDENTITIES[9]}"}],
        "externalIdentityValue": f'"{IDENTITIES[10]}\\u0041',
        "openId": IDENTITIES[11],
    }
    whole = body if protocol == "header_signed" else {"head": {"clientId": CLIENT_ID}, "body": body}
    changes: dict[str, Any] = {
        "body + newline": {"content": lambda data: data + b"\n"},
        "hash": {"content": lambda data: data.hex().encode()},
        "other": {"content": lambda _: b"other"},
        "body": {"join": lambda *parts: parts[-1]},
        "spaces": {"signed_body": lambda data: data.replace(b'":"', b'": "')},
    }[content]
    start = replace(signing(protocol, "request"), body=json.dumps(whole).encode(), **changes)
    status, out, err = doctor(as_exchange(start, ring))
    assert status in {0, 1}
    assert [value for value in IDENTITIES if value in out + err] == []
    assert '"userId":' in out
    _, out, _ = doctor(as_exchange(start, ring), "--unmasked")
    assert [value for value in IDENTITIES if value not in out] == []


SUM: Final = hashlib.sha256(b"88781108").digest()
GZIPPED: Final = gzip.compress(b'{"userId":"1"}', mtime=0)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (SUM, "*" * 32),
        (SUM.hex().encode() + b"\n", "*" * 64 + "\n"),
        (base64.b64encode(SUM), "*" * 44),
        (GZIPPED, "*" * len(GZIPPED)),
        (b"/p.8878-1108.\xff", "*" * 14),
        (
            b'{"body":"B1","result":["R1"],"resultCode":"S"}',
            '{"body":"**","result":["**"],"resultCode":"S"}',
        ),
        (b"POST /p?u=1\nid.2026-03-01T12:00:05Z.\x1f\x8b,", "POST /p?*=*\nid.2026-03-01T12:00:05Z.***"),
    ],
)
def test_only_members_without_personal_data_are_shown(text: bytes, shown: str) -> None:
    assert masked(decoded(text)) == shown


def test_shared_diagnosis_of_a_hash_has_no_part_of_it(
    doctor: Doctor, ring: KeyRing, tmp_path: Path
) -> None:
    hashed = signing("header_signed", "request", content=lambda content: hashlib.sha256(content).digest())
    share = tmp_path / "share"
    doctor(as_exchange(hashed, ring), "--share", str(share))
    members = json.loads(share.read_text("utf-8"))
    assert (members["causes"], members["signed_content"]) == (["double_hash"], None)


def test_invisible_characters_and_differences_are_shown(doctor: Doctor, ring: KeyRing) -> None:
    start = signing("header_signed", "request")
    _, out, _ = doctor(as_exchange(replace(start, content=lambda data: b"\xef\xbb\xbf" + data), ring))
    assert "\n  | POST /api/open/v1/binding/sync?****=**\\n\n  | " in out
    assert "{+\\ufeff+}POST" in out
    _, out, _ = doctor(
        as_exchange(replace(start, client_id="OTHER-PRODUCT"), ring), "--own-key-file", str(ring.private)
    )
    assert out.startswith("undecided: A given key made the signature, but it covers other content")


def test_missing_keys_are_wrong_usage(doctor: Doctor) -> None:
    status, _, err = doctor("{}", keys="")
    assert status == 64
    assert "--public-key-files" in err


HTTP: Final = "POST / HTTP/1.1\r\nSignature: x\r\n\r\n{}"
UNUSABLE: Final[tuple[tuple[str | bytes, tuple[str, ...], str], ...]] = (
    ("", (), "FILE is no exchange"),
    (b"\xff\xfe\x00", (), "neither a raw HTTP message nor text"),
    ("[]", (), "FILE is no exchange"),
    ("{", (), "not JSON that can be read"),
    ('{"a":' * 100_000, (), "not JSON that can be read"),
    ('{"a":' + "9" * 5_000 + "}", (), "not JSON that can be read"),
    ("{}", (), "exactly one of body and body_base64"),
    ('{"body":"","body_base64":""}', (), "exactly one of body and body_base64"),
    ('{"body":1}', (), "body must be a string"),
    ('{"body":"\\ud800"}', (), "lone surrogate"),
    ('{"body_base64":"?"}', (), "body_base64 is not base64"),
    ('{"body_base64":"é"}', (), "body_base64 is not base64"),
    ('{"body":"","headers":7}', (), "a list of pairs"),
    ('{"body":"","headers":[["a"]]}', (), "a list of pairs"),
    ('{"body":"","headers":[["a",1]]}', (), "headers must be a string"),
    ('{"body":"","protocol":"soap"}', (), "protocol must be header_signed or envelope_signed"),
    ('{"body":"","message":["request"]}', (), "message must be request or response"),
    ('{"body":"","path":5}', (), "path must be a string"),
    ('{"body":"","extra":1}', (), "a member other than"),
    ('{"body":""}', (), "--message request or response"),
    ('{"body":"","message":"request"}', (), "--protocol"),
    ('{"body":"","message":"request","protocol":"header_signed"}', (), "add --path"),
    ('{"body":"","message":"request"}', ("--message", "response"), "--message contradicts FILE"),
    ("HTTP/1.1 200 OK\r\nSignature: x\r\n\r\n{}", (), "add --path"),
    ("POST / HTTP/1.1\r\nno colon\r\n\r\n", (), "has no colon"),
    ("POST http://[ HTTP/1.1\r\n\r\n", (), "URL of the request cannot be read"),
    ('{"log":{}}', (), "HAR file has no entries"),
    ('{"log":{"entries":[1,2]}}', (), "choose one with --entry 1 to 2"),
    ('{"log":{"entries":[1]}}', ("--entry", "2"), "--entry must be 1 to 1"),
    ('{"log":{"entries":[1]}}', ("--entry", "0"), "--entry must be 1 to 1"),
    ('{"log":{"entries":[1]}}', (), "choose one with --message"),
    ('{"log":{"entries":[1]}}', ("--message", "request"), "url must be a string"),
    ('{"log":{"entries":[{"request":{"url":"/"}}]}}', ("--message", "request"), "has no headers"),
    (
        '{"log":{"entries":[{"request":{"url":"/","headers":[1]}}]}}',
        ("--message", "request"),
        "name must be a string",
    ),
    (
        '{"log":{"entries":[{"request":{"url":"/","headers":[]}}]}}',
        ("--message", "request"),
        "no text of the body",
    ),
    ("curl 'https://x", (), "a quote without its end"),
    ("curl https://x/ -H", (), "an option without its value"),
    ("curl -d x", (), "exactly one URL"),
    ("curl https://x/ https://y/ -d x", (), "exactly one URL"),
    ("curl https://x/", (), "must have its body in --data"),
    ("curl https://x/ -d @file", (), "is in a file"),
    ("curl https://x/ -F a=b", (), "must have its body in --data"),
    ('curl ^"https://x/^" -d x', (), "quoted for Windows"),
    (HTTP, ("--own-key-file", "/nowhere"), "--own-key-file cannot be read"),
)


@pytest.mark.parametrize(("data", "flags", "says"), UNUSABLE, ids=lambda value: str(value)[:40])
def test_unusable_input_gets_one_sentence(
    data: str | bytes, flags: tuple[str, ...], says: str, doctor: Doctor
) -> None:
    status, out, err = doctor(data, *flags)
    assert (status, out) == (78, "")
    assert says in err
    assert err.startswith("alipayhk-gateway: ")
    assert (err.count("\n"), err.count("Traceback")) == (1, 0)


@pytest.mark.parametrize("keys", ["", "1", "1=/nowhere", "1=/dev/zero"])
def test_unusable_keys_get_one_sentence(keys: str, doctor: Doctor, ring: KeyRing) -> None:
    exchange = as_exchange(signing("header_signed", "request"), ring)
    status, _, err = doctor(exchange, "--public-key-files", keys)
    assert (status, err.count("\n")) == (78, 1)
    assert "--public-key-files" in err


def test_file_that_cannot_be_read_gets_one_sentence(
    tmp_path: Path, ring: KeyRing, capsys: Captured
) -> None:
    for name in (str(tmp_path), str(tmp_path / "none"), "\0", "/dev/zero"):
        assert main(["doctor", "message", name, "--public-key-files", f"1={ring.public}"]) == 78
        assert capsys.readouterr().err.startswith("alipayhk-gateway: FILE cannot be read: ")
