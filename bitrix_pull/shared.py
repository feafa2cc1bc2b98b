"""What the clients of many portals have together in one process."""

from collections.abc import Callable

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
        announce: Gets the notices of all clients.
    """

    def __init__(self, *, inbox_max_bytes: int, announce: Callable[[Notice], None] | None = None) -> None:
        self.http: HttpPool = HttpPool(many=True)
        self.storage: Storage = Storage(inbox_max_bytes)
        self.announce = announce

    async def close(self) -> None:
        """Close the connections; they are opened anew when needed again."""
        await self.http.close()
