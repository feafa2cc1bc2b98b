"""WebSocket where it works, long polling where it is blocked, and back (protocol §8)."""

import asyncio
from itertools import pairwise
from typing import Any

import pytest

from bitrix_pull import State, StateChanged
from bitrix_pull.emulator import Emulator, Owner
from bitrix_pull.errors import InvalidConfig
from tests import virtual_time
from tests.connection.listening import Listener, emulator, running
from tests.connection.stand_ins import AlteredPortal, StandInPortal, listener_of

RULE = 5
"""Handshakes refused in a row after which the WebSocket counts as blocked."""


def now() -> float:
    return asyncio.get_running_loop().time()


async def rule_met(emu: Emulator, listener: Listener) -> float:
    """Wait for the fifth failure in a row and return when it was."""
    failures = 0
    notices = listener.notices()
    async for notice in notices:
        if isinstance(notice, StateChanged) and notice.previous is State.CONNECTING:
            if notice.state is not State.BACKOFF:
                break
            failures += 1
            if failures == RULE:
                break
    await notices.aclose()  # type: ignore[attr-defined]
    return now()


@pytest.mark.parametrize("refusal", [403, 404, 405, 426, "reset", "black_hole"])
def test_a_blocked_websocket_leads_to_polling_and_back_without_a_gap(refusal: Any) -> None:
    async def main() -> None:
        async with emulator() as emu:
            emu.push.faults.websocket_refusal = refusal
            listener = Listener(emu)
            met = asyncio.create_task(rule_met(emu, listener))
            async with running(listener):
                met_at = await met
                await listener.reached(State.LIVE)
                assert now() - met_at <= 15
                assert emu.push.counters.websockets == 0
                sent = 0

                async def stream(seconds: float) -> None:
                    nonlocal sent
                    until = now() + seconds
                    while now() < until:
                        emu.portal.send("x", {"n": sent}, users=[1] if sent % 2 else None)
                        sent += 1
                        await asyncio.sleep(7.3)

                await stream(1000)
                assert emu.push.counters.websockets == 0
                emu.push.faults.websocket_refusal = None
                allowed_at = now()
                while emu.push.counters.websockets == 0:
                    assert now() - allowed_at <= 1800
                    await stream(5)
                await stream(300)
                polls = emu.push.counters.pollings
                await stream(300)
                # The audit may ask once more, but nobody hangs on a poll any more.
                assert emu.push.counters.pollings <= polls + 1
                await listener.received(sent)
                assert sorted(listener.numbers) == list(range(sent))
                assert listener.state is State.LIVE

    virtual_time.run(main)


def test_the_websocket_is_tried_again_after_10_to_30_minutes_each_time() -> None:
    async def main() -> None:
        async with emulator() as emu:
            emu.push.faults.websocket_refusal = 403
            async with running(Listener(emu)) as listener:
                await listener.reached(State.LIVE)
                refused: list[float] = []
                known = emu.push.counters.refused
                while len(refused) < 15:
                    await asyncio.sleep(5)
                    if emu.push.counters.refused > known:
                        known = emu.push.counters.refused
                        refused.append(now())
                gaps = [later - earlier for earlier, later in pairwise(refused)]
                assert all(595 <= gap <= 1805 for gap in gaps), gaps

    virtual_time.run(main)


def test_channels_are_renewed_though_the_websocket_is_blocked() -> None:
    async def main() -> None:
        async with emulator() as emu:
            emu.push.faults.websocket_refusal = 403
            async with running(Listener(emu)) as listener:
                await listener.reached(State.LIVE)
                for n in range(12):
                    emu.portal.rotate(Owner("application", 1), Owner("application"))
                    emu.portal.send("x", {"n": n}, users=[1] if n % 2 else None)
                    await listener.received(n + 1)
                    await asyncio.sleep(400)
                assert listener.numbers == list(range(12))
                assert listener.states.count(State.BACKOFF) == RULE - 1

    virtual_time.run(main)


def test_renewals_do_not_put_off_the_next_try() -> None:
    async def main() -> None:
        async with emulator() as emu:
            emu.push.faults.websocket_refusal = 403
            async with running(Listener(emu)) as listener:
                await listener.reached(State.LIVE)
                emu.push.faults.websocket_refusal = None
                for _ in range(8):
                    await asyncio.sleep(300)
                    emu.portal.rotate(Owner("application", 1))
                assert emu.push.counters.websockets >= 1

    virtual_time.run(main)


@pytest.mark.parametrize("status", [400, 500, 502, 503])
def test_other_refusals_do_not_mean_that_the_websocket_is_blocked(status: int) -> None:
    """A server in trouble must not cost the WebSocket for half an hour (protocol §8)."""

    async def main() -> None:
        async with emulator() as emu:
            emu.push.faults.websocket_refusal = status
            async with running(Listener(emu)) as listener:
                while emu.push.counters.refused < RULE + 1:
                    await asyncio.sleep(1)
                assert emu.push.counters.pollings == 0
                assert listener.state is State.BACKOFF

    virtual_time.run(main)


def test_a_websocket_that_has_worked_is_not_given_up() -> None:
    async def main() -> None:
        async with emulator() as emu, running(Listener(emu)) as listener:
            await listener.reached(State.LIVE)
            emu.push.faults.websocket_refusal = 403
            await emu.push.disconnect_all()
            while emu.push.counters.refused < RULE + 3:
                await asyncio.sleep(1)
            assert emu.push.counters.pollings == 0

    virtual_time.run(main)


@pytest.mark.parametrize("refusal", [403, "black_hole"])
def test_who_wants_the_websocket_only_gets_no_polling(refusal: Any) -> None:
    async def main() -> None:
        async with emulator() as emu:
            emu.push.faults.websocket_refusal = refusal
            async with running(Listener(emu, transport="websocket")) as listener:
                while emu.push.counters.refused < RULE + 1 and now() < 300:
                    await asyncio.sleep(1)
                assert emu.push.counters.pollings == 0
                emu.push.faults.websocket_refusal = None
                await listener.wait_live()

    virtual_time.run(main)


@pytest.mark.parametrize("disabled", [False, "N", 0, ""])
def test_a_portal_that_has_disabled_the_websocket_is_polled_at_once(disabled: Any) -> None:
    async def main() -> None:
        async with emulator() as emu:
            portal = AlteredPortal(emu, websocket_enabled=disabled)
            async with running(Listener(emu, auth=portal)) as listener:
                await listener.reached(State.LIVE)
                assert now() < 1
                emu.portal.send("x", {"n": 1})
                await listener.received(1)
                await asyncio.sleep(4000)
                assert emu.push.counters.websockets == emu.push.counters.refused == 0
                assert emu.push.counters.pollings > 90

    virtual_time.run(main)


def test_a_portal_that_enables_the_websocket_again_is_followed() -> None:
    async def main() -> None:
        async with emulator() as emu:
            portal = AlteredPortal(emu, websocket_enabled=False)
            async with running(Listener(emu, auth=portal)) as listener:
                await listener.reached(State.LIVE)
                portal.server["websocket_enabled"] = True
                emu.portal.rotate(Owner("application", 1))
                emu.portal.send("x", {"n": 0}, users=[1])
                await listener.received(1)
                await asyncio.sleep(30)
                assert emu.push.counters.websockets == 1
                assert State.BACKOFF not in listener.states

    virtual_time.run(main)


WISHES: list[tuple[str, dict[str, Any], str]] = [
    ("websocket", {"websocket_enabled": False, "websocket": "ws://127.0.0.1:1/"}, "websocket_enabled"),
    ("websocket", {"long_polling": "http://127.0.0.1:1/"}, "WebSocket"),
    ("long_polling", {"websocket": "ws://127.0.0.1:1/"}, "long polling"),
    ("long_polling", {"version": 5, "long_polling": "http://127.0.0.1:1/"}, "version 5"),
    ("auto", {}, "server"),
]


@pytest.mark.parametrize(("transport", "server", "named"), WISHES)
async def test_a_transport_that_the_portal_lacks_is_an_error_that_says_so(
    transport: str, server: dict[str, Any], named: str
) -> None:
    pull = listener_of(StandInPortal(**server), transport=transport)
    with pytest.raises(InvalidConfig, match=named):
        await pull.__aenter__()
