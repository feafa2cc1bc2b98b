"""Serves a page on loopback, to whoever was given its address."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from importlib.resources import files
from types import TracebackType
from typing import Any, Final, Protocol, Self
from urllib.parse import urlencode

import orjson
from aiohttp import web

from bitrix_pull.inspector.guard import KEY, Guard
from bitrix_pull.inspector.stream import Streams
from bitrix_pull.inspector.tape import Tapes

_TYPES: Final = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
_BODY_MAX_BYTES: Final = 2 * 1024 * 1024


class HasRoutes(Protocol):
    """What the page's buttons reach."""

    def add_routes(self, app: web.Application) -> None:
        """Serve its paths."""
        ...


class PageServer:
    """One page with its files, its stream of news and its buttons.

    Args:
        port: Where to serve; 0 takes a free one.
        index: The file that is the page.
        tapes: What its stream brings.
        watching: Fills the tapes, within a context.
        desk: What its buttons reach.
        about: What the page asks for first.
    """

    def __init__(
        self,
        port: int,
        index: str,
        tapes: Tapes,
        watching: Callable[[], AbstractAsyncContextManager[None]],
        desk: HasRoutes,
        about: Mapping[str, Any],
    ) -> None:
        self._port = port
        self._index = index
        self._tapes = tapes
        self._watching = watching
        self._streams = Streams(tapes)
        self._desk = desk
        self._about = orjson.dumps(about)
        self._guard = Guard()
        self._has_begun = False
        self._stack = contextlib.AsyncExitStack()

    @property
    def url(self) -> str:
        """The page's address, with the key that opens it."""
        return f"http://127.0.0.1:{self._port}/?{urlencode({KEY: self._guard.key})}"

    async def __aenter__(self) -> Self:
        """Serve, and watch.

        Raises:
            OSError: The port is taken.
            PullError: What is to be watched cannot be.
            RuntimeError: It has been entered before.
        """
        if self._has_begun:
            raise RuntimeError("an inspector is entered once: create another one")
        async with self._stack as stack:
            runner = web.AppRunner(
                self._application(), handler_cancellation=True, access_log=None, shutdown_timeout=1.0
            )
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            site = web.TCPSite(runner, "127.0.0.1", self._port)
            await site.start()
            self._port = runner.addresses[0][1]
            self._guard.begin(self._port)
            news = asyncio.create_task(self._streams.spread_news(), name="bitrix_pull inspector news")
            stack.push_async_callback(self._end_streams, news)
            await stack.enter_async_context(self._watching())
            self._stack = stack.pop_all()
            self._has_begun = True
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stack.aclose()

    async def _end_streams(self, news: "asyncio.Task[None]") -> None:
        self._tapes.end()
        await news

    def _application(self) -> web.Application:
        app = web.Application(middlewares=[self._guard.middleware], client_max_size=_BODY_MAX_BYTES)
        app.on_response_prepare.append(self._guard.add_headers)
        for name, content in _page_files(self._index).items():
            app.router.add_get("/" if name == self._index else f"/{name}", _serving(name, content))
        app.router.add_get("/about", _serving_json(self._about))
        app.router.add_get("/stream", self._streams.serve)
        self._desk.add_routes(app)
        return app


def _page_files(index: str) -> dict[str, bytes]:
    page = files("bitrix_pull.inspector").joinpath("page")
    kinds = {file.name: file.name.rpartition(".")[2] for file in page.iterdir()}
    return {
        name: page.joinpath(name).read_bytes()
        for name, kind in kinds.items()
        if kind in _TYPES and (kind != "html" or name == index)
    }


def _serving(name: str, content: bytes) -> Any:
    async def serve(request: web.Request) -> web.StreamResponse:
        return web.Response(body=content, content_type=_TYPES[name.rpartition(".")[2]], charset="utf-8")

    return serve


def _serving_json(content: bytes) -> Any:
    async def serve(request: web.Request) -> web.StreamResponse:
        return web.Response(body=content, content_type="application/json")

    return serve
