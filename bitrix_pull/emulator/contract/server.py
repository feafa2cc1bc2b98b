"""The server that is looked at, and how it is asked."""

import asyncio
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from io import BytesIO
from urllib.parse import urlencode

import aiohttp
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from bitrix_pull.emulator.channels import Signer
from bitrix_pull.wire import push_pb2
from bitrix_pull.wire.channel_ids import PublicChannel

PATIENCE_S = 5.0


class Difference(Exception):  # noqa: N818 - what was found, not what went wrong
    """The server does something else than what is known of push servers."""


@dataclass(slots=True, frozen=True)
class Answer:
    """What came over HTTP."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(slots=True, frozen=True)
class Channels:
    """A user's channels that nobody else uses: a check has its own."""

    private_id: str = field(default_factory=lambda: secrets.token_hex(16))
    public_id: str = field(default_factory=lambda: secrets.token_hex(16))
    shared_id: str = field(default_factory=lambda: secrets.token_hex(16))


@dataclass(slots=True, frozen=True)
class Server:
    """A push server by its addresses.

    Attributes:
        sub: Where to poll.
        subws: Where to subscribe by WebSocket.
        pub: Where the portal publishes.
        rest: Where clients publish; "" leaves out what needs it.
        stat: Its statistics; "" leaves them out.
        signer: Signs channels with its key.
        has_key: Whether it has one: without, no signature is wrong.
        settle_s: How long it takes at most, once it has answered, until who connects is there.
    """

    sub: str
    subws: str
    pub: str
    rest: str
    stat: str
    signer: Signer
    has_key: bool
    session: aiohttp.ClientSession
    settle_s: float = 0.3

    def subscribed(self, channels: Channels) -> str:
        """Return the ``CHANNEL_ID`` of both channels."""
        return f"{self.private(channels)}/{self.signer.sign(channels.shared_id)}"

    def private(self, channels: Channels) -> str:
        """Return the signed private channel alone."""
        return self.signer.sign(f"{channels.private_id}:{channels.public_id}")

    def public(self, channels: Channels) -> PublicChannel:
        """Return the signed public channel."""
        return self.signer.sign_public(channels.public_id)

    async def get(self, url: str, verb: str = "GET", **query: str) -> Answer:
        """Ask over HTTP."""
        return await self._request(verb, url, query, None, {})

    async def post(self, url: str, body: bytes, headers: Mapping[str, str] = {}, **query: str) -> Answer:
        """Send a body over HTTP."""
        return await self._request("POST", url, query, body, headers)

    async def publish(self, channel_id: str, body: bytes, expiry_s: int = 60) -> None:
        """Publish as the portal does."""
        answer = await self.post(
            self.pub, body, {"Message-Expiry": str(expiry_s)}, CHANNEL_ID=channel_id.partition(".")[0]
        )
        same("status of a trusted publish", answer.status, 200)

    def connect(self, channel_id: str, *, binary: bool = True, mid: str | None = None) -> connect:
        """Subscribe by WebSocket."""
        query = {"CHANNEL_ID": channel_id} | ({"binaryMode": "true"} if binary else {})
        url = f"{self.subws}?{urlencode(query | ({} if mid is None else {'mid': mid}))}"
        return connect(url, compression=None, max_size=None, open_timeout=PATIENCE_S, close_timeout=1)

    @asynccontextmanager
    async def listening(
        self, channel_id: str, *, binary: bool = True, mid: str | None = None
    ) -> AsyncGenerator[ClientConnection]:
        """Listen by WebSocket meanwhile."""
        async with self.connect(channel_id, binary=binary, mid=mid) as websocket:
            # A server reads the history, and lets the connection in after that: nothing tells when.
            await asyncio.sleep(self.settle_s)
            yield websocket

    @asynccontextmanager
    async def polling(self, channel_id: str, **query: str) -> AsyncGenerator["asyncio.Task[Answer]"]:
        """Have a poll hang meanwhile."""
        poll = asyncio.create_task(self.get(self.sub, CHANNEL_ID=channel_id, **query))
        await asyncio.sleep(self.settle_s)
        try:
            yield poll
        finally:
            poll.cancel()
            await asyncio.gather(poll, return_exceptions=True)

    async def _request(
        self, verb: str, url: str, query: Mapping[str, str], body: bytes | None, headers: Mapping[str, str]
    ) -> Answer:
        full = f"{url}?{urlencode(query)}" if query else url
        limit = aiohttp.ClientTimeout(total=60)
        async with self.session.request(
            verb,
            full,
            data=None if body is None else BytesIO(body),
            headers=headers,
            allow_redirects=False,
            timeout=limit,
        ) as answer:
            return Answer(answer.status, answer.headers, await answer.read())


# -- what is compared ---------------------------------------------------------------------------


def same(what: str, found: object, expected: object) -> None:
    """Compare.

    Raises:
        Difference: It is another.
    """
    if found != expected:
        raise Difference(f"{what}: expected {_shown(expected)}, found {_shown(found)}")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 200 else text[:200] + "…"


async def frame(websocket: ClientConnection) -> bytes:
    """Return the next frame.

    Raises:
        Difference: None comes.
    """
    try:
        async with asyncio.timeout(PATIENCE_S):
            return await websocket.recv(decode=False)
    except TimeoutError:
        raise Difference(f"no frame came within {PATIENCE_S:.0f} s") from None
    except ConnectionClosed as closed:
        raise Difference(f"the connection ended where a frame was expected: {closed}") from None


def messages(payload: bytes) -> Sequence[push_pb2.OutgoingMessage]:
    """Return the messages of a binary frame or body."""
    batch = push_pb2.ResponseBatch.FromString(payload)
    return [message for response in batch.responses for message in response.outgoingMessages.messages]


def bodies(payload: bytes) -> list[bytes]:
    """Return their bodies."""
    return [message.body for message in messages(payload)]


async def close_of(websocket: ClientConnection) -> tuple[int, str] | None:
    """Return code and text with which the server closes; None where it does so without a frame."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            await websocket.recv()
    except TimeoutError:
        raise Difference(f"the connection is still open after {PATIENCE_S:.0f} s") from None
    except ConnectionClosed as closed:
        return None if closed.rcvd is None else (closed.rcvd.code, closed.rcvd.reason)
    raise Difference("a frame came where the connection should have been closed")


async def refusal_of(handshake: connect) -> tuple[int, bytes]:
    """Return status and body with which a handshake is refused."""
    try:
        websocket = await handshake
    except InvalidStatus as refused:
        return refused.response.status_code, bytes(refused.response.body or b"")
    await websocket.close()
    raise Difference("the handshake was taken")


# -- checks ---------------------------------------------------------------------------------------


Run = Callable[[Server], Awaitable[None]]


@dataclass(slots=True, frozen=True)
class Check:
    """One thing that is known of push servers.

    Attributes:
        name: What it is.
        needs: Which addresses or properties of ``Server`` it cannot do without.
        slow: It takes most of a minute, or hundreds of connections.
    """

    name: str
    run: Run
    needs: tuple[str, ...] = ()
    slow: bool = False


@dataclass(slots=True, frozen=True)
class Finding:
    """What became of one check: ``difference`` is "" where there is none, None where it was left out."""

    name: str
    difference: str | None


async def run_checks(
    server: Server, checks: Iterable[Check], *, slow: bool = False
) -> AsyncIterator[Finding]:
    """Run checks one after the other, and yield what became of each."""
    for check in checks:
        if (check.slow and not slow) or not all(getattr(server, need) for need in check.needs):
            yield Finding(check.name, None)
            continue
        try:
            await check.run(server)
        except Difference as difference:
            yield Finding(check.name, str(difference))
        except Exception as error:  # whatever a foreign server brings about
            yield Finding(check.name, f"{type(error).__name__}: {error}")
        else:
            yield Finding(check.name, "")
