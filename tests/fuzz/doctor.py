"""Target: the files that `doctor message` reads."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Final

from clients.alipayhk.diagnosis.diagnose import Verdict
from clients.alipayhk.diagnosis.protocol_row import Known
from clients.alipayhk.wire import crypto, keys
from clients.alipayhk.wire.crypto import CryptoError
from service.commands.doctor.exchange import Exchange, Unusable
from service.commands.doctor.knowledge import Knowledge
from service.commands.doctor.message import diagnosis_of, exchange_in
from service.commands.doctor.report import as_json, as_text
from tests.fuzz.properties import is_constant, result_of
from tests.test_house import ROOT

SAMPLES: Final = ROOT / "docs" / "samples"
KEY: Final = keys.load_public_key(SAMPLES / "signer.pub.pem")
KNOWLEDGE: Final = Knowledge(Known({"1": KEY}), lambda _, __: None)


def doctor_message(data: bytes) -> None:
    """Any bytes get a diagnosis or one sentence; a found content is one that the key verifies."""
    flags = argparse.Namespace(protocol="header_signed", message=None, path="/p", entry=1)
    exchange = result_of(Unusable, exchange_in, data, flags)
    if not isinstance(exchange, Exchange):
        return
    diagnosis = diagnosis_of(exchange, KNOWLEDGE)
    assert is_constant(diagnosis.explanation), diagnosis.explanation
    as_json(diagnosis)
    as_text(diagnosis, exchange, unmasked=False)
    if diagnosis.verdict is Verdict.VALID:
        assert diagnosis.signed_content == diagnosis.content_to_sign
        assert verifies(exchange, diagnosis.content_to_sign)


def verifies(exchange: Exchange, content: bytes) -> bool:
    """Return whether one of the header lines has a signature of the content."""
    for name, value in exchange.headers:
        if name.lower() == "signature":
            try:
                crypto.verify(KEY, crypto.url_base64_bytes(value.rpartition("signature=")[2]), content)
            except CryptoError:
                continue
            return True
    return False


def message_seeds() -> Iterator[bytes]:
    """Yield the samples of the pages, a small HAR file, and an option without its value."""
    for file in sorted(SAMPLES.glob("response.*")) + sorted(SAMPLES.glob("*.curl")):
        yield file.read_bytes()
    yield b"curl /p -d {} -H"
    yield b'{"log":{"entries":[{"request":{"url":"/p?x","headers":[],"postData":{"text":"{}"}}}]}}'
