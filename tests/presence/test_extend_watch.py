"""``PullClient.extend_watch``: watches on the portal that never run out, in virtual time."""

import asyncio
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import pytest

from bitrix_pull import PullClient, PullOptions, Webhook
from bitrix_pull.errors import InsufficientScope, InvalidArgument
from bitrix_pull.wire.close_codes import ServerClose
from tests.presence.conftest import client, emulator, in_virtual_time

METHOD = "pull.watch.extend"
LIFE_S = 30 * 60.0


class Portal:
    """A REST client of the user's own that writes down when watches were extended."""

    def __init__(self) -> None:
        self.extended: list[tuple[float, Any]] = []
        self.failures: list[Exception] = []

    async def call(self, method: str, params: Mapping[str, Any], /) -> Any:
        assert method == METHOD
        if self.failures:
            raise self.failures.pop(0)
        self.extended.append((asyncio.get_running_loop().time(), params))
        return True

    @property
    def times(self) -> list[float]:
        return [at for at, _ in self.extended]

    def gaps(self) -> list[float]:
        return [later - earlier for earlier, later in pairwise(self.times)]


@in_virtual_time
async def test_watches_are_extended_at_once_and_every_29_minutes() -> None:
    portal = Portal()
    pull = PullClient(portal)
    async with pull.extend_watch(["CRM_DEAL", "CRM_LEAD", "CRM_DEAL"]):
        assert [params for _, params in portal.extended] == [{"TAGS": ["CRM_DEAL", "CRM_LEAD"]}]
        await asyncio.sleep(86_400)
    count = len(portal.extended)
    assert count == 1 + 86_400 // (29 * 60)
    assert all(gap == pytest.approx(29 * 60) for gap in portal.gaps())
    await asyncio.sleep(86_400)
    assert len(portal.extended) == count
    await pull.close()


@in_virtual_time
async def test_they_are_extended_while_the_client_lives() -> None:
    async with emulator(4) as emulated:
        pull = client(emulated)
        async with pull, pull.extend_watch({"CRM_DEAL"}):
            await asyncio.sleep(29 * 60 * 3 + 1)
            assert emulated.portal.calls[METHOD] == 4
            await pull.close()
            await asyncio.sleep(3_600)
        assert emulated.portal.calls[METHOD] == 4


@in_virtual_time
async def test_they_are_not_extended_by_a_client_that_has_failed() -> None:
    async with emulator(4) as emulated:
        pull = client(emulated)

        async def fail() -> None:
            async with pull, pull.extend_watch(["A"]):
                emulated.portal.application_scope = set()
                await emulated.push.disconnect_all(ServerClose.WRONG_CHANNEL)
                await asyncio.sleep(1)

        with pytest.raises(InsufficientScope):
            await fail()
        emulated.portal.application_scope = {"pull"}
        await asyncio.sleep(3_600)
        assert emulated.portal.calls[METHOD] == 1


@in_virtual_time
async def test_what_fails_for_a_while_is_repeated_before_the_watches_run_out() -> None:
    portal = Portal()
    pull = PullClient(portal)
    async with pull.extend_watch(["A"]):
        for count in range(2, 7):
            portal.failures = [ConnectionError()] * 4
            await asyncio.sleep(LIFE_S - 15)
            assert len(portal.extended) == count
    assert max(portal.gaps()) < LIFE_S
    await pull.close()


@in_virtual_time
async def test_a_long_outage_is_no_flood() -> None:
    portal = Portal()
    pull = PullClient(portal)
    async with pull.extend_watch(["A"]):
        portal.failures = [ConnectionError()] * 10_000
        await asyncio.sleep(3_600 * 3)
        assert 10_000 - len(portal.failures) < 160
        portal.failures.clear()
        await asyncio.sleep(61)
        assert len(portal.extended) == 2
    await pull.close()


@in_virtual_time
async def test_a_later_run_of_the_client_ends_it_too() -> None:
    async with emulator(4) as emulated:
        pull = client(emulated)
        async with pull:
            pass
        async with pull.extend_watch(["A"]):
            async with pull:
                await asyncio.sleep(LIFE_S)
            count = emulated.portal.calls[METHOD]
            assert count > 1
            await asyncio.sleep(3 * LIFE_S)
            assert emulated.portal.calls[METHOD] == count


@in_virtual_time
async def test_a_passing_failure_at_first_is_repeated_too() -> None:
    async with emulator(4) as emulated, client(emulated) as pull:
        emulated.portal.faults.fail_rest(1)
        async with pull.extend_watch(["A"]):
            await asyncio.sleep(5)
            assert emulated.portal.calls[METHOD] == 2


@in_virtual_time
async def test_where_only_a_person_can_help_it_is_said_at_once() -> None:
    async with emulator(4) as emulated, client(emulated) as pull:
        emulated.portal.application_scope = set()
        with pytest.raises(InsufficientScope):
            async with pull.extend_watch(["A"]):
                pass


@in_virtual_time
async def test_it_goes_on_once_a_person_has_helped() -> None:
    async with emulator(4) as emulated, client(emulated) as pull, pull.extend_watch(["A"]):
        emulated.portal.application_scope = set()
        # Until the client looks at its configuration, and fails.
        await asyncio.sleep(3_000)
        emulated.portal.application_scope = {"pull"}
        before = emulated.portal.calls[METHOD]
        await asyncio.sleep(120)
        assert emulated.portal.calls[METHOD] == before + 1


@pytest.mark.parametrize("moment_s", [0.0, 0.5, 29 * 60 + 0.5])
@in_virtual_time
async def test_who_is_cancelled_leaves_nothing_behind(moment_s: float) -> None:
    async with emulator(4) as emulated:
        emulated.portal.faults.delay_s = 1.0
        pull = client(emulated)

        async def hold() -> None:
            async with pull.extend_watch(["A"]):
                await asyncio.Event().wait()

        task = asyncio.create_task(hold())
        await asyncio.sleep(moment_s)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await pull.close()


@pytest.mark.parametrize("tags", ["CRM", b"CRM", [], [""], [1], None, 7])
def test_tags_are_texts(tags: Any) -> None:
    pull = PullClient(Webhook("https://acme.bitrix24.com/rest/1/abcdefgh12345678/"), options=PullOptions())
    with pytest.raises(InvalidArgument, match="tag"):
        pull.extend_watch(tags)
