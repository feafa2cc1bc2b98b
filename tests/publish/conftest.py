"""Portals, clients and listeners for publishing."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from bitrix_pull import AccessToken, PublicChannel, PullClient, PullOptions, Webhook
from bitrix_pull.emulator import Emulator


@pytest.fixture
async def emu() -> AsyncIterator[Emulator]:
    async with Emulator() as emulator:
        emulator.push.gather_s = 0.02
        # The portal of these tests lets its application ask for the channels of users.
        emulator.portal.application_scope.add("pull_channel")
        yield emulator


@asynccontextmanager
async def client(emu: Emulator, *, user: bool = False, **options: Any) -> AsyncIterator[PullClient]:
    """Give a client of user 1 that is live."""
    auth = Webhook(emu.webhook_url) if user else AccessToken(emu.portal_url, emu.token)
    async with PullClient(auth, options=PullOptions(**options)) as pull:
        yield pull


class AlteredPortal:
    """A REST client of the user's own that alters the configuration of an emulator's portal.

    Attributes:
        emulator: What it asks.
        altered: Replaces fields of the configuration; those of ``server`` one by one.
        calls: The calls that were made, beside those for the configuration.
    """

    def __init__(self, emulator: Emulator, **altered: Any) -> None:
        self.emulator = emulator
        self.altered = altered
        self.calls: list[tuple[str, Mapping[str, Any]]] = []

    async def call(self, method: str, params: Mapping[str, Any], /) -> Any:
        if not method.endswith("config.get"):
            self.calls.append((method, params))
            if method == "pull.channel.public.list":
                return self.emulator.portal.public_channels("application", params["USERS"])
            return True
        config = self.emulator.portal.config("application", 1)
        server = self.altered.get("server", {})
        return {**config, **self.altered, "server": {**config["server"], **server}}


def channel_of(emu: Emulator, user: int) -> PublicChannel:
    """Return the application's public channel of a user."""
    told = emu.portal.public_channels("application", [user])[str(user)]
    return PublicChannel.parse(f"{told['public_id']}.{told['signature']}")


def forged(emu: Emulator, user: int = 1) -> PublicChannel:
    """Return the same with a wrong signature."""
    return PublicChannel(channel_of(emu, user).id, bytes(20))


async def next_numbers(events: Any, count: int) -> list[int]:
    """Return the numbers in the next events."""
    async with asyncio.timeout(20):
        return [(await anext(events)).params["n"] for _ in range(count)]
