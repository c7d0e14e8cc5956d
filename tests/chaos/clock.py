"""The wall clock of the gateways' host. A run can set it forward or back while they run.

A small library is compiled and preloaded into the gateways. It is not enough to replace Python's functions:
gRPC's core reads the clock directly, and a deadline that it computes is compared with Python's time.
"""

from __future__ import annotations

import math
import mmap
import shutil
import struct
import subprocess
import time
from pathlib import Path
from typing import Final

SOURCE: Final = Path(__file__).with_name("moved_clock.c")
OFFSET: Final = struct.Struct("<q")
"""Milliseconds that the wall clock is ahead of the true time."""


class NoCompiler(RuntimeError):
    """The clock cannot be moved without a C compiler."""


class Clock:
    """A wall clock that shows the true time until it is moved."""

    def __init__(self, directory: Path) -> None:
        self.moved_at = -math.inf
        """The monotonic time of its last jump."""
        self._directory = directory
        self._file = directory / "clock"
        self._file.write_bytes(OFFSET.pack(0))
        with self._file.open("r+b") as stream:
            self._memory = mmap.mmap(stream.fileno(), OFFSET.size)

    def environment(self) -> dict[str, str]:
        """Compile the library; return the variables that give this clock to a process and its children."""
        compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
        if compiler is None:
            raise NoCompiler("the fault clock needs a C compiler: install one, or leave it out of --faults")
        library = self._directory / "moved_clock.so"
        command = (compiler, "-O2", "-shared", "-fPIC", "-o", library, SOURCE, "-ldl")
        subprocess.run(command, check=True)
        return {"LD_PRELOAD": str(library), "CHAOS_CLOCK_FILE": str(self._file)}

    @property
    def offset_s(self) -> float:
        """How far the clock is ahead, in seconds."""
        return float(OFFSET.unpack_from(self._memory)[0]) / 1000

    def move(self, offset_s: float) -> None:
        """Set the clock `offset_s` ahead of the true time; a negative offset sets it back."""
        if offset_s != self.offset_s:
            self.moved_at = time.monotonic()
        OFFSET.pack_into(self._memory, 0, round(offset_s * 1000))

    def now_ms(self) -> int:
        """Return the time that the gateways' host reads."""
        return round((time.time() + self.offset_s) * 1000)
