"""Exit statuses of the commands, as in sysexits.h, and the message beside them."""

from __future__ import annotations

import sys
from typing import Final

BAD_ARGUMENTS: Final = 1
"""For `health`, as in grpc_health_probe."""
EX_USAGE: Final = 64
EX_UNAVAILABLE: Final = 69
EX_SOFTWARE: Final = 70
"""A listener stopped unexpectedly; a supervisor must restart the process."""
EX_CANTCREAT: Final = 73
EX_IOERR: Final = 74
"""The output cannot be written, for example on a full disk."""
EX_CONFIG: Final = 78
EX_PIPE: Final = 141
"""The reader of the output closed it: the status that shells give a program that SIGPIPE ended."""


def fail(message: str, status: int) -> int:
    """Print why nothing was done; return the exit status."""
    print(f"alipayhk-gateway: {message}", file=sys.stderr)
    return status
