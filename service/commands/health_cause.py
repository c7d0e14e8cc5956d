"""Find out why a health check has no connection: gRPC does not say it."""

from __future__ import annotations

import os
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from clients.alipayhk.tls import fault_of
from clients.alipayhk.wire.keys import pem_fault

_PROBE_S: Final = 1.0
"""Time limit in seconds to connect, and for each step of the TLS handshake."""
_PORT_MAX: Final = 65_535
_HOST_AND_PORT: Final = "the address must be host:port"
_PORTS: Final = f"the address must have a port from 1 to {_PORT_MAX}"
_NOT_GRPC: Final = (
    "the port is open, but there is no gRPC response: use the port of LISTEN or HEALTH_LISTEN, not of "
    "ADMIN_LISTEN"
)
_REQUIRED: Final = "the gateway requires a client certificate: give --tls-cert-file and --tls-key-file"
_REFUSED: Final = (
    "the gateway refused the certificate of --tls-cert-file: it must be valid now, and of a CA in "
    "TLS_CLIENT_CA_FILE"
)


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """The PEM files of a check over TLS."""

    ca: Path
    certificate: Path | None
    key: Path | None


def cause_of_no_connection(address: str, tls: TlsFiles | None, server_name: str | None) -> str | None:
    """Return why there is no connection and what to change; None if the address has a gRPC scheme.

    Connect once more, without gRPC. `server_name` is the name that the certificate must have, if it is not
    the host of the address.
    """
    host, _, port = address.rpartition(":")
    if "/" in address or host == "unix":
        return None
    if not host or not port.isdecimal():
        return _HOST_AND_PORT
    if not 1 <= int(port[: len(str(_PORT_MAX)) + 1]) <= _PORT_MAX:
        return _PORTS
    host = host.strip("[]")
    try:
        connection = socket.create_connection((host, int(port)), _PROBE_S)
    except (OSError, UnicodeError) as error:
        return _words_of(error)
    with connection:
        if tls is None:
            return _plaintext_cause(connection)
        return _tls_cause(connection, tls, server_name or host)


def _words_of(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "nothing answers at this address"
    return str(error.strerror or error) if isinstance(error, OSError) else _HOST_AND_PORT


def _plaintext_cause(connection: socket.socket) -> str:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    is_done, error = _handshake(connection, context, None)
    if is_done or "ALERT" in _reason_of(error):
        return "the port uses TLS: give --tls-ca-file, or the address of HEALTH_LISTEN"
    return _NOT_GRPC


def _tls_cause(connection: socket.socket, tls: TlsFiles, host: str) -> str:
    try:
        context = ssl.create_default_context(cafile=os.fspath(tls.ca))
    except (OSError, ValueError):
        return f"--tls-ca-file {pem_fault(tls.ca.read_bytes()) or 'contains no valid PEM certificate'}"
    try:
        if tls.certificate:
            context.load_cert_chain(tls.certificate, tls.key, password="")
    except (OSError, ValueError):
        return "--tls-cert-file and --tls-key-file must contain a certificate and its unencrypted key, PEM"
    is_done, error = _handshake(connection, context, host)
    if error is None:
        return _NOT_GRPC
    if is_done or "ALERT" in _reason_of(error):
        return _REFUSED if tls.certificate else _REQUIRED
    return fault_of(error) or _words_of(error)


def _handshake(
    connection: socket.socket, context: ssl.SSLContext, host: str | None
) -> tuple[bool, OSError | None]:
    """Return whether a TLS handshake was done, and the error of it or of the first byte after it.

    In TLS 1.3 the server refuses a client certificate only after the handshake.
    """
    is_done = False
    context.set_alpn_protocols(["h2"])
    try:
        with context.wrap_socket(connection, server_hostname=host) as secured:
            is_done = True
            return is_done, None if secured.recv(1) else ConnectionResetError()
    except OSError as error:
        return is_done, error


def _reason_of(error: OSError | None) -> str:
    """Return OpenSSL's name of a TLS error, else an empty text."""
    return (error.reason or "") if isinstance(error, ssl.SSLError) else ""
