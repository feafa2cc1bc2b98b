"""Asking the push server for its history, by more than one way if need be."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from bitrix_pull.connection.connector import Connection
from bitrix_pull.errors import PullError, Unreachable
from bitrix_pull.wire.close_codes import ClientClose
from bitrix_pull.wire.messages import Incoming

PATIENCE_S = 3.0
"""How long to wait for an answer by one way before the next is tried beside it.

A poll is answered at once where the history holds anything, and hangs for 40 s where it does not.
"""

Way = Callable[[], Awaitable[Connection]]


class Answer:
    """What the server has begun to answer.

    Attributes:
        connection: By which it comes.
    """

    def __init__(self, connection: Connection) -> None:
        """Ask over an open connection."""
        self.connection = connection
        self._parts = connection.replay()
        self._first: Sequence[Incoming] | None = None

    async def begin(self) -> None:
        """Wait for the first part, or until it is known that there is none.

        Raises:
            PullError: The server cannot be asked this way.
        """
        self._first = await anext(self._parts, None)

    async def parts(self) -> AsyncIterator[Sequence[Incoming]]:
        """Yield part by part what the history holds.

        Raises:
            PullError: It broke off.
        """
        if self._first is not None:
            yield self._first
            async for part in self._parts:
                yield part

    async def close(self) -> None:
        """Let go of it."""
        await self.connection.close(ClientClose.NORMAL)


async def first_answer(ways: Sequence[Way]) -> Answer:
    """Ask by one way, by the next one too where that is slow or fails, and return what is answered first.

    Raises:
        PullError: None of them leads to an answer.
    """
    error: PullError = Unreachable("there is no way to ask the push server for its history")
    left = deque(ways)
    asking: set[asyncio.Task[Answer]] = set()
    try:
        while asking or left:
            if left:
                asking.add(asyncio.create_task(_ask(left.popleft()), name="bitrix_pull history"))
            timeout_s = PATIENCE_S if left else None
            done, _ = await asyncio.wait(asking, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                asking.remove(task)
                try:
                    return task.result()
                except PullError as failure:
                    error = failure
        raise error
    finally:
        for task in asking:
            task.cancel()
        for outcome in await asyncio.gather(*asking, return_exceptions=True):
            if isinstance(outcome, Answer):
                await outcome.close()


async def _ask(way: Way) -> Answer:
    answer = Answer(await way())
    try:
        await answer.begin()
    except BaseException:
        await answer.close()
        raise
    return answer
