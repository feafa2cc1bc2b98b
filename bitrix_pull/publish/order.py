"""Concurrency that keeps the order for each receiver."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterable

from bitrix_pull.publish.packing import Request

AHEAD_MAX = 100
"""Requests taken in hand before their turn, to find some that need not wait for others."""


async def in_order(
    requests: Iterable[Request],
    send: Callable[[Request], Awaitable[None]],
    *,
    at_once: int,
    pipelined: bool = False,
) -> None:
    """Send requests concurrently, but those that have a receiver in common one after another.

    Args:
        requests: In the order in which each receiver shall get them. They are taken when
            others have gone out, so that they are packed while those are on their way.
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
    ahead_max = min(at_once, AHEAD_MAX)
    ahead = asyncio.Semaphore(ahead_max)
    latest: dict[Hashable, _Turn] = {}

    async def take_turns(turn: _Turn, request: Request, before: Iterable[_Turn]) -> None:
        nonlocal ahead_max
        for other in before:
            await other.over.wait()
        while True:
            async with gate:
                ahead.release()
                if ahead_max < AHEAD_MAX:
                    # One further with each that is sent: while requests are packed, no answer is read.
                    ahead_max += 1
                    ahead.release()
                await send(request)
            turn.over.set()
            following, turn.following = turn.following, None
            if following is None:
                return
            turn, request = following

    async with asyncio.TaskGroup() as group:
        for request in requests:
            await ahead.acquire()
            turn = _Turn()
            keys = set[Hashable]() if pipelined else request.keys
            before = [
                other for other in {latest[key] for key in keys & latest.keys()} if not other.over.is_set()
            ]
            latest.update(dict.fromkeys(keys, turn))
            if len(before) == 1 and before[0].following is None:
                before[0].following = turn, request
            else:
                group.create_task(take_turns(turn, request, before))
            await asyncio.sleep(0)  # Lets it go out, and what has just begun.


class _Turn:
    """A place in the order.

    Attributes:
        over: Set when the request was sent, whatever became of it.
        following: What the same task sends next: it needs to wait for nothing else.
    """

    __slots__ = ("following", "over")

    def __init__(self) -> None:
        self.over = asyncio.Event()
        self.following: tuple[_Turn, Request] | None = None
