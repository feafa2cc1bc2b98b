"""What the examples run against: your portal if its credentials are set, else an emulator.

Your portal: BITRIX_PULL_PORTAL (its address) and BITRIX_PULL_TOKEN (an access token of an
installed application with the scope "pull").
"""

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from bitrix_pull import AccessToken
from bitrix_pull.emulator import Emulator


@dataclass(frozen=True)
class Portal:
    """Credentials, and the emulator that they are of, if any."""

    auth: AccessToken
    emulator: Emulator | None = None

    @property
    def emulated(self) -> bool:
        """Whether it is an emulator."""
        return self.emulator is not None


@asynccontextmanager
async def portal_or_emulator() -> AsyncGenerator[Portal]:
    """Give credentials; an emulator lives as long as the context."""
    address, token = os.environ.get("BITRIX_PULL_PORTAL"), os.environ.get("BITRIX_PULL_TOKEN")
    if address and token:
        yield Portal(AccessToken(address, token))
        return
    print("BITRIX_PULL_PORTAL and BITRIX_PULL_TOKEN are not set: running against an emulated portal.")
    async with Emulator() as emulator:
        yield Portal(AccessToken(emulator.portal_url, emulator.token), emulator)
