"""Protobuf over an open WebSocket (protocol §4.2): our own questions beside the stream."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence

from bitrix_pull.connection.disconnects import Ended, Sign
from bitrix_pull.connection.websocket import WebSocketConnection, first_frame
from bitrix_pull.errors import CallTimeout
from bitrix_pull.wire.channel_ids import PublicChannel
from bitrix_pull.wire.messages import ChannelStatus, Incoming
from bitrix_pull.wire.protobuf import encode_status_request

ANSWER_TIMEOUT_S = 5.0
"""How long the server may take to answer a question, as with JSON-RPC."""

CHANNELS_PER_REQUEST = 100
"""More are refused with 4018 (protocol §7)."""


class _Question:
    """The channels that somebody wants to know about, and what is known so far."""

    def __init__(self, channels: Iterable[PublicChannel]) -> None:
        self.open = {channel.id.hex() for channel in channels}
        self.online: set[bytes] = set()
        self.answer: asyncio.Future[set[bytes]] = asyncio.get_running_loop().create_future()

    def note(self, status: ChannelStatus) -> None:
        self.open.remove(status.channel)
        if status.online:
            self.online.add(bytes.fromhex(status.channel))
        if not self.open and not self.answer.done():
            self.answer.set_result(self.online)


class ProtobufConnection:
    """Takes the answers to our own questions out of the stream, and hands on the rest."""

    def __init__(self, websocket: WebSocketConnection) -> None:
        """Speak protobuf over an open WebSocket."""
        self._websocket = websocket
        self.server_unix: float | None = websocket.server_unix
        self._questions: list[_Question] = []

    async def receive(self) -> list[Incoming]:
        """Return what has come for the client; see ``Connection.receive``."""
        messages = await self._websocket.receive()
        if not self._questions:
            return messages
        return [message for message in messages if not self._answered(message)]

    async def answered(self) -> bool:
        """Ping the server, and wait for its answer; see ``Connection.answered``."""
        return await self._websocket.answered()

    def replay(self) -> AsyncIterator[Sequence[Incoming]]:
        """Yield what the server sends at once; see ``Connection.replay``."""
        return first_frame(self)

    def resume_after(self, mid: str) -> None:
        """Do nothing: the server goes on by itself."""

    @property
    def heard_at(self) -> float:
        """When the server was heard from last; see ``Connection``."""
        return self._websocket.heard_at

    @property
    def amid_frame(self) -> bool:
        """True if there is more of the frame; see ``Connection``."""
        return self._websocket.amid_frame

    def _answered(self, message: Incoming) -> bool:
        if not isinstance(message, ChannelStatus):
            return False
        # Answers name no question. They come in order, so this one is for the oldest
        # question about the channel; one that was given up may be answered to the next,
        # with a state that is as much older.
        for question in self._questions:
            if message.channel in question.open:
                question.note(message)
                break
        return True

    async def send(self, frame: bytes) -> None:
        """Send a frame; see ``Connection.send``."""
        await self._websocket.send(frame)

    async def acknowledge(self, mids: Sequence[str]) -> None:
        """Do nothing: only JSON-RPC has acknowledgements."""

    async def close(self, code: int) -> None:
        """Close the WebSocket; questions that are open end with the connection."""
        for question in self._questions:
            if not question.answer.done():
                question.answer.set_exception(
                    Ended(Sign.UNANSWERED, "the connection was closed before the answer came")
                )
                question.answer.exception()  # Who asks may hear of it in another way.
        await self._websocket.close(code)

    async def online(self, channels: Sequence[PublicChannel]) -> set[bytes]:
        """Ask to which of these channels anybody is connected; return their raw ids.

        Raises:
            CallTimeout: The server did not answer within 5 s.
            PublishRefused: The server closed the connection because of the question.
            Ended: The connection broke.
            Unreachable: The connection was over before.
        """
        question = _Question(channels)
        self._questions.append(question)
        try:
            for start in range(0, len(channels), CHANNELS_PER_REQUEST):
                some = channels[start : start + CHANNELS_PER_REQUEST]
                async with asyncio.timeout(ANSWER_TIMEOUT_S):
                    await self._websocket.send(encode_status_request(some))
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                return await question.answer
        except TimeoutError:
            raise CallTimeout(
                f"the push server did not say within {ANSWER_TIMEOUT_S:g} s who is online"
            ) from None
        finally:
            self._questions.remove(question)
            question.answer.cancel()
