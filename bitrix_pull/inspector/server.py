"""``Inspector``: the web page, from its address to its files."""

import asyncio
import contextlib
from importlib.resources import files
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlencode

import orjson
from aiohttp import web

from bitrix_pull.client import PullClient
from bitrix_pull.inspector.desk import Desk
from bitrix_pull.inspector.guard import KEY, Guard
from bitrix_pull.inspector.stream import Streams
from bitrix_pull.inspector.watcher import EVENTS_MAX, Watcher

_TYPES: Final = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
_BODY_MAX_BYTES: Final = 2 * 1024 * 1024


class Inspector:
    """Serves a page on loopback that shows what a client receives and how it is doing.

    It listens to everything, beside the client's own handlers, of which it changes nothing. Enter it
    before the client, and leave it after: what it shows begins there. Memory is bounded: the last
    5,000 events of 16 MiB at most, and a quarter of an hour of figures.

    Example:
        async with Inspector(pull) as inspector, pull.serving():
            print(inspector.url)
            await asyncio.Event().wait()

    Args:
        pull: The client.
        port: Where to serve; 0 takes a free one.
    """

    def __init__(self, pull: PullClient, *, port: int = 0) -> None:
        self._pull = pull
        self._port = port
        self._guard = Guard()
        self._stack = contextlib.AsyncExitStack()

    @property
    def url(self) -> str:
        """The page's address, with the key that opens it: whoever has it sees what the client receives."""
        return f"http://127.0.0.1:{self._port}/?{urlencode({KEY: self._guard.key})}"

    async def __aenter__(self) -> Self:
        """Watch the client, and serve the page.

        Raises:
            OSError: The port is taken.
        """
        async with self._stack as stack:
            watcher = Watcher(self._pull)
            streams = Streams(watcher)
            runner = web.AppRunner(
                self._application(watcher, streams),
                handler_cancellation=True,
                access_log=None,
                shutdown_timeout=1.0,
            )
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            site = web.TCPSite(runner, "127.0.0.1", self._port)
            await site.start()
            self._port = runner.addresses[0][1]
            self._guard.begin(self._port)
            tasks = await stack.enter_async_context(asyncio.TaskGroup())
            tasks.create_task(streams.spread_news(), name="bitrix_pull inspector news")
            # Left first: its end is the news that ends all streams.
            await stack.enter_async_context(watcher.watching())
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stack.aclose()

    def _application(self, watcher: Watcher, streams: Streams) -> web.Application:
        app = web.Application(middlewares=[self._guard.middleware], client_max_size=_BODY_MAX_BYTES)
        app.on_response_prepare.append(self._guard.add_headers)
        for name, content in _page_files().items():
            app.router.add_get("/" if name == "index.html" else f"/{name}", _serving(name, content))
        app.router.add_get("/about", self._about)
        app.router.add_get("/stream", streams.serve)
        Desk(self._pull, watcher).add_routes(app)
        return app

    async def _about(self, request: web.Request) -> web.StreamResponse:
        about: dict[str, Any] = {"portal": self._pull.portal, "events_max": EVENTS_MAX}
        return web.Response(body=orjson.dumps(about), content_type="application/json")


def _page_files() -> dict[str, bytes]:
    page = files("bitrix_pull.inspector").joinpath("page")
    return {file.name: file.read_bytes() for file in page.iterdir() if file.name.rpartition(".")[2] in _TYPES}


def _serving(name: str, content: bytes) -> Any:
    async def serve(request: web.Request) -> web.StreamResponse:
        return web.Response(body=content, content_type=_TYPES[name.rpartition(".")[2]], charset="utf-8")

    return serve
