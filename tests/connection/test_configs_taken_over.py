"""Clients that follow one stream one after another, each with the configuration that the last one left."""

import asyncio
import random
from dataclasses import replace
from datetime import timedelta

import pytest

from bitrix_pull import MemoryStore, OAuth, State
from bitrix_pull.emulator import Emulator
from bitrix_pull.portal.models import PullConfig
from bitrix_pull.portal.tokens import Tokens
from tests import virtual_time
from tests.connection.listening import Listener, emulator, running

_CONFIG = "pull.application.config.get"


class Left:
    """Keeps a configuration by a clock of its own, which runs as fast as the portal's."""

    def __init__(self) -> None:
        self._kept: tuple[str, PullConfig, float, float] | None = None

    async def load(self, whose: str) -> tuple[PullConfig, float] | None:
        if self._kept is None:
            return None
        of, config, saved_at, good_for_s = self._kept
        gone_s = asyncio.get_running_loop().time() - saved_at
        if of != whose or gone_s >= good_for_s:
            return None
        assert config.server_time is not None
        present = config.server_time + timedelta(seconds=gone_s)
        return replace(config, server_time=present), good_for_s - gone_s

    async def save(self, whose: str, config: PullConfig, good_for_s: float) -> None:
        self._kept = whose, config, asyncio.get_running_loop().time(), good_for_s


class Store(MemoryStore):
    """Keeps the resume point and the configuration."""

    def __init__(self) -> None:
        super().__init__()
        self.configs = Left()


def listener(emu: Emulator, store: Store, user_id: int | None = 1) -> Listener:
    about = {} if user_id is None else {"user_id": user_id}
    auth = OAuth(
        emu.portal_url,
        client_id=emu.portal.client_id,
        client_secret=emu.portal.client_secret,
        oauth_url=emu.oauth_url,
        tokens=Tokens(access_token=emu.token, refresh_token=emu.refresh_token, fields=about),
    )
    return Listener(emu, auth=auth, resume=store, ping_interval_s=6 * 3600.0)


@pytest.mark.parametrize("off_s", [0.0, 86_400.0, -86_400.0])
def test_days_of_takeovers_cost_the_portal_no_more_than_one_client_would(off_s: float) -> None:
    """Whatever the clocks of the machines show."""

    async def main() -> None:
        rng, store, numbers, sent, takeovers = random.Random(5), Store(), list[int](), 0, 0
        emu = emulator()
        emu.portal.clock_offset_s = off_s
        emu.push.ping_interval_s = 1e9
        days = 1.5
        loop = asyncio.get_running_loop()
        async with emu:
            end = loop.time() + days * 86_400
            while loop.time() < end:
                takeovers += 1
                async with running(listener(emu, store)) as client:
                    await client.reached(State.LIVE)
                    shift_end = loop.time() + rng.uniform(60, 3_600)
                    while loop.time() < shift_end:
                        emu.portal.send("x", {"n": sent})
                        sent += 1
                        await asyncio.sleep(rng.uniform(1, 600))
                    await asyncio.sleep(10)
                    numbers += client.numbers
                emu.portal.send("x", {"n": sent})
                sent += 1
            async with running(listener(emu, store)) as client:
                await client.received(1)
                numbers += client.numbers
        assert numbers == list(range(sent))
        # A look at the settings once an hour, and two for each renewal.
        assert emu.portal.calls[_CONFIG] <= days * 24 * 60 / 55 + 2 * (days * 2 + 1)
        assert takeovers > 1.5 * emu.portal.calls[_CONFIG]

    virtual_time.run(main)


@pytest.mark.parametrize("user_id", [2, None])
def test_that_of_another_user_is_not_taken_nor_where_nobody_knows_whose_it_is(user_id: int | None) -> None:
    async def main() -> None:
        store = Store()
        async with emulator() as emu:
            for then in (1, user_id, user_id):
                async with running(listener(emu, store, then)) as client:
                    await client.reached(State.LIVE)
            # The last one has been left one, if it is known whose.
            assert emu.portal.calls[_CONFIG] == (3 if user_id is None else 2)

    virtual_time.run(main)


def test_what_the_portal_queues_is_bound_all_the_same() -> None:
    async def main() -> None:
        store = Store()
        async with emulator() as emu:
            async with running(listener(emu, store)) as client:
                await client.reached(State.LIVE)
            got: list[str] = []
            taker = listener(emu, store)
            taker.on_portal_event("ONCRMDEALUPDATE")(lambda event: got.append(event.name))
            async with running(taker):
                await taker.reached(State.LIVE)
                emu.portal.change("ONCRMDEALUPDATE", {"FIELDS": {"ID": "1"}})
                async with asyncio.timeout(600):
                    while not got:
                        await asyncio.sleep(0.1)
            assert emu.portal.calls[_CONFIG] == 1

    virtual_time.run(main)
