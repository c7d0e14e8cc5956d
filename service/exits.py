"""Exit statuses, as in sysexits.h."""

from __future__ import annotations

from typing import Final

BAD_ARGUMENTS: Final = 1
"""grpc_health_probe's own, for `health`."""
EX_USAGE: Final = 64
EX_UNAVAILABLE: Final = 69
EX_CANTCREAT: Final = 73
EX_CONFIG: Final = 78
