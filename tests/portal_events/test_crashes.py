"""Processes that die, answers that are lost, records that nobody is at work on any more."""

import asyncio
from typing import Any

import pytest

from bitrix_pull import PortalEvent
from bitrix_pull.emulator import Emulator
from bitrix_pull.emulator.faults import ConnectionFaults
from tests import virtual_time
from tests.portal_events.stand import READING, RESERVING, UPDATE, Program, deal, emulator, running, until

both_ways = pytest.mark.parametrize("reservation", [RESERVING, READING])


def reserved_by_nobody(emu: Emulator, *numbers: int) -> None:
    """Let a process have died that had reserved these deals."""
    for number in numbers:
        emu.portal.change(UPDATE, deal(number))
    emu.portal.offline.reserve(record for record in emu.portal.offline.records if not record.process_id)


def bound(emu: Emulator) -> None:
    emu.portal.offline.bindings.append((UPDATE, ""))


@pytest.mark.parametrize("version", [3, 4, 5])
def test_what_a_dead_process_had_reserved_is_handled_some_seconds_after_the_start(version: int) -> None:
    async def main() -> None:
        async with emulator(version=version) as emu:
            bound(emu)
            reserved_by_nobody(emu, *range(1, 61))
            async with running(Program(emu)) as program:
                emu.portal.change(UPDATE, deal(100))
                await program.handled(1, within_s=2)
                assert program.ids == [100]
                await program.handled(61, within_s=15)
                assert sorted(number for number in program.ids if number) == [*range(1, 61), 100]
                await until(lambda: not emu.portal.offline.records)

    virtual_time.run(main)


def test_a_living_process_answers_for_what_it_is_at_work_on() -> None:
    async def main() -> None:
        async with emulator() as emu, running(Program(emu)) as slow:
            slow.takes_s = 100.0
            for number in (1, 2, 3):
                emu.portal.change(UPDATE, deal(number))
            await until(lambda: all(record.process_id for record in emu.portal.offline.records))
            async with running(Program(emu)) as other:
                await asyncio.sleep(50)
                assert other.events == []
                await slow.handled(3, within_s=500)
                await asyncio.sleep(400)
                assert other.events == []
            assert not emu.portal.offline.records

    virtual_time.run(main)


def test_two_that_start_at_once_do_not_both_take_over() -> None:
    async def main() -> None:
        async with emulator() as emu:
            bound(emu)
            reserved_by_nobody(emu, *range(1, 31))
            one, other = Program(emu), Program(emu)
            async with asyncio.TaskGroup() as starting:
                starting.create_task(one.__aenter__())
                starting.create_task(other.__aenter__())
            await until(lambda: not emu.portal.offline.records, within_s=120)
            assert sorted(number for number in [*one.ids, *other.ids] if number) == list(range(1, 31))
            await one.close()
            await other.close()

    virtual_time.run(main)


def test_one_that_starts_while_another_takes_over_leaves_it_alone() -> None:
    async def main() -> None:
        async with emulator() as emu:
            bound(emu)
            reserved_by_nobody(emu, 1, 2, 3)
            async with running(Program(emu)) as one:
                await asyncio.sleep(3)
                async with running(Program(emu)) as other:
                    await one.handled(3, within_s=20)
                    await asyncio.sleep(400)
                    assert other.events == []

    virtual_time.run(main)


def test_however_many_processes_have_died_all_of_it_is_handled() -> None:
    async def main() -> None:
        async with emulator() as emu:
            bound(emu)
            for number in range(1, 451):
                reserved_by_nobody(emu, number)
            async with running(Program(emu)) as program:
                await program.handled(450, within_s=60)
                await until(lambda: not emu.portal.offline.records)
            assert sorted(number for number in program.ids if number) == list(range(1, 451))

    virtual_time.run(main)


def test_nothing_is_taken_over_while_the_stream_carries_nothing() -> None:
    async def main() -> None:
        async with emulator() as emu:
            bound(emu)
            reserved_by_nobody(emu, 1)
            emu.push.faults.script = lambda number: ConnectionFaults(mute=True)
            async with running(Program(emu, ping_interval_s=120.0, ping_timeout_s=60.0)) as program:
                await asyncio.sleep(100)
                assert emu.portal.calls["pull.application.event.add"] >= 2
                assert program.events == []
                emu.push.faults.script = None
                for subscriber in emu.push.connections:
                    subscriber.abort()
                await program.handled(1, within_s=100)

    virtual_time.run(main)


def test_a_lost_answer_to_a_reservation_leaves_nothing_behind() -> None:
    async def main() -> None:
        async with emulator() as emu, running(Program(emu)) as program:
            await asyncio.sleep(5)
            emu.portal.faults.fail_rest(1, applied=True)
            for number in (1, 2, 3):
                emu.portal.change(UPDATE, deal(number))
            await program.handled(3)
            await until(lambda: not emu.portal.offline.records)

    virtual_time.run(main)


@both_ways
def test_failures_of_the_portal_pass(reservation: str) -> None:
    async def main() -> None:
        async with emulator(reservation) as emu, running(Program(emu)) as program:
            for number in range(1, 30):
                emu.portal.change(UPDATE, deal(number))
                if number % 7 == 0:
                    emu.portal.faults.fail_rest(2, applied=number % 2 == 0)
                    emu.portal.faults.fail_rest(
                        1, 503, '{"error":"QUERY_LIMIT_EXCEEDED"}', "application/json"
                    )
                await asyncio.sleep(3)
            await program.handled(29, within_s=300)
            await until(lambda: not emu.portal.offline.records, within_s=300)
            assert set(program.ids) == set(range(1, 30))

    virtual_time.run(main)


@both_ways
def test_what_a_handler_had_not_finished_with_comes_again(reservation: str) -> None:
    async def main() -> None:
        async with emulator(reservation) as emu:
            async with running(Program(emu)) as program:
                program.takes_s = 1000.0
                emu.portal.change(UPDATE, deal(7))
                await asyncio.sleep(10)
            assert program.events == []
            async with running(Program(emu)) as program:
                await program.handled(1)
                await until(lambda: not emu.portal.offline.records)

    virtual_time.run(main)


def test_closing_tells_the_portal_what_was_handled() -> None:
    async def main() -> None:
        async with emulator() as emu:
            async with running(Program(emu)) as program:
                for number in (1, 2, 3):
                    emu.portal.change(UPDATE, deal(number))
                await program.handled(3)
            assert not emu.portal.offline.records

    virtual_time.run(main)


# -- what fails for good --------------------------------------------------------------


@both_ways
def test_what_fails_for_good_is_marked_and_told_once(reservation: str) -> None:
    async def main() -> None:
        letters: list[int | None] = []
        async with emulator(reservation) as emu:
            program = Program(
                emu,
                fail=lambda event: event.id == 7,
                retries=2,
                on_dead_letter=lambda event, error: letters.append(event.id),
            )
            async with running(program):
                for number in range(1, 11):
                    emu.portal.change(UPDATE, deal(number))
                await program.handled(9)
                await until(lambda: any(record.failed for record in emu.portal.offline.records))
                await asyncio.sleep(1000)
                (record,) = emu.portal.offline.records
                assert (record.data, record.failed, record.process_id) == (deal(7), True, "")
                assert letters == [7]
                assert [failure.attempts for failure in program.failures] == [3]
                assert 7 not in program.ids

    virtual_time.run(main)


@both_ways
def test_a_failed_record_that_changes_again_is_handled_again(reservation: str) -> None:
    async def main() -> None:
        broken = True

        def fail(event: PortalEvent[Any]) -> bool:
            return broken

        async with emulator(reservation) as emu, running(Program(emu, fail=fail)) as program:
            emu.portal.change(UPDATE, deal(7))
            await until(lambda: any(record.failed for record in emu.portal.offline.records))
            broken = False
            emu.portal.change(UPDATE, deal(7))
            await program.handled(1)
            await until(lambda: not emu.portal.offline.records)
            assert len(program.failures) == 1

    virtual_time.run(main)


@both_ways
def test_a_change_while_a_handler_fails_is_not_lost_with_the_record(reservation: str) -> None:
    async def main() -> None:
        calls: list[float] = []

        def fail(event: PortalEvent[Any]) -> bool:
            calls.append(asyncio.get_running_loop().time())
            return len(calls) == 1

        async with emulator(reservation) as emu, running(Program(emu, fail=fail)) as program:
            program.takes_s = 5.0
            emu.portal.change(UPDATE, deal(7))
            await asyncio.sleep(4)
            emu.portal.change(UPDATE, deal(7))
            await program.handled(1)
            await until(lambda: not emu.portal.offline.records)
            assert len(program.failures) == 1

    virtual_time.run(main)


@both_ways
def test_failed_records_are_attempted_once_more_at_the_next_start(reservation: str) -> None:
    async def main() -> None:
        async with emulator(reservation) as emu:
            async with running(Program(emu, fail=lambda event: True)):
                emu.portal.change(UPDATE, deal(7))
                emu.portal.change(UPDATE, deal(8))
                await until(lambda: [record.failed for record in emu.portal.offline.records] == [True] * 2)
            async with running(Program(emu, fail=lambda event: event.id == 8)) as program:
                await program.handled(1)
                await asyncio.sleep(1000)
                assert program.ids == [7]
                assert len(program.failures) == 1
                (record,) = emu.portal.offline.records
                assert (record.data, record.failed) == (deal(8), True)

    virtual_time.run(main)
