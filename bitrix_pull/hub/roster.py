"""Which portals a hub has, as their source tells."""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from typing import Final

from bitrix_pull.errors import InvalidArgument
from bitrix_pull.flag import Flag
from bitrix_pull.hub.cluster import checked_keys
from bitrix_pull.hub.portals import Portal, PortalChange, PortalPut, PortalRemoved, PortalSource
from bitrix_pull.redaction import get_logger

logger: Final = get_logger("hub")

_READ_AGAIN_S: Final = (1.0, 30.0)
"""Least and longest wait before a source is read again that could not be read."""


class Roster:
    """The portals of a source: read once, and followed from then on.

    Args:
        source: Tells of them.

    Attributes:
        portals: By key, paused ones included.
        changed: Set when they change.
    """

    def __init__(self, source: PortalSource) -> None:
        self.portals: dict[str, Portal] = {}
        self.changed: Flag = Flag()
        self._source = source

    @property
    def wanted(self) -> list[str]:
        """The keys of those that some worker should serve."""
        return [key for key, portal in self.portals.items() if not portal.paused]

    async def read(self) -> None:
        """Ask for all of them.

        Raises:
            InvalidArgument: Two have one key, or something else is among them: a source of the user's own.
        """
        self.portals = await self._read()

    async def follow(self, renewed: Callable[[Portal], Awaitable[None]]) -> None:
        """Follow what changes, through every failure of the source.

        Args:
            renewed: Is told of each portal that is new, or of which something is.
        """
        wait_s = _READ_AGAIN_S[0]
        while True:
            try:
                async for change in self._source.changes():
                    wait_s = _READ_AGAIN_S[0]
                    await self._note(change, renewed)
                return
            except Exception as error:
                logger.warning("the portals cannot be followed, again in %.0f s: %s", wait_s, error)
            await asyncio.sleep(wait_s * random.uniform(1, 1.2))
            wait_s = min(wait_s * 2, _READ_AGAIN_S[1])
            with contextlib.suppress(Exception):
                for change in self._differences(await self._read()):
                    await self._note(change, renewed)

    async def _read(self) -> dict[str, Portal]:
        found = tuple(await self._source.portals())
        for portal in found:
            if not isinstance(portal, Portal):
                told = f"{type(self._source).__name__} told {type(portal).__name__}"
                raise InvalidArgument(f"{told}, not Portal(key, credentials)")
        checked_keys([portal.key for portal in found])
        return {portal.key: portal for portal in found}

    def _differences(self, found: dict[str, Portal]) -> list[PortalChange]:
        gone: list[PortalChange] = [PortalRemoved(key) for key in self.portals.keys() - found.keys()]
        return gone + [PortalPut(portal) for key, portal in found.items() if self.portals.get(key) != portal]

    async def _note(self, change: PortalChange, renewed: Callable[[Portal], Awaitable[None]]) -> None:
        self.changed.set()
        match change:
            case PortalPut(portal):
                self.portals[portal.key] = portal
                await renewed(portal)
            case PortalRemoved(key):
                self.portals.pop(key, None)
