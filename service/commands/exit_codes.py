"""Exit statuses of the commands, as in sysexits.h."""

from __future__ import annotations

from typing import Final

BAD_ARGUMENTS: Final = 1
"""grpc_health_probe's own, for `health`."""
EX_USAGE: Final = 64
EX_UNAVAILABLE: Final = 69
EX_SOFTWARE: Final = 70
"""A listener stopped by itself; a supervisor must start the process again."""
EX_CANTCREAT: Final = 73
EX_CONFIG: Final = 78
