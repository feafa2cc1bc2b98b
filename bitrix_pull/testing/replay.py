"""``Replay``: a recording feeds handlers, without a network."""

import asyncio
import contextvars
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from os import PathLike
from typing import Any

from bitrix_pull.client import PullClient
from bitrix_pull.dispatch.dependencies import Supply, checked_context
from bitrix_pull.dispatch.router import Router, registry_of
from bitrix_pull.errors import InvalidArgument
from bitrix_pull.events import HandlerFailed, Notice, Origin, PortalEvent
from bitrix_pull.options import PullOptions, check_number
from bitrix_pull.reception import Reception
from bitrix_pull.redaction import PORTAL
from bitrix_pull.testing.recording import Recorded, Recording


@dataclass(slots=True, frozen=True)
class Replayed:
    """What became of a recording.

    Attributes:
        events: How many events handlers were fed with.
        failures: What handlers have failed on for good.
        unrouted: How many of them nobody wanted, by module and command.
    """

    events: int
    failures: tuple[HandlerFailed, ...]
    unrouted: Mapping[str, int]


class Replay:
    """Feeds the handlers of a router, or of a client that is not started, with a recording.

    By the very dispatcher of a client, with models, middleware, dependencies and retries; of a
    client's nothing is sent.

    Example:
        replayed = await Replay("tests/morning.jsonl.gz").feed(router, context={"db": db})
        assert replayed.failures == ()

    Args:
        path: A file that a ``Recorder`` has written; files that it was rotated into come first.

    Raises:
        InvalidArgument: It is no recording that this version can read.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.recording: Recording = Recording(path)

    async def feed(
        self, target: Router, *, context: Mapping[str, Any] | None = None, speed: float | None = None
    ) -> Replayed:
        """Feed handlers with all of it, and return when they have finished.

        Args:
            target: Whose handlers: a ``Router``, or a ``PullClient`` that is not started.
            context: What handlers may ask for by name, beside what the client itself has.
            speed: How many times as fast as it was recorded; None: without any waiting.

        Raises:
            InvalidArgument: An argument cannot work, or a handler asks for what nothing provides.
        """
        if not isinstance(target, Router):
            raise InvalidArgument(f"feed() takes a Router or a PullClient, not {type(target).__name__}")
        if speed is not None:
            check_number("speed", speed)
        failures: list[HandlerFailed] = []

        def note(notice: Notice) -> None:
            if isinstance(notice, HandlerFailed):
                failures.append(notice)

        fed = 0
        async with _handlers(target, self.recording.header.portal, context or {}) as reception:
            reception.notices.taps.append(note)
            async for event in self.paced(speed):
                await reception.stream.room()
                await reception.portal_feed.inbox.room()
                if isinstance(event, PortalEvent):
                    reception.portal_feed.dispatcher.put([event])
                else:
                    reception.stream.put([event])
                fed += 1
            await reception.idle()
        return Replayed(fed, tuple(failures), reception.stream.unrouted)

    async def paced(self, speed: float | None) -> AsyncGenerator[Recorded]:
        """Yield the events, as far apart in time as they were, or ``speed`` times as close."""
        began_at = asyncio.get_running_loop().time()
        first_unix: float | None = None
        for entry in self.recording:
            if entry.event is None:
                continue
            first_unix = entry.at_unix if first_unix is None else first_unix
            if speed is not None:
                due_at = began_at + (entry.at_unix - first_unix) / speed
                await asyncio.sleep(max(due_at - asyncio.get_running_loop().time(), 0.0))
            yield entry.event


@asynccontextmanager
async def _handlers(target: Router, portal: str, context: Mapping[str, Any]) -> AsyncGenerator[Reception]:
    """Run handlers for a block."""
    client = target if isinstance(target, PullClient) else None
    portal = portal if client is None else client.portal
    reception = Reception(registry_of(target), PullOptions(), Origin(portal, client))
    present = {**({} if client is None else client.context), **context}
    reception.prepare(Supply(checked_context(present), {} if client is None else {PullClient: client}))
    log_context = contextvars.copy_context()
    log_context.run(PORTAL.set, portal)
    running = asyncio.create_task(reception.run(), name="bitrix_pull replay", context=log_context)
    try:
        # Events that come before the workers are there would be forgotten.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        yield reception
    finally:
        running.cancel()
        await asyncio.wait({running})
        reception.finish(None)
