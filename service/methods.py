"""The methods of LinkageService."""

from __future__ import annotations

from typing import Final

METHODS: Final = ("SyncLinkage", "BindAccount")
