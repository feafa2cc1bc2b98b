"""A flag wakes everybody who waits, and nobody else."""

import asyncio

from bitrix_pull.flag import Flag


async def waiting(flag: Flag) -> "asyncio.Task[None]":
    task = asyncio.create_task(flag.wait())
    await asyncio.sleep(0)
    return task


async def test_whoever_comes_while_it_is_set_does_not_wait() -> None:
    flag = Flag()
    assert not flag.is_set()
    flag.set()
    assert flag.is_set()
    await flag.wait()
    flag.clear()
    assert not flag.is_set()
    late = await waiting(flag)
    assert not late.done()
    late.cancel()


async def test_all_who_wait_are_woken_even_if_it_is_cleared_at_once() -> None:
    flag = Flag()
    first, second = await waiting(flag), await waiting(flag)
    flag.set()
    flag.clear()
    late = await waiting(flag)
    assert first.done()
    assert second.done()
    assert not late.done()
    flag.set()
    await late


async def test_who_was_cancelled_is_not_woken_and_holds_up_nobody() -> None:
    flag = Flag()
    impatient, patient = await waiting(flag), await waiting(flag)
    impatient.cancel()
    flag.set()
    await patient
    await asyncio.wait({impatient})
    assert impatient.cancelled()
