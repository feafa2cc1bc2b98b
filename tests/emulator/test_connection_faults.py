"""What can befall one connection, message by message, frame by frame and byte by byte."""

import asyncio
import random
from dataclasses import asdict, replace

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from bitrix_pull.emulator import Emulator
from bitrix_pull.emulator.faults import ConnectionFaults, End, seeded
from bitrix_pull.wire import push_pb2
from bitrix_pull.wire.formats import WireFormat
from bitrix_pull.wire.urls import subscription_url
from tests.emulator.conftest import mids, subscribe, until

pytestmark = pytest.mark.every_loop


def spoilt(emulator: Emulator, channels: list[str], faults: ConnectionFaults) -> connect:
    emulator.push.faults.script = lambda number: faults
    return subscribe(emulator, channels)


async def test_a_message_in_the_replay_race_is_neither_replayed_nor_sent(
    emulator: Emulator, channels: list[str]
) -> None:
    first = emulator.push.publish(channels[:1], b"{}", 60)
    raced: list[str] = []
    emulator.push.faults.replay_race = lambda subscriber: raced.append(
        emulator.push.publish(channels[:1], b"{}", 60)
    )
    async with subscribe(emulator, channels, mid="0" * 26) as socket:
        assert await mids(socket) == [first]
        emulator.push.faults.replay_race = None
        later = emulator.push.publish(channels[:1], b"{}", 60)
        assert await mids(socket) == [later]
        async with subscribe(emulator, channels, mid="0" * 26) as again:
            assert await mids(again) == [first, *raced, later]


async def test_a_message_is_overtaken_by_the_next(emulator: Emulator, channels: list[str]) -> None:
    faults = ConnectionFaults(overtaken=1.0)
    async with spoilt(emulator, channels, faults) as socket:
        older = emulator.push.publish(channels[:1], b"{}", 60)
        newer = emulator.push.publish(channels[:1], b"{}", 60)
        assert await mids(socket) == [newer]
        assert await mids(socket) == [older]
        # What nobody overtakes is only late.
        alone = emulator.push.publish(channels[:1], b"{}", 60)
        assert await mids(socket) == [alone]


async def test_frames_are_duplicated(emulator: Emulator, channels: list[str]) -> None:
    async with spoilt(emulator, channels, ConnectionFaults(duplicated=1.0)) as socket:
        mid = emulator.push.publish(channels[:1], b"{}", 60)
        assert [await mids(socket), await mids(socket)] == [[mid], [mid]]


@pytest.mark.parametrize("size", [100, 10_000, 100_000])
async def test_frames_go_out_in_fragments(emulator: Emulator, channels: list[str], size: int) -> None:
    async with spoilt(emulator, channels, ConnectionFaults(fragment_bytes=77)) as socket:
        mid = emulator.push.publish(channels[:1], b"x" * size, 60)
        fragments = [fragment async for fragment in socket.recv_streaming(decode=False)]
        assert len(fragments) > size // 77
        batch = push_pb2.ResponseBatch.FromString(b"".join(fragments))
        assert batch.responses[0].outgoingMessages.messages[0].id.hex() == mid


async def test_frames_are_garbled(emulator: Emulator, channels: list[str]) -> None:
    async with spoilt(emulator, channels, ConnectionFaults(garbled=1.0)) as socket:
        emulator.push.publish(channels[:1], b"{}", 60)
        assert set(await socket.recv(decode=False)) == {0xFF}


async def test_messages_are_merged_into_one_frame(emulator: Emulator, channels: list[str]) -> None:
    async with spoilt(emulator, channels, ConnectionFaults(gather_s=0.2)) as socket:
        sent = [emulator.push.publish(channels[:1], b"{}", 60)]
        assert await mids(socket) == sent
        for _ in range(3):
            sent.append(emulator.push.publish(channels[:1], b"{}", 60))
            await asyncio.sleep(0.055)
        assert await mids(socket) == sent[1:]


async def test_a_connection_is_closed_after_some_frames(emulator: Emulator, channels: list[str]) -> None:
    async with spoilt(emulator, channels, ConnectionFaults(close_after_frames=1, close_code=4011)) as socket:
        mid = emulator.push.publish(channels[:1], b"{}", 60)
        assert await mids(socket) == [mid]
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4011


@pytest.mark.parametrize("end", ["fin", "reset"])
async def test_a_connection_is_cut_after_some_bytes(
    emulator: Emulator, channels: list[str], end: End
) -> None:
    async with spoilt(emulator, channels, ConnectionFaults(cut_after_bytes=10, end=end)) as socket:
        emulator.push.publish(channels[:1], b"{}", 60)
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
        assert closed.value.rcvd is None
        await until(lambda: not emulator.push.connections)


async def test_a_half_open_connection_shows_no_sign_of_it(emulator: Emulator, channels: list[str]) -> None:
    faults = ConnectionFaults(cut_after_bytes=10, end="silence")
    async with spoilt(emulator, channels, faults) as socket:
        emulator.push.publish(channels[:1], b"{}", 60)
        await until(lambda: faults.mute)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await (await socket.ping())
        assert len(emulator.push.connections) == 1
        socket.transport.abort()


async def test_a_deaf_server_still_writes(emulator: Emulator, channels: list[str]) -> None:
    async with spoilt(emulator, channels, ConnectionFaults(deaf=True)) as socket:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await (await socket.ping())
        mid = emulator.push.publish(channels[:1], b"{}", 60)
        assert await mids(socket) == [mid]
        socket.transport.abort()


async def test_bytes_trickle(emulator: Emulator, channels: list[str]) -> None:
    async with spoilt(emulator, channels, ConnectionFaults(bytes_per_s=1_000)) as socket:
        began = asyncio.get_running_loop().time()
        mid = emulator.push.publish(channels[:1], b"x" * 200, 60)
        assert await mids(socket) == [mid]
        assert asyncio.get_running_loop().time() - began > 0.15


async def test_a_stall_delays_and_loses_nothing(emulator: Emulator, channels: list[str]) -> None:
    async with spoilt(emulator, channels, ConnectionFaults(stall_after_bytes=10, stall_s=0.2)) as socket:
        began = asyncio.get_running_loop().time()
        sent = [emulator.push.publish(channels[:1], b"{}", 60)]
        await asyncio.sleep(0.1)
        sent.append(emulator.push.publish(channels[:1], b"{}", 60))
        assert await mids(socket) == sent[:1]
        assert asyncio.get_running_loop().time() - began > 0.15
        assert await mids(socket) == sent[1:]


async def test_history_is_dropped_in_part_and_whole(emulator: Emulator, channels: list[str]) -> None:
    sent = [emulator.push.publish(channels[:1], b"{}", 60) for _ in range(3)]
    emulator.push.drop_history(sent[1])
    async with subscribe(emulator, channels, mid="0" * 26) as socket:
        assert await mids(socket) == sent[2:]
        emulator.push.drop_history()
        async with subscribe(emulator, channels, mid="0" * 26) as again:
            new = emulator.push.publish(channels[:1], b"{}", 60)
            assert await mids(again) == [new]


async def test_a_replay_is_one_frame_however_large_it_is(emulator: Emulator, channels: list[str]) -> None:
    sent = [emulator.push.publish(channels[:1], b"x" * 900_000, 60) for _ in range(8)]
    url = subscription_url(emulator.subws_url, channels, WireFormat.PROTOBUF, mid="0" * 26)
    async with connect(url, max_size=None) as socket:
        assert await mids(socket) == sent


async def test_a_live_frame_holds_all_that_was_gathered(emulator: Emulator, channels: list[str]) -> None:
    emulator.push.gather_s = 0.2
    url = subscription_url(emulator.subws_url, channels, WireFormat.PROTOBUF)
    async with connect(url, max_size=None) as socket:
        sent = [emulator.push.publish(channels[:1], b"x" * 400_000) for _ in range(9)]
        assert [await mids(socket), await mids(socket)] == [sent[:1], sent[1:]]


def test_the_same_seed_draws_the_same_faults() -> None:
    one, same, other = seeded(7), seeded(7), seeded(8)
    drawn = [faults_of(one(number)) for number in range(40)]
    assert drawn == [faults_of(same(number)) for number in range(40)]
    assert drawn != [faults_of(other(number)) for number in range(40)]
    assert len({repr(faults) for faults in drawn}) > 20


def faults_of(faults: ConnectionFaults) -> dict[str, object]:
    described = asdict(replace(faults, dice=random.Random(0)))
    del described["dice"]
    return described
