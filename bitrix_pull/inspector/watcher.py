"""Watches a client: its events, its notices, and its figures once a second."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator
from typing import Any, Final, cast

from bitrix_pull.client import PullClient
from bitrix_pull.dispatch.subscription import Subscription
from bitrix_pull.errors import PullError
from bitrix_pull.events import Notice
from bitrix_pull.inspector.shown import shown_event, shown_health, shown_notice
from bitrix_pull.inspector.tape import Tape

EVERY_S: Final = 1.0
"""Seconds between two looks at the figures."""

EVENTS_MAX: Final = 5_000
_EVENTS_MAX_BYTES: Final = 16 * 1024 * 1024
_NOTICES_MAX: Final = 500
_LOOKS_MAX: Final = 900
_SMALL_MAX_BYTES: Final = 2 * 1024 * 1024


class Watcher:
    """What a client does, on three tapes.

    Attributes:
        news: Set when something has been added to a tape, or it is over.
        events: What was received.
        notices: What the client has said.
        looks: ``health()``, once a second: the last quarter of an hour.
        over: True at the end: nothing is added any more.
    """

    def __init__(self, pull: PullClient) -> None:
        """Watch a client, from entering ``watching`` on."""
        self.news: asyncio.Event = asyncio.Event()
        self.events: Tape = Tape(EVENTS_MAX, _EVENTS_MAX_BYTES, self.news)
        self.notices: Tape = Tape(_NOTICES_MAX, _SMALL_MAX_BYTES, self.news)
        self.looks: Tape = Tape(_LOOKS_MAX, _SMALL_MAX_BYTES, self.news)
        self.over: bool = False
        self._pull = pull

    @property
    def tapes(self) -> tuple[Tape, Tape, Tape]:
        """All three."""
        return self.events, self.notices, self.looks

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncGenerator[None]:
        """Watch in the background of a block. Enter it before the client starts."""
        notices = cast("AsyncGenerator[Notice]", self._pull.notices())
        async with asyncio.TaskGroup() as tasks, self._pull.subscribe() as events:
            watching = [
                tasks.create_task(self._watch_events(events), name="bitrix_pull inspector events"),
                tasks.create_task(self._watch_notices(notices), name="bitrix_pull inspector notices"),
                tasks.create_task(self._look(), name="bitrix_pull inspector figures"),
            ]
            # Until they listen.
            await asyncio.sleep(0)
            try:
                yield
            finally:
                self.over = True
                self.news.set()
                for task in watching:
                    task.cancel()

    async def _watch_events(self, events: Subscription[Any]) -> None:
        # What made the client fail stands in the notices.
        with contextlib.suppress(PullError):
            async for event in events:
                self.events.append(shown_event(event, time.time()))

    async def _watch_notices(self, notices: AsyncGenerator[Notice]) -> None:
        async with contextlib.aclosing(notices):
            async for notice in notices:
                self.notices.append(shown_notice(notice, time.time()))
                self._look_once()

    async def _look(self) -> None:
        while True:
            self._look_once()
            await asyncio.sleep(EVERY_S)

    def _look_once(self) -> None:
        self.looks.append(shown_health(self._pull.health(), time.time()))
