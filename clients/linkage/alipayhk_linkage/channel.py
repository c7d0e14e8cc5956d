"""How the gateway is reached: TLS, and channel options whose retries are those that it asks for."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Final

import grpc

RETRY_SERVICE_CONFIG: Final = files(__package__).joinpath("retry_service_config.json").read_text("utf-8")
"""gRPC's retry policy for both RPCs, as JSON.

Repeating a request with its id and content is always safe: the gateway knows the id, and answers,
joins, or sends again only what AlipayHK lets it. The trailer `grpc-retry-pushback-ms` of every error
overrides the policy: the wait in milliseconds, or -1 for no other attempt within this call. -1 does not say
that the request must not be sent again later: `LinkageError.retry` does.
"""

Options = tuple[tuple[str, str | int], ...]

ALWAYS: Final[Options] = (
    # The gateway is inside; the proxies of the environment lead outside.
    ("grpc.enable_http_proxy", 0),
    # What callers are told must not depend on a TXT record.
    ("grpc.service_config_disable_resolution", 1),
    # gRPC's own two minutes would keep a caller away long after the gateway is back.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    # By its name another wait; it is how long one connection, with its handshakes, may take to come about.
    # gRPC's own 20 s are longer than a call has; what is too short fails where the gateway is only busy.
    ("grpc.min_reconnect_backoff_ms", 5_000),
    # A connection that was dropped in silence would be used on and on, each call `unknown` by its deadline.
    # The gateway allows pings that are 10 s apart, also without calls.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),  # else gRPC's own 60 s rule
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
)


@dataclass(frozen=True, slots=True)
class Tls:
    """TLS to the gateway; with a certificate and its key, mutual TLS. All of them PEM."""

    ca: bytes | None = None
    """Whom to trust; None for the system's."""
    cert: bytes | None = None
    """This caller's certificate chain."""
    key: bytes | None = None
    """The private key of `cert`."""
    server_name: str | None = None
    """The name in the gateway's certificate, where it is not the target's."""

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            raise ValueError("a client certificate and its key are given together")
        # gRPC takes what is empty for what is not given, and then trusts the system's certificates.
        for pem, label, fault in (
            (self.ca, b"CERTIFICATE-----", "the CA holds no certificate in PEM"),
            (self.cert, b"CERTIFICATE-----", "the client certificate is none in PEM"),
            (self.key, b"PRIVATE KEY-----", "the key of the client certificate is none in PEM"),
        ):
            if pem is not None and label not in pem:
                raise ValueError(fault)

    @classmethod
    def from_files(
        cls,
        ca_file: str | Path | None = None,
        cert_file: str | Path | None = None,
        key_file: str | Path | None = None,
        server_name: str | None = None,
    ) -> Tls:
        """Read PEM files; raise OSError where one cannot be read, ValueError where it is not PEM."""
        ca, cert, key = (
            None if file is None else Path(file).read_bytes() for file in (ca_file, cert_file, key_file)
        )
        return cls(ca, cert, key, server_name)

    def credentials(self) -> grpc.ChannelCredentials:
        """Return them as gRPC takes them."""
        return grpc.ssl_channel_credentials(self.ca, self.key, self.cert)


def channel_options(tls: Tls | None, *, retries: bool, more: Options = ()) -> Options:
    """Return the options of a channel; `more` come last, and win."""
    chosen: dict[str, str | int] = dict(ALWAYS)
    chosen["grpc.enable_retries"] = int(retries)
    if retries:
        chosen["grpc.service_config"] = RETRY_SERVICE_CONFIG
    if tls is not None and tls.server_name:
        chosen["grpc.ssl_target_name_override"] = tls.server_name
    return tuple((chosen | dict(more)).items())
