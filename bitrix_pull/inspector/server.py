"""``Inspector``: the web page of one client."""

from types import TracebackType
from typing import Self

from bitrix_pull.client import PullClient
from bitrix_pull.inspector.desk import Desk
from bitrix_pull.inspector.page_server import PageServer
from bitrix_pull.inspector.tape import EVENTS_MAX
from bitrix_pull.inspector.watcher import Watcher


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
        watcher = Watcher(pull)
        about = {"portal": pull.portal, "events_max": EVENTS_MAX}
        desk = Desk(pull, watcher.tapes)
        self._server = PageServer(port, "index.html", watcher.tapes, watcher.watching, desk, about)

    @property
    def url(self) -> str:
        """The page's address, with the key that opens it: whoever has it sees what the client receives."""
        return self._server.url

    async def __aenter__(self) -> Self:
        """Watch the client, and serve the page.

        Raises:
            OSError: The port is taken.
            RuntimeError: It has been entered before.
        """
        await self._server.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._server.__aexit__(exc_type, exc, traceback)
