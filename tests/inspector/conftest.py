from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from bitrix_pull import AccessToken, PullClient
from bitrix_pull.emulator import Emulator
from bitrix_pull.inspector import Inspector
from tests.hub.conftest import name, valkey_url
from tests.inspector.opened import Opened

__all__ = ["name", "valkey_url"]


@pytest.fixture
async def emulator() -> AsyncGenerator[Emulator]:
    async with Emulator() as emulator:
        emulator.push.gather_s = 0.02
        emulator.portal.application_scope.add("pull_channel")
        yield emulator


class Inspected(Opened):
    """A client, its inspector, and a browser of sorts that has opened the page."""

    def __init__(self, pull: PullClient, inspector: Inspector, http: aiohttp.ClientSession) -> None:
        super().__init__(inspector.url, http)
        self.pull = pull


@asynccontextmanager
async def inspecting(emulator: Emulator, pull: PullClient | None = None) -> AsyncGenerator[Inspected]:
    """A client of an emulated portal that is live, with its page opened."""
    pull = pull or PullClient(AccessToken(emulator.portal_url, emulator.token))
    jar = aiohttp.CookieJar(unsafe=True)
    async with Inspector(pull) as inspector, pull, aiohttp.ClientSession(cookie_jar=jar) as http:
        async with http.get(inspector.url) as response:
            assert response.status == 200
        yield Inspected(pull, inspector, http)


@pytest.fixture
async def inspected(emulator: Emulator) -> AsyncGenerator[Inspected]:
    async with inspecting(emulator) as inspected:
        yield inspected
