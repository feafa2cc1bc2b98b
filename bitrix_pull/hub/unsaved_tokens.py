"""Tokens that could not be stored before their portal went to another worker, or was stopped."""

import asyncio
from typing import Final

from bitrix_pull.errors import PullError
from bitrix_pull.hub.portals import Portal
from bitrix_pull.portal.oauth import OAuth
from bitrix_pull.redaction import get_logger

_log: Final = get_logger("hub")

STORE_AGAIN_S: Final = 5.0
_LONGEST_S: Final = 10.0
"""For how long to wait for a store."""


class UnsavedTokens:
    """Stores them as soon as their store can be reached: what is there was spent for them.

    Without that, a refresh that was under way when a worker was cut off from the store would lose
    the grant: whoever has the portal next finds nothing but a spent refresh token.
    """

    def __init__(self) -> None:
        self._of: set[OAuth] = set()

    def take(self, portal: Portal) -> None:
        """Take over what a portal's client leaves behind, if it does."""
        if isinstance(portal.credentials, OAuth) and portal.credentials.unsaved:
            self._of.add(portal.credentials)

    async def run(self) -> None:
        """Try again and again."""
        while True:
            await asyncio.sleep(STORE_AGAIN_S)
            await self._store()

    async def give_up(self) -> None:
        """Try for the last time."""
        await self._store()
        for credentials in self._of:
            _log.error(
                "the new tokens of %r could not be stored: authorise the application again", credentials
            )
        self._of.clear()

    async def _store(self) -> None:
        await asyncio.gather(*map(self._store_one, tuple(self._of)))

    async def _store_one(self, credentials: OAuth) -> None:
        try:
            async with asyncio.timeout(_LONGEST_S):
                await credentials.store_unsaved()
        except (PullError, TimeoutError):
            return
        if not credentials.unsaved:
            self._of.discard(credentials)
