"""A replay comes in one frame, however large: it is taken in parts, and counts as one."""

import asyncio
from typing import Any

from bitrix_pull import Continuity, Gap, MessageDropped, PullEvent, State
from bitrix_pull.emulator.faults import ConnectionFaults
from tests import virtual_time
from tests.connection.listening import Listener, emulator, running
from tests.connection.stand_ins import (
    StandInPortal,
    WebSocketPeer,
    listener_of,
    protobuf_frame,
    tcp_server,
)

MIB = 1024 * 1024


class Replaying:
    """A server that sends one message, hangs up, and replays many in the first frame after that."""

    def __init__(self, replay: bytes, after: bytes) -> None:
        self.connections = 0
        self._replay = replay
        self._after = after

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = WebSocketPeer(reader, writer)
        await peer.accept()
        self.connections += 1
        if self.connections == 1:
            peer.send(protobuf_frame(1))
            peer.flush()
            await asyncio.sleep(8)
            writer.close()
            return
        if self.connections == 2:
            peer.send(self._replay)
            peer.flush()
            await asyncio.sleep(1)
            peer.send(self._after)
            peer.flush()
        await peer.serve()


def listener_on(address: str, **options: Any) -> Listener:
    return listener_of(StandInPortal(websocket=f"ws://{address}/subws/"), transport="websocket", **options)


def test_a_large_replay_is_one_replay() -> None:
    count = 3_000
    replay = protobuf_frame(*range(1, count + 1), padding_bytes=400)
    assert len(replay) > MIB
    server = Replaying(replay, protobuf_frame(count + 1))

    async def main() -> None:
        async with tcp_server(server.answer) as address, running(listener_on(address)) as listener:
            await listener.received(count + 1)
            assert listener.numbers == list(range(1, count + 2))
            flags = [event.replayed for event in listener.events]
            assert flags == [False, *[True] * (count - 1), False]
            (continuity,) = (notice for notice in listener.heard if isinstance(notice, Continuity))
            assert (continuity.replayed, continuity.duplicates) == (count - 1, 1)
            assert not any(event.healed for event in listener.events)

    virtual_time.run(main)


def test_frames_of_any_size_arrive_and_what_is_too_large_in_them_is_told() -> None:
    too_large = protobuf_frame(40, padding_bytes=2 * MIB)
    replay = protobuf_frame(*range(2, 40), padding_bytes=MIB // 2) + too_large + protobuf_frame(41)
    live = protobuf_frame(*range(42, 52), padding_bytes=MIB // 2)
    assert len(replay) > 20 * MIB
    server = Replaying(replay, live)

    async def main() -> None:
        async with tcp_server(server.answer) as address, running(listener_on(address)) as listener:
            await listener.received(50)
            assert listener.numbers == [*range(1, 40), *range(41, 52)]
            assert listener.health().connects == 2
            (dropped,) = (notice for notice in listener.heard if isinstance(notice, MessageDropped))
            assert dropped.mid.endswith("40")

    virtual_time.run(main)


def test_a_replay_that_breaks_off_has_brought_what_came_of_it() -> None:
    replay = protobuf_frame(*range(2, 40), padding_bytes=MIB // 4)

    async def main() -> None:
        async with tcp_server(answer) as address, running(listener_on(address)) as listener:
            await listener.received(40)
            assert sorted(listener.numbers) == [1, *range(2, 40), 50]
            assert not any(isinstance(notice, Gap) for notice in listener.heard)

    cut = Replaying(replay, b"")

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if cut.connections < 1:
            return await cut.answer(reader, writer)
        cut.connections += 1
        peer = WebSocketPeer(reader, writer)
        await peer.accept()
        if cut.connections > 2:
            peer.send(protobuf_frame(*range(20, 40), 50, padding_bytes=MIB // 4))
            peer.flush()
            return await peer.serve()
        peer.send(protobuf_frame(1) + replay)
        writer.write(peer.take_ready()[: len(replay) * 3 // 4])
        await writer.drain()
        await asyncio.sleep(2)
        return writer.close()

    virtual_time.run(main)


def test_of_what_only_the_audit_brings_no_more_is_held_than_of_a_replay() -> None:
    async def main() -> None:
        async with emulator() as emu, running(Listener(emu)) as listener:
            go_on = asyncio.Event()

            @listener.on("large")
            async def behind(event: PullEvent) -> None:
                await go_on.wait()

            def hide(_: object) -> None:
                emu.push.faults.replay_race = None
                for n in range(1, 41):
                    emu.portal.send("large", {"n": n, "text": "x" * 900_000})

            await listener.reached(State.LIVE)
            emu.portal.send("x", {"n": 0})
            await listener.received(1)
            emu.push.faults.replay_race = hide
            await emu.push.disconnect_all()
            await asyncio.sleep(60)
            # The inbox, and what was too much for it.
            assert 8 * MIB < listener.health().waiting_bytes < 13 * MIB
            go_on.set()
            await listener.received(41)
            assert listener.numbers == list(range(41))
            assert listener.health().healed == 40

    virtual_time.run(main)


def test_a_replay_that_takes_longer_than_its_link_lives_goes_on_where_it_broke_off() -> None:
    async def main() -> None:
        async with emulator() as emu, running(Listener(emu)) as listener:
            await listener.reached(State.LIVE)
            emu.portal.send("x", {"n": 0})
            await listener.received(1)
            await asyncio.sleep(60)
            # 4 MB by a link of 100 kB/s that lives for 12 s.
            emu.push.faults.script = lambda number: ConnectionFaults(
                bytes_per_s=1e5, cut_after_bytes=1_200_000
            )
            emu.push.faults.poll_script = emu.push.faults.script
            await emu.push.disconnect_all()
            for n in range(1, 401):
                emu.portal.send("x", {"n": n, "text": "x" * 10_000})
            connects = listener.health().connects
            await listener.received(401)
            assert sorted(listener.numbers) == list(range(401))
            assert listener.health().connects <= connects + 8
            emu.push.faults.script = emu.push.faults.poll_script = None
            await asyncio.sleep(120)
            assert listener.state is State.LIVE
            assert not any(isinstance(notice, Gap) for notice in listener.heard)

    virtual_time.run(main)
