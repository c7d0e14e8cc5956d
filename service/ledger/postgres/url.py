"""A LEDGER_URL that names a PostgreSQL database."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

SCHEME: Final = "postgresql://"
FORMS: Final = (f"{SCHEME}user:password@host/database",)
_HOST: Final = r"([^][,:@\s]+|\[[0-9A-Fa-f:]+\])(:[0-9]{1,5})?"
_HOSTS: Final = re.compile(rf"([^@\s]*@)?({_HOST}(,{_HOST})*)?")


def where_of(url: str) -> str:
    """Return the hosts and the database of a LEDGER_URL, without user, password and options."""
    parts = urlsplit(url)
    return f"{SCHEME}{parts.netloc.rpartition('@')[2]}{parts.path}"


def check_url(url: str) -> None:
    """Raise ValueError if a LEDGER_URL of this level cannot be read."""
    parts = urlsplit(url)
    if not _HOSTS.fullmatch(parts.netloc) or parts.fragment or not parts.path.strip("/"):
        raise ValueError(f"must be {FORMS[0]}, with host:port,host:port for several hosts")
