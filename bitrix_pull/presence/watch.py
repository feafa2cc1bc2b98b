"""Watching users come and go."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import MappingProxyType
from typing import Any, Final, Self, cast

from bitrix_pull.errors import NotRunning, PullError
from bitrix_pull.events import PullEvent
from bitrix_pull.flag import Flag
from bitrix_pull.presence.lookup import PresenceLookup
from bitrix_pull.presence.status import PresenceChanged
from bitrix_pull.redaction import get_logger
from bitrix_pull.wire.messages import is_object

logger: Final = get_logger("presence")

CHANGE_MODULE, CHANGE_COMMAND = "online", "userStatusChange"
"""The event by which version 5 tells that a user has come or gone."""

RETRY_S = 5.0
"""How long after a failure the server is asked again, if it is over the same connection."""

_FAREWELL_S = 1.0
"""How long the server may take to hear that a watch has ended, which its connection would tell too."""

Events = AbstractAsyncContextManager[AsyncIterator[PullEvent[Any]]]
Spawn = Callable[[Coroutine[Any, Any, None], str], "asyncio.Task[None]"]


class PresenceWatch:
    """The presence of some users, kept up to date; iterate over it to hear of changes.

    A consumer that is behind gets the latest state of each user, not every change before.
    """

    def __init__(
        self,
        users: Sequence[int],
        lookup: PresenceLookup,
        *,
        interval_s: float,
    ) -> None:
        """Create a watch; ``watch_presence`` lets it follow what happens."""
        self._users = users
        self._lookup = lookup
        self._interval_s = interval_s
        self._online: dict[int, bool] = {}
        self._told: dict[int, bool] = {}
        # Users whose state is another than what was told, in the order of the changes.
        self._moved: dict[int, None] = {}
        self._news = Flag()
        self._stream: object | None = None
        self._subscribed_to: object | None = None
        self._end: Exception | None = None

    @property
    def online(self) -> Mapping[int, bool]:
        """Whether each of the users is online, as far as is known now."""
        return MappingProxyType(self._online)

    def __aiter__(self) -> Self:
        """Return itself."""
        return self

    async def __anext__(self) -> PresenceChanged:
        """Wait for the next change.

        Raises:
            StopAsyncIteration: The client was closed.
            PullError: The client failed for good, or it cannot be told any more who is
                online; the error says why.
        """
        while not self._moved:
            if self._end is not None:
                raise self._end
            self._news.clear()
            await self._news.wait()
        user = next(iter(self._moved))
        del self._moved[user]
        online = self._told[user] = self._online[user]
        return PresenceChanged(user, online)

    async def look(self) -> None:
        """Ask for everybody's state, and to be told of changes where the server does that."""
        stream = self._stream = self._lookup.server.stream
        if self._subscribed_to is not stream and await self._lookup.tells_changes():
            await self._lookup.subscribe(self._users)
            self._subscribed_to = stream
        for user, presence in (await self._lookup.of_users(self._users)).items():
            self._note(user, online=presence.online)

    async def follow(self, events: AsyncIterator[PullEvent[Any]]) -> None:
        """Keep the state up to date until cancelled or until the client is closed."""
        async with asyncio.TaskGroup() as both:
            both.create_task(self._listen(events))
            both.create_task(self._compare())

    def finish(self, following: "asyncio.Task[None]") -> None:
        """End the iteration once ``follow`` has ended, for the same reason."""
        error = None if following.cancelled() else following.exception()
        self._end = _cause(error) or StopAsyncIteration()
        self._news.set()

    async def _listen(self, events: AsyncIterator[PullEvent[Any]]) -> None:
        async for event in events:
            # What comes from another client, or late, says nothing about now.
            if event.kind == "online" and not (event.replayed or event.healed) and is_object(event.params):
                user, online = event.params.get("user_id"), event.params.get("online")
                if type(user) is int and type(online) is bool and user in self._online:
                    self._note(user, online=online)

    async def _compare(self) -> None:
        """Look again after each reconnect, in which events may have been missed, and now and then."""
        wait_s = self._interval_s
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._lookup.server.live_by_another(self._stream)
            try:
                await self.look()
            except NotRunning:
                return  # The client is being closed.
            except PullError as error:
                if not error.retryable:
                    raise
                logger.info("who is online is not known just now: %s", error)
                wait_s = min(RETRY_S, self._interval_s)
            else:
                wait_s = self._interval_s

    def _note(self, user: int, *, online: bool) -> None:
        self._online[user] = online
        if online == self._told.setdefault(user, online):
            self._moved.pop(user, None)
        else:
            self._moved[user] = None
            self._news.set()


def _cause(error: BaseException | None) -> Exception | None:
    """Return the failure that ended a task group."""
    if isinstance(error, BaseExceptionGroup):
        return _cause(cast("BaseExceptionGroup[BaseException]", error).exceptions[0])
    return error if isinstance(error, Exception) else None


@asynccontextmanager
async def watch_presence(
    users: Sequence[int],
    current_lookup: Callable[[], PresenceLookup],
    *,
    events: Events,
    spawn: Spawn,
    interval_s: float,
) -> AsyncGenerator[PresenceWatch]:
    """Watch users while the context is open; see ``PullClient.watch_online``.

    Args:
        users: Their ids.
        current_lookup: Gives what asks the server, which is another in each run of a client.
        events: The events of ``CHANGE_MODULE`` and ``CHANGE_COMMAND``; they end with the
            client, and as it ends.
        spawn: Runs what keeps the watch up to date, and cancels it when the client is closed.
        interval_s: Seconds between two looks at the state of all.
    """
    lookup = current_lookup()
    watch = PresenceWatch(users, lookup, interval_s=interval_s)
    lookup.hold(users)
    try:
        async with events as changes:
            await watch.look()
            following = spawn(watch.follow(changes), "bitrix_pull presence watch")
            following.add_done_callback(watch.finish)
            try:
                yield watch
            finally:
                following.cancel()
                await asyncio.wait({following})
    finally:
        with contextlib.suppress(PullError, TimeoutError):
            async with asyncio.timeout(_FAREWELL_S):
                await lookup.release(users)
