"""A LEDGER_URL that names a PostgreSQL database."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import parse_qs, urlsplit

SCHEME: Final = "postgresql://"
FORMS: Final = (f"{SCHEME}user:password@host/database",)
OPTION: Final = "prepared_statements"
"""An option that the driver does not know."""
PREPARED: Final = f"{OPTION}=true"
UNPREPARED: Final = f"{OPTION}=false"
"""For PgBouncer in transaction mode, which can execute the next statement in another session."""
_HOST: Final = r"([^][,:@\s]+|\[[0-9A-Fa-f:]+\])(:[0-9]{1,5})?"
_HOSTS: Final = re.compile(rf"([^@\s]*@)?({_HOST}(,{_HOST})*)?")


def where_of(url: str) -> str:
    """Return the hosts and the database of a LEDGER_URL, without user, password and options."""
    parts = urlsplit(url)
    return f"{SCHEME}{parts.netloc.rpartition('@')[2]}{parts.path}"


def each_host(url: str) -> list[str]:
    """Return one URL for each host of a LEDGER_URL."""
    parts = urlsplit(url)
    user, at, hosts = parts.netloc.rpartition("@")
    if "," not in hosts:
        return [url]
    return [parts._replace(netloc=f"{user}{at}{host}").geturl() for host in hosts.split(",")]


def check_url(url: str) -> None:
    """Raise ValueError if a LEDGER_URL of this level cannot be read."""
    if not _is_readable(url):
        raise ValueError(
            f"must be {FORMS[0]}, with host:port,host:port for several hosts and ?name=value&name=value "
            "for options; in user and password @ : / ? # % must be written as %40 %3A %2F %3F %23 %25"
        )
    if not set(_own_options(urlsplit(url).query)) <= {PREPARED, UNPREPARED}:
        raise ValueError(f"{OPTION} must be true or false")


def _is_readable(url: str) -> bool:
    try:
        parts = urlsplit(url)
        parse_qs(parts.query, strict_parsing=bool(parts.query))
    except ValueError:  # its text can contain the password
        return False
    # An "@" after the hosts is part of a password with a "/".
    has_database = parts.path.strip("/") and "@" not in parts.path and not parts.fragment
    return bool(has_database and _HOSTS.fullmatch(parts.netloc))


def prepares_statements(url: str) -> bool:
    """Return whether connections may use prepared statements and LISTEN."""
    return UNPREPARED not in _own_options(urlsplit(url).query)


def for_driver(url: str) -> str:
    """Return a URL without the option that the driver does not know."""
    start, _, query = url.partition("?")
    own = _own_options(query)
    options = "&".join(option for option in query.split("&") if option not in own)
    return f"{start}?{options}" if options else start


def _own_options(query: str) -> list[str]:
    return [option for option in query.split("&") if option.partition("=")[0] == OPTION]
