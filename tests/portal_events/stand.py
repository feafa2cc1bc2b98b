"""An emulated portal and clients of its events, in virtual time."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from bitrix_pull import AccessToken, HandlerFailed, PortalEvent, PullClient, PullOptions
from bitrix_pull.dispatch.policy import DeadLetter
from bitrix_pull.emulator import Emulator
from tests.virtual_time import unix_time

ADD, UPDATE, DELETE = "ONCRMDEALADD", "ONCRMDEALUPDATE", "ONCRMDEALDELETE"
RESERVING, READING = "Y", "N"


def emulator(reservation: str = RESERVING, **settings: Any) -> Emulator:
    """Return a portal whose plan has reservation or not."""
    emu = Emulator(clock=unix_time, **settings)
    emu.portal.features["rest_offline_extended"] = reservation
    return emu


class Program(PullClient):
    """Writes down each event, when it was handled, and each handler's failure."""

    def __init__(
        self,
        emu: Emulator,
        *names: str,
        fail: Callable[[PortalEvent[Any]], bool] | None = None,
        retries: int = 0,
        on_dead_letter: DeadLetter | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(AccessToken(emu.portal_url, emu.token), options=PullOptions(**settings))
        self.events: list[PortalEvent[Any]] = []
        self.handled_at: list[float] = []
        self.failures: list[HandlerFailed] = []
        self.takes_s = 0.0
        self._fail = fail
        register = self.on_portal_event(*names or (UPDATE,), retries=retries, on_dead_letter=on_dead_letter)
        register(self._handle)

    async def _handle(self, event: PortalEvent[Any]) -> None:
        await asyncio.sleep(self.takes_s)
        if self._fail is not None and self._fail(event):
            raise ValueError("broken")
        self.events.append(event)
        self.handled_at.append(unix_time())

    @property
    def ids(self) -> list[int | None]:
        """What the events were about, in order of handling."""
        return [event.id for event in self.events]

    async def handled(self, count: int, within_s: float = 60.0) -> None:
        """Wait until so many events are handled."""
        await until(lambda: len(self.events) >= count, within_s)

    async def watch(self) -> None:
        """Write down failures."""
        async for notice in self.notices():
            if isinstance(notice, HandlerFailed):
                self.failures.append(notice)


@asynccontextmanager
async def running(program: Program) -> AsyncIterator[Program]:
    """Run a program and write down its failures."""
    watching = asyncio.create_task(program.watch())
    await asyncio.sleep(0)
    try:
        async with program:
            yield program
    finally:
        watching.cancel()
        await asyncio.wait({watching})


async def until(condition: Callable[[], bool], within_s: float = 60.0) -> None:
    """Wait for what other tasks are about to do."""
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.01)


def deal(number: int) -> dict[str, Any]:
    """Return what the portal says about a deal."""
    return {"FIELDS": {"ID": str(number)}}


def rest_calls(emu: Emulator) -> int:
    """Return how many requests the portal got about its queue."""
    calls = emu.portal.calls
    return calls["batch"] + sum(calls[name] for name in calls if name.startswith("event.offline"))
