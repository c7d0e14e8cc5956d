"""CALLERS_FILE and RESULT_CODES_FILE: their valid contents, and every fault in one error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from grpc import StatusCode
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.alipayhk.api import API_NAMES
from clients.alipayhk.wire.strict_json import write_json
from service.config.callers_file import callers_file
from service.config.result_codes_file import ALLOWED, result_codes_file
from service.credentials.callers import ANYBODY, Caller, Callers, Name
from service.outcomes.result_codes import CONFIGURATION_CODES, RATE_LIMITED, ResultCodes
from tests.service.fakes import FIXTURES_ARE_FINE


def file(directory: Path, text: str) -> str:
    path = directory / "table.toml"
    path.write_text(text, "utf-8")
    return str(path)


# -- callers


TWO: Final = """
[callers.loyalty]
san = ["spiffe://corp/loyalty", "loyalty.corp"]
methods = ["SyncLinkage"]
max_in_flight = 50

[callers.billing]
san = ["spiffe://corp/billing"]
methods = ["SyncLinkage", "BindAccount"]
"""


def test_callers_have_the_names_of_the_file(tmp_path: Path) -> None:
    callers = callers_file(file(tmp_path, TWO))
    loyalty = Caller("loyalty", frozenset({"SyncLinkage"}), 50)
    billing = Caller("billing", frozenset({"SyncLinkage", "BindAccount"}), None)
    assert callers == Callers(
        {
            Name("URI", "spiffe://corp/loyalty"): loyalty,
            Name("DNS", "loyalty.corp"): loyalty,
            Name("URI", "spiffe://corp/billing"): billing,
        }
    )


FOUND: Final[list[tuple[list[Name], list[str]]]] = [
    ([Name("DNS", "unknown"), Name("DNS", "loyalty.corp")], ["loyalty"]),
    ([Name("DNS", "LOYALTY.corp")], ["loyalty"]),
    ([Name("DNS", "loyalty.corp"), Name("URI", "spiffe://corp/loyalty")], ["loyalty"]),
    ([Name("DNS", "loyalty.corp"), Name("URI", "spiffe://corp/billing")], ["loyalty", "billing"]),
    ([Name("URI", "spiffe://corp/LOYALTY"), Name("URI", "spiffe://corp/loyalty/x")], []),
    ([Name("URI", "loyalty.corp"), Name("DNS", "spiffe://corp/loyalty"), Name("DNS", "")], []),
    ([], []),
]


@pytest.mark.parametrize(("names", "found"), FOUND)
def test_callers_are_found_by_kind_and_name(tmp_path: Path, names: list[Name], found: list[str]) -> None:
    callers = callers_file(file(tmp_path, TWO.replace("loyalty.corp", "Loyalty.Corp")))
    assert [caller.name for caller in callers.find(names)] == found


ONLY: Final = "as item 2 of san; use DNS names or URIs"
NO_NAMES: Final = {
    "10.0.0.1": "an IP address",
    "::1": "an IP address",
    "[2001:db8::1]": "an IP address",
    "a@corp.example": "an e-mail address or a URI with an @",
    "mailto:a@corp.example": "an e-mail address or a URI with an @",
    "spiffe://a@corp/x": "an e-mail address or a URI with an @",
    "loyalty.internal\\u0000.evil.com": "an invalid DNS name",
    "loyalty internal": "an invalid DNS name",
    "loyalty.internal:443": "an invalid DNS name",
    "會員.internal": "an invalid DNS name",
    "spiffe://corp/a b": "an invalid URI name",
    "spiffe://corp/\\u0000": "an invalid URI name",
}


def test_every_caller_is_allowed_every_method_if_there_is_no_list() -> None:
    assert Caller("", frozenset(API_NAMES), None) == ANYBODY


NEEDS_SAN: Final = "[callers.a] needs san, a list of DNS names or URIs"
NEEDS_METHODS: Final = f"[callers.a] needs methods, a list of {' and '.join(API_NAMES)}"
BAD_QUOTA: Final = "[callers.a] needs max_in_flight as a whole number of at least 1"
NOTHING_ELSE: Final = "must contain tables [callers.NAME] and nothing else"
GOOD: Final = 'san = ["x"]\nmethods = ["SyncLinkage"]\n'

CALLERS_FAULTS: Final = {
    "": NOTHING_ELSE,
    "callers = []": NOTHING_ELSE,
    "callers = {}": NOTHING_ELSE,
    "[[callers]]\na = 1": NOTHING_ELSE,
    f"[callers.a]\n{GOOD}[other]\n": NOTHING_ELSE,
    f"[caller.a]\n{GOOD}": NOTHING_ELSE,
    "[callers": "is not TOML (at end of document)",
    f"[callers.a]\n{GOOD}[callers.a]\n{GOOD}": "names a key or a table twice (at line 4, column 11)",
    "[callers]\na = 1": "[callers.a] must be a table",
    "[callers.a]": f"{NEEDS_SAN}; {NEEDS_METHODS}",
    '[callers.a]\nsan = "x"\nmethods = "SyncLinkage"': f"{NEEDS_SAN}; {NEEDS_METHODS}",
    "[callers.a]\nsan = []\nmethods = []": f"{NEEDS_SAN}; {NEEDS_METHODS}",
    '[callers.a]\nsan = [""]\nmethods = [""]': f"{NEEDS_SAN}; {NEEDS_METHODS}",
    "[callers.a]\nsan = [1]\nmethods = [1]": f"{NEEDS_SAN}; {NEEDS_METHODS}",
    '[callers.a]\nsan = ["x"]\nmethods = ["syncLinkage"]': NEEDS_METHODS,
    '[callers.a]\nsan = ["x"]\nmethods = [["SyncLinkage"], {a = 1}]': NEEDS_METHODS,
    f"[callers.a]\n{GOOD}max_in_flight = 0": BAD_QUOTA,
    f"[callers.a]\n{GOOD}max_in_flight = 1.0": BAD_QUOTA,
    f"[callers.a]\n{GOOD}max_in_flight = true": BAD_QUOTA,
    f'[callers.a]\n{GOOD}max_in_flight = "1"': BAD_QUOTA,
    f"[callers.a]\n{GOOD}sans = 1\nquota = 2": "[callers.a] has unknown members: quota, sans",
    f"[callers.a]\n{GOOD}[callers.b]\n{GOOD}": "[callers.b] names x a second time",
    '[callers.a]\nsan = ["x", "X"]\nmethods = ["SyncLinkage"]': "[callers.a] names X a second time",
    '[callers.a]\nsan = ["x", "x"]\nmethods = ["SyncLinkage"]': "[callers.a] names x a second time",
    '[callers.a]\nsan = ["x"]\n[callers.b]\nsan = ["x", "y"]\n[callers.c]\nsan = ["y"]': "; ".join(
        [
            NEEDS_METHODS,
            NEEDS_METHODS.replace(".a", ".b"),
            "[callers.b] names x a second time",
            NEEDS_METHODS.replace(".a", ".c"),
            "[callers.c] names y a second time",
        ]
    ),
    "[callers.a]\nmore = 1\nmax_in_flight = -1\n[callers.b]\nsan = 1": "; ".join(
        [
            "[callers.a] has unknown members: more",
            NEEDS_SAN,
            NEEDS_METHODS,
            BAD_QUOTA,
            NEEDS_SAN.replace(".a", ".b"),
            NEEDS_METHODS.replace(".a", ".b"),
        ]
    ),
    **{
        f'[callers.a]\nsan = ["x", "{san}"]\nmethods = ["SyncLinkage"]': (f"[callers.a] has {fault} {ONLY}")
        for san, fault in NO_NAMES.items()
    },
}


def test_a_fault_about_a_duplicate_does_not_repeat_an_e_mail_address(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r".") as failure:
        callers_file(file(tmp_path, '[callers.a]\nsan = ["chan@x", "chan@x"]\nmethods = ["SyncLinkage"]'))
    assert "chan" not in str(failure.value)


# -- result codes


def test_result_codes_are_read_per_rpc(tmp_path: Path) -> None:
    text = """
        [SyncLinkage]
        A-1 = "NOT_FOUND"
        "0001.x" = "ALREADY_EXISTS"
        [BindAccount]
        A-1 = "OUT_OF_RANGE"
    """
    assert result_codes_file(file(tmp_path, text)) == ResultCodes(
        {
            "SyncLinkage": {"A-1": StatusCode.NOT_FOUND, "0001.x": StatusCode.ALREADY_EXISTS},
            "BindAccount": {"A-1": StatusCode.OUT_OF_RANGE},
        }
    )


def test_an_empty_file_adds_nothing(tmp_path: Path) -> None:
    assert result_codes_file(file(tmp_path, "")) == ResultCodes()


def test_no_result_code_can_get_a_grpc_code_that_suggests_a_retry() -> None:
    suggesting_retry = {
        StatusCode.OK,
        StatusCode.CANCELLED,
        StatusCode.UNKNOWN,
        StatusCode.DEADLINE_EXCEEDED,
        StatusCode.RESOURCE_EXHAUSTED,
        StatusCode.ABORTED,
        StatusCode.INTERNAL,
        StatusCode.UNAVAILABLE,
        StatusCode.DATA_LOSS,
        StatusCode.UNAUTHENTICATED,
    }
    assert not set(ALLOWED.values()) & suggesting_retry
    assert set(ALLOWED.values()) | suggesting_retry == set(StatusCode)


ONLY_RPCS: Final = f"can contain the tables {' and '.join(API_NAMES)} only"
OF_ITS_OWN: Final = "has a fixed meaning and cannot be changed"
ONE_OF: Final = f"must be one of {', '.join(ALLOWED)}"

CODES_FAULTS: Final = {
    "[SyncLinkage": "is not TOML (at end of document)",
    "SyncLinkage = 1": ONLY_RPCS,
    "[[SyncLinkage]]": ONLY_RPCS,
    '[Other]\nA = "NOT_FOUND"': ONLY_RPCS,
    '[syncLinkage]\nA = "NOT_FOUND"': ONLY_RPCS,
    '[SyncLinkage]\n"a b" = "NOT_FOUND"': "[SyncLinkage] has a name that is not a result code",
    '[SyncLinkage]\n"" = "NOT_FOUND"': "[SyncLinkage] has a name that is not a result code",
    f'[SyncLinkage]\n{"A" * 65} = "NOT_FOUND"': "[SyncLinkage] has a name that is not a result code",
    '[SyncLinkage]\nA = "not_found"': f"[SyncLinkage] A {ONE_OF}",
    '[SyncLinkage]\nA = "OK"': f"[SyncLinkage] A {ONE_OF}",
    '[SyncLinkage]\nA = "UNAVAILABLE"': f"[SyncLinkage] A {ONE_OF}",
    '[SyncLinkage]\nA = "INTERNAL"': f"[SyncLinkage] A {ONE_OF}",
    "[SyncLinkage]\nA = 5": f"[SyncLinkage] A {ONE_OF}",
    "[SyncLinkage]\nA = true": f"[SyncLinkage] A {ONE_OF}",
    '[SyncLinkage]\nA = ["NOT_FOUND"]': f"[SyncLinkage] A {ONE_OF}",
    "[SyncLinkage]\nA = {}": f"[SyncLinkage] A {ONE_OF}",
    "[SyncLinkage.A]\nB = 1": f"[SyncLinkage] A {ONE_OF}",
    '[SyncLinkage]\nA = "X"\nB = "Y"\n[Other]\n[BindAccount]\nA = 1': "; ".join(
        [f"[SyncLinkage] A {ONE_OF}", f"[SyncLinkage] B {ONE_OF}", ONLY_RPCS, f"[BindAccount] A {ONE_OF}"]
    ),
    **{
        f'[BindAccount]\n{code} = "NOT_FOUND"': f"[BindAccount] {code} {OF_ITS_OWN}"
        for code in sorted({*CONFIGURATION_CODES, RATE_LIMITED})
    },
}


@pytest.mark.parametrize(
    ("read", "text", "fault"),
    [
        *((callers_file, *row) for row in CALLERS_FAULTS.items()),
        *((result_codes_file, *row) for row in CODES_FAULTS.items()),
    ],
)
def test_the_error_names_every_fault_without_values(
    tmp_path: Path, read: Callable[[str], object], text: str, fault: str
) -> None:
    with pytest.raises(ValueError, match=r".") as failure:
        read(file(tmp_path, text))
    assert str(failure.value) == fault


# -- arbitrary tables


def toml(value: Any) -> str:
    """Return a value as TOML in one line."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{toml(name)}={toml(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(toml, value)) + "]"
    return write_json(value).decode()


names = st.sampled_from(
    ["callers", "SyncLinkage", "BindAccount", "a", "san", "methods", "max_in_flight", "A"]
)
values: st.SearchStrategy[Any] = st.recursive(
    st.booleans() | st.integers(-5, 5) | st.sampled_from(["", "SyncLinkage", "NOT_FOUND", "OK", "x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)


@given(tables=st.dictionaries(names, values, max_size=3))
@settings(suppress_health_check=FIXTURES_ARE_FINE)
def test_any_table_is_read_or_raises_value_error(tables: dict[str, Any], tmp_path: Path) -> None:
    path = file(tmp_path, "\n".join(f"{toml(name)} = {toml(value)}" for name, value in tables.items()))
    faults = []
    for read in (callers_file, result_codes_file):
        try:
            read(path)
        except ValueError as error:
            faults.append(str(error))
    assert "is not TOML" not in faults
