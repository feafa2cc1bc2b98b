"""What the supervisor needs of a transport. ``websocket.py`` and ``longpoll.py`` are two."""

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from bitrix_pull.wire.messages import Incoming


class Connection(Protocol):
    """One open stream.

    Attributes:
        server_unix: The push server's clock when the stream was opened, or None if unknown.
    """

    server_unix: float | None

    @property
    def heard_at(self) -> float:
        """When the server was heard from last, by the loop's clock."""
        ...

    @property
    def amid_frame(self) -> bool:
        """True if the next call of ``receive`` goes on with the frame that was begun."""
        ...

    async def receive(self) -> Sequence[Incoming]:
        """Return what has come, and wait if that is nothing; of a large frame, a part.

        The first frame comes alone, as it may be a replay; later ones come together.

        Cancelling it loses nothing. It watches over the link while it waits, so a
        caller that does not call it because it is busy causes no false alarm.

        Raises:
            Ended: The stream is over; its ``sign`` says why.
            MalformedFrame: A frame cannot be read; all before it were returned.
        """
        ...

    async def send(self, frame: bytes) -> None:
        """Send a frame, and return when the server has read it and not refused it.

        That takes a round trip; any number of calls may be under way. There is no deadline:
        cancel it to give up.

        Raises:
            PublishRefused: The server closed the stream because of this very frame.
            Ended: The stream is over; whether the frame was read is unknown.
            Unreachable: The stream was over before; the frame was not sent.
            RouteUnavailable: This transport cannot send.
        """
        ...

    async def answered(self) -> bool:
        """Wait until the server has sent all that it had to send by now; return True if that is read.

        It answers a ping after that, if it answers any. A poll shows nothing: it waits
        ``catch_up_s`` instead.

        Raises:
            Ended: The stream is over.
        """
        ...

    def replay(self) -> AsyncIterator[Sequence[Incoming]]:
        """Yield what the history holds after the mid that this was opened with; nothing else is read then.

        Raises:
            Ended: It ended before the server has said all, or that there is nothing.
            MalformedFrame: The rest cannot be read.
        """
        ...

    def resume_after(self, mid: str) -> None:
        """Go on from another mid than the last one, where each request names one."""
        ...

    async def acknowledge(self, mids: Sequence[str]) -> None:
        """Tell the server that messages are safe with us, where the protocol has that.

        Raises:
            Ended: The stream is over.
        """
        ...

    async def close(self, code: int) -> None:
        """End the stream politely if that works at once, else abruptly. Never raises."""
        ...
