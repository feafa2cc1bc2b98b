import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from bitrix_pull import AccessToken, PullClient
from bitrix_pull.emulator import Emulator
from bitrix_pull.inspector import Inspector


@pytest.fixture
async def emulator() -> AsyncGenerator[Emulator]:
    async with Emulator() as emulator:
        emulator.push.gather_s = 0.02
        emulator.portal.application_scope.add("pull_channel")
        yield emulator


class Inspected:
    """A client, its inspector, and a browser of sorts that has opened the page."""

    def __init__(self, pull: PullClient, inspector: Inspector, http: aiohttp.ClientSession) -> None:
        self.pull = pull
        self.url, _, self.key = inspector.url.partition("?key=")
        self._http = http

    async def get(self, path: str, **headers: str) -> tuple[int, Any]:
        async with self._http.get(self.url + path, headers=headers) as response:
            return response.status, await response.json()

    async def press(self, path: str, **form: Any) -> tuple[int, Any]:
        """Send a form as the page does."""
        headers = {"Origin": self.url.rstrip("/")}
        async with self._http.post(self.url + path, json=form, headers=headers) as response:
            return response.status, await response.json()

    async def stream(self, after: str = "") -> AsyncIterator[tuple[str, str, Any]]:
        """Yield what the stream sends: topic, id, and content."""
        headers = {"Last-Event-ID": after} if after else {}
        timeout = aiohttp.ClientTimeout(total=None, sock_read=30)
        async with self._http.get(self.url + "stream", headers=headers, timeout=timeout) as response:
            assert response.content_type == "text/event-stream"
            fields: dict[str, str] = {}
            buffer = b""
            async for chunk in response.content.iter_any():
                buffer += chunk
                *lines, buffer = buffer.split(b"\n")
                for line in lines:
                    name, _, value = line.decode().partition(": ")
                    if name:
                        fields[name] = value
                    elif "data" in fields:
                        yield fields["event"], fields["id"], json.loads(fields["data"])
                        fields = {}

    async def events(self, count: int) -> list[dict[str, Any]]:
        """Wait for so many events, from the first that is kept on."""
        found: list[dict[str, Any]] = []
        async for topic, _, content in self.stream():
            found += content["entries"] if topic == "events" else []
            if len(found) >= count:
                break
        return found


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
