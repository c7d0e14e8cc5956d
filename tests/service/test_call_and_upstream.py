"""The deadline of a call, and the endpoints and the transport by the settings."""

from __future__ import annotations

import ssl
import time
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.alipayhk.transport import Attempt
from clients.alipayhk.wire.crypto import EncryptionProfile
from clients.alipayhk.wire.endpoint import Encryption, Endpoint
from clients.alipayhk.wire.keys import Keys
from clients.alipayhk.wire.protocols.header_signed import HeaderSigned
from service.config.settings import read_settings
from service.delivery.flight import Flight
from service.outcomes.call import certain_s, code_of_end, deadline_of
from service.upstream import endpoints_of, transport_of
from tests.service.fakes import call_of, known, order_of
from tests.service.files import KeyRing, TlsFiles

# -- time


MARGINS: Final[dict[str, tuple[float | None, float]]] = {
    "a long deadline is answered 50 ms before": (5.0, 4.95),
    "half a second is where a tenth is 50 ms": (0.5, 0.45),
    "a short deadline gives up a tenth": (0.2, 0.18),
    "a very short one as well": (0.05, 0.045),
    "none at all gives up nothing": (0.0, 0.0),
    "without a deadline there is the default": (None, 9.95),
    "a very long one is cut": (3600.0, 59.95),
    "the longest there is": (60.0, 59.95),
}


@pytest.mark.parametrize(("remaining_s", "budget_s"), MARGINS.values(), ids=MARGINS.keys())
def test_deadline_of_a_call_is_a_little_before_its_callers(
    remaining_s: float | None, budget_s: float
) -> None:
    before = time.monotonic()
    until = deadline_of(remaining_s, default_s=10.0, max_s=60.0)
    assert before + budget_s - 1e-6 <= until <= time.monotonic() + budget_s + 1e-6


@given(
    remaining_s=st.none() | st.floats(0, 1e6),
    default_s=st.floats(0.1, 600),
    max_s=st.floats(0.1, 600),
)
def test_margin_is_50_ms_and_at_most_a_tenth(
    remaining_s: float | None, default_s: float, max_s: float
) -> None:
    now = time.monotonic()
    given_s = min(default_s if remaining_s is None else remaining_s, max_s)
    left_s = deadline_of(remaining_s, default_s=default_s, max_s=max_s) - now
    assert left_s <= given_s + 0.05  # time passes while this runs
    assert left_s >= given_s - 0.05 - 1e-6
    assert left_s >= given_s * 0.9 - 1e-6


ROUNDED: Final[dict[str, tuple[float, float]]] = {
    "10 s, rounded up to tenths of a second": (10.0, 10.1),
    "30 s, rounded up to tenths of a second": (30.0, 30.1),
    "29.2 s after a call of 30 s": (29.2, 30.1),
    "100 s, rounded up to whole seconds": (100.0, 101.0),
    "97.1 s after a call of 100 s": (97.1, 100.0),
    "0.98 s after a call of 1 s": (0.98, 1.01),
    "4.86 s after a call of 5 s": (4.86, 5.0),
}


@pytest.mark.parametrize(("real_s", "received_s"), ROUNDED.values(), ids=ROUNDED.keys())
def test_certain_time_allows_for_the_clients_rounding(real_s: float, received_s: float) -> None:
    certain = certain_s(received_s)
    assert certain is not None
    assert received_s * 0.95 <= certain <= real_s


@given(received_s=st.floats(0, 1e6))
def test_rounding_and_margin_together_take_at_most_a_tenth(received_s: float) -> None:
    certain = certain_s(received_s)
    assert certain is not None
    assert certain - min(0.05, certain * 0.1) >= received_s * 0.9 - 1e-6


def test_flight_is_sent_if_any_attempt_is(keys: Keys) -> None:
    for attempts, sent in (
        ((), False),
        ((False, False), False),
        ((True, False), True),
        ((False, True), True),
    ):
        order = order_of(Endpoint("SyncLinkage", HeaderSigned(), "https://h", "/p", "C", keys, True))
        flight = Flight(order, "")
        flight.attempts += [Attempt(sent=left) for left in attempts]
        assert flight.sent is sent
        assert flight.circumstances == known(sent=attempts)


def test_time_left_runs_out() -> None:
    assert 0.5 < call_of(left_s=1.0).left_s <= 1.0
    assert call_of(left_s=-1.0).left_s <= -1.0


@pytest.mark.parametrize(
    ("left_s", "code"),
    [
        (None, "CANCELLED"),
        (0.01, "CANCELLED"),
        (0.0, "DEADLINE_EXCEEDED"),
        (-0.01, "DEADLINE_EXCEEDED"),
    ],
)
def test_call_that_ended_early_has_expired_or_was_cancelled(left_s: float | None, code: str) -> None:
    assert code_of_end(left_s) == code


# -- endpoints


def endpoint(environ: dict[str, str], api: str, **changes: str) -> Endpoint:
    changed = {f"ALIPAYHK_{name}": value for name, value in changes.items()}
    return endpoints_of(read_settings({**environ, **changed}))[api]


def test_each_rpc_has_an_endpoint(environ: dict[str, str]) -> None:
    endpoints = endpoints_of(read_settings(environ))
    assert {api: (one.api, one.protocol.name) for api, one in endpoints.items()} == {
        "SyncLinkage": ("SyncLinkage", "header_signed"),
        "BindAccount": ("BindAccount", "envelope_signed"),
    }


DEFAULT: Final[dict[str, dict[str, Any]]] = {
    "SyncLinkage": {
        "base_url": "https://open.alipay.hk",
        "path": "/SyncLinkage",
        "client_id": "4Q5Y8W0WSG45P907917",
        "idempotent": True,
        "encryption": Encryption(
            EncryptionProfile("ECB", 256, "PKCS1V15"), "1", "application/json; charset=UTF-8"
        ),
        "encrypt_requests": False,
        "encrypted_answers_only": False,
        "response_time_window_s": 300.0,
    },
    "BindAccount": {
        "base_url": "https://open.alipay.hk",
        "path": "/BindAccount",
        "client_id": "4Q5Y8W0WSG45P907917",
        "idempotent": False,
        "function": "alipay.intl.merchant.account.bind",
        "version": "1.0.0",
        "response_time_window_s": 300.0,
    },
}


def value_of(endpoint: Endpoint, name: str) -> Any:
    """Return a value of an endpoint, or of its protocol."""
    return getattr(endpoint if hasattr(endpoint, name) else endpoint.protocol, name)


@pytest.mark.parametrize("api", DEFAULT)
def test_endpoint_has_the_defaults_of_the_contract(environ: dict[str, str], api: str) -> None:
    one = endpoint(environ, api)
    assert {name: value_of(one, name) for name in DEFAULT[api]} == DEFAULT[api]


CHANGES: Final[list[tuple[dict[str, str], dict[str, dict[str, Any]]]]] = [
    (
        {"BASE_URL": "https://b"},
        {"SyncLinkage": {"base_url": "https://b"}, "BindAccount": {"base_url": "https://b"}},
    ),
    ({"BIND_ACCOUNT_BASE_URL": "https://b"}, {"BindAccount": {"base_url": "https://b"}}),
    ({"CLIENT_ID": "C"}, {"SyncLinkage": {"client_id": "C"}, "BindAccount": {"client_id": "C"}}),
    ({"BIND_ACCOUNT_CLIENT_ID": "C"}, {"BindAccount": {"client_id": "C"}}),
    ({"SYNC_LINKAGE_PATH": "/%7Eu?a=b"}, {"SyncLinkage": {"path": "/%7Eu?a=b"}}),
    ({"BIND_ACCOUNT_PATH": "/%7Eu?a=b"}, {"BindAccount": {"path": "/%7Eu?a=b"}}),
    ({"BIND_ACCOUNT_FUNCTION": "f"}, {"BindAccount": {"function": "f"}}),
    ({"BIND_ACCOUNT_VERSION": "2"}, {"BindAccount": {"version": "2"}}),
    ({"BIND_ACCOUNT_IDEMPOTENT": "true"}, {"BindAccount": {"idempotent": True}}),
    ({"ENCRYPT": "true"}, {"SyncLinkage": {"encrypt_requests": True}}),
    ({"REQUIRE_ENCRYPTED_RESPONSE": "true"}, {"SyncLinkage": {"encrypted_answers_only": True}}),
    (
        {
            "ENCRYPTION_AES_MODE": "CBC",
            "ENCRYPTION_AES_BITS": "128",
            "ENCRYPTION_RSA_PADDING": "OAEP_SHA256",
            "ENCRYPTION_KEY_VERSION": "9",
            "ENCRYPTION_CONTENT_TYPE": "text/plain",
        },
        {
            "SyncLinkage": {
                "encryption": Encryption(EncryptionProfile("CBC", 128, "OAEP_SHA256"), "9", "text/plain")
            }
        },
    ),
    (
        {"RESPONSE_TIME_WINDOW_S": "7"},
        {"SyncLinkage": {"response_time_window_s": 7.0}, "BindAccount": {"response_time_window_s": 7.0}},
    ),
]


@pytest.mark.parametrize(
    ("changes", "expected"), CHANGES, ids=[" ".join(changes) for changes, _ in CHANGES]
)
def test_setting_changes_only_its_own_endpoints(
    environ: dict[str, str], changes: dict[str, str], expected: dict[str, dict[str, Any]]
) -> None:
    changed = {f"ALIPAYHK_{name}": value for name, value in changes.items()}
    endpoints = endpoints_of(read_settings({**environ, **changed}))
    for api, default in DEFAULT.items():
        now = {name: value_of(endpoints[api], name) for name in default}
        assert now == default | expected.get(api, {})


def test_own_keys_sign_and_decrypt_and_alipayhks_keys_verify(
    environ: dict[str, str], ring: KeyRing
) -> None:
    keys = endpoint(environ, "SyncLinkage", SIGNING_KEY_VERSION="7").keys
    assert keys.signing_version == "7"
    assert keys.signing.private_numbers() == ring.ours.private_numbers()
    assert {version: key.public_numbers() for version, key in keys.verifying.items()} == {
        "1": ring.theirs.public_key().public_numbers()
    }
    assert {version: key.private_numbers() for version, key in keys.decrypting.items()} == {
        "7": ring.ours.private_numbers()
    }


def test_verification_and_decryption_keys_are_newest_first(environ: dict[str, str], ring: KeyRing) -> None:
    keys = endpoint(
        environ,
        "SyncLinkage",
        PUBLIC_KEY_FILES=f"1={ring.public},10={ring.other_public},9={ring.public}",
        DECRYPTION_KEY_FILES=f"1={ring.private},2={ring.other_private}",
    ).keys
    assert list(keys.verifying) == ["10", "9", "1"]
    assert list(keys.decrypting) == ["2", "1"]
    assert keys.decrypting["2"].private_numbers() == ring.other.private_numbers()


def test_bind_account_can_have_its_own_signing_key(environ: dict[str, str], ring: KeyRing) -> None:
    changed = {**environ, "ALIPAYHK_BIND_ACCOUNT_SIGNING_KEY_FILE": str(ring.other_private)}
    endpoints = endpoints_of(read_settings(changed))
    for api, key in (("SyncLinkage", ring.ours), ("BindAccount", ring.other)):
        keys = endpoints[api].keys
        assert keys.signing.private_numbers() == key.private_numbers()
        assert keys.decrypting["1"].private_numbers() == key.private_numbers()


# -- the transport


@pytest.mark.parametrize(("timeout_s", "connect_s"), [("0.5", 0.5), ("2", 2.0), ("60", 2.0)])
async def test_connecting_takes_no_longer_than_an_attempt(
    environ: dict[str, str], timeout_s: str, connect_s: float
) -> None:
    transport = transport_of(read_settings({**environ, "ALIPAYHK_UPSTREAM_TIMEOUT_S": timeout_s}))
    try:
        timeouts = {pool._timeout.sock_connect for pool in transport._pools.values()}
    finally:
        await transport.close()
    assert timeouts == {connect_s}


async def test_ca_file_replaces_the_systems_certificates(environ: dict[str, str], tls: TlsFiles) -> None:
    changed = {**environ, "ALIPAYHK_UPSTREAM_CA_FILE": str(tls.ca)}
    transport = transport_of(read_settings(changed))
    try:
        (trusted,) = {pool._ssl for pool in transport._pools.values()}
    finally:
        await transport.close()
    assert isinstance(trusted, ssl.SSLContext)
    assert [certificate["subject"] for certificate in trusted.get_ca_certs()] == [
        ((("commonName", "test CA"),),)
    ]
    assert trusted.verify_mode is ssl.CERT_REQUIRED
    assert trusted.check_hostname
