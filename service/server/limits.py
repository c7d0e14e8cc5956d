"""Limits of both listeners as gRPC's channel arguments (grpc/impl/channel_arg_names.h of gRPC Core).

What gRPC cannot be made to limit is in SECURITY.md.
"""

from __future__ import annotations

from typing import Final

from ..telemetry.logs import log
from . import descriptors
from .probe_gate import CONNECTIONS_MAX

REQUEST_BYTES_MAX: Final = 64 * 1024
METADATA_BYTES_MAX: Final = 16 * 1024
"""The size of a call's metadata: names, values and 32 bytes for each pair (RFC 9113, section 6.5.2)."""
HANDSHAKE_MS: Final = 10_000
"""In which a connection must have finished TLS and acknowledged our HTTP/2 settings."""
STREAMS_MAX: Final = 8_000
"""Streams of one connection, reset ones included until this process has accepted them.

Measured on grpcio 1.83.2: beyond this limit gRPC refuses streams with a bare UNAVAILABLE (4,965 of 6,000
calls at once with a limit of 1,000). Without `grpc.http.overload_protection` it does not, but then one
connection that resets its streams fills the queue of all, and the calls of others end with their deadlines.
"""
PENDING_MAX: Final = 2 * STREAMS_MAX
"""Calls that this process has not accepted yet. Beyond it gRPC cancels calls of any connection with a bare
CANCELLED, so one connection must not be able to fill it. Each takes about 25 KiB."""
IDLE_MS: Final = 300_000
"""How long a connection without a call is kept; clients connect again when they have the next one."""
OPERATORS_MAX: Final = 100
"""Connections to ADMIN_LISTEN."""
PROBES_MAX: Final = 3 * CONNECTIONS_MAX
"""Descriptors for HEALTH_LISTEN: the probe's connection, and both ends of the one to gRPC."""

Options = tuple[tuple[str, int], ...]

OF_PROBES: Final[Options] = (
    ("grpc.max_connection_idle_ms", 30_000),
    # A Watch ends with its connection, and the prober sends it again.
    ("grpc.max_connection_age_ms", 45_000),
    ("grpc.max_connection_age_grace_ms", 1_000),
    ("grpc.max_concurrent_streams", 10),
    ("grpc.max_receive_message_length", 1024),
)
"""Probes need little, and strangers get no more."""


def of_both(*, shared: bool) -> Options:
    """Return the options of LISTEN and HEALTH_LISTEN; `shared`: several workers listen on the same port."""
    return (
        # But for workers, a second process on the same port is a mistake, and must fail to start.
        ("grpc.so_reuseport", int(shared)),
        # One limit: between two, gRPC refuses calls at random.
        ("grpc.max_metadata_size", METADATA_BYTES_MAX),
        ("grpc.absolute_max_metadata_size", METADATA_BYTES_MAX),
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS),
        ("grpc.http2.settings_timeout", HANDSHAKE_MS),
    )


def of_callers(max_in_flight: int) -> Options:
    """Return the options of LISTEN; `max_in_flight` connections to AlipayHK keep their descriptors."""
    limit, reserved = descriptors.limit(), max_in_flight + PROBES_MAX + OPERATORS_MAX
    if descriptors.is_low(limit, reserved):
        log.warning("file descriptor limit is low", count=limit)
    return (
        ("grpc.enable_channelz", 1),  # the backlog is read from it
        ("grpc.max_concurrent_streams", STREAMS_MAX),
        ("grpc.server.max_pending_requests", PENDING_MAX),
        ("grpc.server.max_pending_requests_hard_limit", PENDING_MAX),
        ("grpc.max_receive_message_length", REQUEST_BYTES_MAX),
        ("grpc.max_allowed_incoming_connections", descriptors.for_callers(limit, reserved)),
        ("grpc.max_connection_idle_ms", IDLE_MS),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    )
