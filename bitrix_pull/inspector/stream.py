"""What is new, as server-sent events: each page gets it at its own pace, and costs what it reads."""

import asyncio
import contextlib
import re
from collections.abc import Sequence
from typing import Final

import orjson
from aiohttp import web

from bitrix_pull.inspector.tape import Tapes

_TOPICS: Final = ("events", "notices", "looks")

_GATHER_S: Final = 0.1
_PORTION_MAX_BYTES: Final = 256 * 1024
_KEEP_ALIVE_S: Final = 15.0
_STALL_S: Final = 30.0
"""Seconds for which a page may read nothing; then it is let go of, and may come again."""

_STREAMS_MAX: Final = 20

_NUMBER: Final = re.compile("[0-9]{1,18}")


class Streams:
    """Serves what is on the tapes, and what comes."""

    def __init__(self, tapes: Tapes) -> None:
        """Serve some tapes."""
        self._tapes = tapes
        self._readers: set[asyncio.Event] = set()

    async def spread_news(self) -> None:
        """Wake the streams when there is something new, until it is over."""
        while not self._tapes.over:
            await self._tapes.news.wait()
            self._tapes.news.clear()
            for reader in self._readers:
                reader.set()

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Answer with a stream that goes on where ``Last-Event-ID`` says."""
        if len(self._readers) >= _STREAMS_MAX:
            raise web.HTTPServiceUnavailable(text="Too many pages are open.\n")
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        news = asyncio.Event()
        self._readers.add(news)
        try:
            await response.prepare(request)
            with contextlib.suppress(ConnectionError):
                await self._write(response, news, self._begin(request.headers.get("Last-Event-ID", "")))
        except TimeoutError:
            assert request.transport is not None
            request.transport.abort()
        finally:
            self._readers.discard(news)
        return response

    def _begin(self, last_id: str) -> list[int]:
        """Return where a page goes on: after what it had last, or with all that is kept."""
        tapes = self._tapes.all
        parts = last_id.split("-")
        if len(parts) == len(tapes) and all(map(_NUMBER.fullmatch, parts)):
            positions = [int(part) for part in parts]
            # Of another run it may be ahead of this one.
            if all(position <= tape.next for position, tape in zip(positions, tapes, strict=True)):
                return positions
        return [tape.first for tape in tapes]

    async def _write(self, response: web.StreamResponse, news: asyncio.Event, positions: list[int]) -> None:
        while not self._tapes.over:
            news.clear()
            if chunk := self._next(positions):
                async with asyncio.timeout(_STALL_S):
                    await response.write(chunk)
                if len(chunk) < _PORTION_MAX_BYTES:
                    await asyncio.sleep(_GATHER_S)
                continue
            try:
                async with asyncio.timeout(_KEEP_ALIVE_S):
                    await news.wait()
            except TimeoutError:
                await response.write(b":\n\n")

    def _next(self, positions: list[int]) -> bytes:
        """Return what follows the positions, and move them."""
        chunk = bytearray()
        for index, (topic, tape) in enumerate(zip(_TOPICS, self._tapes.all, strict=True)):
            portion = tape.read(positions[index], _PORTION_MAX_BYTES)
            if not portion.entries:
                continue
            positions[index] = portion.next
            head = orjson.dumps({"first": portion.first, "missed": portion.missed})[:-1]
            chunk += b"event: %b\nid: %b\ndata: " % (topic.encode(), _written(positions))
            chunk += head + b',"entries":[' + b",".join(portion.entries) + b"]}\n\n"
        return bytes(chunk)


def _written(positions: Sequence[int]) -> bytes:
    return b"-".join(b"%d" % position for position in positions)
