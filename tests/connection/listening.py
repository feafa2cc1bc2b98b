"""A client that writes down what it receives, on an emulator in virtual time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from bitrix_pull import (
    AccessToken,
    Notice,
    PullClient,
    PullEvent,
    PullOptions,
    ResumeStore,
    State,
    StateChanged,
)
from bitrix_pull.connection.checkpointer import Start
from bitrix_pull.emulator import Emulator
from bitrix_pull.portal.auth import Caller, Credentials
from tests.virtual_time import unix_time


class Listener(PullClient):
    """Writes down every event and every notice."""

    def __init__(
        self,
        emulator: Emulator,
        *,
        auth: Caller | Credentials | None = None,
        resume: str | ResumeStore | None = None,
        start: Start = "resume",
        **options: Any,
    ) -> None:
        super().__init__(
            auth or AccessToken(emulator.portal_url, emulator.token),
            resume=resume,
            start=start,
            options=PullOptions(**options),
        )
        self.events: list[PullEvent[Any]] = []
        self.heard: list[Notice] = []
        self.on()(self.events.append)

    @property
    def numbers(self) -> list[int]:
        """The numbers in the events, in order of arrival."""
        return [event.params["n"] for event in self.events]

    @property
    def states(self) -> list[State]:
        """The states that it went through."""
        return [notice.state for notice in self.heard if isinstance(notice, StateChanged)]

    async def received(self, count: int) -> None:
        """Wait until so many events have come."""
        async with asyncio.timeout(600):
            while len(self.events) < count:
                await asyncio.sleep(0.05)

    async def reached(self, state: State) -> None:
        """Wait until it is in a state."""
        async with asyncio.timeout(86_400):
            while self.state is not state:
                await asyncio.sleep(0.05)


@asynccontextmanager
async def running(listener: Listener) -> AsyncIterator[Listener]:
    """Run a listener as a background task, through outages, and close it at the end."""

    async def write_down() -> None:
        async for notice in listener.notices():
            listener.heard.append(notice)

    notices = asyncio.create_task(write_down())
    await asyncio.sleep(0)
    serving = asyncio.create_task(listener.run())
    try:
        yield listener
    finally:
        await listener.close()
        with suppress(Exception):
            await serving
        notices.cancel()


def emulator(**settings: Any) -> Emulator:
    """Return an emulator whose clock is the virtual one."""
    return Emulator(security_key="key", clock=unix_time, **settings)
