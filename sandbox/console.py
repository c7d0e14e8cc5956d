"""The console: received requests, stored data and the next responses, as JSON under /__sandbox/."""

from __future__ import annotations

import json
from functools import partial
from typing import Final

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
FILTERS: Final = ("api", "request_id")

_dumps: Final = partial(json.dumps, ensure_ascii=False, indent=2)


class Console:
    """The console of one exchange."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
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
            *(web.route(method, path, handler) for path, (method, handler) in self._pages.items()),
            web.route("*", "/__sandbox{rest:.*}", self._no_page),
        ]

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


def _json(value: object) -> web.Response:
    return web.json_response(value, dumps=_dumps)


def _refused(faults: list[str], status: int = 400, **headers: str) -> web.Response:
    return web.json_response({"faults": faults}, status=status, headers=headers, dumps=_dumps)
