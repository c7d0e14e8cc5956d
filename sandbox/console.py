"""The console: received requests, stored data and the next responses, as JSON under /__sandbox/."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web

from clients.alipayhk.wire.strict_json import JsonError, read_object

from .apis import APIS
from .exchange import REQUEST_BYTES_MAX, Exchange
from .faults import table
from .programme import ProgrammeError

PREFIX: Final = "/__sandbox/"
OVERVIEW: Final = """\
A local AlipayHK, for development.

GET  /__sandbox/requests   received requests and their responses, newest last;
                           filters: ?api=SyncLinkage and ?request_id=...
GET  /__sandbox/wallet     linkages, accounts, and effects by request id
GET  /__sandbox/faults     all faults; a suffix on the userId (or openId) makes the response
                           have one: 2160000000000001+HANG
POST /__sandbox/answers    set the faults of the next responses, for one API or for any;
                           "" is a response without a fault:
                           {"answers":[{"fault":"SYSTEM_ERROR"},{"fault":""}],"api":"SyncLinkage"}
POST /__sandbox/reset      delete all stored data and faults
"""
NO_OTHER_PAGE: Final = "the console obeys no web page of another origin"
FILTERS: Final = ("api", "request_id")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_dumps: Final = partial(json.dumps, ensure_ascii=False, indent=2)


class Console:
    """The console of one exchange."""

    def __init__(self, exchange: Exchange, host: str = "") -> None:
        self._exchange = exchange
        self._host = host.lower()
        self._pages = {
            PREFIX: ("GET", self._overview),
            f"{PREFIX}requests": ("GET", self._requests),
            f"{PREFIX}wallet": ("GET", self._wallet),
            f"{PREFIX}faults": ("GET", self._faults),
            f"{PREFIX}answers": ("POST", self._answers),
            f"{PREFIX}reset": ("POST", self._reset),
        }

    def routes(self) -> list[web.RouteDef]:
        """Return the console's routes."""
        return [
            *(web.route(method, path, self._guarded(page)) for path, (method, page) in self._pages.items()),
            web.route("*", "/__sandbox{rest:.*}", self._guarded(self._no_page)),
        ]

    def _guarded(self, page: Handler) -> Handler:
        """Return a page that refuses what a browser sends for a web page of another origin."""

        async def guarded(request: web.Request) -> web.StreamResponse:
            if not _is_own_host(request, self._host):
                fault = "the header Host: use an IP address, localhost, or the host of --listen"
                return _refused([fault], 403)
            if request.method != "GET" and _is_of_another_origin(request):
                return _refused([f"the header Origin: {NO_OTHER_PAGE}"], 403)
            return await page(request)

        return guarded

    async def _no_page(self, request: web.Request) -> web.Response:
        """Reject an unknown path or method under /__sandbox/, so that no API handles it."""
        if request.path not in self._pages:
            return _refused([f"{request.path}: there is no such page; GET {PREFIX} lists the pages"], 404)
        method, _ = self._pages[request.path]
        return _refused([f"{request.method}: this page accepts {method} only"], 405, Allow=method)

    async def _overview(self, _: web.Request) -> web.Response:
        return web.Response(text=OVERVIEW)

    async def _requests(self, request: web.Request) -> web.Response:
        query = request.query
        faults = [f"{name}: not a filter" for name in query if name not in FILTERS]
        faults += [f"{name}: given more than once" for name in FILTERS if len(query.getall(name, [])) > 1]
        if query.get("api", next(iter(APIS))) not in APIS:
            faults.append(f"api: must be {' or '.join(APIS)}")
        if faults:
            return _refused(faults)
        entries = self._exchange.journal.entries(api=query.get("api"), request_id=query.get("request_id"))
        return _json({"requests": entries})

    async def _wallet(self, _: web.Request) -> web.Response:
        return _json(self._exchange.wallet.snapshot())

    async def _faults(self, _: web.Request) -> web.Response:
        return _json({"faults": table()})

    async def _answers(self, request: web.Request) -> web.Response:
        try:
            waiting = self._exchange.programme.add(read_object(await request.read()))
        except web.HTTPRequestEntityTooLarge:
            return _refused([f"the body: more than {REQUEST_BYTES_MAX} bytes"])
        except ProgrammeError as error:
            return _refused(error.faults)
        except JsonError as error:
            return _refused([f"the body: {error}"])
        return _json({"waiting": waiting})

    async def _reset(self, _: web.Request) -> web.Response:
        self._exchange.reset()
        return _json({})


def _is_own_host(request: web.Request, listen_host: str) -> bool:
    """Return whether no foreign domain has led to this listener, as in an attack by DNS rebinding."""
    try:
        host = (urlsplit(f"//{request.headers.get('Host', '')}").hostname or "").rstrip(".")
    except ValueError:
        return False
    is_address = ":" in host or host.replace(".", "").isdigit()
    return is_address or "." not in host or host.endswith(".localhost") or host == listen_host


def _is_of_another_origin(request: web.Request) -> bool:
    """Return whether a browser says that the request is for a web page of another origin."""
    origin, site = request.headers.get("Origin"), request.headers.get("Sec-Fetch-Site", "none")
    own = f"{request.scheme}://{request.headers.get('Host', '')}"
    return origin not in (None, own) or site not in {"none", "same-origin"}


def _json(value: object) -> web.Response:
    return web.json_response(value, dumps=_dumps)


def _refused(faults: list[str], status: int = 400, **headers: str) -> web.Response:
    return web.json_response({"faults": faults}, status=status, headers=headers, dumps=_dumps)
