"""What the clients of many portals have together in one process."""

from collections.abc import Callable

from bitrix_pull.connection.pace import Pace
from bitrix_pull.dispatch.storage import Storage
from bitrix_pull.events import Notice
from bitrix_pull.portal.http_pool import HttpPool


class Shared:
    """One HTTP session with its connections and names, one bound for all inboxes, one ear for notices.

    A client without one has all of these for itself. What a process has but once anyway needs
    no place here: the default TLS context, the limiter of reconnects to each push server, the
    rate limits of each portal, the event loop's executor.

    Whoever makes it closes it, after the clients.

    Args:
        inbox_max_bytes: What all inboxes may hold together; see ``Storage``.
        starts_per_s: How many of the clients connect to a push server in a second when they start.
        announce: Gets the notices of all clients.
    """

    def __init__(
        self,
        *,
        inbox_max_bytes: int,
        starts_per_s: float,
        announce: Callable[[Notice], None] | None = None,
    ) -> None:
        self.http: HttpPool = HttpPool(many=True)
        self.storage: Storage = Storage(inbox_max_bytes)
        self.announce = announce
        self._starts_per_s = starts_per_s
        self._paces: dict[str, Pace] = {}

    async def first_turn(self, server: str) -> None:
        """Wait until one more client may connect to a push server for the first time.

        Those that come back have ``ConnectionLimiter``.
        """
        pace = self._paces.get(server)
        if pace is None:
            pace = self._paces[server] = Pace(self._starts_per_s)
        await pace.turn()

    async def close(self) -> None:
        """Close the connections; they are opened anew when needed again."""
        await self.http.close()
