"""A connection's whole life in real time, on every event loop."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal

import pytest

from bitrix_pull import Receipt, State
from bitrix_pull.emulator import Emulator
from tests.connection.listening import Listener, running
from tests.connection.stand_ins import AlteredPortal
from tests.fault_proxy import FaultProxy
from tests.internet.stand import proving, trusting

pytestmark = pytest.mark.every_loop

Scheme = Literal["ws", "wss"]


@asynccontextmanager
async def listening(
    scheme: Scheme = "ws", *, version: int = 4, **options: Any
) -> AsyncIterator[tuple[Emulator, FaultProxy, Listener]]:
    """Run a listener whose WebSockets go through a proxy."""
    async with (
        Emulator(version=version) as emu,
        FaultProxy.before(emu.portal.address, proving() if scheme == "wss" else None) as proxy,
    ):
        emu.push.gather_s = 0.02
        address = f"{scheme}://{proxy.address}/bitrix/subws/"
        portal = AlteredPortal(emu, websocket=address, websocket_secure=address)
        listener = Listener(emu, auth=portal, ssl=trusting(), **options)
        async with running(listener):
            await listener.reached(State.LIVE)
            yield emu, proxy, listener


@pytest.mark.parametrize("scheme", ["ws", "wss"])
@pytest.mark.parametrize("version", [2, 3, 4, 5])
async def test_what_the_portal_sends_arrives_at_once_and_by_one_connection(
    version: int, scheme: Scheme
) -> None:
    async with listening(scheme, version=version) as (emu, _, listener):
        for n in range(5):
            emu.portal.send("x", {"n": n, "text": "x" * 100_000 * n}, users=[1])
            async with asyncio.timeout(1):
                await listener.received(n + 1)
        assert listener.numbers == list(range(5))
        assert listener.health().connects == 1


@pytest.mark.parametrize("scheme", ["ws", "wss"])
@pytest.mark.parametrize("end", ["fin", "reset"])
async def test_what_a_cut_has_missed_is_replayed(end: Literal["fin", "reset"], scheme: Scheme) -> None:
    async with listening(scheme) as (emu, proxy, listener):
        emu.portal.send("x", {"n": 0})
        await listener.received(1)
        for line in proxy.lines:
            line.cut(end)
        emu.portal.send("x", {"n": 1})
        async with asyncio.timeout(10):
            await listener.received(2)
        assert listener.numbers == [0, 1]
        assert listener.health().connects == 2


async def test_a_link_that_has_fallen_silent_is_given_up() -> None:
    async with listening(ping_interval_s=0.2, ping_timeout_s=0.2) as (emu, proxy, listener):
        await asyncio.sleep(1)
        assert listener.health().connects == 1
        for line in proxy.lines:
            line.cut("silence")
        emu.portal.send("x", {"n": 0})
        async with asyncio.timeout(10):
            await listener.received(1)
        assert listener.health().connects == 2


async def test_polling_brings_the_same() -> None:
    async with listening(transport="long_polling") as (emu, _, listener):
        for n in range(5):
            emu.portal.send("x", {"n": n, "text": "x" * 100_000 * n}, users=[1])
            async with asyncio.timeout(10):
                await listener.received(n + 1)
        assert listener.numbers == list(range(5))


@pytest.mark.parametrize("scheme", ["ws", "wss"])
@pytest.mark.parametrize("version", [4, 5])
async def test_what_is_published_by_the_open_connection_arrives(version: int, scheme: Scheme) -> None:
    async with listening(scheme, version=version) as (_, _, listener):
        confirmed = version == 5
        for n in range(3):
            receipt = await listener.publish("x", {"n": n}, to_self=True, route="socket")
            assert receipt == Receipt("socket", 1, 1, confirmed=confirmed)
        async with asyncio.timeout(5):
            await listener.received(3)
        assert listener.numbers == [0, 1, 2]


async def test_a_handler_that_is_behind_stops_the_reading_and_loses_nothing() -> None:
    async with listening(inbox_max_events=5, ping_interval_s=0.2, ping_timeout_s=0.2) as (emu, _, listener):
        handled: list[int] = []

        @listener.on("slow")
        async def handle(event: Any) -> None:
            await asyncio.sleep(0.005)
            handled.append(event.params["n"])

        for n in range(200):
            emu.portal.send("slow", {"n": n, "text": "x" * 10_000})
            await asyncio.sleep(0)
        async with asyncio.timeout(20):
            while len(handled) < 200:
                await asyncio.sleep(0.05)
        assert handled == list(range(200))
        assert listener.health().connects == 1
