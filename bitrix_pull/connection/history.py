"""Asking the push server for its history, by more than one way if need be."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager

from bitrix_pull.connection.connector import Connection
from bitrix_pull.connection.cursor import Cursor
from bitrix_pull.connection.stamps import stamp_of
from bitrix_pull.errors import PullError, Unreachable
from bitrix_pull.events import PullEvent
from bitrix_pull.wire.close_codes import ClientClose
from bitrix_pull.wire.messages import Control, Incoming, Unread
from bitrix_pull.wire.urls import START_OF_HISTORY

PATIENCE_S = 3.0
"""How long to wait for an answer by one way before the next is tried beside it.

A poll is answered at once where the history holds anything, and hangs for 40 s where it does not.
"""

Way = Callable[[], Awaitable[Connection]]

History = Callable[[str], AbstractAsyncContextManager[AsyncIterator[Sequence[Incoming]]]]
"""Asks the push server for what it has after a mid, and gives the answer part by part.

Raises:
    PullError: It cannot be asked, at the beginning or amid the answer.
"""


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


async def holds_known(history: History, cursor: Cursor) -> bool:
    """Tell whether a server has what another one has sent already: then it is that one, renamed.

    Nothing is sure where it does not answer at once.
    """
    try:
        async with (
            asyncio.timeout(PATIENCE_S),
            history(cursor.resume_point or START_OF_HISTORY) as parts,
        ):
            async for part in parts:
                messages = [message for message in part if isinstance(message, PullEvent | Unread | Control)]
                if messages:
                    return any(cursor.recognises(message.mid, stamp_of(message)) for message in messages)
    except (PullError, TimeoutError):
        pass
    return False
