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
from bitrix_pull.failures import one_failure
from bitrix_pull.inspector.shown import shown_event, shown_health, shown_notice
from bitrix_pull.inspector.tape import Tapes

EVERY_S: Final = 1.0
"""Seconds between two looks at the figures."""


class Watcher:
    """What a client does, on three tapes.

    Attributes:
        tapes: What was received, what the client has said, and its ``health()`` once a second.
    """

    def __init__(self, pull: PullClient) -> None:
        """Watch a client, from entering ``watching`` on."""
        self.tapes: Tapes = Tapes()
        self._pull = pull

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncGenerator[None]:
        """Watch in the background of a block. Enter it before the client starts."""
        notices = cast("AsyncGenerator[Notice]", self._pull.notices())
        with one_failure():
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
                    self.tapes.end()
                    for task in watching:
                        task.cancel()

    async def _watch_events(self, events: Subscription[Any]) -> None:
        # What made the client fail stands in the notices.
        with contextlib.suppress(PullError):
            async for event in events:
                self.tapes.events.append(shown_event(event, time.time()))

    async def _watch_notices(self, notices: AsyncGenerator[Notice]) -> None:
        async with contextlib.aclosing(notices):
            async for notice in notices:
                self.tapes.notices.append(shown_notice(notice, time.time()))
                self._look_once()

    async def _look(self) -> None:
        while True:
            self._look_once()
            await asyncio.sleep(EVERY_S)

    def _look_once(self) -> None:
        self.tapes.looks.append(shown_health(self._pull.health(), time.time()))
