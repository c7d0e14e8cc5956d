"""TLS of the gRPC listener, with a certificate that can be replaced while the gateway runs."""

from __future__ import annotations

import grpc

from ..credentials.keyring import Keyring, ServerCertificate


def server_credentials(keyring: Keyring) -> grpc.ServerCredentials | None:
    """Return credentials that use the keyring's certificate in every handshake; None without TLS."""
    used = keyring.current.certificate
    if used is None:
        return None

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        # gRPC asks before each handshake, in a thread of its own. None keeps its TLS sessions resumable.
        nonlocal used
        certificate = keyring.current.certificate
        if certificate is None or certificate is used:
            return None
        used = certificate
        return _configuration(certificate)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(used),
        fetch,  # type: ignore[arg-type]  # the stubs leave out the None that gRPC documents
        require_client_authentication=used.client_ca is not None,
    )


def _configuration(certificate: ServerCertificate) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(certificate.key, certificate.chain)], root_certificates=certificate.client_ca
    )
