import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest
from websockets.asyncio.client import ClientConnection, connect

from bitrix_pull.emulator import Emulator
from bitrix_pull.emulator.channels import Audience
from bitrix_pull.wire import push_pb2
from bitrix_pull.wire.channel_ids import PublicChannel
from bitrix_pull.wire.formats import WireFormat
from bitrix_pull.wire.urls import subscription_url


class Clock:
    """Unix time that stands still until it is told to move."""

    def __init__(self, now: float = 1_800_000_000.25) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


Launch = Callable[..., Awaitable[Emulator]]


@pytest.fixture
async def launch(clock: Clock, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Launch]:
    """Start emulators that must end with nothing left over and nothing complained about."""

    async def launch(**settings: Any) -> Emulator:
        defaults: dict[str, Any] = {"security_key": "test key", "clock": clock}
        emulator = Emulator(**defaults | settings)
        emulator.push.gather_s = 0.05
        return await stack.enter_async_context(emulator)

    async with AsyncExitStack() as stack:
        yield launch
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.fixture
async def emulator(launch: Launch) -> Emulator:
    """A running emulator of version 4 in personal mode."""
    return await launch()


@pytest.fixture
async def session(launch: Launch) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what other tasks are about to do."""
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


def channel_ids(emulator: Emulator, user_id: int = 1, audience: Audience = "application") -> list[str]:
    """Return the ids that a user subscribes with: private, shared."""
    described = emulator.portal.config(audience, user_id)["channels"]
    return [described[kind]["id"] for kind in ("private", "shared")]


def subscribe(
    emulator: Emulator,
    channels: Sequence[str],
    wire_format: WireFormat = WireFormat.PROTOBUF,
    *,
    mid: str | None = None,
) -> connect:
    """Subscribe by WebSocket."""
    return connect(subscription_url(emulator.subws_url, channels, wire_format, mid=mid))


async def frame(websocket: ClientConnection) -> bytes:
    """Return the next frame."""
    return await asyncio.wait_for(websocket.recv(decode=False), 5)


async def mids(websocket: ClientConnection) -> list[str]:
    """Return the mids of the next binary frame."""
    batch = push_pb2.ResponseBatch.FromString(await frame(websocket))
    return [
        message.id.hex() for response in batch.responses for message in response.outgoingMessages.messages
    ]


Call = Callable[..., Awaitable[tuple[int, Any]]]


@pytest.fixture
def call(emulator: Emulator, session: aiohttp.ClientSession) -> Call:
    """Call a REST method with the application's token, or ``token=``: status and body."""

    async def call(method: str, *, token: str | None = None, **params: Any) -> tuple[int, Any]:
        url = f"{emulator.portal_url}/rest/{method}.json"
        async with session.post(url, json={**params, "auth": token or emulator.token}) as answer:
            return answer.status, await answer.json()

    return call


@pytest.fixture
def call_webhook(emulator: Emulator, session: aiohttp.ClientSession) -> Call:
    """Call a REST method through the webhook of user 1: status and body."""

    async def call(method: str, **params: Any) -> tuple[int, Any]:
        async with session.post(f"{emulator.webhook_url}{method}.json", json=params) as answer:
            return answer.status, await answer.json()

    return call


@pytest.fixture
def channels(emulator: Emulator) -> list[str]:
    """The application's channels as user 1 subscribes to them: private, shared."""
    return channel_ids(emulator)


@pytest.fixture
def public_channel(emulator: Emulator) -> PublicChannel:
    """The application's public channel of user 1."""
    config = emulator.portal.config("application", 1)
    return PublicChannel.parse(config["channels"]["private"]["public_id"])
