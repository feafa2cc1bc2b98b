"""Concurrency that keeps the order for each receiver."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterable

from bitrix_pull.publish.packing import Request

AHEAD_MAX = 100
"""Requests taken in hand before their turn; with pipelining, at most so many on top."""


async def in_order(
    requests: Iterable[Request],
    send: Callable[[Request], Awaitable[None]],
    *,
    at_once: int,
    pipelined: bool = False,
) -> None:
    """Send requests concurrently, but those that have a receiver in common one after another.

    Args:
        requests: In the order in which each receiver shall get them. They are taken one by
            one, so that one is packed while others are on their way.
        send: Sends one; what it raises ends all.
        at_once: How many may be under way.
        pipelined: True if they are carried out in the order in which they are begun: none
            has to wait until another one is done.
    """
    if at_once == 1:
        for request in requests:
            await send(request)
        return
    gate = asyncio.Semaphore(at_once)
    ahead = asyncio.Semaphore(at_once + AHEAD_MAX)
    latest: dict[Hashable, asyncio.Task[None]] = {}

    async def send_after(before: set[asyncio.Task[None]], request: Request) -> None:
        try:
            if before:
                await asyncio.wait(before)
            async with gate:
                await send(request)
        finally:
            ahead.release()

    async with asyncio.TaskGroup() as group:
        for request in requests:
            await ahead.acquire()
            keys = set[Hashable]() if pipelined else request.keys
            before = {latest[key] for key in keys if key in latest}
            task = group.create_task(send_after(before, request))
            latest.update(dict.fromkeys(keys, task))
            await asyncio.sleep(0)  # Lets it go out.
