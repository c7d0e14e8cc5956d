"""A supervisor of any command, whose workers do not read their settings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Event
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


class HangingReloads(NoReloads):
    """Settings on a disk that hangs."""

    def __init__(self) -> None:
        super().__init__()
        self.current = Reload(cast("Settings", SimpleNamespace(reload_every_s=0.01)), success=True)
        self.looks = 0

    def look(self, use: Callable[[Reload], None], *, asked: bool = False) -> None:
        self.looks += 1
        Event().wait()


def supervisor(
    command: list[str], metrics_directory: Path, *, reloader: Reloader | None = None, **more: Any
) -> _Supervisor:
    """Return a supervisor of workers that run a command."""
    return _Supervisor(reloader or NoReloads(), command, metrics_directory, **more)
