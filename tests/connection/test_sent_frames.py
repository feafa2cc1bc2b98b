"""What became of the frames that were sent: read, refused, cut, never sent (protocol §7)."""

import asyncio

import pytest

from bitrix_pull import PublicChannel, State
from bitrix_pull.errors import InvalidSignature, OutcomeUnknown, Unreachable
from tests import virtual_time
from tests.connection.listening import Listener, emulator, running
from tests.connection.stand_ins import StandInPortal, WebSocketPeer, listener_of, tcp_server

PONG_LATE_S = 2.0


def listener_on(address: str) -> Listener:
    portal = StandInPortal(websocket=f"ws://{address}/subws/")
    portal.config["channels"]["private"]["public_id"] = "0" * 32
    return listener_of(portal)


async def pong_late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer each ping some time after it came, without holding up those behind it."""
    peer = WebSocketPeer(reader, writer)
    await peer.accept()
    while await peer.receive():
        asyncio.get_running_loop().call_later(PONG_LATE_S, writer.write, peer.take_ready())


def test_it_returns_when_the_server_has_read_the_frame() -> None:
    async def main() -> None:
        async with tcp_server(pong_late) as address, running(listener_on(address)) as listener:
            await listener.reached(State.LIVE)
            begun = asyncio.get_running_loop().time()
            receipt = await listener.publish("x", users=1, route="socket")
            assert asyncio.get_running_loop().time() - begun == pytest.approx(PONG_LATE_S, abs=0.2)
            assert not receipt.confirmed

    virtual_time.run(main)


def test_any_number_of_frames_may_be_on_their_way() -> None:
    async def main() -> None:
        async with tcp_server(pong_late) as address, running(listener_on(address)) as listener:
            await listener.reached(State.LIVE)
            begun = asyncio.get_running_loop().time()
            await asyncio.gather(*(listener.publish("x", users=1, route="socket") for _ in range(200)))
            assert asyncio.get_running_loop().time() - begun < 2 * PONG_LATE_S

    virtual_time.run(main)


def test_publishing_neither_hides_nor_feigns_a_dead_link() -> None:
    async def main() -> None:
        async with emulator() as emu, running(Listener(emu)) as listener:
            await listener.reached(State.LIVE)
            for n in range(300):
                await listener.publish("x", {"n": n}, to_self=True, route="socket")
                await asyncio.sleep(7)
            assert listener.health().connects == 1
            assert listener.numbers == list(range(300))
            emu.push.connections[0].line.end("silence")
            dead_at = asyncio.get_running_loop().time()
            publishing = [
                asyncio.create_task(listener.publish("x", to_self=True, route="socket")) for _ in range(5)
            ]
            for task in publishing:
                with pytest.raises(OutcomeUnknown):
                    await task
            assert asyncio.get_running_loop().time() - dead_at <= 15.1

    virtual_time.run(main)


def test_after_a_refusal_it_is_connected_at_once_and_nothing_is_missed() -> None:
    async def main() -> None:
        async with emulator() as emu, running(Listener(emu)) as listener:
            await listener.reached(State.LIVE)
            with pytest.raises(InvalidSignature):
                await listener.publish("x", channels=PublicChannel(bytes(16), bytes(20)), route="socket")
            emu.portal.send("x", {"n": 1})
            refused_at = asyncio.get_running_loop().time()
            await listener.received(1)
            assert asyncio.get_running_loop().time() - refused_at < 1
            assert listener.health().connects == 2

    virtual_time.run(main)


def test_between_two_connections_nothing_is_sent() -> None:
    async def main() -> None:
        async with emulator() as emu, running(Listener(emu)) as listener:
            await listener.reached(State.LIVE)
            await emu.push.disconnect_all(1001)
            with pytest.raises(Unreachable) as raised:
                await listener.publish("x", to_self=True, route="socket")
            assert raised.value.unsent
            receipt = await listener.publish("x", {"n": 1}, to_self=True, route="socket", retry="safe")
            assert receipt.messages == 1
            await listener.received(1)

    virtual_time.run(main)
