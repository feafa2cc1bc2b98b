"""A page over a stream that does not end, and one beside it that never reads."""

import asyncio
import gc
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol
from urllib.parse import urlsplit

import redis.asyncio

from bitrix_pull import AccessToken, PullClient
from bitrix_pull.events import BACKEND_SENDER, PullEvent
from bitrix_pull.hub.valkey.envelope import envelope
from bitrix_pull.inspector import Inspector
from bitrix_pull.inspector.hub import HubInspector
from bitrix_pull.inspector.tape import EVENTS_MAX
from tests.browsers import browser
from tests.hub.engine import running
from tests.soak.flood import FloodServer, resident_bytes
from tests.soak.outcome import Outcome

MIB = 1024 * 1024
SETTLE_S = 3.0


def inspector(
    *, seconds: float = 60.0, rate: int = 1_000, text_bytes: int = 200, without_page: bool = False
) -> Outcome:
    """1,000 events/s into an inspector and its page: once both are full, neither grows by 8 MiB.

    The page is one in Chromium. Another one is open that reads nothing.
    """
    outcome = Outcome()
    asyncio.run(_inspect(outcome, partial(_client, text_bytes), seconds, rate, without_page))
    return outcome


def hub_inspector(
    *, seconds: float = 60.0, rate: int = 1_000, text_bytes: int = 200, without_page: bool = False
) -> Outcome:
    """The same for the page beside hubs: 1,000 events/s of 100 portals into the log that it reads."""
    outcome = Outcome()
    asyncio.run(_inspect(outcome, partial(_log, text_bytes), seconds, rate, without_page))
    return outcome


class _Source(Protocol):
    """What is inspected, and what comes of it."""

    url: str

    def received(self) -> int: ...

    async def flood(self, rate: int, count: int) -> None: ...


async def _inspect(
    outcome: Outcome,
    source: Callable[[], AbstractAsyncContextManager[_Source]],
    seconds: float,
    rate: int,
    without_page: bool,
) -> None:
    total = int(seconds * rate)
    filling = min(2 * EVENTS_MAX, total // 2)
    async with AsyncExitStack() as stack:
        inspected = await stack.enter_async_context(source())
        await stack.enter_async_context(_mute_reader(inspected.url))
        full_page = None
        if not without_page:
            measure = await stack.enter_async_context(_page(outcome, inspected.url))
        await _flood(inspected, rate, filling)
        full = _resident()
        if not without_page:
            full_page = await measure()
        cpu = time.process_time()
        await _flood(inspected, rate, total - filling)
        spent = time.process_time() - cpu
        grown = (_resident() - full) / MIB
        outcome.exactly(total, received=inspected.received())
        outcome.at_most(8, server_grown_mib=max(0.0, grown))
        outcome.note(server_mib=full / MIB, cpu_us_an_event=spent / (total - filling) * 1e6)
        if full_page is not None:
            heap, rows = await measure()
            outcome.at_most(8, page_grown_mib=max(0.0, (heap - full_page[0]) / MIB))
            outcome.at_most(64, page_mib=heap / MIB)
            outcome.at_most(60, rows_drawn=rows)


async def _flood(inspected: _Source, rate: int, count: int) -> None:
    wanted = inspected.received() + count
    await inspected.flood(rate, count)
    async with asyncio.timeout(120):
        while inspected.received() < wanted:
            await asyncio.sleep(0.1)
    await asyncio.sleep(SETTLE_S)


@dataclass
class _Client:
    url: str
    pull: PullClient
    server: FloodServer
    text_bytes: int

    def received(self) -> int:
        return self.pull.health().received

    async def flood(self, rate: int, count: int) -> None:
        await self.server.flood(rate, count, self.text_bytes)


@asynccontextmanager
async def _client(text_bytes: int) -> AsyncGenerator[_Client]:
    async with AsyncExitStack() as stack:
        server = await FloodServer.start()
        stack.push_async_callback(server.stop)
        pull = PullClient(AccessToken(server.portal_url, server.token))
        page = await stack.enter_async_context(Inspector(pull))
        await stack.enter_async_context(pull)
        yield _Client(page.url, pull, server, text_bytes)


@dataclass
class _Log:
    url: str
    page: HubInspector
    engine: redis.asyncio.Redis
    text_bytes: int

    def received(self) -> int:
        return self.page.received

    async def flood(self, rate: int, count: int) -> None:
        began, sent = time.monotonic(), 0
        while sent < count:
            # On a machine that lags behind, no more at once: it is not this that is measured.
            due = min(count - sent, int((time.monotonic() - began) * rate) - sent, _AT_ONCE)
            async with self.engine.pipeline(transaction=False) as pipe:
                for number in range(sent, sent + due):
                    pipe.xadd(_STREAM, {"event": _entry(number, self.text_bytes)}, maxlen=20_000)
                await pipe.execute()
            sent += due
            await asyncio.sleep(0.0 if due == _AT_ONCE else 0.02)


_STREAM = "{bitrix-pull:0}:events"
_AT_ONCE = 200


def _entry(number: int, text_bytes: int) -> bytes:
    event = PullEvent(
        f"1700000000{number:016}",
        "application",
        "flood",
        {"n": number, "text": "x" * text_bytes},
        {},
        BACKEND_SENDER,
        "server",
        created_unix=int(time.time()),
    )
    return envelope(f"portal{number % 100}", 1, event)


@asynccontextmanager
async def _log(text_bytes: int) -> AsyncGenerator[_Log]:
    with running() as server:
        async with (
            redis.asyncio.Redis.from_url(server.url) as engine,
            HubInspector(server.url) as page,
        ):
            # It begins with what is there: from the first new entry on, all are counted.
            await engine.xadd(_STREAM, {"other": b""})
            await asyncio.sleep(1.0)
            yield _Log(page.url, page, engine, text_bytes)


def _resident() -> int:
    gc.collect()
    return resident_bytes()


@asynccontextmanager
async def _mute_reader(url: str) -> AsyncGenerator[None]:
    """Open the stream, and never read from it."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=1024)
    writer.write(f"GET /stream?{parts.query} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode())
    await reader.readuntil(b"\r\n")
    try:
        yield
    finally:
        writer.transport.abort()


@asynccontextmanager
async def _page(outcome: Outcome, url: str) -> AsyncGenerator[Callable[[], Awaitable[tuple[int, int]]]]:
    """Open the page; what is yielded tells the bytes of its heap, and how many rows it has drawn."""
    async with browser() as chromium:
        page = await chromium.new_page()
        await page.goto(url)
        session = await page.context.new_cdp_session(page)

        async def measure() -> tuple[int, int]:
            count = await page.text_content("#count")
            outcome.promise("the page shows the last 5,000", count == f"{EVENTS_MAX:,}")
            await session.send("HeapProfiler.collectGarbage")
            usage = await session.send("Runtime.getHeapUsage")
            return int(usage["usedSize"]), await page.locator("#rows [role=row]").count()

        yield measure
