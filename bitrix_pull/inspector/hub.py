"""``HubInspector``: the web page beside hubs, by the engine that they meet at."""

from types import TracebackType
from typing import Self

from bitrix_pull.errors import InvalidArgument
from bitrix_pull.hub.valkey import Engine
from bitrix_pull.inspector.hub_desk import HubDesk
from bitrix_pull.inspector.hub_watcher import HubWatcher
from bitrix_pull.inspector.page_server import PageServer
from bitrix_pull.inspector.tape import EVENTS_MAX


class HubInspector:
    """Serves a page on loopback that shows what many portals send, and who serves them.

    It is another program than the hubs, and reads what they write to Valkey or Redis: the log of
    events (of hubs with a ``ValkeyStream``), workers, portals, and how far the groups that read the
    log are behind. It changes nothing there and moves no group's position; what the page publishes,
    it asks the hubs for. An engine that is away is waited for. Memory is bounded as that of
    ``Inspector``.

    Example:
        async with HubInspector("redis://…") as inspector:
            print(inspector.url)
            await asyncio.Event().wait()

    Args:
        engine: Its address (see ``bitrix_pull.hub.valkey.Engine``).
        name: What cluster and log are called there.
        shards: How many the log has.
        port: Where to serve; 0 takes a free one.

    Raises:
        InvalidArgument: An argument cannot work.
    """

    def __init__(self, engine: str, *, name: str = "bitrix-pull", shards: int = 1, port: int = 0) -> None:
        if shards < 1:
            raise InvalidArgument("shards must be 1 or more")
        self._engine = Engine(engine, timeout_s=5.0)
        self._watcher = watcher = HubWatcher(self._engine, name, shards)
        about = {"hub": name, "engine": self._engine.name, "events_max": EVENTS_MAX}
        desk = HubDesk(self._engine, name, shards, watcher)
        self._server = PageServer(port, "hub.html", watcher.tapes, watcher.watching, desk, about)

    @property
    def url(self) -> str:
        """The page's address, with the key that opens it: whoever has it sees what all portals send."""
        return self._server.url

    @property
    def received(self) -> int:
        """How many events have come into the log, without those that it began with."""
        return self._watcher.received

    async def __aenter__(self) -> Self:
        """Watch, and serve the page.

        Raises:
            OSError: The port is taken.
            RuntimeError: It has been entered before.
            InvalidArgument: The engine cannot be used.
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
