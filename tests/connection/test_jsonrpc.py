"""JSON-RPC over an open WebSocket: calls, pings and strangers (protocol §4.3)."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress

import orjson
import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.frames import Frame, Opcode

from bitrix_pull.connection.disconnects import Ended, Sign
from bitrix_pull.connection.jsonrpc import CALL_TIMEOUT_S, PING_DEADLINE_S, JsonRpcConnection
from bitrix_pull.connection.websocket import WebSocketConnection
from bitrix_pull.errors import CallRefused, CallTimeout
from bitrix_pull.events import PullEvent
from bitrix_pull.options import PullOptions
from bitrix_pull.portal.http import HttpSession
from bitrix_pull.wire.formats import WireFormat
from bitrix_pull.wire.messages import Incoming
from tests import virtual_time

Play = Callable[[ServerConnection], Awaitable[None]]


@asynccontextmanager
async def connection_to(play: Play) -> AsyncIterator[JsonRpcConnection]:
    """Connect to a server that plays a part."""
    async with serve(play, "127.0.0.1", 0, ping_interval=None) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        options = PullOptions()
        websocket = await WebSocketConnection.open(
            HttpSession(options), f"ws://127.0.0.1:{port}", WireFormat.JSONRPC, options
        )
        connection = JsonRpcConnection(websocket)
        try:
            yield connection
        finally:
            await connection.close(1000)


@asynccontextmanager
async def reading(connection: JsonRpcConnection) -> AsyncIterator[None]:
    """Read in the background, as a stream does."""

    async def read() -> None:
        with suppress(Ended):
            while True:
                await connection.receive()

    task = asyncio.create_task(read())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


async def echo(socket: ServerConnection) -> None:
    async for frame in socket:
        call = orjson.loads(frame)
        if call["method"] == "fail":
            reply: dict[str, object] = {"error": {"code": -32602, "message": "Invalid\nparams"}}
        elif call["method"] == "stay silent":
            continue
        else:
            reply = {"result": call["params"]}
        await socket.send(orjson.dumps({"jsonrpc": "2.0", "id": call["id"], **reply}), text=True)


def test_calls_are_answered_each_by_its_own_reply() -> None:
    async def main() -> None:
        async with connection_to(echo) as connection, reading(connection):
            results = await asyncio.gather(*(connection.call("echo", {"n": n}) for n in range(20)))
            assert results == [{"n": n} for n in range(20)]

    virtual_time.run(main)


def test_a_refused_call_is_a_typed_error_in_one_line() -> None:
    async def main() -> None:
        async with connection_to(echo) as connection, reading(connection):
            with pytest.raises(CallRefused, match="Invalid params") as raised:
                await connection.call("fail", {})
            assert raised.value.code == -32602

    virtual_time.run(main)


def test_a_call_without_an_answer_is_given_up() -> None:
    async def main() -> None:
        async with connection_to(echo) as connection, reading(connection):
            begun = asyncio.get_running_loop().time()
            with pytest.raises(CallTimeout):
                await connection.call("stay silent", {})
            assert asyncio.get_running_loop().time() - begun == pytest.approx(CALL_TIMEOUT_S, abs=0.1)
            # A reply that comes later is nobody's, and the connection goes on.
            assert await connection.call("echo", {"n": 1}) == {"n": 1}

    virtual_time.run(main)


def test_closing_ends_the_calls_under_way() -> None:
    async def main() -> None:
        async with connection_to(echo) as connection:
            async with reading(connection):
                call = asyncio.create_task(connection.call("stay silent", {}))
                await asyncio.sleep(0.1)
            await connection.close(1000)
            with pytest.raises(Ended):
                await call

    virtual_time.run(main)


def test_pings_are_answered_and_missed() -> None:
    async def main() -> None:
        answers: list[str | bytes] = []

        async def ping(socket: ServerConnection) -> None:
            for _ in range(3):
                await socket.send("ping")
                answers.append(await socket.recv())
                await asyncio.sleep(15)
            await socket.wait_closed()

        async with connection_to(ping) as connection:
            with pytest.raises(Ended, match="stopped sending pings") as raised:
                await connection.receive()
            assert raised.value.sign is Sign.SILENT
            assert answers == ["pong"] * 3
            assert asyncio.get_running_loop().time() == pytest.approx(30 + PING_DEADLINE_S, abs=1)

    virtual_time.run(main)


def test_strangers_requests_are_answered_and_notifications_are_not() -> None:
    async def main() -> None:
        answers: list[object] = []

        async def ask(socket: ServerConnection) -> None:
            await socket.send('[{"jsonrpc":"2.0","method":"what","id":7},{"jsonrpc":"2.0","method":"note"}]')
            answers.append(orjson.loads(await socket.recv()))
            await socket.send('{"jsonrpc":"2.0","method":"more","id":"a"}')
            answers.append(orjson.loads(await socket.recv()))

        async with connection_to(ask) as connection:
            with pytest.raises(Ended):
                await connection.receive()
        error = {"code": -32601, "message": "Method not found"}
        assert answers == [
            {"jsonrpc": "2.0", "error": error, "id": 7},
            {"jsonrpc": "2.0", "error": error, "id": "a"},
        ]

    virtual_time.run(main)


def written(*texts: bytes) -> bytes:
    return b"".join(Frame(Opcode.TEXT, text).serialize(mask=False) for text in texts)


def message(number: int) -> bytes:
    body = {"module_id": "application", "command": "x", "params": {"n": number}}
    params = {"mid": f"1700000000{number:016}", "body": body}
    return orjson.dumps({"jsonrpc": "2.0", "method": "incoming.message", "params": params})


def numbers(messages: Sequence[Incoming]) -> list[int]:
    return [item.params["n"] for item in messages if isinstance(item, PullEvent)]


async def test_what_comes_with_a_ping_and_the_end_is_received() -> None:
    async def play(socket: ServerConnection) -> None:
        await socket.send(message(0).decode())
        await socket.recv()
        bye = Frame(Opcode.CLOSE, b"\x03\xe9").serialize(mask=False)
        socket.transport.write(written(message(1), b"ping", message(2)) + bye)

    async with connection_to(play) as connection:
        assert numbers(await connection.receive()) == [0]
        await connection.acknowledge([f"1700000000{0:016}"])
        assert numbers(await connection.receive()) == [1, 2]
        with pytest.raises(Ended):
            await connection.receive()


async def test_a_ping_before_the_replay_leaves_the_replay_alone() -> None:
    async def play(socket: ServerConnection) -> None:
        socket.transport.write(written(b"ping", message(1), message(2), message(3)))
        await socket.wait_closed()

    async with connection_to(play) as connection:
        assert numbers(await connection.receive()) == [1]
        assert numbers(await connection.receive()) == [2, 3]
