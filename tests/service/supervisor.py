"""A supervisor of any command, whose workers do not read their settings."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from service.commands.workers import _Supervisor
from service.config.reload import Reload, Reloader
from service.config.settings import Settings


class NoReloads(Reloader):
    """Settings that never change."""

    def __init__(self) -> None:
        settings = cast("Settings", SimpleNamespace(reload_every_s=0.0))
        self.current = Reload(settings, success=True)


def supervisor(command: list[str], metrics_directory: Path, **more: Any) -> _Supervisor:
    """Return a supervisor of workers that run a command."""
    return _Supervisor(NoReloads(), command, metrics_directory, **more)
