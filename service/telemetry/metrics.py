"""The Prometheus metrics. Labels never contain text from callers or from AlipayHK."""

from __future__ import annotations

import platform
import struct
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from importlib import metadata
from typing import Any, Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
    multiprocess,
)

from .metrics_file import locked, share_metrics

_GRPC: Final = ("grpc_type", "grpc_service", "grpc_method")
_SECONDS: Final = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60)


class Metrics:
    """The metrics of one process."""

    def __init__(self) -> None:
        share_metrics()
        disable_created_metrics()  # type: ignore[no-untyped-call]  # they double the series of every counter
        self.registry = CollectorRegistry()
        self.child: Callable[..., Any] = cache(lambda metric, *labels: metric.labels(*labels))
        """Returns the child of a metric with these labels; `labels` would check them in each call."""
        self.grpc_started = Counter("grpc_server_started", "RPCs started.", _GRPC, registry=self.registry)
        self.grpc_handled = Counter(
            "grpc_server_handled", "RPCs completed, by code.", (*_GRPC, "grpc_code"), registry=self.registry
        )
        self.grpc_seconds = Histogram(
            "grpc_server_handling_seconds",
            "Duration of RPCs in seconds.",
            _GRPC,
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.outcomes = Counter(
            "alipayhk_outcomes",
            "RPCs completed, by the reason and outcome that callers got; reason OK for success.",
            ("api", "reason", "outcome"),
            registry=self.registry,
        )
        self._add_upstream()
        self._add_ledger()
        self._add_process()

    def _add_process(self) -> None:
        self.build_info = Gauge(
            "alipayhk_build_info",
            "Always 1; the labels have the versions of the gateway, of Python and of gRPC.",
            ("version", "commit", "python", "grpcio"),
            multiprocess_mode="livemax",
            registry=self.registry,
        )
        self.workers = Gauge(
            "alipayhk_workers",
            "Processes that serve calls.",
            multiprocess_mode="livesum",
            registry=self.registry,
        )
        self.clock_skew = Gauge(
            "alipayhk_clock_skew_seconds",
            "AlipayHK's clock minus the gateway's, from verified responses; 0 before the first one.",
            multiprocess_mode="livemostrecent",
            registry=self.registry,
        )
        self.config_reload_success = Gauge(
            "alipayhk_config_reload_success",
            "Whether all settings that can change without a restart were valid when they were last read.",
            multiprocess_mode="livemin",
            registry=self.registry,
        )
        self.certificate_expiry = Gauge(
            "alipayhk_certificate_expiry_timestamp_seconds",
            "When the certificates in the file of a setting expire, in seconds since 1970.",
            ("file",),
            multiprocess_mode="livemin",
            registry=self.registry,
        )

    def _add_ledger(self) -> None:
        self.ledger_usable = Gauge(
            "alipayhk_ledger_usable",
            "Whether the ledger is usable; 0 if any worker cannot use it.",
            multiprocess_mode="livemin",
            registry=self.registry,
        )
        self.ledger_log_bytes = Gauge(
            "alipayhk_ledger_log_bytes",
            "Size of the ledger's write-ahead log; it grows without limit while another program reads.",
            multiprocess_mode="livemax",
            registry=self.registry,
        )
        self.ledger_unrecorded = Gauge(
            "alipayhk_ledger_unrecorded",
            "Outcomes that the ledger has not stored yet.",
            multiprocess_mode="livesum",
            registry=self.registry,
        )

        self.ledger_in_doubt = Gauge(
            "alipayhk_ledger_in_doubt",
            "Requests in the ledger whose outcome is unknown; one worker counts them every 15 seconds.",
            ("api",),
            multiprocess_mode="livemostrecent",
            registry=self.registry,
        )
        self.ledger_in_doubt_oldest = Gauge(
            "alipayhk_ledger_in_doubt_oldest_seconds",
            "Time since the oldest of the requests in doubt was claimed first; 0 without one.",
            multiprocess_mode="livemostrecent",
            registry=self.registry,
        )

    def _add_upstream(self) -> None:
        self.requests_in_progress = Gauge(
            "alipayhk_requests_in_progress",
            "Requests that are not finished; those that are not in flight at AlipayHK wait.",
            multiprocess_mode="livesum",
            registry=self.registry,
        )
        self.breaker_open = Gauge(
            "alipayhk_breaker_open",
            "Whether calls are rejected until AlipayHK, or its clock, is right again; 1 if in any worker.",
            ("api",),
            multiprocess_mode="livemax",
            registry=self.registry,
        )
        self.upstream_attempts = Counter(
            "alipayhk_upstream_attempts",
            "Attempts at AlipayHK's APIs, by result.",
            ("api", "end"),
            registry=self.registry,
        )
        self.upstream_seconds = Histogram(
            "alipayhk_upstream_seconds",
            "Duration of attempts at AlipayHK's APIs in seconds.",
            ("api",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.upstream_in_flight = Gauge(
            "alipayhk_upstream_in_flight",
            "Attempts at AlipayHK's APIs in flight.",
            ("api",),
            multiprocess_mode="livesum",
            registry=self.registry,
        )

    def set_build_info(self, *, version: str, commit: str) -> None:
        """Show what runs."""
        labels = (version, commit, platform.python_version(), metadata.version("grpcio"))
        self.build_info.labels(*labels).set(1)

    def set_certificate_expiry(self, times: Mapping[str, float]) -> None:
        """Show when the certificates of settings expire, in seconds since 1970; again after a change."""
        for setting, time_s in times.items():
            self.certificate_expiry.labels(setting).set(time_s)

    def exposed(self, *, shared: bool) -> bytes:
        """Return the metrics in Prometheus' text format; if `shared`, those of all workers.

        If those cannot be read, return those of this process.
        """
        if shared:
            # The directory may be missing, or another program may have written to it.
            with suppress(OSError, ValueError, LookupError, RuntimeError, struct.error):
                together = CollectorRegistry()
                files = multiprocess.MultiProcessCollector(together)  # type: ignore[no-untyped-call]
                with locked(files._path):  # noqa: SLF001  (only it reads where the files are)
                    return generate_latest(together)
        return generate_latest(self.registry)
