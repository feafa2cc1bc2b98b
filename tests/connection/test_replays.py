"""A replay comes in one frame, however large: it is taken in parts, and counts as one."""

import asyncio
from typing import Any

from bitrix_pull import Continuity, State
from bitrix_pull.connection.disconnects import Ended, Sign
from tests import virtual_time
from tests.connection.listening import Listener, running
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


def test_a_replay_may_be_larger_than_a_frame_and_what_follows_may_not() -> None:
    server = Replaying(protobuf_frame(2, padding_bytes=2 * MIB), protobuf_frame(3, padding_bytes=2 * MIB))

    async def main() -> None:
        async with tcp_server(server.answer) as address, running(listener_on(address)) as listener:
            await listener.received(2)
            assert listener.state is State.LIVE
            async with asyncio.timeout(60):
                while not isinstance(error := _last_error(listener), Ended) or error.sign is not Sign.GARBLED:
                    await asyncio.sleep(0.05)
            assert listener.numbers == [1, 2]

    virtual_time.run(main)


def _last_error(listener: Listener) -> Exception | None:
    errors = [error for notice in listener.heard if (error := getattr(notice, "error", None)) is not None]
    return errors[-1] if errors else None
