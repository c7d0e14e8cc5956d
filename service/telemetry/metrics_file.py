"""The files in which the workers of one gateway share their metrics.

prometheus_client keeps the values of each worker in memory-mapped files that are sparse: if the disk is
full when a page is first written, the system kills the process with SIGBUS, and if the directory was
removed, no new worker can start. Here the space is allocated before a file is mapped. Values that have no
file are kept in memory, and get one as soon as it can be written: a missing file never stops a worker.

The counts of workers that have exited are merged into one file for each kind of metric, so that files do
not pile up. A lock on the directory excludes the workers that read: they would count some twice.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import stat
import struct
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import ClassVar, Final

from prometheus_client import multiprocess, values
from prometheus_client.mmap_dict import MmapedDict

from .logs import log

BYTES: Final = 1 << 13
"""The first size of a file. It is doubled when needed."""
_OVERHEAD_MAX: Final = 32
"""The most bytes that a value takes beside its key."""
_HEADER: Final = struct.pack("ii", 8, 0)
"""How much of a file without values is used, and padding."""


_COUNTED: Final = ("counter", "histogram")
"""The kinds of metrics whose values count after their worker has exited."""


class MetricsFile(MmapedDict):
    """The values of one kind of metric of this process, in a mapped file or only in memory."""

    all: ClassVar[list[MetricsFile]] = []
    """Every instance of this process."""
    is_reported: ClassVar[bool] = False
    """Whether the log has that files cannot be written."""

    def __init__(self, filename: str) -> None:
        """Start without values; an earlier process with this id may have left a file, which is replaced."""
        self.path = filename
        self._capacity = BYTES
        self._used = len(_HEADER)
        self._positions: dict[str, int] = {}
        self._m = mmap.mmap(-1, BYTES)
        self._inode: tuple[int, int] | None = None
        """Device and inode of the mapped file; None if there is none."""
        self._m[: len(_HEADER)] = _HEADER
        self.keep()
        MetricsFile.all.append(self)

    def keep(self) -> bool:
        """Write the values into a new file if the present one is missing; return whether there is one."""
        try:
            if not self._is_in_place():
                self._move(self._capacity)
        except OSError as error:
            if not MetricsFile.is_reported:
                MetricsFile.is_reported = True
                log.warning("metrics not shared with other workers", cause=error.strerror)
            return False
        return True

    def close(self) -> None:
        """Forget the file."""
        with suppress(ValueError):
            MetricsFile.all.remove(self)
        self._m.close()

    def _init_value(self, key: str) -> None:
        capacity = self._capacity
        while self._used + len(key.encode()) + _OVERHEAD_MAX > capacity:
            capacity *= 2
        if capacity > self._capacity:
            try:
                self._move(capacity)
            except OSError:
                self._map(mmap.mmap(-1, capacity), capacity)  # `keep` tries again
        super()._init_value(key)  # type: ignore[no-untyped-call]

    def _is_in_place(self) -> bool:
        """Whether the mapped memory is that of the file at the path."""
        try:
            found = os.stat(self.path)  # noqa: PTH116  (every second)
        except FileNotFoundError:
            return False
        return (found.st_dev, found.st_ino) == self._inode

    def _move(self, capacity: int) -> None:
        """Map a new file with the present values; raise OSError."""
        must_be_private(Path(self.path).parent)
        unfinished = f"{self.path}.new"
        with suppress(FileNotFoundError):
            os.unlink(unfinished)  # noqa: PTH108
        descriptor = os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, capacity)
            memory = mmap.mmap(descriptor, capacity)
            self._map(memory, capacity)
            os.replace(unfinished, self.path)  # noqa: PTH105
            made = os.fstat(descriptor)
            self._inode = (made.st_dev, made.st_ino)
        except OSError:
            with suppress(OSError):
                os.unlink(unfinished)  # noqa: PTH108
            raise
        finally:
            os.close(descriptor)

    def _map(self, memory: mmap.mmap, capacity: int) -> None:
        """Copy the values to other memory, and use that."""
        memory[: self._used] = self._m[: self._used]
        self._m, self._capacity, self._inode = memory, capacity, None


def share_metrics() -> None:
    """Let prometheus_client keep the values of several workers in these files."""
    values.MmapedDict = MetricsFile  # type: ignore[misc,assignment,attr-defined,unused-ignore]


def keep_metrics_shared() -> None:
    """Write the files of this worker that are missing."""
    missing = [file for file in MetricsFile.all if not file.keep()]
    if not missing:
        MetricsFile.is_reported = False


def retire(directory: Path, pid: int) -> None:
    """Merge the files of a worker that has exited; raise OSError.

    BlockingIOError means that a worker reads the files at this moment.
    """
    with locked(directory, fcntl.LOCK_EX | fcntl.LOCK_NB):
        multiprocess.mark_process_dead(pid, str(directory))  # type: ignore[no-untyped-call]
        for kind in _COUNTED:
            _merge(directory / f"{kind}_{pid}.db", directory / f"{kind}_exited.db")


def _merge(source: Path, target: Path) -> None:
    """Add the values in one file to those in another one, and remove the first file."""
    totals = Counter[str]()
    for path in (target, source):
        # A file that another program has changed is left out.
        with suppress(FileNotFoundError, ValueError, RuntimeError, struct.error):
            for key, value, _, _ in MmapedDict.read_all_values_from_file(str(path)):  # type: ignore[no-untyped-call]
                totals[key] += value
    merged = MetricsFile(f"{target}.merged")
    try:
        for key, value in totals.items():
            merged.write_value(key, value, 0.0)  # type: ignore[no-untyped-call]
        if not merged.keep():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), merged.path)
        os.replace(merged.path, target)  # noqa: PTH105
    finally:
        merged.close()
    source.unlink(missing_ok=True)


@contextmanager
def locked(directory: Path, kind: int = fcntl.LOCK_SH) -> Iterator[None]:
    """Hold a lock on a directory, by default one that keeps its files from being merged; raise OSError."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, kind)
        yield
    finally:
        os.close(descriptor)


def temporary_directory() -> Path:
    """Return the directory for temporary files, also if it is full."""
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError:  # no file can be written anywhere
        return Path("/tmp")  # noqa: S108  (the directory in it has a random name)


def must_be_private(directory: Path) -> None:
    """Raise OSError if a directory is missing, or if another user could write to it."""
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise PermissionError(1, "the directory belongs to another user", str(directory))
