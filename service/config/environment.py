"""The environment of this process and of its children. No other module of the gateway reads it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

PREFIX: Final = "ALIPAYHK_"
METRICS_DIRECTORY: Final = "PROMETHEUS_MULTIPROC_DIR"
"""prometheus_client reads this variable: the directory of the files with the metrics of all workers."""
NOTIFY_SOCKET: Final = "NOTIFY_SOCKET"
"""A service manager sets this variable to the address where it waits for the state of the service."""
_KUBERNETES: Final = re.compile(r".*(_SERVICE_HOST|_SERVICE_PORT.*|_PORT|_PORT_.*)")
"""Kubernetes sets these names in every container for a service named alipayhk-…; they are not settings."""
_OF_THE_CLIENT: Final = frozenset(
    f"{PREFIX}CLIENT_{name}"
    for name in ("TARGET", "CA_FILE", "CERT_FILE", "KEY_FILE", "SERVER_NAME", "SHARED_LEDGER")
)
"""The variables of `alipayhk-client`, which can be set in the same shell; they are not settings."""
_LOOPBACKS: Final = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104
"""The loopback address that reaches a listener on every address."""


def process_environment() -> Mapping[str, str]:
    """Return the environment of this process."""
    return os.environ


def silence_grpc() -> None:
    """Turn off the lines that gRPC's C core writes to standard error, unless GRPC_VERBOSITY is set.

    They are not JSON, can quote what a peer sent, and a peer can cause any number of them. gRPC reads the
    variable when it is imported.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")


def settings_texts(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the settings of an environment by their names in lower case; an empty one counts as absent."""
    ours = {name for name in environ if name.startswith(PREFIX)} - _OF_THE_CLIENT
    names = (name for name in environ if name in ours and not _KUBERNETES.fullmatch(name))
    return {name.removeprefix(PREFIX).lower(): environ[name] for name in names if environ[name]}


def environment_for_children(**values: str) -> dict[str, str]:
    """Return this process's environment with these settings and no other ones."""
    rest = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    return rest | {PREFIX + name: value for name, value in values.items()}


def environment_of_worker(metrics_directory: Path) -> dict[str, str]:
    """Return this process's environment for one of several workers that share their metrics."""
    rest = {name: value for name, value in os.environ.items() if name != NOTIFY_SOCKET}
    return rest | {METRICS_DIRECTORY: str(metrics_directory)}


def notify_socket() -> str | None:
    """Return the address at which a service manager waits for this process's state."""
    return os.environ.get(NOTIFY_SOCKET)


def metrics_directory() -> Path | None:
    """Return the directory of the metrics of all workers; None if this process is the only one."""
    directory = os.environ.get(METRICS_DIRECTORY)
    return Path(directory) if directory else None


def probed_address(texts: Mapping[str, object], default: str) -> str:
    """Return where the gateway with these settings answers health checks, as its own host reaches it."""
    listens = (texts.get(name) for name in ("health_listen", "listen"))
    listen = next((text for text in listens if isinstance(text, str)), default)
    host, _, port = listen.rpartition(":")
    return f"{_LOOPBACKS.get(host, host)}:{port}"
