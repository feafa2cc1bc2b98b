"""WebSocket where it works, long polling where it is blocked, and back (protocol §8)."""

import asyncio
import contextlib
from itertools import pairwise
from typing import Any
from unittest.mock import patch

import pytest

from bitrix_pull import AccessToken, PullOptions, State
from bitrix_pull.connection.disconnects import Ended
from bitrix_pull.connection.transports import Transports
from bitrix_pull.emulator import Owner
from bitrix_pull.errors import InvalidConfig
from bitrix_pull.portal.config import ConfigFetcher
from bitrix_pull.portal.rest import RestClient
from bitrix_pull.wire.close_codes import ClientClose
from tests import virtual_time
from tests.connection.listening import Listener, emulator, running
from tests.connection.stand_ins import (
    AlteredPortal,
    StandInPortal,
    WebSocketPeer,
    http_answer,
    listener_of,
    tcp_server,
)

NOT_101 = [200, 302, 401, 403, 404, 405, 407, 410, 426, 500, 502, 503]
"""What something on the way, or the server, may answer to a handshake instead of 101."""


def now() -> float:
    return asyncio.get_running_loop().time()


@pytest.mark.parametrize("refusal", [*NOT_101, "reset", "black_hole"])
def test_a_start_is_live_over_polling_where_the_websocket_is_blocked(refusal: Any) -> None:
    async def main() -> None:
        async with emulator() as emu:
            emu.push.faults.websocket_refusal = refusal
            # With the deadline that a start has by default.
            async with Listener(emu) as listener:
                assert now() <= 8
                emu.portal.send("x", {"n": 0})
                await listener.received(1)
                assert emu.push.counters.websockets == 0

    virtual_time.run(main)


@pytest.mark.parametrize("refusal", [403, 502, "reset", "black_hole"])
def test_a_blocked_websocket_leads_to_polling_and_back_without_a_gap(refusal: Any) -> None:
    async def main() -> None:
        async with emulator() as emu:
            emu.push.faults.websocket_refusal = refusal
            async with running(Listener(emu)) as listener:
                await listener.reached(State.LIVE)
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
                assert listener.states.count(State.BACKOFF) == 1

    virtual_time.run(main)


@pytest.mark.parametrize("left_s", [1.0, 1e-3, 1e-6, 1e-7, 1e-9])
def test_what_is_left_until_the_next_try_is_nothing_or_long_enough_to_be_waited_for(left_s: float) -> None:
    """By unix time, of whose floats the next one is 0.2 us away: less would be waited for again and again."""

    async def main() -> None:
        async with emulator() as emu:
            emu.push.faults.websocket_refusal = 502
            rest = RestClient(AccessToken(emu.portal_url, emu.token), options=PullOptions())
            transports = Transports(rest.http, PullOptions())
            config = await ConfigFetcher(rest, "application").fetch()
            while transports.current != "long_polling":
                with contextlib.suppress(Ended):
                    await (await transports.open(config, None)).close(ClientClose.NORMAL)
            wait_s = transports.websocket_again_s()
            assert wait_s is not None
            assert wait_s > 500
            nearly = now() + wait_s - left_s
            with patch.object(asyncio.get_running_loop(), "time", lambda: nearly):
                left = transports.websocket_again_s()
            assert left is not None
            assert left == 0 or virtual_time.BEGINNING + left > virtual_time.BEGINNING
            assert left == pytest.approx(left_s, abs=1e-3)
            await rest.close()

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


def test_a_wrong_channel_does_not_mean_that_the_websocket_is_blocked() -> None:
    async def main() -> None:
        async with emulator() as emu:
            emu.push.faults.websocket_refusal = 400
            async with running(Listener(emu)) as listener:
                while emu.push.counters.refused < 6:
                    await asyncio.sleep(1)
                assert emu.push.counters.pollings == 0
                assert listener.state is State.BACKOFF

    virtual_time.run(main)


@pytest.mark.parametrize("refusal", [502, "reset"])
def test_where_polling_fails_too_the_websocket_is_what_is_waited_for(refusal: Any) -> None:
    """A server in trouble must not cost the WebSocket for half an hour."""

    async def main() -> None:
        async with emulator() as emu:
            portal = AlteredPortal(emu, long_polling="http://127.0.0.1:1/", long_pooling_secure="")
            emu.push.faults.websocket_refusal = refusal
            async with running(Listener(emu, auth=portal)) as listener:
                await asyncio.sleep(300)
                assert listener.state is State.BACKOFF
                emu.push.faults.websocket_refusal = None
                back_at = now()
                await listener.reached(State.LIVE)
                assert now() - back_at <= 60 * 1.2 + 1
                assert emu.push.counters.websockets == 1

    virtual_time.run(main)


async def shut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer 101 to a handshake and close with 1008, as some proxies do; any poll is answered with 304."""
    request = await reader.readuntil(b"\r\n\r\n")
    if b"Upgrade: websocket" not in request:
        if request.startswith(b"GET"):
            await asyncio.sleep(40)
        writer.write(http_answer(304 if request.startswith(b"GET") else 200))
        return
    handshake = asyncio.StreamReader()
    handshake.feed_data(request)
    peer = WebSocketPeer(handshake, writer)
    await peer.accept()
    peer.close(1008)
    peer.flush()
    await reader.read(65_536)


def test_a_websocket_that_is_shut_at_once_with_1008_counts_as_blocked_too() -> None:
    async def main() -> None:
        async with tcp_server(shut) as address:
            portal = StandInPortal(websocket=f"ws://{address}/subws/", long_polling=f"http://{address}/sub/")
            async with running(listener_of(portal)) as listener:
                await asyncio.sleep(60)
                assert listener.state is State.LIVE
                assert listener.health().connects <= 4
                # Where it has never worked, the channels are not what is wrong.
                assert len(portal.calls) == 1

    virtual_time.run(main)


def test_a_websocket_that_has_worked_is_not_given_up() -> None:
    async def main() -> None:
        async with emulator() as emu, running(Listener(emu)) as listener:
            await listener.reached(State.LIVE)
            emu.push.faults.websocket_refusal = 403
            await emu.push.disconnect_all()
            while emu.push.counters.refused < 8:
                await asyncio.sleep(1)
            assert emu.push.counters.pollings == 0

    virtual_time.run(main)


@pytest.mark.parametrize("refusal", [403, "black_hole"])
def test_who_wants_the_websocket_only_gets_no_polling(refusal: Any) -> None:
    async def main() -> None:
        async with emulator() as emu:
            emu.push.faults.websocket_refusal = refusal
            async with running(Listener(emu, transport="websocket")) as listener:
                while emu.push.counters.refused < 6 and now() < 300:
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
