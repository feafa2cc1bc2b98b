"""Notices for everybody who listens."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from bitrix_pull.dispatch.notices import NoticeBoard
from bitrix_pull.events import MessageDropped, Notice


def notice(number: int) -> Notice:
    return MessageDropped("", "test", number)


def totals(notices: list[Notice]) -> list[int]:
    return [item.total for item in notices if isinstance(item, MessageDropped)]


async def take(listener: AsyncIterator[Notice], count: int) -> list[int]:
    return totals([await asyncio.wait_for(anext(listener), 5) for _ in range(count)])


async def listening(board: NoticeBoard) -> AsyncGenerator[Notice, None]:
    """Return a listener that has begun to listen."""
    listener = board.listen()
    first = asyncio.ensure_future(anext(listener))
    await asyncio.sleep(0)
    board.post(notice(0))
    assert totals([await first]) == [0]
    return listener


async def test_every_listener_gets_every_notice_in_order() -> None:
    board = NoticeBoard()
    first = await listening(board)
    second = await listening(board)
    async with aclosing(first), aclosing(second):
        board.post(notice(1))
        board.post(notice(2))
        assert await take(first, 3) == [0, 1, 2]
        assert await take(second, 2) == [1, 2]


async def test_what_was_posted_before_is_not_repeated() -> None:
    board = NoticeBoard()
    board.post(notice(7))
    async with aclosing(await listening(board)) as listener:
        board.post(notice(1))
        assert await take(listener, 1) == [1]


async def test_a_listener_may_wait_between_notices() -> None:
    board = NoticeBoard()
    async with aclosing(await listening(board)) as listener:
        for number in range(3):
            waiting = asyncio.create_task(take(listener, 1))
            await asyncio.sleep(0)
            assert not waiting.done()
            board.post(notice(number))
            assert await waiting == [number]


async def test_one_that_does_not_read_loses_the_oldest() -> None:
    board = NoticeBoard()
    async with aclosing(await listening(board)) as listener:
        for number in range(1, 1501):
            board.post(notice(number))
        assert await take(listener, 1000) == list(range(501, 1501))


async def test_posting_to_nobody_or_to_one_that_left_does_nothing() -> None:
    board = NoticeBoard()
    board.post(notice(1))
    listener = await listening(board)
    await listener.aclose()
    board.post(notice(2))
    assert [item async for item in listener] == []
