"""A page over a stream that does not end, and one beside it that never reads."""

import asyncio
import gc
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from urllib.parse import urlsplit

from bitrix_pull import AccessToken, PullClient
from bitrix_pull.inspector import Inspector
from bitrix_pull.inspector.watcher import EVENTS_MAX
from tests.browsers import browser
from tests.soak.flood import FloodServer, resident_bytes
from tests.soak.outcome import Outcome

MIB = 1024 * 1024
SETTLE_S = 3.0


def inspector(*, seconds: float = 60.0, rate: int = 1_000, without_page: bool = False) -> Outcome:
    """1,000 events/s into an inspector and its page: once both are full, neither grows by 8 MiB.

    The page is one in Chromium. Another one is open that reads nothing.
    """
    outcome = Outcome()
    asyncio.run(_inspect(outcome, seconds, rate, without_page))
    return outcome


async def _inspect(outcome: Outcome, seconds: float, rate: int, without_page: bool) -> None:
    total = int(seconds * rate)
    filling = min(2 * EVENTS_MAX, total // 2)
    async with AsyncExitStack() as stack:
        server = await FloodServer.start()
        stack.push_async_callback(server.stop)
        pull = PullClient(AccessToken(server.portal_url, server.token))
        page = await stack.enter_async_context(Inspector(pull))
        await stack.enter_async_context(pull)
        await stack.enter_async_context(_mute_reader(page.url))
        full_page = None
        if not without_page:
            measure = await stack.enter_async_context(_page(outcome, page.url))
        await _flood(server, pull, rate, filling)
        full = _resident()
        if not without_page:
            full_page = await measure()
        cpu = time.process_time()
        await _flood(server, pull, rate, total - filling)
        spent = time.process_time() - cpu
        grown = (_resident() - full) / MIB
        outcome.exactly(total, received=pull.health().received)
        outcome.at_most(8, server_grown_mib=max(0.0, grown))
        outcome.note(server_mib=full / MIB, cpu_us_an_event=spent / (total - filling) * 1e6)
        if full_page is not None:
            heap, rows = await measure()
            outcome.at_most(8, page_grown_mib=max(0.0, (heap - full_page[0]) / MIB))
            outcome.at_most(64, page_mib=heap / MIB)
            outcome.at_most(60, rows_drawn=rows)


async def _flood(server: FloodServer, pull: PullClient, rate: int, count: int) -> None:
    wanted = pull.health().received + count
    await server.flood(rate, count, 200)
    async with asyncio.timeout(120):
        while pull.health().received < wanted:
            await asyncio.sleep(0.1)
    await asyncio.sleep(SETTLE_S)


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
