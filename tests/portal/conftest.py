"""A portal on loopback that answers what a test tells it to."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest
from aiohttp import web

from bitrix_pull.options import PullOptions

Reply = web.StreamResponse | Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Call:
    """A request as the portal saw it."""

    verb: str
    path: str
    query: dict[str, str]
    body: Any
    headers: dict[str, str]
    peer: object = None


@dataclass
class StubPortal:
    """Answers requests with ``replies`` in turn, the last one over and over."""

    url: str = ""
    calls: list[Call] = field(default_factory=list)
    replies: list[Reply] = field(default_factory=list)

    @property
    def host(self) -> str:
        return self.url.removeprefix("http://")

    @property
    def webhook(self) -> str:
        return f"{self.url}/rest/1/abcdefgh12345678/"

    def reply(self, *replies: Reply) -> None:
        self.replies[:] = replies

    async def handle(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        body = orjson.loads(raw) if raw else None
        peer: object = request.transport and request.transport.get_extra_info("peername")
        self.calls.append(
            Call(request.method, request.path, dict(request.query), body, dict(request.headers), peer)
        )
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        return reply if isinstance(reply, web.StreamResponse) else await reply(request)


def answer(body: Any, status: int = 200, **headers: str) -> Reply:
    """A JSON body, or a text as it is."""

    async def reply(request: web.Request) -> web.Response:
        content = body if isinstance(body, bytes) else body.encode() if isinstance(body, str) else None
        return web.Response(
            status=status,
            # Not by orjson, which writes less deeply nested lists than it reads.
            body=json.dumps(body, separators=(",", ":")).encode() if content is None else content,
            headers={name.replace("_", "-"): value for name, value in headers.items()},
        )

    return reply


def refusal(code: str, status: int = 400, text: str = "Something", **more: Any) -> Reply:
    return answer({"error": code, "error_description": text, **more}, status)


async def hang_up(request: web.Request) -> web.StreamResponse:
    """Close the connection without an answer."""
    assert request.transport is not None
    request.transport.close()
    return web.Response()


OK = answer({"result": True})


@pytest.fixture
async def portal() -> AsyncIterator[StubPortal]:
    stub = StubPortal()
    stub.reply(OK)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", stub.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    stub.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield stub
    await runner.cleanup()


@pytest.fixture
def options() -> PullOptions:
    return PullOptions(rest_timeout_s=5.0, connect_timeout_s=5.0)


# At the end, as these fixtures are made from what stands above.
from .granting import client, grant, token_file  # noqa: E402, F401
