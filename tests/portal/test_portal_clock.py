"""The portal's clock, on a machine whose own clocks stand still, are set, or disagree."""

import asyncio

import pytest

from bitrix_pull.portal.portal_clock import Moment, PortalClock
from tests import virtual_time

DAY_S = 86_400.0


def true_time() -> float:
    return virtual_time.unix_time()


def test_it_goes_on_from_what_the_portal_told() -> None:
    async def main() -> None:
        clock = PortalClock()
        assert clock.now() == pytest.approx(true_time())
        clock.learn(true_time() + 3_600)
        await asyncio.sleep(100_000)
        assert clock.now() == pytest.approx(true_time() + 3_600)

    virtual_time.run(main)


def test_a_date_of_whole_seconds_does_not_spoil_what_is_known_more_exactly() -> None:
    async def main() -> None:
        clock = PortalClock()
        clock.learn(true_time() + 0.7)
        clock.learn(float(int(true_time())))
        assert clock.now() == pytest.approx(true_time() + 0.7)
        clock.learn(float(int(true_time()) + 10))
        assert clock.now() == pytest.approx(int(true_time()) + 10)

    virtual_time.run(main)


@pytest.mark.parametrize("told", [float("nan"), float("inf")])
def test_a_time_that_is_none_changes_nothing(told: float) -> None:
    async def main() -> None:
        clock = PortalClock()
        clock.learn(told)
        assert clock.now() == pytest.approx(true_time())

    virtual_time.run(main)


def test_sleep_of_the_machine_counts_and_wakes_who_waits() -> None:
    async def main() -> None:
        clock = PortalClock()
        clock.learn(true_time())
        waiting = asyncio.create_task(clock.until(true_time() + 3 * DAY_S))
        sleeping = asyncio.create_task(clock.sleep(2 * DAY_S))
        await asyncio.sleep(10)
        woke_at = asyncio.get_running_loop().time()
        virtual_time.fall_asleep(2.5 * DAY_S)
        assert clock.now() == pytest.approx(true_time())
        assert await waiting, "the clocks came apart"
        await sleeping
        assert asyncio.get_running_loop().time() - woke_at <= 3
        # What is left is waited for as ever.
        assert not await clock.until(true_time() + 100)
        assert asyncio.get_running_loop().time() - woke_at == pytest.approx(100, abs=3)

    virtual_time.run(main, naps=True)


@pytest.mark.parametrize("off_s", [-DAY_S, -10.0, 10.0, DAY_S])
def test_a_wall_clock_that_is_set_is_noticed_and_hurries_at_most(off_s: float) -> None:
    async def main() -> None:
        clock = PortalClock()
        clock.learn(true_time())
        waiting = asyncio.create_task(clock.until(true_time() + 3 * DAY_S))
        await asyncio.sleep(10)
        virtual_time.set_wall_clock(off_s)
        assert clock.now() == pytest.approx(true_time() + max(off_s, 0.0))
        async with asyncio.timeout(5):
            assert await waiting
        # The next answer puts it right, and waits go by that.
        clock.learn(true_time())
        end = true_time() + 1_000
        await clock.sleep(1_000)
        assert true_time() == pytest.approx(end, abs=3)

    virtual_time.run(main, naps=True)


def test_another_servers_time_tells_that_both_clocks_stood_still() -> None:
    async def main() -> None:
        clock = PortalClock()
        clock.learn(true_time())
        # That server is two hours off, and nobody minds.
        clock.hear("push", true_time() - 7_200)
        await asyncio.sleep(500)
        clock.hear("push", true_time() - 7_200)
        assert clock.now() == pytest.approx(true_time())
        waiting = asyncio.create_task(clock.until(true_time() + 10 * DAY_S))
        await asyncio.sleep(0)
        virtual_time.stop_the_clocks(DAY_S)
        assert clock.now() == pytest.approx(true_time() - DAY_S)
        clock.hear("push", true_time() - 7_200)
        assert clock.now() == pytest.approx(true_time())
        assert await waiting

    virtual_time.run(main, naps=True)


def test_what_passed_since_a_moment_is_never_negative() -> None:
    async def main() -> None:
        moment = Moment.now()
        virtual_time.set_wall_clock(-DAY_S)
        assert moment.elapsed_s == 0
        await asyncio.sleep(50)
        assert moment.elapsed_s == pytest.approx(50)
        virtual_time.fall_asleep(3 * DAY_S)
        assert moment.elapsed_s == pytest.approx(2 * DAY_S + 50)

    virtual_time.run(main)


def test_nothing_is_left_running_when_nobody_waits() -> None:
    async def main() -> None:
        clock = PortalClock()
        waits = [asyncio.create_task(clock.until(true_time() + DAY_S)) for _ in range(3)]
        await asyncio.sleep(10)
        for wait in waits:
            wait.cancel()
        await asyncio.wait(waits)
        loop = asyncio.get_running_loop()
        timers = [timer for timer in loop._scheduled if not timer.cancelled()]  # type: ignore[attr-defined]
        assert timers == []

    virtual_time.run(main, naps=True)
