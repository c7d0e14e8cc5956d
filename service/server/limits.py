"""Limits of both gRPC listeners, as channel arguments (grpc/impl/channel_arg_names.h of gRPC Core).

SECURITY.md lists what gRPC cannot limit.
"""

from __future__ import annotations

from typing import Final

from ..config.settings import Settings
from ..telemetry.logs import log
from . import descriptors
from .probe_gate import CONNECTIONS_MAX

REQUEST_BYTES_MAX: Final = 64 * 1024
METADATA_BYTES_MAX: Final = 16 * 1024
"""Size of a call's metadata: names, values, and 32 bytes for each pair (RFC 9113, section 6.5.2)."""
HANDSHAKE_MS: Final = 10_000
"""Time limit for a connection to complete TLS and to acknowledge our HTTP/2 settings."""
STREAMS_MAX: Final = 8_000
"""Maximum number of streams of one connection; a reset stream counts until this process has accepted it.

Beyond it, gRPC refuses streams with UNAVAILABLE and no details (measured on grpcio 1.83.2: 4,965 of 6,000
simultaneous calls with a limit of 1,000). Without `grpc.http.overload_protection` gRPC does not refuse
them, but then one connection that resets its streams fills the shared queue, and other calls exceed their
deadlines.
"""
PENDING_MAX: Final = 2 * STREAMS_MAX
"""Maximum number of calls that wait to be accepted. Beyond it, gRPC cancels calls of any connection with
CANCELLED and no details, so it must be more than one connection can fill. Each call takes about 25 KiB."""
AGE_GRACE_S: Final = 1.0
"""Added to DEADLINE_MAX_S: a call can arrive until the client has received the notice of the age."""
IDLE_MS: Final = 300_000
"""Time after which a connection without a call is closed; clients reconnect for the next call."""
OPERATORS_MAX: Final = 100
"""Maximum number of connections to ADMIN_LISTEN."""
PROBES_MAX: Final = 3 * CONNECTIONS_MAX
"""Descriptors for HEALTH_LISTEN: three for each probe, its connection and both ends of the one to gRPC."""

Options = tuple[tuple[str, int], ...]

OF_PROBES: Final[Options] = (
    ("grpc.max_connection_idle_ms", 30_000),
    # A Watch is closed with its connection, and the prober sends it again.
    ("grpc.max_connection_age_ms", 45_000),
    ("grpc.max_connection_age_grace_ms", 1_000),
    ("grpc.max_concurrent_streams", 10),
    ("grpc.max_receive_message_length", 1024),
)
"""Limits of HEALTH_LISTEN, which anyone can reach; probes need no more."""


def of_both(*, shared: bool) -> Options:
    """Return the options of LISTEN and HEALTH_LISTEN; `shared` if several workers share the port."""
    return (
        # Except for workers, a second process on the same port is a mistake and must fail to start.
        ("grpc.so_reuseport", int(shared)),
        # Both limits are equal, because between them gRPC refuses calls at random.
        ("grpc.max_metadata_size", METADATA_BYTES_MAX),
        ("grpc.absolute_max_metadata_size", METADATA_BYTES_MAX),
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS),
        ("grpc.http2.settings_timeout", HANDSHAKE_MS),
    )


def of_callers(settings: Settings) -> Options:
    """Return the options of LISTEN; reserve descriptors for AlipayHK, probes and operators."""
    limit, reserved = descriptors.limit(), settings.max_in_flight + PROBES_MAX + OPERATORS_MAX
    if descriptors.is_low(limit, reserved):
        log.warning("low file descriptor limit", count=limit)
    return (
        ("grpc.enable_channelz", 1),  # `backlog` queries it
        # The trace doubles what a query of channelz returns and leaks (docs/upstream-bugs.md).
        ("grpc.max_channel_trace_event_memory_per_node", 0),
        ("grpc.max_concurrent_streams", STREAMS_MAX),
        ("grpc.server.max_pending_requests", PENDING_MAX),
        ("grpc.server.max_pending_requests_hard_limit", PENDING_MAX),
        ("grpc.max_receive_message_length", REQUEST_BYTES_MAX),
        ("grpc.max_allowed_incoming_connections", descriptors.for_callers(limit, reserved)),
        ("grpc.max_connection_idle_ms", IDLE_MS),
        *_age(settings),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    )


def _age(settings: Settings) -> Options:
    """Return the options that make callers reconnect, and spread over all hosts again.

    At this age, plus or minus up to 10 % (gRPC adds the jitter), a connection accepts no further calls, and
    its client makes a new one. It is closed when its last call ends. gRPC's default grace is unlimited: a
    Health/Watch would keep the connection for ever. No other call lasts longer than DEADLINE_MAX_S.
    """
    if not settings.max_connection_age_s:
        return ()
    return (
        ("grpc.max_connection_age_ms", round(settings.max_connection_age_s * 1000)),
        ("grpc.max_connection_age_grace_ms", round((settings.deadline_max_s + AGE_GRACE_S) * 1000)),
    )
