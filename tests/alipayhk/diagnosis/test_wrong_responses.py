"""Responses that are wrong on purpose differ from correct ones in one place only."""

from __future__ import annotations

from clients.alipayhk.diagnosis import header_signed
from clients.alipayhk.wire.messages import SealedResponse


def test_each_edit_gives_one_signature_and_other_headers_stay() -> None:
    start = "algorithm=RSA256,keyVersion=1,signature="
    response = SealedResponse((("Client-Id", "c"), ("Signature", f"{start}aB"), ("Encrypt", "e")), b"{}")
    edited = header_signed.ROW.with_signatures(response, (str.upper, str.lower))
    assert edited.body == response.body
    assert edited.headers == (
        ("Client-Id", "c"),
        ("Signature", f"{start}AB"),
        ("Signature", f"{start}ab"),
        ("Encrypt", "e"),
    )
