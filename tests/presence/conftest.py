"""Users who come to an emulator and go, and clients who want to know, in virtual time."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from functools import wraps
from typing import Any

from bitrix_pull import AccessToken, PresenceWatch, PullClient, PullOptions
from bitrix_pull.emulator import Emulator
from tests import virtual_time
from tests.virtual_time import unix_time


def in_virtual_time(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test in virtual time, and see that it leaves no task behind."""

    @wraps(test)
    def run(*arguments: Any, **named: Any) -> None:
        async def main() -> None:
            await test(*arguments, **named)
            for _ in range(5):
                await asyncio.sleep(0)
            assert asyncio.all_tasks() == {asyncio.current_task()}

        virtual_time.run(main)

    return run


@asynccontextmanager
async def emulator(version: int, **settings: Any) -> AsyncIterator[Emulator]:
    """An emulator whose application may ask for the public channels of users."""
    async with Emulator(version=version, clock=unix_time, **settings) as emulated:
        emulated.portal.application_scope = {"pull", "pull_channel"}
        yield emulated


def client(emulated: Emulator, user: int = 1, **options: Any) -> PullClient:
    return PullClient(
        AccessToken(emulated.portal_url, emulated.portal.issue_token(user)), options=PullOptions(**options)
    )


class Users:
    """Users of the application who come and go."""

    def __init__(self, emulated: Emulator) -> None:
        self._emulator = emulated
        self._here: dict[int, AsyncExitStack] = {}

    async def come(self, *users: int) -> None:
        for user in users:
            self._here[user] = stack = AsyncExitStack()
            await stack.enter_async_context(client(self._emulator, user))

    async def go(self, *users: int) -> None:
        for user in users or list(self._here):
            await self._here.pop(user).aclose()
        # Until the push server has noticed.
        await asyncio.sleep(0.1)

    async def __aenter__(self) -> "Users":
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.go()


async def changes(watch: PresenceWatch, count: int) -> list[tuple[int, bool]]:
    """Return the next changes."""
    found: list[tuple[int, bool]] = []
    async with asyncio.timeout(600):
        while len(found) < count:
            change = await anext(watch)
            found.append((change.user, change.online))
    return found


async def nothing_for(watch: PresenceWatch, seconds: float) -> bool:
    """True if nothing changes for so long."""
    try:
        async with asyncio.timeout(seconds):
            await anext(watch)
    except TimeoutError:
        return True
    return False
