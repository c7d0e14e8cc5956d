"""Open files that settings and flags name, without waiting for one that is not a regular file.

Opening a named pipe without a writer waits forever, and a pipe can be read only once, but the gateway reads
its files again.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO, Final

NOT_REGULAR: Final = "it is a pipe, a socket or a device, and must be a regular file"


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file, or a link to one; raise OSError, or ValueError if no file can have the name."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, NOT_REGULAR, str(path))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: Path) -> bytes:
    """Return the contents of a regular file; raise as `open_regular` does."""
    with open_regular(path) as file:
        return file.read()
