"""Parse the text of a setting into its value; every function raises ValueError with the reason.

No message repeats the text, because a secret can be pasted into the wrong setting.
"""

from __future__ import annotations

import ipaddress
import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

from clients.alipayhk.regular_file import open_regular
from clients.alipayhk.wire.keys import (
    Key,
    KeyFileError,
    load_private_key,
    load_public_key,
    newest_first,
    pem_fault,
)

from .files import KeyFile, PemFile

_KEY_VERSION: Final = re.compile(r"[A-Za-z0-9._-]{1,32}")
_VISIBLE: Final = re.compile(r"[!-~]+")
_HEADER_TEXT: Final = re.compile(r"[!-~](?:[ -~]*[!-~])?")
_HOST: Final = r"(?P<host>[0-9A-Za-z._-]+|\[[0-9A-Fa-f:.]+\])"
_ADDRESS: Final = re.compile(_HOST + r":(?P<port>[0-9]+)")
_PORT: Final = r":(?P<port>0|[1-9][0-9]*)"
_URL: Final = re.compile(r"(?P<scheme>https?)://" + _HOST + rf"({_PORT})?")
_PROXY_URL: Final = re.compile(r"http://([!-~]*@)?" + _HOST + _PORT + "/?")
PORT_MAX: Final = 65_535


@dataclass(frozen=True, slots=True)
class Address:
    """A host and a TCP port to listen on."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Return whether only this machine can reach the address."""
        return is_loopback(self.host)


def address(text: str) -> Address:
    """Parse `host:port`, with an IPv6 host in brackets."""
    if (match := _ADDRESS.fullmatch(text)) is None:
        raise ValueError("must be host:port, with an IPv6 host in brackets")
    return Address(match["host"].strip("[]"), _port(match["port"], low=0))


def is_loopback(host: str) -> bool:
    """Return whether a host is a loopback address or `localhost`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def boolean(text: str) -> bool:
    """Parse `true` or `false`."""
    if text.lower() not in {"true", "false"}:
        raise ValueError("must be true or false")
    return text.lower() == "true"


def integer(low: int, high: int) -> Callable[[str], int]:
    """Return a parser of whole numbers from `low` to `high`."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,12}", text) or not low <= int(text) <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return int(text)

    return parse


def seconds(low: float, high: float) -> Callable[[str], float]:
    """Return a parser of seconds from `low` to `high`."""

    def parse(text: str) -> float:
        if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text) or not low <= float(text) <= high:
            raise ValueError(f"must be a number of seconds from {low:g} to {high:g}")
        return float(text)

    return parse


def choice(*values: str) -> Callable[[str], str]:
    """Return a parser that accepts these values only."""

    def parse(text: str) -> str:
        if text not in values:
            raise ValueError(f"must be one of {', '.join(values)}")
        return text

    return parse


def bits(text: str) -> int:
    """Parse the size of an AES key."""
    return int(choice("128", "256")(text))


def visible(length_max: int) -> Callable[[str], str]:
    """Return a parser of printable ASCII without space, safe in a header and in an envelope's head."""

    def parse(text: str) -> str:
        if len(text) > length_max or not _VISIBLE.fullmatch(text):
            raise ValueError(f"must be 1 to {length_max} printable ASCII characters without space")
        return text

    return parse


def header_text(text: str) -> str:
    """Parse the value of an HTTP header."""
    if not _HEADER_TEXT.fullmatch(text):
        raise ValueError("must be printable ASCII")
    return text


def base_url(text: str) -> str:
    """Parse `https://host[:port]`; for a loopback host, `http://` is allowed."""
    if (match := _URL.fullmatch(text)) is None:
        raise ValueError("must be https://host[:port], without user, path, query or fragment")
    _port(match["port"] or "443", low=1)
    if match["scheme"] == "http" and not is_loopback(match["host"].strip("[]")):
        raise ValueError("must use https:// (http:// is allowed for loopback only)")
    return text


def proxy_url(text: str) -> str:
    """Parse `http://[user:password@]host:port`, the egress proxy."""
    match = _PROXY_URL.fullmatch(text)
    if match is None or set("/?#") & set(text.removeprefix("http://").rstrip("/")):
        raise ValueError("must be http://[user:password@]host:port, with /, ? and # percent-encoded")
    _port(match["port"], low=1)
    return text


def _port(digits: str, *, low: int) -> int:
    # Python refuses to convert thousands of digits.
    if len(digits) > len(str(PORT_MAX)) or not low <= int(digits) <= PORT_MAX:
        raise ValueError(f"must have a port from {low} to {PORT_MAX}")
    return int(digits)


def url_path(text: str) -> str:
    """Parse a path with its query, which are sent and signed byte for byte."""
    odd = text.startswith("//") or text.endswith("?") or "#" in text
    if odd or not text.startswith("/") or not _VISIBLE.fullmatch(text):
        raise ValueError(
            "must start with a single /, be printable ASCII without space or #, and not end with ?"
        )
    return text


def key_version(text: str) -> str:
    """Parse the version of a key."""
    if not _KEY_VERSION.fullmatch(text):
        raise ValueError("must be 1 to 32 letters, digits, dots, dashes or underscores")
    return text


def existing_file(text: str) -> Path:
    """Parse the path of a file, which must be readable."""
    path = Path(text)
    try:
        with open_regular(path):
            return path
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    except ValueError:
        raise ValueError("cannot be read: no file can have this name") from None


def private_key_file(text: str) -> KeyFile[RSAPrivateKey]:
    """Parse the path of a private key's file, and load the key."""
    path = Path(text)
    return KeyFile(path, load_private_key(path))


def public_key_files(text: str) -> dict[str, KeyFile[RSAPublicKey]]:
    """Parse `1=path,2=path`, and load the public keys by version, newest first."""
    return _by_version(text, load_public_key)


def private_key_files(text: str) -> dict[str, KeyFile[RSAPrivateKey]]:
    """Parse `1=path,2=path`, and load the private keys by version, newest first."""
    return _by_version(text, load_private_key)


def ca_file(text: str) -> PemFile:
    """Read a file of trusted PEM certificates."""
    path = existing_file(text)
    try:
        ssl.create_default_context(cafile=str(path))
    except (ssl.SSLError, ValueError):
        raise ValueError(pem_fault(path.read_bytes()) or "contains no valid PEM certificate") from None
    return PemFile(path, path.read_bytes())


def client_ca_file(text: str) -> PemFile:
    """Read a file of trusted PEM certificates that gRPC reads, too."""
    return pem_file(str(ca_file(text).path))


def pem_file(text: str) -> PemFile:
    """Read a PEM file for gRPC, which skips a block after a byte order mark."""
    path = existing_file(text)
    data = path.read_bytes()
    if b"\xef\xbb\xbf-----BEGIN" in data:
        raise ValueError("has a byte order mark before a PEM block: save it as UTF-8 without one")
    if fault := pem_fault(data):
        raise ValueError(fault)
    return PemFile(path, data)


def _by_version(text: str, load: Callable[[Path], Key]) -> dict[str, KeyFile[Key]]:
    files: dict[str, KeyFile[Key]] = {}
    faults: list[str] = []
    for part in text.split(","):
        version, equals, name = part.strip().partition("=")
        if not equals or not name or not _KEY_VERSION.fullmatch(version):
            faults.append("must be version=path,version=path")
        elif version in files:
            faults.append(f"names version {version} twice")
        else:
            try:
                files[version] = KeyFile(Path(name), load(Path(name)))
            except KeyFileError as error:
                faults.append(f"version {version} {error}")
    if faults:
        raise ValueError("; ".join(dict.fromkeys(faults)))
    return newest_first(files)
