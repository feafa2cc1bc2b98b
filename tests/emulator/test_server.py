import asyncio
import signal
import sys

import aiohttp
import pytest
from websockets.exceptions import ConnectionClosed

from bitrix_pull.emulator import Emulator
from bitrix_pull.wire.formats import WireFormat
from bitrix_pull.wire.urls import START_OF_HISTORY, subscription_url
from tests.emulator.conftest import frame, mids, subscribe, until

pytestmark = pytest.mark.every_loop

AT_ONCE_S = 30.0
"""What waits for nobody has ended by then on any machine, and what waits for a client has not."""


@pytest.fixture(autouse=True)
def patient_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let servers that wait for a close frame wait for long."""
    monkeypatch.setattr("bitrix_pull.emulator.subscribe_api._CLOSE_TIMEOUT_S", 10 * AT_ONCE_S)


async def test_closing_cuts_every_connection_off_at_once(
    emulator: Emulator, session: aiohttp.ClientSession, channels: list[str]
) -> None:
    async with session.get(emulator.stat_url):
        pass  # This connection is kept alive.
    address, port = emulator.portal.address.split(":")
    reader, writer = await asyncio.open_connection(address, int(port))
    path = subscription_url("/bitrix/sub/", channels, WireFormat.PROTOBUF)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    async with subscribe(emulator, channels) as websocket:
        await until(lambda: len(emulator.push.connections) == 2)
        emulator.push.publish(channels[1:], b"{}")
        async with asyncio.timeout(AT_ONCE_S):
            await emulator.close()
        assert emulator.push.connections == []
        assert len(await mids(websocket)) == 1
        with pytest.raises(ConnectionClosed) as closed:
            await frame(websocket)
        assert closed.value.rcvd is None
    async with asyncio.timeout(5):
        await reader.read()
    writer.close()
    with pytest.raises(aiohttp.ClientConnectorError):
        await session.get(emulator.stat_url)


async def test_closing_does_not_wait_for_who_is_being_evicted(
    emulator: Emulator, channels: list[str]
) -> None:
    emulator.push.max_connections_per_channel = 1
    address, port = emulator.portal.address.split(":")
    reader, writer = await asyncio.open_connection(address, int(port))
    path = subscription_url("/bitrix/sub/", channels, WireFormat.PROTOBUF)
    writer.write(
        f"GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n".encode()
    )
    await reader.readuntil(b"\r\n\r\n")
    async with subscribe(emulator, channels):
        assert (await reader.readexactly(4))[2:] == (4029).to_bytes(2), "a close frame, which is not answered"
        async with asyncio.timeout(AT_ONCE_S):
            await emulator.close()
    writer.close()
    await writer.wait_closed()


async def test_it_can_be_started_and_closed_again_and_again(emulator: Emulator) -> None:
    url = emulator.portal_url
    await emulator.start()
    await emulator.close()
    await emulator.close()
    await emulator.start()
    assert emulator.portal_url == url
    async with aiohttp.ClientSession() as session, session.get(emulator.stat_url) as answer:
        assert answer.status == 200


async def test_a_taken_port_is_an_error_and_leaves_nothing(emulator: Emulator) -> None:
    second = Emulator(port=int(emulator.portal.address.partition(":")[2]))
    with pytest.raises(OSError, match="in use"):
        await second.start()
    await second.close()


@pytest.mark.parametrize("keep_history", [True, False])
async def test_a_restart_keeps_the_address_and_perhaps_the_history(
    emulator: Emulator, channels: list[str], keep_history: bool
) -> None:
    before = [emulator.push.publish(channels, b"{}", 60) for _ in range(3)]
    url = emulator.portal_url
    async with subscribe(emulator, channels) as websocket:
        await emulator.restart(keep_history=keep_history)
        with pytest.raises(ConnectionClosed):
            await frame(websocket)
    assert emulator.portal_url == url
    after = emulator.push.publish(channels, b"{}", 60)
    assert after > before[-1]
    assert after[10:] == f"{4 if keep_history else 1:016}", (
        "a new epoch, if all is lost, within the same second"
    )
    async with subscribe(emulator, channels, mid=before[0]) as websocket:
        assert await mids(websocket) == ([*before[1:], after] if keep_history else [after])


async def test_a_handshake_has_no_date_and_a_poll_has_one(
    emulator: Emulator, channels: list[str], session: aiohttp.ClientSession
) -> None:
    async with subscribe(emulator, channels) as websocket:
        assert websocket.response is not None
        assert "Date" not in websocket.response.headers
    async with session.get(emulator.sub_url) as answer:
        assert answer.headers["Date"] == "Fri, 15 Jan 2027 08:00:00 GMT"
    emulator.push.dates_handshakes = True
    async with subscribe(emulator, channels) as websocket:
        assert websocket.response is not None
        assert websocket.response.headers["Date"] == "Fri, 15 Jan 2027 08:00:00 GMT"


async def test_tokens_and_channels_outlive_a_restart(emulator: Emulator, channels: list[str]) -> None:
    token, webhook_url = emulator.token, emulator.webhook_url
    await emulator.restart(keep_history=False)
    config = emulator.portal.config("application", 1)["channels"]
    assert [config["private"]["id"], config["shared"]["id"]] == channels
    assert (emulator.token, emulator.webhook_url) == (token, webhook_url)


async def test_a_random_key_makes_another_portal_every_time() -> None:
    first, second = Emulator(), Emulator()
    assert first.token != second.token
    assert first.portal.webhook_code() != second.portal.webhook_code()


PROCESS = """
import asyncio, sys
from bitrix_pull.emulator import Emulator

async def main():
    async with Emulator(port=int(sys.argv[1]), security_key="lasting key") as emulator:
        print(emulator.portal.address.partition(":")[2], emulator.token, flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            print(emulator.portal.send(line.strip()), flush=True)

asyncio.run(main())
"""


class Process:
    """An emulator in a process of its own, which sends an event for every line that it is given."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process = process
        self._stdin, self._stdout = process.stdin, process.stdout

    @classmethod
    async def start(cls, port: int) -> "tuple[Process, int, str]":
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            PROCESS,
            str(port),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        self = cls(process)
        served_port, token = (await self._line()).split()
        return self, int(served_port), token

    async def send(self, command: str) -> str:
        self._stdin.write(f"{command}\n".encode())
        return await self._line()

    async def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        await self._process.wait()
        self._stdin.close()

    async def _line(self) -> str:
        return (await asyncio.wait_for(self._stdout.readline(), 20)).decode().strip()


async def test_a_killed_process_comes_back_as_the_same_portal() -> None:
    process, port, token = await Process.start(0)
    twin = Emulator(security_key="lasting key", port=port)
    twin.portal.address = f"127.0.0.1:{port}"
    config = twin.portal.config("application", 1)["channels"]
    channels = [config["private"]["id"], config["shared"]["id"]]
    async with subscribe(twin, channels) as websocket:
        before = await process.send("before")
        assert await mids(websocket) == [before]
        await process.kill()
        with pytest.raises(ConnectionClosed):
            await frame(websocket)
    process, same_port, same_token = await Process.start(port)
    assert (same_port, same_token) == (port, token)
    async with subscribe(twin, channels, mid=START_OF_HISTORY) as websocket:
        after = await process.send("after")
        assert await mids(websocket) == [after]
    await process.kill()
