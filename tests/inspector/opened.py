"""A browser of sorts that has opened a page of the inspector."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import aiohttp


class Opened:
    """What asks as the page does.

    Attributes:
        url: The page's address, without its key.
        key: That key.
    """

    def __init__(self, url: str, http: aiohttp.ClientSession) -> None:
        self.url, _, self.key = url.partition("?key=")
        self._http = http

    async def get(self, path: str, **headers: str) -> tuple[int, Any]:
        async with self._http.get(self.url + path, headers=headers) as response:
            return response.status, await response.json()

    async def press(self, path: str, **form: Any) -> tuple[int, Any]:
        """Send a form as the page does."""
        headers = {"Origin": self.url.rstrip("/")}
        async with self._http.post(self.url + path, json=form, headers=headers) as response:
            return response.status, await response.json()

    async def status_of(self, path: str, headers: Mapping[str, str]) -> int:
        """Send an empty form with other headers."""
        async with self._http.post(self.url + path, json={}, headers=headers) as response:
            return response.status

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
        return await self.events_until(lambda found: len(found) >= count)

    async def events_until(self, enough: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
        """Wait until the events, from the first that is kept on, are enough."""
        found: list[dict[str, Any]] = []
        async with asyncio.timeout(30):
            async for topic, _, content in self.stream():
                found += content["entries"] if topic == "events" else []
                if enough(found):
                    break
        return found
