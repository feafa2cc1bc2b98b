"""CATCHING_UP ends where the replay does, or where the server has shown that there is none."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from bitrix_pull import Continuity, Gap, State
from tests import virtual_time
from tests.connection.listening import Listener, emulator, running
from tests.connection.stand_ins import (
    DATE_UNIX,
    StandInPortal,
    WebSocketPeer,
    listener_of,
    protobuf_frame,
    tcp_server,
)

Conduct = Callable[[WebSocketPeer], Awaitable[None]]


class Server:
    """Sends message 1, hangs up after 8 s, and does to who comes then what it is told."""

    def __init__(self, *conducts: Conduct) -> None:
        self._conducts = [self._send_one, *conducts]
        self.paths: list[str] = []

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = WebSocketPeer(reader, writer)
        await peer.accept()
        self.paths.append(peer.path)
        serving = asyncio.create_task(peer.serve())
        try:
            if len(self.paths) <= len(self._conducts):
                await self._conducts[len(self.paths) - 1](peer)
            await serving
        finally:
            serving.cancel()

    async def _send_one(self, peer: WebSocketPeer) -> None:
        send(peer, 1)
        await asyncio.sleep(8)
        peer.hang_up()


def send(peer: WebSocketPeer, *numbers: int, created: int = DATE_UNIX) -> None:
    peer.send(protobuf_frame(*numbers, created=created))
    peer.flush()


def run(server: Server, main: Callable[[Listener], Awaitable[None]], **options: Any) -> None:
    async def with_listener() -> None:
        async with tcp_server(server.answer) as address:
            portal = StandInPortal(websocket=f"ws://{address}/subws/")
            async with running(listener_of(portal, transport="websocket", **options)) as listener:
                await main(listener)

    virtual_time.run(with_listener)


def live_and_events(listener: Listener) -> list[object]:
    """Return numbers of events and moves to LIVE, as they came."""
    story: list[object] = []
    listener.on("x")(lambda event: story.append(event.params["n"]))

    async def write_down() -> None:
        async for notice in listener.notices():
            if getattr(notice, "state", None) is State.LIVE:
                story.append("live")

    asyncio.get_running_loop().create_task(write_down())
    return story


@pytest.mark.parametrize("late_s", [0.0, 0.6, 1.9, 5.0])
def test_a_replay_is_one_however_late_it_comes(late_s: float) -> None:
    async def replay_late(peer: WebSocketPeer) -> None:
        await asyncio.sleep(late_s)
        send(peer, 1, 2, 3)
        await asyncio.sleep(1)
        send(peer, 4, created=DATE_UNIX + 20)

    # Whoever asks beside the open connection is answered as late.
    server = Server(replay_late, replay_late)

    async def main(listener: Listener) -> None:
        story = live_and_events(listener)
        await listener.received(4)
        assert story == ["live", 1, 2, 3, "live", 4]
        assert [event.replayed for event in listener.events] == [False, True, True, False]
        assert not any(event.healed for event in listener.events)
        (verdict,) = (notice for notice in listener.heard if isinstance(notice, Continuity))
        assert (verdict.recovered, verdict.replayed, verdict.duplicates) == ("yes", 2, 1)

    run(server, main)


def test_a_live_message_shows_that_there_is_no_replay() -> None:
    async def send_live(peer: WebSocketPeer) -> None:
        await asyncio.sleep(1)
        send(peer, 4, created=DATE_UNIX + 9)

    async def main(listener: Listener) -> None:
        story = live_and_events(listener)
        await listener.received(2)
        await listener.reached(State.LIVE)
        assert story == ["live", 1, 4, "live"]
        assert [event.replayed for event in listener.events] == [False, False]
        (verdict,) = (notice for notice in listener.heard if isinstance(notice, Continuity))
        assert isinstance(verdict, Gap)

    run(Server(send_live), main)


def test_a_server_that_answers_and_has_nothing_to_replay_is_not_waited_for_long() -> None:
    async def main(listener: Listener) -> None:
        await listener.received(1)
        await listener.reached(State.CATCHING_UP)
        since = asyncio.get_running_loop().time()
        await listener.reached(State.LIVE)
        assert 7 < asyncio.get_running_loop().time() - since < 9
        async with asyncio.timeout(30):
            while not any(isinstance(notice, Gap) for notice in listener.heard):
                await asyncio.sleep(0.1)

    run(Server(), main)


def test_who_has_heard_nothing_is_live_at_once() -> None:
    async def main() -> None:
        async with emulator() as emu, running(Listener(emu)) as listener:
            await listener.reached(State.LIVE)
            await emu.push.disconnect_all()
            await listener.reached(State.BACKOFF)
            since = asyncio.get_running_loop().time()
            await listener.reached(State.LIVE)
            assert asyncio.get_running_loop().time() - since < 0.35

    virtual_time.run(main)


def test_a_message_on_two_channels_is_counted_and_delivered_once() -> None:
    async def replay(peer: WebSocketPeer) -> None:
        send(peer, 1, 1, 2, 2, 3)

    async def main(listener: Listener) -> None:
        await listener.received(3)
        assert listener.numbers == [1, 2, 3]
        (verdict,) = (notice for notice in listener.heard if isinstance(notice, Continuity))
        assert (verdict.replayed, verdict.duplicates) == (2, 1)

    run(Server(replay), main)


def test_of_a_very_large_replay_the_beginning_is_counted() -> None:
    async def replay(peer: WebSocketPeer) -> None:
        send(peer, *range(1, 8_001))

    async def main(listener: Listener) -> None:
        await listener.received(8_000)
        assert listener.numbers == list(range(1, 8_001))
        assert all(event.replayed for event in listener.events[1:])
        (verdict,) = (notice for notice in listener.heard if isinstance(notice, Continuity))
        assert (verdict.recovered, verdict.duplicates, verdict.more) == ("yes", 1, True)
        assert 5_000 <= verdict.replayed < 8_000

    run(Server(replay), main)
