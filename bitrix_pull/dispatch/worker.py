"""Runs one handler over its events, in order and off the read path."""

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from bitrix_pull.dispatch.inbox import Inbox
from bitrix_pull.dispatch.router import Handler
from bitrix_pull.events import HandlerFailed, Notice, PullEvent

_TURN = 100
"""Events after which a worker lets others run, even if its handler never waits."""

logger = logging.getLogger("bitrix_pull.dispatch")


class Worker:
    """The queue and the loop of one handler. What the handler raises ends here."""

    def __init__(self, handler: Handler, inbox: Inbox, announce: Callable[[Notice], None]) -> None:
        """Create a worker; ``run`` must be started by its owner."""
        self.pattern = handler.pattern
        self._handler = handler
        self._inbox = inbox
        self._announce = announce
        self._queue: deque[PullEvent[Any]] = deque()
        self._arrived = asyncio.Event()

    def put(self, event: PullEvent[Any]) -> None:
        """Queue an event."""
        self._queue.append(event)
        self._arrived.set()

    async def run(self) -> None:
        """Handle events until cancelled."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._queue:
                for _ in range(min(len(self._queue), _TURN)):
                    event = self._queue.popleft()
                    try:
                        await self._handle(event)
                    finally:
                        self._inbox.settle(event)
                    if _cancelled():
                        return  # The handler swallowed the cancellation, which was meant for us.
                # A handler that never really waits must not hold up everybody else.
                await asyncio.sleep(0)

    async def _handle(self, event: PullEvent[Any]) -> None:
        handler = self._handler
        try:
            if handler.model is not None:
                event = replace(event, params=event.parse(handler.model))
            result = handler.callback(event)
            if inspect.isawaitable(result):
                await result
        except asyncio.CancelledError as error:
            if _cancelled():
                raise
            # The handler cancelled something of its own and let that out.
            self._failed(event, RuntimeError(f"the handler was cancelled from within: {error!r}"))
        except Exception as error:
            self._failed(event, error)

    def _failed(self, event: PullEvent[Any], error: Exception) -> None:
        logger.error(
            "handler %s failed on %s.%s (mid %s)",
            self._handler.name,
            event.module_id,
            event.command,
            event.mid,
            exc_info=error,
        )
        self._announce(HandlerFailed(event, self._handler.name, error))


def _cancelled() -> bool:
    """Tell whether this task is to end, also if its code took no notice."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
