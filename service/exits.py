"""Exit statuses, as in sysexits.h."""

from __future__ import annotations

from typing import Final

EX_USAGE: Final = 64
EX_UNAVAILABLE: Final = 69
EX_CANTCREAT: Final = 73
EX_CONFIG: Final = 78
