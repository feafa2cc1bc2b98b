"""A dispatcher that runs, and events to put in."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from bitrix_pull.dispatch.dependencies import Supply
from bitrix_pull.dispatch.dispatcher import Dispatcher
from bitrix_pull.dispatch.inbox import Inbox
from bitrix_pull.dispatch.patterns import StreamPattern
from bitrix_pull.dispatch.router import Router, registry_of
from bitrix_pull.dispatch.subscription import Subscription
from bitrix_pull.dispatch.tasks import TaskSet
from bitrix_pull.events import BACKEND_SENDER, HandlerFailed, Notice, PullEvent
from bitrix_pull.options import Overflow


def event(
    number: int = 0,
    command: str = "x",
    module: str = "application",
    *,
    params: Any = None,
    size: int = 1,
) -> PullEvent[Any]:
    content = {"n": number} if params is None else params
    return PullEvent(f"{number:026}", module, command, content, {}, BACKEND_SENDER, "server", size=size)


@dataclass
class Running:
    """A dispatcher at work."""

    dispatcher: Dispatcher[PullEvent[Any]]
    inbox: Inbox[PullEvent[Any]]
    notices: list[Notice] = field(default_factory=list)
    counted: list[str] = field(default_factory=list)
    """Mids in order of settling, as far as the inbox has counted."""

    @property
    def settled(self) -> list[str]:
        """Mids in order of settling."""
        len(self.inbox)  # Whoever asks makes it count.
        return self.counted

    def put(self, *events: PullEvent[Any]) -> None:
        self.dispatcher.put(events)

    def subscribe(self, *commands: str, model: type[BaseModel] | None = None) -> Subscription[Any]:
        """Return a subscription to commands, or to everything."""
        return Subscription(self.dispatcher, StreamPattern.of(commands, None, None), model)

    async def idle(self, timeout: float = 5) -> None:
        """Wait until all is handled, and see that the accounts are settled."""
        await asyncio.wait_for(self.dispatcher.idle(), timeout)
        assert (len(self.inbox), self.inbox.size) == (0, 0)

    @property
    def unsettled(self) -> list[str]:
        """Mids in order."""
        return sorted(event.mid for event in self.inbox.unsettled)

    @property
    def failures(self) -> list[HandlerFailed]:
        return [item for item in self.notices if isinstance(item, HandlerFailed)]


def mids(*numbers: int) -> list[str]:
    return [f"{number:026}" for number in numbers]


async def run(dispatcher: Dispatcher[PullEvent[Any]]) -> None:
    """Run the workers of a dispatcher until cancelled, as a client does."""
    tasks = TaskSet()
    dispatcher.begin(tasks)
    try:
        await asyncio.Event().wait()
    finally:
        dispatcher.end()
        await tasks.close()


@asynccontextmanager
async def running(
    router: Router | None = None,
    *,
    max_events: int = 1000,
    max_bytes: int = 1_000_000,
    overflow: Overflow = "pause",
    supply: Supply | None = None,
) -> AsyncIterator[Running]:
    """Run a dispatcher, and see that it ends."""
    notices: list[Notice] = []
    settled: list[str] = []
    inbox = Inbox[PullEvent[Any]](
        max_events=max_events,
        max_bytes=max_bytes,
        overflow=overflow,
        settled=lambda events: settled.extend(item.mid for item in events),
    )
    dispatcher = Dispatcher(PullEvent, registry_of(router or Router()), inbox, notices.append)
    dispatcher.prepare(supply or Supply())
    task = asyncio.create_task(run(dispatcher))
    await asyncio.sleep(0)
    try:
        yield Running(dispatcher, inbox, notices, settled)
    finally:
        task.cancel()
        done, _ = await asyncio.wait({task}, timeout=5)
        assert done, "the dispatcher does not end"
