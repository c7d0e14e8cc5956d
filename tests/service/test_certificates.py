"""The names of a certificate: an unreadable one has no names, and many names use little memory."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtensionOID

from service.credentials.callers import Name
from service.credentials.certificates import CACHED_MAX, SHOWN_CHARACTERS_MAX, names_of
from tests.service.fakes import certificate_of

NOT_PEM = {
    "nothing": b"",
    "text": b"no certificate",
    "an empty frame": b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",
    "cut DER": b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
}


@pytest.mark.parametrize("pem", NOT_PEM.values(), ids=NOT_PEM.keys())
def test_bytes_other_than_a_certificate_have_no_names(pem: bytes) -> None:
    found = names_of(pem)
    assert (found.names, str(found)) == ((), "")


@pytest.mark.parametrize("value", [b"\x30\x00", b"\x30\x03\x02\x01\x63", b"\xff"])
def test_a_certificate_with_an_unreadable_extension_has_no_names(value: bytes) -> None:
    tls_feature = x509.UnrecognizedExtension(ExtensionOID.TLS_FEATURE, value)
    assert names_of(certificate_of(("loyalty.internal",), tls_feature)).names == ()


def test_names_keep_the_order_and_the_case_of_the_certificate() -> None:
    found = names_of(certificate_of(("spiffe://corp/A", "B.corp")))
    assert found.names == (Name("URI", "spiffe://corp/A"), Name("DNS", "B.corp"))
    assert str(found) == "URI:spiffe://corp/A, DNS:B.corp"


def test_names_with_an_at_sign_are_counted_and_not_shown() -> None:
    found = names_of(certificate_of(("chan@corp", "spiffe://chan@corp/a", "b.corp")))
    assert str(found) == "DNS:b.corp, 2 other names"


def test_the_text_of_many_names_is_truncated() -> None:
    found = names_of(certificate_of(tuple(f"service-{number}.corp" for number in range(500))))
    assert len(found.names) == 500
    assert len(str(found)) == SHOWN_CHARACTERS_MAX


def test_the_cache_of_parsed_certificates_is_bounded() -> None:
    for number in range(CACHED_MAX + 10):
        names_of(b"%d" % number)
    assert names_of.cache_info().currsize == CACHED_MAX
