"""TLS and gRPC channel options for a connection to the gateway, with the retry policy for its RPCs."""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Final

import grpc


def _service_config(name: str) -> str:
    return files(__package__).joinpath(f"{name}.json").read_text("utf-8")


RETRY_SERVICE_CONFIG: Final = _service_config("retry_service_config")
"""gRPC's retry policy for both RPCs, as JSON.

Repeating a request with the same id and content is always safe. The gateway recognises the id: it returns
the recorded result, joins the request in progress, or sends again only where AlipayHK allows it. The
trailer `grpc-retry-pushback-ms` of every error overrides the policy: it is the wait in milliseconds, or -1
for no further attempt within this call. -1 does not forbid sending the request again later; see
`LinkageError.retry`.
"""
SHARED_LEDGER_SERVICE_CONFIG: Final = _service_config("retry_service_config.shared_ledger")
"""The same policy, and calls take turns over all addresses of the gateway's name."""

_BEGIN: Final = re.compile(rb"-----BEGIN ")
_END: Final = re.compile(rb"-----END [^\r\n-]+-----")

Options = tuple[tuple[str, str | int], ...]

ALWAYS: Final[Options] = (
    # The gateway is in the internal network. The proxies in the environment lead out of it.
    ("grpc.enable_http_proxy", 0),
    # A DNS TXT record must not change the retry policy.
    ("grpc.service_config_disable_resolution", 1),
    # gRPC's default maximum of 2 minutes delays callers long after the gateway has recovered.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    # Despite its name, this is the timeout of one connection attempt, handshakes included. gRPC's default
    # of 20 s is longer than a call's deadline. A much shorter timeout fails while the gateway is only busy.
    ("grpc.min_reconnect_backoff_ms", 5_000),
    # Pings detect a connection that a firewall dropped silently. Otherwise it stays in use, and every call
    # ends at its deadline with the outcome `unknown`. The gateway allows a ping every 10 s, also without
    # calls.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),  # otherwise gRPC's default of 60 s applies
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
)


@dataclass(frozen=True, slots=True)
class Tls:
    """TLS to the gateway, or mutual TLS if `cert` and `key` are given. All values are PEM."""

    ca: bytes | None = None
    """The certificates to trust; None for those of the system."""
    cert: bytes | None = None
    """This caller's certificate chain."""
    key: bytes | None = None
    """The private key of `cert`."""
    server_name: str | None = None
    """The name in the gateway's certificate, if it differs from the host in the target."""

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            raise ValueError("the client certificate and its key must be given together")
        # gRPC treats empty bytes like None, and then trusts the system's certificates.
        for pem, name, kind in (
            (self.ca, "the CA", "certificate"),
            (self.cert, "the client certificate", "certificate"),
            (self.key, "the key of the client certificate", "private key"),
        ):
            if pem is not None and f"{kind.upper()}-----".encode() not in pem:
                raise ValueError(f"{name} contains no PEM {kind}")
            if pem is not None and len(_BEGIN.findall(pem)) != len(_END.findall(pem)):
                raise ValueError(f"{name} is incomplete or was cut off: a BEGIN line has no END line")

    @classmethod
    def from_files(
        cls,
        ca_file: str | Path | None = None,
        cert_file: str | Path | None = None,
        key_file: str | Path | None = None,
        server_name: str | None = None,
    ) -> Tls:
        """Read PEM files; raise OSError if one cannot be read, ValueError if one is not PEM."""
        ca, cert, key = (
            None if file is None else read_pem(file) for file in (ca_file, cert_file, key_file)
        )
        return cls(ca, cert, key, server_name)

    def credentials(self) -> grpc.ChannelCredentials:
        """Return gRPC's channel credentials."""
        return grpc.ssl_channel_credentials(self.ca, self.key, self.cert)


def read_pem(file: str | Path) -> bytes:
    """Return the contents of a regular file; raise OSError. A read of a named pipe could wait forever."""
    path = Path(file)
    if path.exists() and not (path.is_file() or path.is_dir()):
        why = "it is a pipe, a socket or a device, and must be a regular file"
        raise OSError(errno.EINVAL, why, str(file))
    return path.read_bytes()


def channel_options(
    tls: Tls | None, *, retries: bool, shared_ledger: bool = False, more: Options = ()
) -> Options:
    """Return the options of a channel. An option in `more` overrides the default."""
    chosen: dict[str, str | int] = dict(ALWAYS)
    chosen["grpc.enable_retries"] = int(retries)  # without it gRPC ignores the policy
    chosen["grpc.service_config"] = SHARED_LEDGER_SERVICE_CONFIG if shared_ledger else RETRY_SERVICE_CONFIG
    if tls is not None and tls.server_name:
        chosen["grpc.ssl_target_name_override"] = tls.server_name
    return tuple((chosen | dict(more)).items())
