"""TLS of the gRPC listener, with a certificate that can be replaced while the gateway runs."""

from __future__ import annotations

import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import grpc

from ..config.settings import Settings
from ..credentials.in_use import InUse
from ..credentials.server_certificate import ServerCertificate

HANDSHAKE_S: Final = 5.0
"""Time limit of a handshake with ourselves, in seconds. A busy machine that exceeds it proves nothing."""
_LOOPBACK: Final = "127.0.0.1"


def certificate_of(settings: Settings) -> ServerCertificate | None:
    """Return the listener's certificate from the files of the settings; None without TLS."""
    chain, key, client_ca = settings.tls_cert_file, settings.tls_key_file, settings.tls_client_ca_file
    if chain is None or key is None:
        return None
    return ServerCertificate(chain.data, key.data, client_ca.data if client_ca else None)


def server_credentials(in_use: InUse[ServerCertificate | None]) -> grpc.ServerCredentials | None:
    """Return credentials that use the certificate in use in every handshake; None without TLS."""
    used = in_use.current
    if used is None:
        return None

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        # gRPC asks before each handshake, in a thread of its own. None keeps its TLS sessions resumable.
        nonlocal used
        certificate = in_use.current
        if certificate is None or certificate == used:
            return None
        used = certificate
        return _configuration(certificate)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(used),
        fetch,  # type: ignore[arg-type]  # the stubs leave out the None that gRPC documents
        require_client_authentication=used.client_ca is not None,
    )


def start_faults(settings: Settings) -> list[str]:
    """Return the errors that show only when the files of valid settings are used."""
    certificate = certificate_of(settings)
    fault = handshake_fault(certificate) if certificate else None
    return [fault] if fault else []


def handshake_fault(certificate: ServerCertificate) -> str | None:
    """Return why a listener with this certificate could not be reached, as a sentence, or None.

    Make a handshake with ourselves, on a free port of loopback: gRPC's TLS library refuses files that
    Python's accepts, and some of them only when a caller connects.
    """
    if _can_shake_hands(certificate):
        return None
    if certificate.client_ca is not None:
        without_ca = ServerCertificate(certificate.chain, certificate.key, None)
        if _can_shake_hands(without_ca):
            return "TLS_CLIENT_CA_FILE cannot be used by gRPC: it must contain PEM certificates only"
    return (
        "TLS_CERT_FILE and TLS_KEY_FILE cannot be used by gRPC, so that no caller could connect: use a PEM "
        "certificate with an RSA key of at least 2048 bits, or with an ECDSA key on P-256 or P-384"
    )


def _can_shake_hands(certificate: ServerCertificate) -> bool:
    # Without require_client_auth, gRPC reads the client CA too, and does not log our missing certificate.
    credentials = grpc.ssl_server_credentials(
        [(certificate.key, certificate.chain)], root_certificates=certificate.client_ca
    )
    with ThreadPoolExecutor(1) as threads:
        server = grpc.server(threads)
        try:
            port = server.add_secure_port(f"{_LOOPBACK}:0", credentials)
            server.start()
            return _connects(port)
        except RuntimeError:  # gRPC writes the reason to stderr only
            return False
        finally:
            server.stop(None).wait(HANDSHAKE_S)


def _connects(port: int) -> bool:
    """Return whether a handshake succeeds up to the server's certificate, which is not verified."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    try:
        with socket.create_connection((_LOOPBACK, port), HANDSHAKE_S) as plain:
            context.wrap_socket(plain).close()
    except (ssl.SSLError, ConnectionError):
        return False
    except OSError:
        return True
    return True


def _configuration(certificate: ServerCertificate) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(certificate.key, certificate.chain)], root_certificates=certificate.client_ca
    )
