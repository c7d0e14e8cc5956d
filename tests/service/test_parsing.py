"""The parsers of settings at the limits of their values. No fault repeats the text of a setting."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.config import values as parsing
from service.config.callers_file import callers_file
from service.config.files import PemFile
from service.config.result_codes_file import result_codes_file
from service.config.values import Address
from service.ledger.opening import check_url, url_in_place
from service.ledger.vault import key_file
from tests.service.fakes import FIXTURES_ARE_FINE
from tests.service.files import KeyRing, TlsFiles

Parser = Callable[[str], Any]

ACCEPTED: Final[dict[str, tuple[Parser, dict[str, object]]]] = {
    "address": (
        parsing.address,
        {
            "127.0.0.1:50051": Address("127.0.0.1", 50051),
            "0.0.0.0:0": Address("0.0.0.0", 0),
            "localhost:65535": Address("localhost", 65535),
            "gateway-1.corp_x:1": Address("gateway-1.corp_x", 1),
            "[::1]:80": Address("::1", 80),
            "[::]:80": Address("::", 80),
            "[fe80::ffff:1.2.3.4]:080": Address("fe80::ffff:1.2.3.4", 80),
        },
    ),
    "boolean": (parsing.boolean, {"true": True, "false": False, "TRUE": True, "False": False}),
    "integer": (
        parsing.integer(1, 100_000),
        {"1": 1, "100000": 100_000, "007": 7, "000000000001": 1},
    ),
    "seconds": (
        parsing.seconds(0.1, 60),
        {"0.1": 0.1, "60": 60.0, "60.0": 60.0, "4": 4.0, "00.5": 0.5, "0.100000001": 0.100000001},
    ),
    "seconds from zero": (parsing.seconds(0, 60), {"0": 0.0, "0.0": 0.0}),
    "choice": (parsing.choice("ECB", "CBC"), {"ECB": "ECB", "CBC": "CBC"}),
    "visible": (parsing.visible(8), {"1.0.0": "1.0.0", "!~!~!~!~": "!~!~!~!~"}),
    "header_text": (
        parsing.header_text,
        {"a": "a", "application/json; charset=UTF-8": "application/json; charset=UTF-8"},
    ),
    "base_url": (
        parsing.base_url,
        {
            url: url
            for url in (
                "https://open.alipay.hk",
                "https://open.alipay.hk:8443",
                "https://10.0.0.1:65535",
                "https://[2001:db8::1]:443",
                "http://localhost:8089",
                "http://127.0.0.1",
                "http://127.255.255.254:1",
                "http://[::1]:8089",
            )
        },
    ),
    "proxy_url": (
        parsing.proxy_url,
        {
            url: url
            for url in (
                "http://proxy:3128",
                "http://proxy:3128/",
                "http://10.0.0.1:1",
                "http://[::1]:65535",
                "http://user:password@proxy:3128",
                "http://user@proxy:3128",
                "http://user:p%40ss%23@proxy:3128",
            )
        },
    ),
    "url_path": (
        parsing.url_path,
        {path: path for path in ("/", "/a/b", "/a?b=c&d", "/%7Eu/%2F", "/a//b", "/~!$&'()*+,;=:@")},
    ),
    "ledger_url": (
        check_url,
        {
            url: url
            for url in (
                *("off", "memory:", "sqlite:///x.db", "sqlite:////a/b c.db", "sqlite:///語.db"),
                *("postgresql://h/d", "postgresql://u:%40%2F@h1:1,[::1]:2,h3/d?a=b&c=d"),
                "postgresql:///d?host=/run/postgresql",
            )
        },
    ),
    "key_version": (
        parsing.key_version,
        {"1": "1", "v1.2_b-c": "v1.2_b-c", "a" * 32: "a" * 32},
    ),
}

REFUSED: Final[dict[str, tuple[Parser, list[str]]]] = {
    "address": (
        parsing.address,
        [
            *("", ":", "host", "host:", ":1", "1", "host:-1", "host:+1", "host:1 ", " host:1", "host: 1"),
            *("host:65536", "host:999999", "host:" + "9" * 5000, "host:٣", "host:1\n", "host:a", "ho st:1"),
            *("::1:80", "[::1:80", "::1]:80", "[]:1", "[[::1]]:1", "[localhost]:1", "http://host:1", "*:1"),
            *("host:1:2", "höst:1", " :1", "host:0x1", "host:1_0"),
        ],
    ),
    "boolean": (parsing.boolean, ["", "yes", "no", "1", "0", "on", " true", "true\n", "t", "TRUE!"]),
    "integer": (
        parsing.integer(1, 100_000),
        ["", "0", "100001", "-1", "+1", "1.0", " 1", "1\n", "1_0", "0x1", "٣", "1" * 13, "9" * 5000, "one"],
    ),
    "seconds": (
        parsing.seconds(0.1, 60),
        [
            *("", "0", "0.09", "0.099999999", "60.000000001", "61", "-1", "+1", "1e1", ".5", "5.", "1.2.3"),
            *("inf", "nan", "1s", " 1", "1\n", "1_0", "٣", "1" * 10, "1." + "1" * 10),
        ],
    ),
    "choice": (parsing.choice("ECB", "CBC"), ["", "ecb", "ECB ", "GCM", "ECB,CBC"]),
    "visible": (parsing.visible(8), ["", " ", "a b", "a\n", "é", "a\x7f", "123456789"]),
    "header_text": (parsing.header_text, ["", " a", "a ", "a\nb", "a\r", "\t", "é", "a\0"]),
    "base_url": (
        parsing.base_url,
        [
            *("", "open.alipay.hk", "//open.alipay.hk", "https:", "https://", "https:open.alipay.hk"),
            *("https://h/", "https://h/path", "https://h?q", "https://h#f", "https://u@h", "https://u:p@h"),
            *("https://@h", "https://h:", "https://h:0", "https://h:65536", "https://h:x", "https://h:1:2"),
            *("https://h:080", "https://h:" + "9" * 5000),
            *(
                "HTTPS://h",
                "ftp://h",
                "https://h\n",
                " https://h",
                "https://h ",
                "https://h\\x",
                "https://hé",
            ),
            *("https://[", "https://[::1", "https://::1", "https://[]", "https://h\0"),
            *("http://open.alipay.hk", "http://10.0.0.1", "http://0.0.0.0", "http://[::]"),
            *("http://localhost.evil.example", "http://127.0.0.1.evil.example", "http://128.0.0.1"),
        ],
    ),
    "proxy_url": (
        parsing.proxy_url,
        [
            *(
                "",
                "proxy:3128",
                "http://proxy",
                "https://proxy:3128",
                "socks5://proxy:1080",
                "http://:3128",
            ),
            *("http://proxy:0", "http://proxy:65536", "http://proxy:x", "http://proxy:3128/path"),
            *("http://proxy:3128\n", " http://proxy:3128", "http://pro\nxy:3128", "http://pro xy:3128"),
            *("http://proxy:3128?q", "http://proxy:3128#f", "http://user:12#ss@proxy:3128", "http://["),
            *("http://user:a/b@proxy:3128", "http://user:a?b@proxy:3128", "http://us\ner:p@proxy:3128"),
            *("HTTP://proxy:3128", "http://proxy:3128//"),
        ],
    ),
    "url_path": (
        parsing.url_path,
        ["", "a", "a/b", "//evil.example/a", "/a#b", "/a b", "/a\n", "/é", "https://h/a", "?a", "/a\x7f"],
    ),
    "ledger_url": (
        check_url,
        [
            *("", "OFF", " off", "memory", "memory:x", "memory://", "sqlite:", "sqlite://", "sqlite:///"),
            *("sqlite:///a?mode=ro", "sqlite:///a#b", "sqlite:///a\0", "SQLITE:///a", "/a", "file:///a"),
            *(
                "postgres://u:p@h/d",
                "postgresql:///",
                "postgresql://u:p@h",
                "postgresql://h:x/d",
                *("postgresql://u:1/p@h/d", "postgresql://u:p@q@h/d", "postgresql://u:1#p@h/d"),
                *("postgresql://u:p\u2100@h/d", "postgresql://h/d?a", "postgresql://h/d?a=b&&c=d"),
                "redis://h",
            ),
        ],
    ),
    "key_version": (parsing.key_version, ["", "a" * 33, "1,2", "1=2", "é", "1\n", " 1", "1 2"]),
}


def rows(table: dict[str, tuple[Parser, Any]]) -> list[Any]:
    return [
        pytest.param(parser, case, id=f"{name} {case[:40]!r}")
        for name, (parser, cases) in table.items()
        for case in cases
    ]


@pytest.mark.parametrize(("parse", "text"), rows(ACCEPTED))
def test_a_valid_text_is_parsed(parse: Parser, text: str) -> None:
    expected = next(cases[text] for parser, cases in ACCEPTED.values() if parser is parse and text in cases)
    value = parse(text)
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(("parse", "text"), rows(REFUSED))
def test_an_invalid_text_raises_value_error_with_our_reason(parse: Parser, text: str) -> None:
    with pytest.raises(ValueError, match=r"\A(must|needs|names) ") as failure:
        parse(text)
    assert failure.type is ValueError
    assert failure.value.__cause__ is None


@pytest.mark.parametrize(
    ("parse", "text", "low"),
    [
        (parsing.address, "host:99999", 0),
        (parsing.address, "host:" + "9" * 5000, 0),
        (parsing.base_url, "https://host:99999", 1),
        (parsing.base_url, "https://host:0", 1),
        (parsing.proxy_url, "http://user:password@proxy:123456", 1),
        (parsing.proxy_url, "http://proxy:0/", 1),
    ],
)
def test_a_port_out_of_range_is_reported_with_the_range(parse: Parser, text: str, low: int) -> None:
    with pytest.raises(ValueError, match=f"^must have a port from {low} to 65535$"):
        parse(text)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        *((host, True) for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost")),
        *(
            (host, False)
            for host in ("0.0.0.0", "::", "10.0.0.1", "128.0.0.1", "localhost.example", "", "127.1")
        ),
    ],
)
def test_loopback_addresses(host: str, loopback: bool) -> None:
    assert parsing.is_loopback(host) is loopback
    assert Address(host, 1).is_loopback is loopback


@pytest.mark.parametrize("text", ["127.0.0.1:1", "[::1]:50051", "localhost:0"])
def test_the_text_of_an_address_is_unchanged(text: str) -> None:
    assert str(parsing.address(text)) == text


# -- files


def test_an_existing_file_is_parsed_as_its_path(ring: KeyRing) -> None:
    assert parsing.existing_file(str(ring.private)) == ring.private


@pytest.mark.parametrize(
    "parse",
    [
        parsing.existing_file,
        parsing.private_key_file,
        parsing.ca_file,
        callers_file,
        result_codes_file,
    ],
)
def test_an_unreadable_file_is_a_fault_with_the_reason(parse: Parser, tmp_path: Path) -> None:
    for path, reason in (
        (tmp_path / "secret", "No such file or directory"),
        (tmp_path, "Is a directory"),
        (tmp_path / ("secret" * 100), "File name too long"),
    ):
        with pytest.raises(ValueError, match=f"\\Acannot be read: {reason}\\Z"):
            parse(str(path))


def test_key_files_are_sorted_newest_first_and_can_be_pem_or_base64(ring: KeyRing) -> None:
    text = f"1={ring.public}, 10={ring.public_base64},2={ring.other_public},beta={ring.public}"
    files = parsing.public_key_files(text)
    assert list(files) == ["10", "2", "1", "beta"]
    assert files["10"].key.public_numbers() == ring.theirs.public_key().public_numbers()
    assert files["2"].path == ring.other_public


def test_private_key_files_are_sorted_newest_first(ring: KeyRing) -> None:
    files = parsing.private_key_files(f"1={ring.private},2={ring.other_private}")
    assert list(files) == ["2", "1"]


def test_the_repr_of_a_key_file_does_not_show_the_key(ring: KeyRing) -> None:
    file = parsing.private_key_file(str(ring.private))
    assert "RSA" not in repr(file)


KEY_FILE_FAULTS: Final = {
    "": "must be version=path,version=path",
    "path": "must be version=path,version=path",
    "1=": "must be version=path,version=path",
    "=path": "must be version=path,version=path",
    "1={public},": "must be version=path,version=path",
    "1 ={public}": "must be version=path,version=path",
    "1={public},1={public}": "names version 1 twice",
    "1={private}": "version 1 contains a private key, but a public key is needed",
    "1=/nowhere,2=/nowhere": (
        "version 1 cannot be read: No such file or directory; "
        "version 2 cannot be read: No such file or directory"
    ),
    "x,y,1={private},1={public},1={public}": (
        "must be version=path,version=path; version 1 contains a private key, but a public key is needed; "
        "names version 1 twice"
    ),
}


@pytest.mark.parametrize(("text", "fault"), KEY_FILE_FAULTS.items())
def test_each_fault_of_key_files_is_named_once(ring: KeyRing, text: str, fault: str) -> None:
    with pytest.raises(ValueError, match=r"must|names|version") as failure:
        parsing.public_key_files(text.format(public=ring.public, private=ring.private))
    assert str(failure.value) == fault


def test_public_and_encrypted_keys_are_no_private_keys(ring: KeyRing) -> None:
    for path, fault in (
        (ring.public, "contains a public key, but a private key is needed"),
        (ring.encrypted, "is encrypted with a passphrase, which is not supported"),
    ):
        with pytest.raises(ValueError, match=fault):
            parsing.private_key_file(str(path))


def test_a_ca_file_contains_certificates(tls: TlsFiles, ring: KeyRing, tmp_path: Path) -> None:
    assert parsing.ca_file(str(tls.ca)) == PemFile(tls.ca, tls.ca.read_bytes())
    empty = tmp_path / "empty.pem"
    empty.touch()
    for path in (empty, ring.public, tls.key):
        with pytest.raises(ValueError, match=r"\Acontains no valid PEM certificate\Z"):
            parsing.ca_file(str(path))
    cut_off = tmp_path / "cut-off.pem"
    for kept in (tls.ca.read_bytes()[:-30], tls.ca.read_bytes() + tls.ca.read_bytes()[:-30]):
        cut_off.write_bytes(kept)
        with pytest.raises(ValueError, match=r"\Ais incomplete or was cut off: "):
            parsing.ca_file(str(cut_off))


# -- arbitrary texts and files


PARSERS: Final[list[Parser]] = [
    parsing.address,
    parsing.boolean,
    parsing.integer(0, 10**12),
    parsing.seconds(0, 10**9),
    parsing.choice("a", "b"),
    parsing.visible(64),
    parsing.header_text,
    parsing.base_url,
    parsing.proxy_url,
    parsing.url_path,
    check_url,
    url_in_place,
    key_file,
    parsing.key_version,
    parsing.existing_file,
    parsing.private_key_file,
    parsing.public_key_files,
    parsing.private_key_files,
    parsing.ca_file,
    callers_file,
    result_codes_file,
]
MARK: Final = "hunter2⟪x⟫"
anything = (
    st.text(max_size=80)
    | st.text(st.characters(categories=["Cs", "Cc", "Nd"]), max_size=10)
    | st.text("htps:/[]@.%0189=,#?\\\n", max_size=30)
    | st.from_regex(r"https?://[!-~]{0,20}(:[0-9]{0,6})?[/?#]?")
    | st.from_regex(r"[!-~]{0,20}:[0-9]{0,6}")
)


@given(text=anything, after=st.text(max_size=20))
@settings(suppress_health_check=FIXTURES_ARE_FINE)
def test_any_text_is_parsed_or_raises_value_error_without_the_text(
    text: str, after: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    faults = []
    for parse in PARSERS:
        for value in (text, text + MARK + after):
            try:
                parse(value)
            except ValueError as error:
                faults.append(str(error))
    assert "hunter2" not in " ".join(faults)


@given(content=st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
@settings(suppress_health_check=FIXTURES_ARE_FINE)
def test_any_file_is_parsed_or_raises_value_error(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    for parse in (parsing.private_key_file, parsing.ca_file, callers_file, result_codes_file, key_file):
        try:
            parse(str(path))
        except ValueError:
            continue
