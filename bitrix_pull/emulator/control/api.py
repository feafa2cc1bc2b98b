"""The control API over HTTP."""

import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import orjson
from aiohttp import web
from pydantic import ValidationError

from bitrix_pull.emulator.answers import CORS
from bitrix_pull.emulator.clock import AdjustableClock
from bitrix_pull.emulator.control.openapi import describe_api
from bitrix_pull.emulator.control.operations import OPERATIONS, Call, Operation
from bitrix_pull.emulator.control.page import write_page
from bitrix_pull.emulator.orders import described
from bitrix_pull.emulator.server import Emulator

_ALLOWED = {
    "Access-Control-Allow-Methods": "GET, POST, PATCH, DELETE, OPTIONS",
    "Access-Control-Allow-Headers": "content-type",
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class ControlApi:
    """Drives some portals.

    Args:
        emulators: The portals, which the query numbers from 0 on.
        clock: Their clock.
        authority: In PEM, who has signed the certificate that they are served with; "" for none.
    """

    def __init__(self, emulators: Sequence[Emulator], clock: AdjustableClock, authority: str = "") -> None:
        self._emulators = emulators
        self._clock = clock
        self._authority = authority

    def add_routes(self, app: web.Application) -> None:
        """Serve its paths in an application."""
        app.router.add_get("/", self._page)
        app.router.add_get("/openapi.json", self._openapi)
        app.router.add_get("/ca.pem", self._ca)
        app.router.add_get("/portals", self._portals)
        for operation in OPERATIONS:
            app.router.add_route(operation.verb, operation.path, self._handler(operation))
        app.router.add_route("OPTIONS", "/{path:.*}", self._preflight)

    def _handler(self, operation: Operation) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            number = request.match_info.get("id", "0")
            portal = number if operation.path == "/portals/{id}" else request.query.get("portal", "0")
            if not (portal.isdigit() and int(portal) < len(self._emulators)):
                return _answer({"error": f"there is no portal {portal[:20]}"}, 404)
            try:
                body = await request.read()
                order = operation.order and operation.order.model_validate_json(body or b"{}")
                query = {name: request.query.getall(name) for name in request.query}
                item = int(number) if number.isdigit() else 0
                call = Call(self._emulators[int(portal)], self._clock, order, item, query)
                result = operation.answers(call)
                return _answer(await result if inspect.isawaitable(result) else result)
            except ValidationError as error:
                told = error.errors(include_url=False, include_input=False, include_context=False)
                problems = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in told]
                return _answer({"error": "; ".join(problems)}, 422)
            except KeyError:
                return _answer({"error": f"there is no record {number[:20]}"}, 404)

        return handle

    async def _page(self, request: web.Request) -> web.StreamResponse:
        page = write_page(str(request.url.origin()), self._emulators)
        return web.Response(text=page, content_type="text/html")

    async def _openapi(self, request: web.Request) -> web.StreamResponse:
        return _answer(describe_api(str(request.url.origin())))

    async def _ca(self, request: web.Request) -> web.StreamResponse:
        status = 200 if self._authority else 404
        return web.Response(text=self._authority, status=status, content_type="application/x-pem-file")

    async def _portals(self, request: web.Request) -> web.StreamResponse:
        return _answer([described(emulator) for emulator in self._emulators])

    async def _preflight(self, request: web.Request) -> web.StreamResponse:
        return web.Response(headers={**CORS, **_ALLOWED})


def _answer(value: Any, status: int = 200) -> web.Response:
    body = orjson.dumps(value, default=str)
    return web.Response(body=body, status=status, content_type="application/json", headers=CORS)
