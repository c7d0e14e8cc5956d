"""The settings: the contract's table, the sources of values, and every fault in one error."""

from __future__ import annotations

import base64
import re
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from clients.alipayhk.api import Api
from service.commands.config import described
from service.config.cross_checks import default_connection_age_s
from service.config.declaration import declared
from service.config.environment import (
    environment_for_children,
    environment_of_worker,
    probed_address,
    settings_texts,
)
from service.config.files import path_of
from service.config.settings import (
    Settings,
    SettingsError,
    read_from_environment,
    read_ledger_settings,
    read_settings,
)
from service.config.values import Address
from service.credentials.callers import Name
from service.ledger.levels import LEVELS, Level, forms
from service.upstream import endpoints_of
from tests.service.fakes import FIXTURES_ARE_FINE
from tests.service.files import KeyRing, TlsFiles

REQUIRED: Final = {
    "BASE_URL",
    "CLIENT_ID",
    "PUBLIC_KEY_FILES",
    "SYNC_LINKAGE_PATH",
    "BIND_ACCOUNT_PATH",
}
NO_SIGNING_KEY: Final = "SIGNING_KEY_FILE is required, or SIGNING_KEY_FILES"
NONE: Final = ""

DEFAULTS: Final = {
    "LISTEN": "127.0.0.1:50051",
    "ADMIN_LISTEN": "127.0.0.1:9464",
    "UPSTREAM_CA_FILE": NONE,
    "UPSTREAM_PROXY": NONE,
    "SIGNING_KEY_FILES": NONE,
    "SIGNING_KEY_VERSION": "1",
    "DECRYPTION_KEY_FILES": NONE,
    "BIND_ACCOUNT_BASE_URL": NONE,
    "BIND_ACCOUNT_CLIENT_ID": NONE,
    "BIND_ACCOUNT_SIGNING_KEY_FILE": NONE,
    "BIND_ACCOUNT_FUNCTION": "alipay.intl.merchant.account.bind",
    "BIND_ACCOUNT_VERSION": "1.0.0",
    "BIND_ACCOUNT_IDEMPOTENT": "false",
    "ENCRYPT": "false",
    "ENCRYPTION_KEY_VERSION": "1",
    "UPSTREAM_CONNECTIONS": "reuse",
    "ENCRYPTION_AES_MODE": "ECB",
    "ENCRYPTION_AES_BITS": "256",
    "ENCRYPTION_RSA_PADDING": "PKCS1V15",
    "ENCRYPTION_CONTENT_TYPE": "application/json; charset=UTF-8",
    "REQUIRE_ENCRYPTED_RESPONSE": "false",
    "UPSTREAM_TIMEOUT_S": "4",
    "DEFAULT_DEADLINE_S": "10",
    "DEADLINE_MAX_S": "60",
    "ATTEMPTS_MAX": "5",
    "RESPONSE_TIME_WINDOW_S": "300",
    "BIZ_TIME_AHEAD_S": "300",
    "LEDGER_URL": "sqlite:///alipayhk-ledger.db",
    "LEDGER_KEY_FILE": NONE,
    "LEDGER_RETENTION_H": "720",
    "LEDGER_POOL_MAX": "4",
    "LEDGER_TIMEOUT_S": "1",
    "WORKERS": "1",
    "MAX_IN_FLIGHT": "512",
    "MAX_CONNECTION_AGE_S": "0",
    "TLS_CERT_FILE": NONE,
    "TLS_KEY_FILE": NONE,
    "TLS_CLIENT_CA_FILE": NONE,
    "CALLERS_FILE": NONE,
    "RESULT_CODES_FILE": NONE,
    "REFLECTION": "true",
    "LOG_LEVEL": "info",
    "LOG_FORMAT": "auto",
    "CAPTURE_DIR": "",
    "CAPTURE_RECIPIENT_FILE": "",
    "CAPTURE_FILES_MAX": "100",
    "DRAIN_DELAY_S": "2",
    "STOP_GRACE_S": "20",
    "RELOAD_EVERY_S": "10",
    # Named in the table's third column.
    "ALLOW_PLAINTEXT": "false",
    "BIND_ACCOUNT_WITHOUT_LEDGER": "false",
}
"""The contract's table: names, and defaults as texts."""


def faults(environ: dict[str, str], config_file: Path | None = None) -> list[str]:
    with pytest.raises(SettingsError) as failure:
        read_settings(environ, config_file)
    assert str(failure.value) == "; ".join(failure.value.faults)
    return failure.value.faults


def more_faults(environ: dict[str, str], config_file: Path | None = None) -> list[str]:
    """Return the faults of an environment without a signing key, which is slow to read, except this one."""
    found = faults(but(environ, SIGNING_KEY_FILE=None), config_file)
    return [fault for fault in found if fault != NO_SIGNING_KEY]


def but(environ: dict[str, str], **changes: str | None) -> dict[str, str]:
    """Return an environment with changed settings; None removes a setting."""
    changed = {f"ALIPAYHK_{name}": value for name, value in changes.items()}
    return {name: value for name, value in {**environ, **changed}.items() if value is not None}


def toml(directory: Path, text: str) -> Path:
    path = directory / "gateway.toml"
    path.write_text(text, "utf-8")
    return path


# -- the table


def test_every_setting_of_the_contract_has_its_default(environ: dict[str, str]) -> None:
    rows = described(read_settings(environ))
    assert {name: rows[name] for name in DEFAULTS} == DEFAULTS


def test_only_the_settings_that_the_contract_requires_are_required() -> None:
    assert set(faults({})) == {NO_SIGNING_KEY, *(f"{name} is required" for name in REQUIRED)}


def test_every_name_of_the_contract_is_a_setting() -> None:
    names = {name.upper() for name, _ in declared(Settings)}
    assert names >= REQUIRED | set(DEFAULTS)
    assert names - REQUIRED - set(DEFAULTS) == {
        "HEALTH_LISTEN",
        "SIGNING_KEY_FILE",
        "SYNC_LINKAGE_WITHOUT_LEDGER",
    }


def test_every_setting_has_a_description() -> None:
    for _, setting in declared(Settings):
        meaning = setting.metadata["meaning"]
        assert meaning[0].isupper()
        assert meaning.endswith(".")


def test_settings_are_frozen(environ: dict[str, str]) -> None:
    with pytest.raises(FrozenInstanceError):
        read_settings(environ).encrypt = True  # type: ignore[misc]


GIVEN: Final = {
    "LISTEN": ("[::1]:1", Address("::1", 1)),
    "HEALTH_LISTEN": ("0.0.0.0:1", Address("0.0.0.0", 1)),
    "ENCRYPT": ("TRUE", True),
    "UPSTREAM_CONNECTIONS": ("fresh", "fresh"),
    "ENCRYPTION_AES_MODE": ("CBC", "CBC"),
    "ENCRYPTION_AES_BITS": ("128", 128),
    "ENCRYPTION_RSA_PADDING": ("OAEP_SHA256", "OAEP_SHA256"),
    "UPSTREAM_TIMEOUT_S": ("0.25", 0.25),
    "WORKERS": ("4", 4),
    "MAX_IN_FLIGHT": ("1", 1),
    "MAX_CONNECTION_AGE_S": ("1.5", 1.5),
    "LEDGER_URL": ("sqlite:////ledger.db", "sqlite:////ledger.db"),
    "BIND_ACCOUNT_WITHOUT_LEDGER": ("true", True),
    "SYNC_LINKAGE_WITHOUT_LEDGER": ("true", True),
    "LEDGER_RETENTION_H": ("1", 1),
    "LEDGER_POOL_MAX": ("1", 1),
    "LEDGER_TIMEOUT_S": ("0.5", 0.5),
    "REFLECTION": ("false", False),
    "LOG_LEVEL": ("debug", "debug"),
    "LOG_FORMAT": ("console", "console"),
    "DRAIN_DELAY_S": ("0", 0.0),
    "STOP_GRACE_S": ("0", 0.0),
    "RESPONSE_TIME_WINDOW_S": ("0", 0.0),
    "BIZ_TIME_AHEAD_S": ("0", 0.0),
}


def test_given_values_are_used(environ: dict[str, str]) -> None:
    settings = read_settings(but(environ, **{name: text for name, (text, _) in GIVEN.items()}))
    taken = {name: getattr(settings, name.lower()) for name in GIVEN}
    assert taken == {name: value for name, (_, value) in GIVEN.items()}


def test_a_ledger_key_file_must_exist_and_be_valid(environ: dict[str, str], tmp_path: Path) -> None:
    key_file = tmp_path / "ledger.key"
    given = but(environ, LEDGER_KEY_FILE=str(key_file), CLIENT_ID="a b")
    of_client_id = "CLIENT_ID must be 1 to 64 printable ASCII characters without space"
    for content, fault in (
        (None, f"cannot be read: No such file or directory (below {tmp_path})"),
        (b"", "must hold 32 bytes as one line of base64"),
        (b"hunter2", "must hold 32 bytes as one line of base64"),
        (base64.b64encode(bytes(31)), "must hold 32 bytes as one line of base64"),
    ):
        if content is not None:
            key_file.write_bytes(content)
        assert more_faults(given) == [of_client_id, f"LEDGER_KEY_FILE {fault}"]
    key_file.write_bytes(base64.b64encode(bytes(32)))
    assert more_faults(given) == [of_client_id]
    assert path_of(read_settings(but(given, CLIENT_ID="a")).ledger_key_file) == key_file


def test_the_directory_of_the_ledger_must_exist(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path, reason in (
        (tmp_path / "absent" / "ledger.db", "No such file or directory"),
        (tmp_path / "file" / "ledger.db", "Not a directory"),
    ):
        fault = f"LEDGER_URL names a file in a directory that cannot be used: {reason} (below {tmp_path})"
        assert more_faults(but(environ, LEDGER_URL=f"sqlite:///{path}")) == [fault]
    assert more_faults(but(environ, LEDGER_URL=f"sqlite:///{tmp_path}/ledger.db")) == []
    assert [path.name for path in tmp_path.iterdir()] == ["file"], "reading settings creates no file"


def test_the_ledger_settings_can_be_read_without_the_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ALIPAYHK_LEDGER_URL", "nonsense")
    monkeypatch.setenv("ALIPAYHK_LEDGER_KEY_FILE", "")
    path = toml(tmp_path, 'ledger_key_file = "/tmp/\\u0000x"')
    with pytest.raises(SettingsError) as failure:
        read_ledger_settings(path)
    assert failure.value.faults == [
        f"LEDGER_URL must be {forms(LEVELS)}",
        "LEDGER_KEY_FILE cannot be read: no file can have this name",
    ]
    monkeypatch.setenv("ALIPAYHK_LEDGER_URL", f"sqlite:///{tmp_path}/absent/ledger.db")
    monkeypatch.setenv("ALIPAYHK_LEDGER_KEY_FILE", str(key_file := tmp_path / "ledger.key"))
    key_file.write_bytes(base64.b64encode(bytes(32)))
    assert read_ledger_settings(path) == (f"sqlite:///{tmp_path}/absent/ledger.db", key_file)


BAD: Final = [
    ("LISTEN", "50051"),
    ("ADMIN_LISTEN", ":9464"),
    ("HEALTH_LISTEN", "x"),
    ("BASE_URL", "https://open.alipay.hk/path"),
    ("UPSTREAM_CA_FILE", "/nowhere"),
    ("UPSTREAM_PROXY", "proxy"),
    ("CLIENT_ID", "a b"),
    ("SIGNING_KEY_FILE", "/nowhere"),
    ("SIGNING_KEY_FILES", "1=/nowhere"),
    ("SIGNING_KEY_VERSION", "1,2"),
    ("PUBLIC_KEY_FILES", "/nowhere"),
    ("DECRYPTION_KEY_FILES", "1=/nowhere"),
    ("SYNC_LINKAGE_PATH", "sync"),
    ("BIND_ACCOUNT_PATH", "https://open.alipay.hk/bind"),
    ("BIND_ACCOUNT_BASE_URL", "http://open.alipay.hk"),
    ("BIND_ACCOUNT_CLIENT_ID", "x" * 65),
    ("BIND_ACCOUNT_SIGNING_KEY_FILE", "/nowhere"),
    ("BIND_ACCOUNT_FUNCTION", "x" * 129),
    ("BIND_ACCOUNT_VERSION", "123456789"),
    ("BIND_ACCOUNT_IDEMPOTENT", "maybe"),
    ("ENCRYPT", "1"),
    ("ENCRYPTION_KEY_VERSION", " "),
    ("UPSTREAM_CONNECTIONS", "pooled"),
    ("ENCRYPTION_AES_MODE", "GCM"),
    ("ENCRYPTION_AES_BITS", "192"),
    ("ENCRYPTION_RSA_PADDING", "OAEP_SHA1"),
    ("ENCRYPTION_CONTENT_TYPE", "a\nb"),
    ("REQUIRE_ENCRYPTED_RESPONSE", "yes"),
    ("UPSTREAM_TIMEOUT_S", "0"),
    ("DEFAULT_DEADLINE_S", "4s"),
    ("DEADLINE_MAX_S", "inf"),
    ("ATTEMPTS_MAX", "0"),
    ("RESPONSE_TIME_WINDOW_S", "-1"),
    ("BIZ_TIME_AHEAD_S", "nan"),
    ("LEDGER_URL", "redis://x"),
    ("LEDGER_KEY_FILE", "/nowhere"),
    ("LEDGER_RETENTION_H", "0"),
    ("LEDGER_POOL_MAX", "0"),
    ("LEDGER_TIMEOUT_S", "0"),
    ("BIND_ACCOUNT_WITHOUT_LEDGER", "y"),
    ("SYNC_LINKAGE_WITHOUT_LEDGER", "n0"),
    ("WORKERS", "0"),
    ("MAX_IN_FLIGHT", "0"),
    ("MAX_CONNECTION_AGE_S", "86401"),
    ("TLS_CERT_FILE", "/nowhere"),
    ("TLS_KEY_FILE", "/nowhere"),
    ("TLS_CLIENT_CA_FILE", "/nowhere"),
    ("ALLOW_PLAINTEXT", "no"),
    ("CALLERS_FILE", "/nowhere"),
    ("RESULT_CODES_FILE", "/nowhere"),
    ("REFLECTION", "off"),
    ("LOG_LEVEL", "INFO"),
    ("LOG_FORMAT", "text"),
    ("CAPTURE_DIR", "/nowhere"),
    ("CAPTURE_RECIPIENT_FILE", "/nowhere"),
    ("CAPTURE_FILES_MAX", "0"),
    ("DRAIN_DELAY_S", "301"),
    ("STOP_GRACE_S", "601"),
    ("RELOAD_EVERY_S", "-1"),
]


@pytest.mark.parametrize(("name", "text"), BAD)
def test_a_fault_names_the_setting_and_does_not_repeat_the_value(
    environ: dict[str, str], name: str, text: str
) -> None:
    faults_of = faults if name == "SIGNING_KEY_FILE" else more_faults
    (fault,) = faults_of(but(environ, **{name: text}))
    assert fault.startswith(f"{name} ")
    if len(text) > 2:
        assert text not in fault


def test_one_error_names_every_fault(environ: dict[str, str]) -> None:
    bad = but(environ, **dict(BAD), NONSENSE="x", MORE_NONSENSE="x")
    named = [fault.split()[0] for fault in faults(bad)]
    settings = [name.upper() for name, _ in declared(Settings)]
    assert sorted(settings) == sorted(name for name, _ in BAD), "every setting has a bad value above"
    assert sorted(named) == sorted([*settings, "NONSENSE", "MORE_NONSENSE"])
    assert [name for name in named if name in settings] == settings


MARK: Final = "hunter2"


@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40))
@hypothesis_settings(suppress_health_check=FIXTURES_ARE_FINE, max_examples=30)
def test_no_fault_repeats_a_value(environ: dict[str, str], text: str) -> None:
    names = [name.upper() for name, _ in declared(Settings)]
    bad = {f"ALIPAYHK_{name}": f"{text}⟪{MARK}⟫{text}" for name in names}
    named = faults(bad)
    assert MARK not in " ".join(named)
    assert [fault.split()[0] for fault in named] == names


# -- the environment


@pytest.mark.parametrize(
    "name",
    [
        "ALIPAYHK_GATEWAY_SERVICE_HOST",
        "ALIPAYHK_GATEWAY_SERVICE_PORT",
        "ALIPAYHK_GATEWAY_SERVICE_PORT_GRPC",
        "ALIPAYHK_GATEWAY_PORT",
        "ALIPAYHK_GATEWAY_PORT_50051_TCP",
        "ALIPAYHK_GATEWAY_PORT_50051_TCP_ADDR",
        "ALIPAYHK_GATEWAY_PORT_50051_TCP_PORT",
        "ALIPAYHK_SERVICE_HOST",
        "ALIPAYHK_PORT",
        "ALIPAYHKGATEWAY",
        "ALIPAYHK_CLIENT_TARGET",
        "ALIPAYHK_CLIENT_CA_FILE",
        "ALIPAYHK_CLIENT_CERT_FILE",
        "ALIPAYHK_CLIENT_KEY_FILE",
        "ALIPAYHK_CLIENT_SERVER_NAME",
        "ALIPAYHK_CLIENT_SHARED_LEDGER",
        "alipayhk_client_id",
        "CLIENT_ID",
        "PATH",
    ],
)
def test_variables_of_kubernetes_and_of_others_are_ignored(environ: dict[str, str], name: str) -> None:
    assert more_faults({**environ, name: "tcp://10.0.0.1:1"}) == []


@pytest.mark.parametrize(
    "name", ["NONSENSE", "CLIENT_ID_", "SUPPORT", "SERVICE_HOSTS", "LISTEN_PORTS", "PORTAL", "HTTPS_PROXY"]
)
def test_a_fault_about_an_unknown_name_does_not_show_the_value(environ: dict[str, str], name: str) -> None:
    assert more_faults(but(environ, **{name: MARK})) == [f"{name} is not a setting"]


def test_an_empty_value_counts_as_missing(environ: dict[str, str]) -> None:
    rows = described(read_settings(but(environ, **dict.fromkeys(DEFAULTS, ""))))
    assert {name: rows[name] for name in DEFAULTS} == DEFAULTS
    assert faults(but(environ, CLIENT_ID="")) == ["CLIENT_ID is required"]


def test_the_environment_is_read_from_the_process(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("https_proxy", "http://elsewhere:1")
    monkeypatch.setenv("HTTPS_PROXY", "http://elsewhere:1")
    settings = read_from_environment()
    assert described(settings) == described(read_settings(environ))
    assert settings.upstream_proxy is None


def test_children_get_the_given_settings_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALIPAYHK_CLIENT_ID", "ours")
    monkeypatch.setenv("OTHER", "kept")
    child = environment_for_children(LISTEN="127.0.0.1:1")
    assert child["OTHER"] == "kept"
    assert {name: value for name, value in child.items() if name.startswith("ALIPAYHK_")} == {
        "ALIPAYHK_LISTEN": "127.0.0.1:1"
    }


def test_workers_get_the_whole_environment_and_a_directory_for_metrics(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ALIPAYHK_CLIENT_ID", "ours")
    worker = environment_of_worker(Path("/metrics"))
    assert worker["ALIPAYHK_CLIENT_ID"] == "ours"
    assert worker["PROMETHEUS_MULTIPROC_DIR"] == "/metrics"


PROBED: Final[dict[str, tuple[dict[str, str], str]]] = {
    "nothing is set": ({}, "127.0.0.1:50051"),
    "listen": ({"LISTEN": "127.0.0.1:1"}, "127.0.0.1:1"),
    "health has its own listener": (
        {"LISTEN": "127.0.0.1:1", "HEALTH_LISTEN": "127.0.0.1:2"},
        "127.0.0.1:2",
    ),
    "all interfaces": ({"LISTEN": "0.0.0.0:1"}, "127.0.0.1:1"),
    "all interfaces in IPv6": ({"LISTEN": "[::]:1"}, "[::1]:1"),
    "an address similar to that of all interfaces": ({"LISTEN": "10.0.0.0:1"}, "10.0.0.0:1"),
    "empty": ({"LISTEN": "", "HEALTH_LISTEN": ""}, "127.0.0.1:50051"),
}


@pytest.mark.parametrize(("environ_", "address"), PROBED.values(), ids=PROBED.keys())
def test_a_probe_uses_the_address_of_the_gateways_listener(environ_: dict[str, str], address: str) -> None:
    texts = settings_texts({f"ALIPAYHK_{name}": value for name, value in environ_.items()})
    assert probed_address(texts, "127.0.0.1:50051") == address


# -- TOML


def test_a_file_and_the_environment_give_equal_settings(
    environ: dict[str, str], ring: KeyRing, tmp_path: Path
) -> None:
    paths = "\n".join(f'{api.name.lower()}_path = "/{api}"' for api in Api)
    path = toml(
        tmp_path,
        f"""
        base_url = "https://open.alipay.hk"
        client_id = "4Q5Y8W0WSG45P907917"
        signing_key_file = "{ring.private}"
        {paths}
        signing_key_version = 2
        encrypt = true
        reflection = false
        encryption_aes_bits = 128
        upstream_timeout_s = 2.5
        drain_delay_s = 0
        [public_key_files]
        1 = "{ring.public}"
        2 = "{ring.other_public}"
        """,
    )
    expected = but(
        environ,
        SIGNING_KEY_VERSION="2",
        ENCRYPT="true",
        REFLECTION="false",
        ENCRYPTION_AES_BITS="128",
        UPSTREAM_TIMEOUT_S="2.5",
        DRAIN_DELAY_S="0",
        PUBLIC_KEY_FILES=f"1={ring.public},2={ring.other_public}",
    )
    assert described(read_settings({}, path)) == described(read_settings(expected))


def test_a_variable_overrides_the_file_unless_it_is_empty(environ: dict[str, str], tmp_path: Path) -> None:
    byte_order_mark = "\ufeff"
    text = 'client_id = "FROM_FILE"\nmax_in_flight = 7\nupstream_proxy = "http://proxy:1"\nlog_level = ""\n'
    path = toml(tmp_path, byte_order_mark + text)
    settings = read_settings(but(environ, MAX_IN_FLIGHT="", UPSTREAM_PROXY=""), path)
    assert (settings.client_id, settings.max_in_flight) == ("4Q5Y8W0WSG45P907917", 7)
    assert (settings.upstream_proxy, settings.log_level) == ("http://proxy:1", "info")


def test_an_empty_table_of_keys_counts_as_absent(environ: dict[str, str], tmp_path: Path) -> None:
    path = toml(tmp_path, "[public_key_files]\n[decryption_key_files]\n")
    assert described(read_settings(environ, path)) == described(read_settings(environ))
    with pytest.raises(SettingsError) as failure:
        read_settings(but(environ, PUBLIC_KEY_FILES=""), path)
    assert failure.value.faults == ["PUBLIC_KEY_FILES is required"]


def test_deeply_nested_dotted_names_are_a_table(environ: dict[str, str], tmp_path: Path) -> None:
    deep = "max_in_flight" + ".a" * 3_000 + " = 1"
    path = toml(tmp_path, deep)
    assert without_places(more_faults(environ, path), path) == [
        "MAX_IN_FLIGHT must be text, a number, true or false"
    ]


NO_TABLE: Final = ": put its settings at the top of the file, without"
NO_TEXT: Final = "must be text, a number, true or false"
FILE_FAULTS: Final = {
    "nonsense = 1\nother = 2": ["NONSENSE is not a setting", "OTHER is not a setting"],
    "[tls]\ncert_file = 'x'": [f"TLS is not a setting{NO_TABLE} [tls]"],
    "[gateway]\nencrypt = true\n[gateway.tls]\nx = 1": [f"GATEWAY is not a setting{NO_TABLE} [gateway]"],
    "nonsense = [1]": ["NONSENSE is not a setting"],
    "alipayhk_client_id = 'x'": ["ALIPAYHK_CLIENT_ID is not a setting: write client_id"],
    "ALIPAYHK_CLIENT_ID = 'x'": [
        "ALIPAYHK_CLIENT_ID must be in lower case in --config",
        "ALIPAYHK_CLIENT_ID is not a setting: write client_id",
    ],
    "max-in-flight = 1": ["MAX-IN-FLIGHT is not a setting: write max_in_flight"],
    "alipayhk_nonsense = 1": ["ALIPAYHK_NONSENSE is not a setting"],
    "max_in_flight = [1, 2]": [f"MAX_IN_FLIGHT {NO_TEXT}"],
    "max_in_flight = [['hunter2']]": [f"MAX_IN_FLIGHT {NO_TEXT}"],
    "max_in_flight = {a = 1}": [f"MAX_IN_FLIGHT {NO_TEXT}"],
    "max_in_flight = 1.0": ["MAX_IN_FLIGHT must be a whole number from 1 to 100000"],
    "encrypt = 1": ["ENCRYPT must be true or false"],
    "encrypt = 2024-01-01": [f"ENCRYPT {NO_TEXT}"],
    "listen = ['127.0.0.1:1']": [f"LISTEN {NO_TEXT}"],
    "upstream_timeout_s = inf": ["UPSTREAM_TIMEOUT_S must be a number of seconds from 0.1 to 60"],
    "decryption_key_files = ['1=hunter2']": [f"DECRYPTION_KEY_FILES {NO_TEXT}"],
    "decryption_key_files = {1 = {a = 'hunter2'}}": [
        "DECRYPTION_KEY_FILES must be text, a number, true or false"
    ],
    "bind_account_client_id = ['hunter2']": [
        "BIND_ACCOUNT_CLIENT_ID must be text, a number, true or false"
    ],
    "max_in_flight = 0x" + "f" * 5000: ["MAX_IN_FLIGHT is too large"],
    "ENCRYPT = false": ["ENCRYPT must be in lower case in --config"],
    "Encrypt = 'hunter2'": [
        "ENCRYPT must be in lower case in --config",
        "ENCRYPT must be true or false",
    ],
    "= hunter2": ["--config is not TOML (at line 1, column 1)"],
    "encrypt = true\nencrypt = true": ["--config names a key or a table twice (at end of document)"],
    "encrypt = true\nlisten = 'hunter2\n": ["--config is not TOML (at end of document)"],
    **{
        f'{name} = "/tmp/\\u0000x"': [f"{name.upper()} cannot be read: no file can have this name"]
        for name in (
            *("upstream_ca_file", "ledger_key_file", "tls_client_ca_file", "callers_file"),
            *("result_codes_file", "bind_account_signing_key_file"),
        )
    },
    'tls_cert_file = "\\u0000"\ntls_key_file = "\\u0000"': [
        "TLS_CERT_FILE cannot be read: no file can have this name",
        "TLS_KEY_FILE cannot be read: no file can have this name",
    ],
    'decryption_key_files = "1=\\u0000"': [
        "DECRYPTION_KEY_FILES version 1 cannot be read: no file can have this name"
    ],
}


@pytest.mark.parametrize(("text", "expected"), FILE_FAULTS.items())
def test_every_fault_of_a_file_is_named(
    environ: dict[str, str], tmp_path: Path, text: str, expected: list[str]
) -> None:
    assert without_places(more_faults(environ, path := toml(tmp_path, text)), path) == expected


def without_places(found: list[str], path: Path) -> list[str]:
    """Remove the name of the file, which every fault of a file has."""
    named = [fault.replace(f"--config {path} ", "--config ") for fault in found]
    return [re.sub(rf" \([a-z_-]+ in {re.escape(str(path))}\)", "", fault) for fault in named]


def test_line_breaks_and_control_characters_in_a_name_are_escaped(
    environ: dict[str, str], tmp_path: Path
) -> None:
    path = toml(tmp_path, '"a\\n\\u001b[31m" = 1')
    assert more_faults(environ, path) == [f"A\\n\\x1b[31M is not a setting (a\\n\\x1b[31m in {path})"]
    callers = toml(tmp_path, '[callers."a\\nb"]\nsan = ["x"]')
    (fault,) = more_faults(but(environ, CALLERS_FILE=str(callers)))
    assert fault.startswith("CALLERS_FILE [callers.a\\nb] needs methods")


def test_a_fault_says_which_of_two_places_contains_it(environ: dict[str, str], tmp_path: Path) -> None:
    path = toml(tmp_path, 'encrypt = "1"\nnonsense = 1\nworkers = 0\n')
    assert more_faults(but(environ, WORKERS="x", OTHER="x"), path) == [
        f"ENCRYPT must be true or false (encrypt in {path})",
        "WORKERS must be a whole number from 1 to 256 (ALIPAYHK_WORKERS)",
        f"NONSENSE is not a setting (nonsense in {path})",
        "OTHER is not a setting (ALIPAYHK_OTHER)",
    ]


@pytest.mark.parametrize("text", ["= 1", None], ids=["not TOML", "absent"])
def test_nothing_is_missing_while_the_file_cannot_be_read(
    environ: dict[str, str], tmp_path: Path, text: str | None
) -> None:
    path = tmp_path / "absent.toml" if text is None else toml(tmp_path, text)
    config, of_client_id = faults(but(environ, CLIENT_ID="a b", BASE_URL=None), path)
    assert config.startswith(f"--config {path} ")
    assert of_client_id.startswith("CLIENT_ID must be ")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("absent.pem", "{}"),
        ("keys/absent.pem", "{}/keys"),
        ("{}/absent/hunter2/absent.pem", "{}"),
        ("1=keys/absent.pem,2=absent.pem", "{}/keys, {}"),
    ],
)
def test_a_file_that_cannot_be_read_is_located_without_repeating_its_name(
    environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, place: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "keys").mkdir()
    name = "PUBLIC_KEY_FILES" if "=" in text else "CALLERS_FILE"
    (fault,) = faults(but(environ, **{name: text.format(tmp_path)}))[:1]
    assert fault.endswith(f" (below {place.format(tmp_path, tmp_path)})".replace("{}", str(tmp_path)))
    assert "hunter2" not in fault


@pytest.mark.parametrize("mark", "'\"")
@pytest.mark.parametrize(
    "name", ["CLIENT_ID", "ENCRYPTION_CONTENT_TYPE", "BIND_ACCOUNT_FUNCTION", "LISTEN"]
)
def test_quotation_marks_of_an_env_file_are_a_fault(environ: dict[str, str], name: str, mark: str) -> None:
    (fault,) = more_faults(but(environ, **{name: f"{mark}127.0.0.1:1{mark}"}))
    why = "begins with a quotation mark, which env files keep: remove the quotation marks"
    assert fault == f"{name} {why}"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a = " + "[" * 3000, "is nested too deeply"),
        ("a = " + "{a = " * 3000, "is nested too deeply"),
        ("a = " + "9" * 5000, "is not TOML"),
    ],
    ids=["lists", "tables", "a long number"],
)
def test_a_file_that_exceeds_the_parser_is_a_fault(
    environ: dict[str, str], tmp_path: Path, text: str, fault: str
) -> None:
    path = toml(tmp_path, text)
    assert more_faults(environ, path) == [f"--config {path} {fault}"]
    assert more_faults(but(environ, RESULT_CODES_FILE=str(path))) == [f"RESULT_CODES_FILE {fault}"]


def test_an_unreadable_file_does_not_hide_other_faults(tmp_path: Path) -> None:
    latin = tmp_path / "latin.toml"
    latin.write_bytes(b'client_id = "\xe9"')
    for path, fault in (
        (tmp_path / "absent", f"cannot be read: No such file or directory (below {tmp_path})"),
        (tmp_path, "cannot be read: Is a directory"),
        (latin, "is not TOML"),
    ):
        assert faults({"ALIPAYHK_WORKERS": "0"}, path) == [
            f"--config {path} {fault}",
            "WORKERS must be a whole number from 1 to 256 (ALIPAYHK_WORKERS)",
        ]


# -- faults between settings


def pair(tls: TlsFiles, **changes: str | None) -> dict[str, str | None]:
    return {"TLS_CERT_FILE": str(tls.certificate), "TLS_KEY_FILE": str(tls.key), **changes}


def test_matching_tls_settings_are_accepted(environ: dict[str, str], tls: TlsFiles, tmp_path: Path) -> None:
    callers = tmp_path / "callers.toml"
    callers.write_text('[callers.a]\nsan = ["a"]\nmethods = ["SyncLinkage"]')
    more = pair(tls, TLS_CLIENT_CA_FILE=str(tls.ca), CALLERS_FILE=str(callers), LISTEN="0.0.0.0:1")
    settings = read_settings(but(environ, **more))
    assert settings.callers_file is not None
    assert settings.callers_file.find([Name("DNS", "a")])


def test_plaintext_beyond_loopback_must_be_allowed(environ: dict[str, str]) -> None:
    for listen in ("0.0.0.0:1", "[::]:1", "10.0.0.1:1", "gateway:1"):
        fault = "LISTEN beyond loopback needs TLS_CERT_FILE and TLS_KEY_FILE, or ALLOW_PLAINTEXT=true"
        assert more_faults(but(environ, LISTEN=listen)) == [fault]
        assert more_faults(but(environ, LISTEN=listen, ALLOW_PLAINTEXT="true")) == []
    for listen in ("127.0.0.1:1", "[::1]:1", "localhost:1"):
        assert more_faults(but(environ, LISTEN=listen)) == []


def test_plaintext_to_a_proxy_on_another_host_is_refused(environ: dict[str, str]) -> None:
    local, remote, tls = "http://127.0.0.1:8080", "http://user:p@127.0.0.1@proxy:3128", "https://h"
    why = "must begin with https:// because UPSTREAM_PROXY is on another host: it could read the requests"
    rows: list[tuple[dict[str, str | None], list[str]]] = [
        ({"BASE_URL": local, "UPSTREAM_PROXY": remote}, [f"BASE_URL {why}"]),
        ({"BASE_URL": "http://localhost", "UPSTREAM_PROXY": "http://10.0.0.1:1"}, [f"BASE_URL {why}"]),
        (
            {"BASE_URL": local, "BIND_ACCOUNT_BASE_URL": "http://[::1]", "UPSTREAM_PROXY": remote},
            [f"BASE_URL {why}", f"BIND_ACCOUNT_BASE_URL {why}"],
        ),
        ({"BASE_URL": tls, "UPSTREAM_PROXY": remote}, []),
        ({"BASE_URL": local, "UPSTREAM_PROXY": None}, []),
        ({"BASE_URL": local, "UPSTREAM_PROXY": "http://127.0.0.2:3128/"}, []),
        ({"BASE_URL": local, "UPSTREAM_PROXY": "http://[::1]:3128"}, []),
        ({"BASE_URL": local, "UPSTREAM_PROXY": "http://localhost:3128"}, []),
    ]
    for changes, expected in rows:
        assert more_faults(but(environ, **changes)) == expected, changes


def test_every_fault_between_tls_files_is_named(
    environ: dict[str, str], tls: TlsFiles, ring: KeyRing, tmp_path: Path
) -> None:
    callers = tmp_path / "callers.toml"
    callers.write_text('[callers.a]\nsan = ["a"]\nmethods = ["SyncLinkage"]')
    each_other = "TLS_CERT_FILE and TLS_KEY_FILE must be set together"
    cut = "is incomplete or was cut off: a BEGIN line has no END line with the same label"
    cut_off = tmp_path / "cut-off.key.pem"
    cut_off.write_bytes(tls.key.read_bytes()[:-30])
    neither = "TLS_CERT_FILE and TLS_KEY_FILE must contain a PEM certificate and its PEM key"
    no_pair = "TLS_CLIENT_CA_FILE needs TLS_CERT_FILE and TLS_KEY_FILE"
    no_ca = "CALLERS_FILE needs TLS_CLIENT_CA_FILE: callers are identified by their certificates"
    rows: list[tuple[dict[str, str | None], list[str]]] = [
        (pair(tls, TLS_KEY_FILE=None), [each_other]),
        (pair(tls, TLS_CERT_FILE=None), [each_other]),
        (pair(tls, TLS_KEY_FILE=str(tls.other_key)), ["TLS_KEY_FILE is not the key of TLS_CERT_FILE"]),
        (pair(tls, TLS_KEY_FILE=str(tls.certificate)), [neither]),
        (pair(tls, TLS_CERT_FILE=str(tls.key)), [neither]),
        (pair(tls, TLS_CERT_FILE=str(ring.public)), [neither]),
        (pair(tls, TLS_KEY_FILE=str(cut_off)), [f"TLS_KEY_FILE {cut}"]),
        ({"TLS_CLIENT_CA_FILE": str(tls.ca)}, [no_pair]),
        ({"CALLERS_FILE": str(callers)}, [no_ca]),
        (pair(tls, CALLERS_FILE=str(callers)), [no_ca]),
    ]
    for changes, expected in rows:
        assert more_faults(but(environ, **changes)) == expected, changes


def test_an_encrypted_tls_key_is_a_fault_without_a_prompt_for_the_passphrase(
    environ: dict[str, str], tls: TlsFiles
) -> None:
    fault = "TLS_KEY_FILE is encrypted with a passphrase, which is not supported"
    assert faults(but(environ, **pair(tls, TLS_KEY_FILE=str(tls.encrypted_key)))) == [fault]


def test_an_unreadable_tls_file_causes_only_one_fault(environ: dict[str, str], tls: TlsFiles) -> None:
    missing = "cannot be read: No such file or directory (below /)"
    ca = str(tls.ca)
    for changes, fault in (
        (pair(tls, TLS_CERT_FILE="/x", TLS_CLIENT_CA_FILE=ca, LISTEN="0.0.0.0:1"), "TLS_CERT_FILE"),
        (pair(tls, TLS_KEY_FILE="/x", TLS_CLIENT_CA_FILE=ca, LISTEN="0.0.0.0:1"), "TLS_KEY_FILE"),
        (pair(tls, TLS_CLIENT_CA_FILE="/x"), "TLS_CLIENT_CA_FILE"),
    ):
        assert more_faults(but(environ, **changes)) == [f"{fault} {missing}"]


def test_one_of_the_two_settings_of_signing_keys_is_given(environ: dict[str, str], ring: KeyRing) -> None:
    two = f"1={ring.private},2={ring.other_private}"
    assert faults(but(environ, SIGNING_KEY_FILES=two)) == [
        "SIGNING_KEY_FILES cannot be set together with SIGNING_KEY_FILE: remove one of them"
    ]
    several = but(environ, SIGNING_KEY_FILE=None, SIGNING_KEY_FILES=two, SIGNING_KEY_VERSION="2")
    settings = read_settings(several)
    assert {version: file.path for version, file in settings.signing_keys.items()} == {
        "1": ring.private,
        "2": ring.other_private,
    }
    assert faults(but(several, SIGNING_KEY_VERSION="3")) == [
        "SIGNING_KEY_VERSION is not a version in SIGNING_KEY_FILES"
    ]
    keys = endpoints_of(settings)["SyncLinkage"].keys
    assert (keys.signing_version, [*keys.decrypting]) == ("2", ["2", "1"])
    assert keys.signing is settings.signing_keys["2"].key


def test_the_encryption_key_version_must_be_in_public_key_files(environ: dict[str, str]) -> None:
    fault = "ENCRYPTION_KEY_VERSION is not a version in PUBLIC_KEY_FILES"
    assert faults(but(environ, ENCRYPT="true", ENCRYPTION_KEY_VERSION="2")) == [fault]
    assert not read_settings(but(environ, ENCRYPTION_KEY_VERSION="2")).encrypt


LEDGERS: Final[list[tuple[dict[str, str], list[str]]]] = [
    ({}, []),
    ({"LEDGER_URL": "sqlite:////ledger.db"}, []),
    ({"LEDGER_URL": "sqlite:///ledger.db", "WORKERS": "4"}, []),
    *(
        (
            {"LEDGER_URL": url},
            [f"LEDGER_URL {url} needs BIND_ACCOUNT_WITHOUT_LEDGER=true: BindAccount would be sent twice"],
        )
        for url in ("off", "memory:")
    ),
    *(({"LEDGER_URL": url, "BIND_ACCOUNT_WITHOUT_LEDGER": "true"}, []) for url in ("off", "memory:")),
    ({"LEDGER_URL": "off", "BIND_ACCOUNT_WITHOUT_LEDGER": "true", "WORKERS": "4"}, []),
    (
        {"LEDGER_URL": "memory:", "BIND_ACCOUNT_WITHOUT_LEDGER": "true", "WORKERS": "2"},
        ["LEDGER_URL memory: needs WORKERS=1: each worker would have a ledger of its own"],
    ),
    *(
        (
            {"LEDGER_URL": url},
            ["LEDGER_URL postgresql:// needs LEDGER_KEY_FILE: all its gateways need the same key"],
        )
        for url in ("postgresql://u:hunter2@h/d", "postgresql://h1,h2:5433/d?target_session_attrs=primary")
    ),
    *(
        (
            {"LEDGER_URL": url},
            [f"LEDGER_URL must be {forms(LEVELS)}"],
        )
        for url in (
            "OFF",
            "memory",
            "redis://hunter2",
            "sqlite://hunter2",
            "a",
        )
    ),
    *(
        (
            {"LEDGER_URL": url},
            ["LEDGER_URL must be sqlite:///file or sqlite:////absolute/file, without ?, # or NUL"],
        )
        for url in ("sqlite:///", "sqlite:///a?b")
    ),
]


@pytest.mark.parametrize(
    ("changes", "expected"), LEDGERS, ids=[" ".join(map(str, changes.values())) for changes, _ in LEDGERS]
)
def test_bind_account_needs_a_ledger_or_an_explicit_permission(
    environ: dict[str, str], changes: dict[str, str], expected: list[str]
) -> None:
    assert more_faults(but(environ, **changes)) == expected


@pytest.mark.parametrize("level", LEVELS, ids=[level.name for level in LEVELS])
def test_connections_have_a_maximum_age_if_hosts_share_a_ledger_that_outlives_a_process(
    level: Level,
) -> None:
    for shared in (False, True):
        changed = replace(level, shared_by_hosts=shared)
        assert default_connection_age_s(changed) == (300 if shared and level.outlives_process else 0)


def test_explicit_maximum_age_of_connections_wins_over_its_default(environ: dict[str, str]) -> None:
    off = but(environ, LEDGER_URL="off", BIND_ACCOUNT_WITHOUT_LEDGER="true")
    assert read_settings(off).max_connection_age_s == 0
    assert read_settings(but(off, MAX_CONNECTION_AGE_S="60")).max_connection_age_s == 60
    assert read_settings(but(environ, MAX_CONNECTION_AGE_S="0")).max_connection_age_s == 0


LISTENERS: Final = ("LISTEN", "ADMIN_LISTEN", "HEALTH_LISTEN")


def test_several_workers_need_fixed_ports(environ: dict[str, str]) -> None:
    anywhere = dict.fromkeys(LISTENERS, "127.0.0.1:0")
    assert more_faults(but(environ, WORKERS="2", **anywhere)) == [
        f"{name} needs a fixed port, not 0, if WORKERS is more than 1" for name in LISTENERS
    ]
    assert more_faults(but(environ, WORKERS="1", **anywhere)) == []
    assert read_settings(but(environ, WORKERS="2")).workers == 2


@pytest.mark.parametrize("workers", ["1", "2"])
def test_each_listener_needs_a_port_of_its_own(environ: dict[str, str], workers: str) -> None:
    same = dict.fromkeys(LISTENERS, "127.0.0.1:1")
    assert more_faults(but(environ, WORKERS=workers, **same)) == [
        "ADMIN_LISTEN needs another port than LISTEN",
        "HEALTH_LISTEN needs another port than LISTEN",
    ]
    apart = same | {"ADMIN_LISTEN": "127.0.0.1:2", "HEALTH_LISTEN": "127.0.0.2:1"}
    assert more_faults(but(environ, WORKERS=workers, **apart)) == []


@pytest.mark.parametrize(
    ("listen", "admin", "overlap"),
    [
        ("0.0.0.0:1", "127.0.0.1:1", True),
        ("127.0.0.1:1", "0.0.0.0:1", True),
        ("[::]:1", "127.0.0.1:1", True),
        ("[::]:1", "0.0.0.0:1", True),
        ("localhost:1", "127.0.0.1:1", True),
        ("[::1]:1", "localhost:1", True),
        ("[::1]:1", "0.0.0.0:1", False),
        ("[::1]:1", "127.0.0.1:1", False),
        ("0.0.0.0:1", "127.0.0.1:2", False),
    ],
)
def test_addresses_that_share_a_port_of_this_machine_are_a_fault(
    environ: dict[str, str], listen: str, admin: str, overlap: bool
) -> None:
    changed = but(environ, LISTEN=listen, ADMIN_LISTEN=admin, ALLOW_PLAINTEXT="true")
    assert more_faults(changed) == ["ADMIN_LISTEN needs another port than LISTEN"] * overlap


# -- described


def test_described_shows_every_setting_in_a_form_that_can_be_read_back(
    environ: dict[str, str], ring: KeyRing
) -> None:
    given = {
        "LISTEN": "[::1]:50051",
        "UPSTREAM_TIMEOUT_S": "2.5",
        "ENCRYPT": "true",
        "SIGNING_KEY_FILE": str(ring.private),
        "DECRYPTION_KEY_FILES": f"2={ring.other_private},1={ring.private}",
        "UPSTREAM_PROXY": "http://proxy:3128",
        "ENCRYPTION_AES_BITS": "128",
        "BIZ_TIME_AHEAD_S": "86400",
    }
    rows = described(read_settings(but(environ, **given)))
    assert {name: rows[name] for name in given} == given
    assert list(rows) == [name.upper() for name, _ in declared(Settings)]
    again = read_settings({f"ALIPAYHK_{name}": value for name, value in rows.items()})
    assert described(again) == rows


@pytest.mark.parametrize(
    "proxy",
    [
        "http://user:hunter2@proxy:3128",
        "http://hunter2@proxy:3128",
        "http://user:p@hunter2@proxy:3128",
        "http://:hunter2@proxy:3128/",
    ],
)
def test_described_hides_the_credentials_for_the_proxy(environ: dict[str, str], proxy: str) -> None:
    settings = read_settings(but(environ, UPSTREAM_PROXY=proxy))
    assert re.fullmatch(r"http://proxy:3128/?", described(settings)["UPSTREAM_PROXY"])


def test_described_shows_the_paths_of_files_and_not_their_contents(
    environ: dict[str, str], ring: KeyRing, tls: TlsFiles, tmp_path: Path
) -> None:
    callers, codes = tmp_path / "callers.toml", tmp_path / "codes.toml"
    callers.write_text('[callers.a]\nsan = ["hunter2"]\nmethods = ["SyncLinkage"]')
    codes.write_text('[SyncLinkage]\nhunter2 = "NOT_FOUND"')
    more = pair(
        tls,
        TLS_CLIENT_CA_FILE=str(tls.ca),
        CALLERS_FILE=str(callers),
        RESULT_CODES_FILE=str(codes),
        DECRYPTION_KEY_FILES=f"1={ring.private}",
        BIND_ACCOUNT_SIGNING_KEY_FILE=str(ring.other_private),
    )
    settings = read_settings(but(environ, **more))
    shown: Any = "\n".join(described(settings).values())
    assert MARK not in shown
    assert "BEGIN" not in shown + repr(settings)
    for key in (ring.ours, ring.other):
        assert str(key.private_numbers().d) not in shown + repr(settings)
    assert {name: described(settings)[name] for name in more} == more
