"""Thousands of clients that lose their server at the same moment come back one after the other."""

import asyncio
from bisect import bisect_left

import pytest

from bitrix_pull.connection.connection_limiter import (
    LEAST,
    SHARE_AT_ONCE,
    SHARE_PER_S,
    ConnectionLimiter,
    limiter_of,
)
from tests import virtual_time


class Client:
    """Anything that can be counted."""


async def attempts(limiter: ConnectionLimiter, clients: list[Client]) -> list[float]:
    """Let all try at once; return when each had its turn."""
    for client in clients:
        limiter.join(client)
    loop = asyncio.get_running_loop()
    started = loop.time()

    async def one() -> float:
        async with limiter.turn():
            return loop.time() - started

    return sorted(await asyncio.gather(*(one() for _ in clients)))


def busiest_second(times: list[float]) -> int:
    """Return how many of some moments, in their order, are within one second at most."""
    return max(bisect_left(times, start + 1) - place for place, start in enumerate(times))


@pytest.mark.parametrize("count", [1, 20])
def test_few_clients_do_not_wait(count: int) -> None:
    async def main() -> list[float]:
        return await attempts(limiter_of("wss://push"), [Client() for _ in range(count)])

    assert virtual_time.run(main)[-1] < 0.01


@pytest.mark.parametrize("count", [1000, 5000])
def test_of_many_at_most_a_tenth_tries_within_a_second(count: int) -> None:
    async def main() -> list[float]:
        return await attempts(limiter_of("wss://push"), [Client() for _ in range(count)])

    times = virtual_time.run(main)
    assert busiest_second(times) <= count / 10
    assert times[-1] < 1 / SHARE_PER_S + 1


def test_those_who_are_gone_do_not_count() -> None:
    async def main() -> list[float]:
        limiter = limiter_of("wss://push")
        await attempts(limiter, [Client() for _ in range(1000)])
        await asyncio.sleep(60)
        return await attempts(limiter, [Client() for _ in range(100)])

    times = virtual_time.run(main)
    assert times[-1] == pytest.approx((100 - LEAST) / LEAST, abs=0.2)


def test_whoever_gives_up_holds_nobody_up() -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        limiter = limiter_of("wss://push")

        async def hang() -> None:
            async with limiter.turn():
                await asyncio.Event().wait()

        waiting = [asyncio.create_task(hang()) for _ in range(100)]
        await asyncio.sleep(10)
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
        started = loop.time()
        async with limiter.turn():
            return loop.time() - started

    assert virtual_time.run(main) <= 1 / LEAST


def test_a_server_that_is_slow_to_answer_gets_no_more_at_once() -> None:
    async def main() -> int:
        limiter = limiter_of("wss://push")
        clients = [Client() for _ in range(2000)]
        for client in clients:
            limiter.join(client)
        trying: set[int] = set()
        most = 0

        async def one(number: int) -> None:
            nonlocal most
            async with limiter.turn():
                trying.add(number)
                most = max(most, len(trying))
                await asyncio.sleep(5)
                trying.discard(number)

        await asyncio.gather(*(one(number) for number in range(len(clients))))
        return most

    assert virtual_time.run(main) == SHARE_AT_ONCE * 2000


def test_each_server_and_each_loop_has_its_own() -> None:
    async def main() -> ConnectionLimiter:
        one = limiter_of("wss://push")
        assert limiter_of("wss://push") is one
        assert limiter_of("wss://other") is not one
        return one

    assert asyncio.run(main()) is not asyncio.run(main())
