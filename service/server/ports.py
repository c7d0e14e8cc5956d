"""Check whether an address can be listened on, and describe why not."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from ..config.settings import Settings
from ..config.values import Address

Unusable = OSError | UnicodeError
_CAUSES: Final = {
    errno.EACCES: "no permission to listen on this port",
    errno.EADDRNOTAVAIL: "this is not an address of this machine",
    # asyncio of Python 3.12 and later has no number if it skipped every address of a name for this reason.
    None: "this is not an address of this machine",
}


def try_to_bind(host: str, port: int, resolve: Callable[..., Iterable[Any]] = socket.getaddrinfo) -> None:
    """Bind the address as a listener does, and release it; raise OSError or UnicodeError.

    A name can have an address that this machine lacks, such as ::1 for `localhost`: listeners skip it. They
    are content with one address of several, but callers that try another one first must not reach another
    program: so the port must be free on each of them.
    """
    absent: OSError | None = None
    is_bound = False
    for *_, place in resolve(host, port, type=socket.SOCK_STREAM):
        try:
            _bind(place)
            is_bound = True
        except OSError as error:
            if error.errno in {errno.EADDRINUSE, errno.EACCES}:
                raise OSError(error.errno, error.strerror, str(Address(place[0], port))) from None
            absent = error
            # gRPC listens on 0.0.0.0 in place of :: if the machine has no IPv6.
            is_bound |= error.errno == errno.EAFNOSUPPORT and place[0] == "::"
    if absent and not is_bound:
        raise absent


def _bind(place: tuple[Any, ...]) -> None:
    family = socket.AF_INET6 if ":" in place[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(place)


def cause_of(error: Unusable) -> str:
    """Return why an address cannot be listened on."""
    if isinstance(error, UnicodeError):
        return "this is not a host name"
    if isinstance(error, socket.gaierror):
        return f"the host name cannot be resolved ({error.strerror})"
    if error.errno == errno.EADDRINUSE:
        return f"another program uses {error.filename or 'the port'}"
    # asyncio wraps the operating system's message in one of its own.
    return _CAUSES.get(error.errno) or os.strerror(error.errno or 0)


def address_faults(settings: Settings) -> list[str]:
    """Return a sentence for each listener that cannot start until the settings or the machine change."""
    found = _unusable(settings)
    return [f"{name} cannot be used: {cause_of(error)}" for name, error in found if not _is_in_use(error)]


def is_resolver_silent(settings: Settings) -> bool:
    """Whether all that is wrong is that the resolver gives no answer now: that passes by itself."""
    faults = [error for _, error in _unusable(settings) if not _is_in_use(error)]
    return all(isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN for error in faults)


def ports_in_use(settings: Settings) -> list[str]:
    """Return a sentence for each listener whose port is in use, perhaps by the gateway itself."""
    return [
        f"{name}: {cause_of(error)}, so that serve cannot start: stop it, unless it is this gateway"
        for name, error in _unusable(settings)
        if _is_in_use(error)
    ]


def _is_in_use(error: Unusable) -> bool:
    return isinstance(error, OSError) and error.errno == errno.EADDRINUSE


def _unusable(settings: Settings) -> Iterator[tuple[str, Unusable]]:
    listeners = {
        "LISTEN": settings.listen,
        "ADMIN_LISTEN": settings.admin_listen,
        "HEALTH_LISTEN": settings.health_listen,
    }
    for name, address in listeners.items():
        try:
            if address is not None:
                try_to_bind(address.host, address.port)
        except (OSError, UnicodeError) as error:
            yield name, error
