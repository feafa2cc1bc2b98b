"""Answers to /live and /ready, for the probes of Kubernetes and the like: ready to be taken over.

    app.add_middleware(Probes, pull=pull)    FastAPI, Starlette
    application = Probes(application, pull)  any other ASGI application, or None for one without pages
    app.add_routes(probe_routes(pull))       aiohttp

/live answers 503 when only starting the client again can help, /ready when what is sent now
does not reach a handler soon. The body tells why; an outage of the portal is no reason to be killed.
"""

import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from aiohttp import web

from bitrix_pull import PullClient

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

PATHS = ("/live", "/ready")


def probe(pull: PullClient, path: str) -> tuple[int, bytes]:
    """Return the status and the JSON body of an answer."""
    health = pull.health()
    is_well = health.alive if path == "/live" else health.ready
    told = {
        "portal": health.portal,
        "state": health.state,
        "since": health.since.isoformat(),
        "last_error": health.last_error,
        "lag_s": round(health.lag_s, 3),
        "oldest": health.oldest and f"{health.oldest.event}, with {health.oldest.handler}",
    }
    return 200 if is_well else 503, json.dumps(told).encode()


class Probes:
    """Answers probes, and hands on to an ASGI application what is none."""

    def __init__(self, app: Application | None, pull: PullClient) -> None:
        self._app = app
        self._pull = pull

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or whatever else the server asks of an application."""
        if scope["type"] == "http" and scope["path"] in PATHS:
            status, body = probe(self._pull, scope["path"])
            headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": body})
        elif self._app is not None:
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await send({"type": "http.response.start", "status": 404, "headers": []})
            await send({"type": "http.response.body", "body": b""})
        else:
            raise NotImplementedError(f"no application serves {scope['type']}")


def probe_routes(pull: PullClient) -> Iterable[web.RouteDef]:
    """Return the routes for an aiohttp application."""

    async def answer(request: web.Request) -> web.Response:
        status, body = probe(pull, request.path)
        return web.Response(status=status, body=body, content_type="application/json")

    return [web.get(path, answer) for path in PATHS]
