"""Publishing while channels are renewed, have ended, or are not those of the push server any more."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from bitrix_pull import AccessToken, Message, PullClient, State
from bitrix_pull.emulator import Emulator
from bitrix_pull.emulator.channels import CHANNEL_LIFE_S
from bitrix_pull.emulator.faults import PublishFault
from bitrix_pull.errors import PublicChannelRequired, Unreachable
from tests import virtual_time
from tests.publish.conftest import AlteredPortal, client, next_numbers
from tests.virtual_time import unix_time


@pytest.mark.parametrize("version", [4, 5])
async def test_over_the_socket_a_renewal_is_not_noticed(version: int) -> None:
    async with Emulator(version=version) as emu, client(emu) as pull, pull.subscribe() as events:
        emu.push.gather_s = 0.2  # So that version 5 always has calls to answer.
        renewed = False
        sent = 0
        tasks: list[asyncio.Task[Any]] = []
        async with asyncio.timeout(20):
            while not renewed or len(emu.push.connections) > 1:
                if sent == 10:
                    emu.portal.rotate()
                tasks.append(
                    asyncio.create_task(pull.publish("x", {"n": sent}, to_self=True, route="socket"))
                )
                sent += 1
                renewed = renewed or len(emu.push.connections) > 1
                await asyncio.sleep(0.01)
        receipts = await asyncio.gather(*tasks)
        assert sum(receipt.messages for receipt in receipts) == sent
        assert sorted(await next_numbers(events, sent)) == list(range(sent))


def test_a_portal_that_is_slow_to_renew_does_not_hold_up_publishing() -> None:
    async def main() -> None:
        async with unstarted() as (emu, pull):
            await pull.publish("x", to_self=True, route="endpoint")
            await asyncio.sleep(CHANNEL_LIFE_S - 60)
            emu.portal.faults.delay_s = 20
            begun = asyncio.get_running_loop().time()
            await pull.publish("x", to_self=True, route="endpoint")
            assert asyncio.get_running_loop().time() - begun < 1

    virtual_time.run(main)


def test_once_they_have_ended_the_portal_is_asked_within_the_timeout() -> None:
    async def main() -> None:
        async with unstarted() as (emu, pull):
            await pull.publish("x", to_self=True, route="endpoint")
            await asyncio.sleep(CHANNEL_LIFE_S - 5)
            emu.push.faults.publishing = lambda number: PublishFault(status=429, retry_after_s=10)
            emu.portal.faults.delay_s = 25
            begun = asyncio.get_running_loop().time()
            with pytest.raises(Unreachable) as raised:
                await pull.publish("x", to_self=True, route="endpoint", timeout=12)
            assert raised.value.unsent
            assert asyncio.get_running_loop().time() - begun < 12.5

    virtual_time.run(main)


async def test_a_push_server_with_another_key_is_published_to_from_the_second_time_on(emu: Emulator) -> None:
    pull = PullClient(AccessToken(emu.portal_url, emu.token))
    many = [Message("x", users=[1, 2]), Message("x", to_self=True)]
    assert (await pull.publish_many(many, route="endpoint")).confirmed
    emu.push.signer = emu.portal.signer = Emulator().push.signer
    refused = await pull.publish_many(many, route="endpoint")
    assert {type(fate.error) for fate in refused.fates} == {PublicChannelRequired}
    assert (await pull.publish_many(many, route="endpoint")).confirmed
    await pull.close()


async def test_what_a_publisher_learns_of_a_new_key_the_stream_follows(emu: Emulator) -> None:
    async with client(emu) as pull, pull.subscribe() as events:
        emu.push.signer = emu.portal.signer = Emulator().push.signer
        with pytest.raises(PublicChannelRequired):
            await pull.publish("x", to_self=True, route="endpoint")
        async with asyncio.timeout(10):
            while pull.health().connects < 2 or pull.state is not State.LIVE:
                await asyncio.sleep(0.01)
        assert (await pull.publish("x", {"n": 1}, to_self=True, route="endpoint")).confirmed
        assert await next_numbers(events, 1) == [1]


# -- event loops -------------------------------------------------------------------------


class Slow(AlteredPortal):
    """A portal that takes its time, so that calls of one moment wait for each other."""

    async def call(self, method: str, params: Mapping[str, Any], /) -> Any:
        await asyncio.sleep(0.01)
        return await super().call(method, params)


def test_a_client_can_be_used_in_one_event_loop_after_another() -> None:
    portal = Slow(Emulator(), server={"publish_secure": "http://127.0.0.1:1/"})
    pull = PullClient(portal)

    async def publish(first: int) -> set[type]:
        to_two = (
            pull.publish_many([Message("x", users=first + n)], route="endpoint", timeout=5) for n in (0, 1)
        )
        receipts = await asyncio.gather(*to_two)
        await pull.close()
        return {type(fate.error) for receipt in receipts for fate in receipt.fates}

    for first in (11, 21, 31):
        assert asyncio.run(publish(first)) == {Unreachable}
    assert len(portal.calls) == 6


def test_a_client_that_is_in_use_in_another_event_loop_says_so() -> None:
    pull = PullClient(Slow(Emulator()))
    with asyncio.Runner() as one, asyncio.Runner() as other:
        assert one.run(pull.publish("x")).confirmed
        for call in (pull.publish("x"), pull.notify(1, "text"), pull.run()):
            with pytest.raises(RuntimeError, match="another event loop"):
                other.run(call)
        one.run(pull.close())
        assert other.run(pull.publish("x")).confirmed
        other.run(pull.close())


@asynccontextmanager
async def unstarted() -> AsyncIterator[tuple[Emulator, PullClient]]:
    """Give an emulator in virtual time, and a client that is not started."""
    async with Emulator(clock=unix_time) as emu:
        pull = PullClient(AccessToken(emu.portal_url, emu.token))
        yield emu, pull
        await pull.close()
