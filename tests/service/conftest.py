"""Keys and certificates for the whole session, the required settings, and a log in memory."""

from __future__ import annotations

import base64
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from cryptography.hazmat.primitives.asymmetric import rsa

from clients.alipayhk.api import Api
from clients.alipayhk.wire.keys import Keys, public_der
from service.telemetry.logs import set_up_logs
from tests.certificates import Authority, curve_key, private_pem, public_pem
from tests.service.fakes import LogStream
from tests.service.files import KeyRing, TlsFiles


@pytest.fixture(autouse=True)
def log_lines() -> Iterator[LogStream]:
    """Write the log to memory, and restore the configuration of logging afterwards."""
    stream, root = LogStream(), logging.getLogger()
    handlers, level = root.handlers[:], root.level
    set_up_logs("debug", stream)
    root.handlers[:] = handlers
    yield stream
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(scope="session")
def ring(tmp_path_factory: pytest.TempPathFactory) -> KeyRing:
    """Return our key, AlipayHK's and another one, in files of every accepted kind."""
    directory = tmp_path_factory.mktemp("keys")
    ours, theirs, other = (rsa.generate_private_key(65537, 2048) for _ in range(3))
    return KeyRing(
        ours=ours,
        theirs=theirs,
        other=other,
        private=_write(directory / "ours.pem", private_pem(ours)),
        other_private=_write(directory / "other.pem", private_pem(other)),
        encrypted=_write(directory / "locked.pem", private_pem(ours, b"passphrase")),
        public=_write(directory / "theirs.pub.pem", public_pem(theirs.public_key())),
        other_public=_write(directory / "other.pub.pem", public_pem(other.public_key())),
        public_base64=_write(
            directory / "theirs.b64", base64.b64encode(public_der(theirs.public_key())) + b"\n"
        ),
    )


@pytest.fixture(scope="session")
def keys(ring: KeyRing) -> Keys:
    """Return the keys of an endpoint."""
    return Keys(ring.ours, "1", {"1": ring.theirs.public_key()}, {"1": ring.ours})


@pytest.fixture
def environ(ring: KeyRing) -> dict[str, str]:
    """Return the required settings only."""
    return {
        "ALIPAYHK_BASE_URL": "https://open.alipay.hk",
        "ALIPAYHK_CLIENT_ID": "4Q5Y8W0WSG45P907917",
        "ALIPAYHK_SIGNING_KEY_FILE": str(ring.private),
        "ALIPAYHK_PUBLIC_KEY_FILES": f"1={ring.public}",
        **{f"ALIPAYHK_{api.name}_PATH": f"/{api}" for api in Api},
    }


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    """Return a CA, a certificate for 127.0.0.1 and localhost, its key, and keys that do not match it."""
    return _tls_files(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="session")
def other_tls(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    """Return the same from another CA."""
    return _tls_files(tmp_path_factory.mktemp("other-tls"))


def _tls_files(directory: Path) -> TlsFiles:
    authority, other = Authority(directory, "test CA"), curve_key()
    leaf = authority.issue("localhost", "localhost", "spiffe://corp/loyalty", "127.0.0.1")
    return TlsFiles(
        ca=authority.file,
        certificate=leaf.chain_file,
        key=leaf.key_file,
        other_key=_write(directory / "other.key", private_pem(other)),
        encrypted_key=_write(directory / "locked.key", private_pem(other, b"passphrase")),
    )


def _write(path: Path, data: bytes) -> Path:
    path.touch(0o600)
    path.write_bytes(data)
    return path
