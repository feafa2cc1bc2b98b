"""Writes down how far everything is settled, and then acknowledges it to the server."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal

from bitrix_pull.connection.cursor import ResumePoint
from bitrix_pull.connection.cursors import Cursors
from bitrix_pull.connection.stores import MemoryStore, ResumeStore
from bitrix_pull.events import PullEvent
from bitrix_pull.portal.models import PullConfig
from bitrix_pull.redaction import get_logger
from bitrix_pull.wire.urls import START_OF_HISTORY

logger = get_logger("connection")

Start = Literal["resume", "latest", "earliest"]

RETRY_S = 1.0
"""How long to wait after a save that failed."""

PAUSE_S = 0.01
"""How long to wait after any other: of a fast stream it gathers what would be a save each."""


class Checkpointer:
    """Keeps the resume point of one client in a store.

    Saving is a loop: whatever is settled while one save is under way, or shortly after, goes
    into the next, so a slow disk makes saves rarer and nothing else. With a store that lives
    in memory only, the point is saved at the end.
    """

    def __init__(
        self,
        store: ResumeStore,
        start: Start,
        *,
        identity: str,
        known_mids: int,
        unsettled: Callable[[], set[str]],
        acknowledge: Callable[[Sequence[str]], Awaitable[None]],
    ) -> None:
        """Create a checkpointer.

        Args:
            store: Where to keep the resume point.
            start: "resume" where the store's point says, "latest" with what comes from
                now on, "earliest" with all that the server still keeps.
            identity: Names portal and application; with the user it is the key in the store.
            known_mids: How many mids a cursor remembers.
            unsettled: Gives the mids that handlers have not finished with.
            acknowledge: Tells the server that messages are safe with us.
        """
        self._store = store
        self._start = start
        self._identity = identity
        self._known_mids = known_mids
        self._unsettled = unsettled
        self._acknowledge = acknowledge
        self._durable = not isinstance(store, MemoryStore)
        self._cursors: Cursors | None = None
        self._key = ""
        self._settled: list[str] = []
        self._dirty = asyncio.Event()
        self._stopping = False

    @property
    def loaded(self) -> bool:
        """True once ``load`` was called."""
        return self._cursors is not None

    async def open(self) -> None:
        """Open the store.

        Raises:
            InvalidArgument: It cannot be used.
        """
        await self._store.open()

    async def load(self, config: PullConfig) -> Cursors:
        """Return the cursors to start with; the configuration says whose stream it is."""
        key = f"{self._identity} user {min(config.public_channels, default='-')}"
        point = await self._store.load(key) if self._start == "resume" else None
        if self._start == "earliest":
            point = ResumePoint(START_OF_HISTORY)
        self._key = key
        self._cursors = Cursors(known_mids=self._known_mids, resume=point)
        return self._cursors

    def settled(self, mid: str) -> None:
        """Take note that a message is dealt with: by its handlers, or because it is not for them."""
        if mid:
            if not self._settled:
                self._dirty.set()
            self._settled.append(mid)

    def handled(self, events: Sequence[PullEvent[Any]]) -> None:
        """Take note that events are dealt with by their handlers."""
        self._settled += [event.mid for event in events if event.mid]
        if self._settled:
            self._dirty.set()

    def connected(self) -> None:
        """Take note that there is a point to resume from, even if nothing has come yet."""
        self._dirty.set()

    async def run(self) -> None:
        """Save and acknowledge until ``stop``."""
        while not self._stopping:
            await self._dirty.wait()
            self._dirty.clear()
            if await self._save(durable_only=True):
                await asyncio.sleep(PAUSE_S)
            else:
                await asyncio.sleep(RETRY_S)
                self._dirty.set()

    def stop(self) -> None:
        """End ``run`` after the save that is under way."""
        self._stopping = True
        self._dirty.set()

    async def close(self) -> None:
        """Save for the last time, and close the store."""
        await self._save(durable_only=False)
        await self._store.close()

    async def _save(self, *, durable_only: bool) -> bool:
        if self._cursors is None:
            return True
        settled, self._settled = self._settled, []
        if self._durable or not durable_only:
            point = self._cursors.snapshot(self._unsettled())
            try:
                await self._store.save(self._key, point)
            except (OSError, sqlite3.Error) as error:
                # Better handled twice than lost: nothing is acknowledged that is not safe.
                self._settled = settled + self._settled
                logger.error("the resume point could not be saved: %s", error)
                return False
        if settled:
            await self._acknowledge(settled)
        return True
