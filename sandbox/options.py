"""Read and check the command line flags, and report all faults together."""

from __future__ import annotations

import argparse
import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar, cast, get_args

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from clients.alipayhk.regular_file import open_regular
from clients.alipayhk.wire.crypto import AesMode, EncryptionProfile, RsaPadding
from clients.alipayhk.wire.endpoint import Encryption, Endpoint, WireProtocol
from clients.alipayhk.wire.keys import Keys, load_private_key, load_public_key, newest_first
from clients.alipayhk.wire.protocols.envelope_signed import EnvelopeSigned
from clients.alipayhk.wire.protocols.header_signed import HeaderSigned

from .apis import APIS, ServedApi

PORT_MAX: Final = 65_535
_KEY_VERSION: Final = re.compile(r"[A-Za-z0-9_.-]{1,32}")
_PATH: Final = re.compile(r"/[!-\"$-~]*")
_PRINTABLE: Final = re.compile(r"[ -~]+")

Value = TypeVar("Value")


class OptionsError(ValueError):
    """Some flags have invalid values. The message names all of them."""


@dataclass(frozen=True, slots=True)
class Options:
    """The configuration of the sandbox."""

    host: str
    port: int
    """With 0 the system chooses a port."""
    endpoints: Mapping[str, Endpoint]
    """The endpoints by API, with the keys of AlipayHK's side."""
    tls: ssl.SSLContext | None

    def url(self, *, port: int) -> str:
        """Return the base URL, given the port that was bound."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{port}"


class _Flags:
    """The flags as given, and the faults found so far."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self.faults: list[str] = []

    def read(self, flag: str, parse: Callable[[str], Value]) -> Value:
        """Parse one flag and note its fault. After a fault the value is unusable; `options_of` raises."""
        given = getattr(self._args, flag.replace("-", "_"))
        try:
            if not given:
                raise ValueError("is required")
            return parse(given)
        except ValueError as error:
            self.faults.append(f"--{flag}: {error}")
            return cast("Value", None)


def options_of(args: argparse.Namespace) -> Options:
    """Read the flags; raise OptionsError with all faults."""
    flags = _Flags(args)
    listen = flags.read("listen", _listen)
    keys = _keys(flags)
    endpoints = _endpoints(flags, keys)
    tls = _tls(flags, args.tls_cert_file, args.tls_key_file)
    if flags.faults:
        raise OptionsError("\n".join(flags.faults))
    host, port = listen
    return Options(host=host, port=port, endpoints=endpoints, tls=tls)


def _keys(flags: _Flags) -> Keys:
    signing = flags.read("private-key-file", lambda text: load_private_key(Path(text)))
    version = flags.read("key-version", _matching(_KEY_VERSION, "1 to 32 letters, digits, _ . -"))
    return Keys(
        signing=signing,
        signing_version=version,
        verifying=flags.read("merchant-public-key-files", _public_keys) or {},
        decrypting={version: signing},
    )


def _encryption(flags: _Flags, keys: Keys) -> Encryption:
    def merchants(version: str) -> str:
        # Without any key, the fault is reported for --merchant-public-key-files.
        if keys.verifying and version not in keys.verifying:
            raise ValueError("has no key of this version in --merchant-public-key-files")
        return version

    return Encryption(
        profile=EncryptionProfile(
            aes_mode=flags.read("aes-mode", lambda text: cast("AesMode", _one_of(text, get_args(AesMode)))),
            aes_bits=flags.read("aes-bits", lambda text: int(_one_of(text, ("128", "256")))),
            rsa_padding=flags.read(
                "rsa-padding", lambda text: cast("RsaPadding", _one_of(text, get_args(RsaPadding)))
            ),
        ),
        key_version=flags.read("encryption-key-version", merchants),
        content_type=flags.read("encryption-content-type", _printable),
    )


def _endpoints(flags: _Flags, keys: Keys) -> dict[str, Endpoint]:
    header_signed = HeaderSigned(_encryption(flags, keys))
    client_id = flags.read("client-id", _printable)
    version = flags.read("version", _printable)
    protocols: dict[type[WireProtocol], Callable[[ServedApi], WireProtocol]] = {
        HeaderSigned: lambda _: header_signed,
        EnvelopeSigned: lambda api: EnvelopeSigned(flags.read(api.function_flag, _printable), version),
    }
    endpoints: dict[str, Endpoint] = {}
    for api in APIS.values():
        path = flags.read(api.path_flag, _path)
        if path in [endpoint.path for endpoint in endpoints.values()] and path:
            flags.faults.append(f"--{api.path_flag}: another API has the same path")
        endpoints[api.name] = Endpoint(
            api=api.name,
            protocol=protocols[api.protocol](api),
            base_url="",
            path=path,
            client_id=client_id,
            keys=keys,
            idempotent=False,
        )
    return endpoints


def _tls(flags: _Flags, cert_file: str | None, key_file: str | None) -> ssl.SSLContext | None:
    if not cert_file and not key_file:
        return None
    if not cert_file or not key_file:
        flags.faults.append("--tls-cert-file, --tls-key-file: give both or neither")
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        for file in (cert_file, key_file):
            open_regular(Path(file)).close()
        # An empty password, so that an encrypted key fails instead of prompting for a password.
        context.load_cert_chain(cert_file, key_file, password="")
    except OSError as error:
        flags.faults.append(f"--tls-cert-file, --tls-key-file: cannot be used: {error.strerror}")
    return context


def _listen(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not (port.isascii() and port.isdigit()):
        raise ValueError("must be host:port")
    if int(port[:6]) > PORT_MAX:
        raise ValueError(f"must have a port from 0 to {PORT_MAX}")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _path(text: str) -> str:
    if not _PATH.fullmatch(text) or text.startswith("/__sandbox/"):
        raise ValueError("must start with / but not /__sandbox/, and have no space or #")
    return text


def _public_keys(text: str) -> dict[str, RSAPublicKey]:
    keys: dict[str, RSAPublicKey] = {}
    faults = []
    for part in text.split(","):
        version, equals, path = part.strip().partition("=")
        if not equals or not _KEY_VERSION.fullmatch(version) or version in keys:
            faults.append("must be version=path,version=path, each version once")
            continue
        try:
            keys[version] = load_public_key(Path(path))
        except ValueError as error:
            faults.append(f"version {version} {error}")
    if faults:
        raise ValueError("; ".join(faults))
    return newest_first(keys)


def _matching(pattern: re.Pattern[str], needed: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if not pattern.fullmatch(text):
            raise ValueError(f"must be {needed}")
        return text

    return parse


def _printable(text: str) -> str:
    return _matching(_PRINTABLE, "printable ASCII")(text)


def _one_of(text: str, values: tuple[str, ...]) -> str:
    if text not in values:
        raise ValueError(f"must be {' or '.join(values)}")
    return text
