"""Fixtures: keys, generated once, and both sides of both protocols."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from tests.alipayhk.sides import ENVELOPE_SIGNED, HEADER_SIGNED, Sides, both_sides

SHARED: Final = Path(__file__).resolve().parents[1] / "vectors" / "shared"


@pytest.fixture(scope="session")
def documentation_key() -> RSAPrivateKey:
    """Return the key that AlipayHK's documentation prints, built from its numbers."""
    numbers = json.loads((SHARED / "documentation_key.json").read_text("utf-8"))
    n, d, p, q = (int(numbers[name], 16) for name in "ndpq")
    return rsa.RSAPrivateNumbers(
        p,
        q,
        d,
        rsa.rsa_crt_dmp1(d, p),
        rsa.rsa_crt_dmq1(d, q),
        rsa.rsa_crt_iqmp(p, q),
        rsa.RSAPublicNumbers(numbers["e"], n),
    ).private_key()


@pytest.fixture(scope="session")
def ours(documentation_key: RSAPrivateKey) -> RSAPrivateKey:
    """Return the key that we sign and decrypt with."""
    return documentation_key


@pytest.fixture(scope="session")
def theirs() -> RSAPrivateKey:
    """Return the key that the wallet signs and decrypts with."""
    return rsa.generate_private_key(65537, 2048)


@pytest.fixture(scope="session")
def stranger() -> RSAPrivateKey:
    """Return a key that neither side has configured."""
    return rsa.generate_private_key(65537, 2048)


@pytest.fixture(scope="session")
def header_sides(ours: RSAPrivateKey, theirs: RSAPrivateKey) -> Sides:
    """Return both sides of a header-signed API."""
    return both_sides(HEADER_SIGNED, ours, theirs)


@pytest.fixture(scope="session")
def envelope_sides(ours: RSAPrivateKey, theirs: RSAPrivateKey) -> Sides:
    """Return both sides of an envelope-signed API."""
    return both_sides(ENVELOPE_SIGNED, ours, theirs)


@pytest.fixture(params=[HEADER_SIGNED, ENVELOPE_SIGNED], ids=lambda protocol: protocol.name)
def sides(request: pytest.FixtureRequest, header_sides: Sides, envelope_sides: Sides) -> Sides:
    """Return both sides of an API, for each protocol in turn."""
    return header_sides if request.param == HEADER_SIGNED else envelope_sides
