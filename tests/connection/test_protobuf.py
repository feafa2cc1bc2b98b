"""Questions over an open protobuf WebSocket, and what a server may make of them (protocol §4.2)."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager, suppress

import pytest
from websockets.asyncio.server import ServerConnection, serve

from bitrix_pull.connection.disconnects import Ended
from bitrix_pull.connection.protobuf import ANSWER_TIMEOUT_S, CHANNELS_PER_REQUEST, ProtobufConnection
from bitrix_pull.connection.websocket import WebSocketConnection
from bitrix_pull.errors import CallTimeout, Unreachable
from bitrix_pull.events import PullEvent
from bitrix_pull.options import PullOptions
from bitrix_pull.portal.http import HttpSession
from bitrix_pull.wire import push_pb2
from bitrix_pull.wire.channel_ids import PublicChannel
from bitrix_pull.wire.formats import WireFormat
from bitrix_pull.wire.messages import Incoming
from tests import virtual_time
from tests.connection.stand_ins import protobuf_frame

Play = Callable[[ServerConnection], Awaitable[None]]


def channel(number: int) -> PublicChannel:
    return PublicChannel(number.to_bytes(16, "big"), b"signature")


def channels(*numbers: int) -> list[PublicChannel]:
    return [channel(number) for number in numbers]


def asked(frame: bytes | str) -> list[int]:
    """Return the numbers of the channels that a request asks for."""
    assert isinstance(frame, bytes)
    [request] = push_pb2.RequestBatch.FromString(frame).requests
    assert all(item.signature == b"signature" for item in request.channelStats.channels)
    return [int.from_bytes(item.id, "big") for item in request.channelStats.channels]


def answer(numbers: Collection[int], online: Collection[int]) -> bytes:
    stats = [
        push_pb2.ChannelStats(id=channel(number).id, isPrivate=True, isOnline=number in online)
        for number in numbers
    ]
    response = push_pb2.Response(channelStats=push_pb2.ChannelStatsResponse(channels=stats))
    return push_pb2.ResponseBatch(responses=[response]).SerializeToString()


@asynccontextmanager
async def connection_to(play: Play) -> AsyncIterator[tuple[ProtobufConnection, list[Incoming]]]:
    """Connect to a server that plays a part; read in the background, as a stream does."""
    options = PullOptions()
    http = HttpSession(options)
    received: list[Incoming] = []
    async with serve(play, "127.0.0.1", 0, ping_interval=None) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        websocket = await WebSocketConnection.open(
            http, f"ws://127.0.0.1:{port}", WireFormat.PROTOBUF, options
        )
        connection = ProtobufConnection(websocket)

        async def read() -> None:
            with suppress(Ended):
                while True:
                    received.extend(await connection.receive())
            await connection.close(1000)

        task = asyncio.create_task(read())
        try:
            yield connection, received
        finally:
            task.cancel()
            await asyncio.wait({task})
            await connection.close(1000)
            await http.close()


def ids(*numbers: int) -> set[bytes]:
    return {channel(number).id for number in numbers}


def test_an_answer_comes_amid_events_in_pieces_and_with_what_nobody_asked_for() -> None:
    async def play(socket: ServerConnection) -> None:
        async for frame in socket:
            numbers = asked(frame)
            # Concatenated protobuf messages are one.
            await socket.send(
                protobuf_frame(1) + answer([numbers[0], 77], [numbers[0], 77]) + protobuf_frame(2)
            )
            await socket.send(answer(numbers[1:], numbers[2:]))

    async def main() -> None:
        async with connection_to(play) as (connection, received):
            assert await connection.online(channels(1, 2, 3)) == ids(1, 3)
            assert [event.params["n"] for event in received if isinstance(event, PullEvent)] == [1, 2]
            assert len(received) == 2

    virtual_time.run(main)


def test_each_question_gets_the_answer_to_it() -> None:
    async def play(socket: ServerConnection) -> None:
        asked_so_far = 0
        async for frame in socket:
            asked_so_far += 1
            numbers = asked(frame)
            # Channel 1 comes and goes from one question to the next.
            await asyncio.sleep(0.1)
            await socket.send(answer(numbers, [1] if asked_so_far % 2 else [2]))

    async def main() -> None:
        async with connection_to(play) as (connection, _):
            questions = [connection.online(channels(1, 2)) for _ in range(10)]
            assert await asyncio.gather(*questions) == [ids(1), ids(2)] * 5

    virtual_time.run(main)


def test_a_long_question_goes_out_in_parts_that_the_server_takes() -> None:
    sizes: list[int] = []

    async def play(socket: ServerConnection) -> None:
        async for frame in socket:
            numbers = asked(frame)
            sizes.append(len(numbers))
            await socket.send(answer(numbers, numbers))

    async def main() -> None:
        async with connection_to(play) as (connection, _):
            numbers = range(1, 2 * CHANNELS_PER_REQUEST + 2)
            assert await connection.online(channels(*numbers)) == ids(*numbers)
        assert sizes == [100, 100, 1]

    virtual_time.run(main)


def test_half_an_answer_is_none() -> None:
    async def play(socket: ServerConnection) -> None:
        async for frame in socket:
            await socket.send(answer(asked(frame)[:1], [1]))

    async def main() -> None:
        async with connection_to(play) as (connection, _):
            started = asyncio.get_running_loop().time()
            with pytest.raises(CallTimeout, match="within 5 s"):
                await connection.online(channels(1, 2))
            assert asyncio.get_running_loop().time() - started == pytest.approx(ANSWER_TIMEOUT_S, abs=0.5)
            # The next question is answered all the same.
            assert await connection.online(channels(1)) == ids(1)

    virtual_time.run(main)


def test_questions_that_are_open_end_with_the_connection_at_once() -> None:
    async def play(socket: ServerConnection) -> None:
        async for frame in socket:
            if 13 in asked(frame):
                await socket.close(1012)
                return

    async def main() -> None:
        async with connection_to(play) as (connection, _):
            questions = [asyncio.create_task(connection.online(channels(n))) for n in (1, 2, 13)]
            await asyncio.wait(questions, timeout=1)
            for question in questions:
                with pytest.raises(Ended):
                    await question
            with pytest.raises(Unreachable) as late:
                await connection.online(channels(1))
            assert late.value.unsent

    virtual_time.run(main)


def test_nothing_of_a_question_is_left_when_it_is_given_up_at_any_moment() -> None:
    async def play(socket: ServerConnection) -> None:
        async for frame in socket:
            numbers = asked(frame)
            await asyncio.sleep(0.05)
            await socket.send(answer(numbers, numbers))

    async def main() -> None:
        async with connection_to(play) as (connection, _):
            for step in range(12):
                question = asyncio.create_task(connection.online(channels(1, 2)))
                await asyncio.sleep(step * 0.01)
                question.cancel()
                await asyncio.wait({question})
            await asyncio.sleep(1)
            assert await connection.online(channels(2, 3)) == ids(2, 3)

    virtual_time.run(main)
