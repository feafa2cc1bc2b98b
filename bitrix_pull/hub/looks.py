"""When a source of portals looks whether another process has changed one."""

import asyncio
import contextlib
from typing import Final

LOOK_EVERY_S: Final = 1.0
"""How often a hub looks whether another process has changed a portal."""

_LOOK_AGAIN_S: Final = 0.05


class Looks:
    """The time between two looks. Each is at all portals, so a burst of changes takes one."""

    def __init__(self) -> None:
        self._hurried = asyncio.Event()

    def hurry(self) -> None:
        """Let the next look be soon: there is something to see."""
        self._hurried.set()

    async def wait(self) -> None:
        """Wait until it is time for the next one."""
        await asyncio.sleep(_LOOK_AGAIN_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_EVERY_S):
                await self._hurried.wait()
        self._hurried.clear()
