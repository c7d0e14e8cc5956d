"""A disk that loses what was not synced, under SQLite: for a power loss.

SQLite calls its files through a table of functions (https://sqlite.org/c3ref/io_methods.html). `watch`
replaces the function that opens a file, and for files below one directory the function that syncs them. So
the disk knows the content that each file had when it was synced last.
"""

from __future__ import annotations

import _sqlite3
import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any, Final

_OPEN: Final[Any] = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_void_p,  # the name: SQLite keeps this pointer
    ctypes.c_void_p,
    ctypes.c_int,
    ctypes.c_void_p,
)
_SYNC: Final[Any] = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int)
_WORD: Final = ctypes.sizeof(ctypes.c_void_p)
_OPEN_AT: Final = 5 * _WORD
"""Offset of xOpen in sqlite3_vfs: after three ints, padding, and three pointers."""
_SYNC_AT: Final = 5 * _WORD
"""Offset of xSync in sqlite3_io_methods: after an int, padding, and four functions."""
_METHODS_WORDS: Final = 19


class Disk:
    """The files below one directory, as they would be after a power loss."""

    def __init__(self) -> None:
        self.directory = ""
        self._synced: dict[str, bytes] = {}
        self._names: dict[int, str] = {}
        self._tables: dict[int, Any] = {}
        self._keep: list[Any] = []

    @contextmanager
    def watch(self) -> Iterator[Disk]:
        """Watch every file that SQLite opens below `directory`."""
        sqlite = ctypes.CDLL(_sqlite3.__file__)
        sqlite.sqlite3_vfs_find.restype = ctypes.c_void_p
        slot = ctypes.c_void_p.from_address(sqlite.sqlite3_vfs_find(None) + _OPEN_AT)
        original = slot.value
        assert original is not None
        open_file = _OPEN(original)

        def watched(vfs: int, pointer: int | None, file: int, flags: int, out: int | None) -> int:
            result = int(open_file(vfs, pointer, file, flags, out))
            name = "" if pointer is None else ctypes.string_at(pointer).decode()
            if result == 0 and self.directory and name.startswith(self.directory):
                self._opened(file, name)
            return result

        replaced = _OPEN(watched)
        slot.value = ctypes.cast(replaced, ctypes.c_void_p).value
        try:
            yield self
        finally:
            slot.value = original

    def start(self, directory: Path) -> None:
        """Watch another directory, whose files are durable as they are."""
        self.directory = f"{directory}/"
        self._synced = {str(path): path.read_bytes() for path in directory.iterdir()}
        self._names.clear()

    def after_power_loss(self, dice: Random) -> dict[str, bytes]:
        """Return the content of each file after a power loss: what was not synced may be there or not."""
        files = {}
        for path in sorted(Path(self.directory).iterdir()):
            name = str(path)
            if name.endswith("-shm"):
                continue
            synced = self._synced.get(name)
            content = path.read_bytes() if dice.random() < 0.5 else synced
            if content is not None:
                files[name] = content
        return files

    def _opened(self, file: int, name: str) -> None:
        """Replace the table of an open file by a copy with our own function for syncing."""
        slot = ctypes.c_void_p.from_address(file)
        table = slot.value
        if table is None:
            return
        self._names[file] = name
        if table in (ctypes.addressof(copy) for copy in self._tables.values()):
            return
        if table not in self._tables:
            self._tables[table] = self._copy_of(table)
        slot.value = ctypes.addressof(self._tables[table])

    def _copy_of(self, table: int) -> Any:
        copy = (ctypes.c_void_p * _METHODS_WORDS)()
        ctypes.memmove(copy, table, ctypes.sizeof(copy))
        original = copy[_SYNC_AT // _WORD]
        assert original is not None
        sync = _SYNC(original)

        def synced(file: int, flags: int) -> int:
            result = int(sync(file, flags))
            name = self._names.get(file)
            if result == 0 and name is not None and name.startswith(self.directory):
                self._synced[name] = Path(name).read_bytes()
            return result

        replaced = _SYNC(synced)
        self._keep.append(replaced)
        copy[_SYNC_AT // _WORD] = ctypes.cast(replaced, ctypes.c_void_p).value
        return copy
