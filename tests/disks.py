"""Small file systems, for tests of full disks."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def small(directory: Path) -> Iterator[Path | None]:
    """Mount a file system of 32 MiB; yield its new directory, or None if nothing can be mounted."""
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(directory)]
    if os.getuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        yield None
        return
    yield directory
    subprocess.run(["umount", "-l", str(directory)], check=True)


def fill(directory: Path, *, but: int = 0) -> Path:
    """Fill the file system of a directory but for so many bytes; return the file to remove."""
    filler, room = directory / "filler", os.statvfs(directory)
    filler.write_bytes(bytes(room.f_bavail * room.f_frsize - but))
    return filler
