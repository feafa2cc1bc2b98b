"""One timer watches over a link: it pings a quiet one, and gives up a dead one."""

import asyncio
import time
from functools import partial

from bitrix_pull.connection.heartbeat import Heartbeat
from tests import virtual_time


class Link:
    """Writes down what its heartbeat does, and when."""

    def __init__(self) -> None:
        self.pings: list[float] = []
        self.died: list[float] = []
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self.heartbeat = Heartbeat(
            lambda: self.pings.append(self.now()),
            lambda: self.died.append(self.now()),
            interval_s=10.0,
            timeout_s=5.0,
        )

    def now(self) -> float:
        return round(self._loop.time() - self._began, 3)

    def hear(self) -> None:
        self.heartbeat.heard_at = self._loop.time()


def test_silence_is_pinged_and_then_given_up_once() -> None:
    async def main() -> None:
        link = Link()
        await asyncio.sleep(100)
        assert (link.pings, link.died) == ([10.0], [15.0])

    virtual_time.run(main)


def test_what_is_heard_puts_off_the_next_ping() -> None:
    async def main() -> None:
        link = Link()
        await asyncio.sleep(7)
        link.hear()
        await asyncio.sleep(11)
        assert link.pings == [17.0]
        link.hear()
        await asyncio.sleep(9.9)
        assert (link.pings, link.died) == ([17.0], [])

    virtual_time.run(main)


def test_a_link_that_is_not_listened_to_is_pinged_and_nothing_is_held_against_it() -> None:
    async def main() -> None:
        link = Link()
        await asyncio.sleep(12)
        link.heartbeat.pause()
        await asyncio.sleep(1000)
        assert link.died == []
        link.heartbeat.resume()
        await asyncio.sleep(14.9)
        assert link.pings == [10.0, *(15.0 + 10 * n for n in range(100)), 1022.0]
        assert link.died == []
        await asyncio.sleep(0.2)
        assert link.died == [1027.0]

    virtual_time.run(main)


def test_many_links_are_pinged_in_the_same_moments_and_none_too_late() -> None:
    async def main() -> None:
        pinged: list[tuple[float, float]] = []
        for _ in range(100):
            await asyncio.sleep(0.0037)
            ping = partial(lambda begun: pinged.append((begun, loop_time())), loop_time())
            Heartbeat(ping, lambda: None, interval_s=10.0, timeout_s=5.0)
        await asyncio.sleep(12)
        assert len(pinged) == 100
        assert len({at for _, at in pinged}) <= 4
        assert all(9.875 <= at - begun <= 10.0 for begun, at in pinged)

    virtual_time.run(main)


def loop_time() -> float:
    return asyncio.get_running_loop().time()


async def test_a_program_that_was_held_up_gets_its_time_anew() -> None:
    died: list[float] = []
    heartbeat = Heartbeat(lambda: None, lambda: died.append(1), interval_s=0.05, timeout_s=0.5)
    await asyncio.sleep(0.2)
    time.sleep(1.6)  # noqa: ASYNC251 - this is what is tested
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not died
    await asyncio.sleep(0.9)
    assert died
    heartbeat.stop()
