"""What the supervisor needs of a transport. ``websocket.py`` and ``longpoll.py`` are two."""

from collections.abc import Sequence
from typing import Protocol

from bitrix_pull.wire.messages import Incoming


class Connection(Protocol):
    """One open stream."""

    async def receive(self) -> Sequence[Incoming]:
        """Return what the next frame holds.

        Cancelling it loses nothing. It watches over the link while it waits, so a
        caller that does not call it because it is busy causes no false alarm.

        Raises:
            Ended: The stream is over; its ``sign`` says why.
        """
        ...

    async def send(self, frame: bytes) -> None:
        """Send a frame.

        Raises:
            Ended: The stream is over.
            RouteUnavailable: This transport cannot send.
        """
        ...

    async def close(self, code: int) -> None:
        """End the stream politely if that works at once, else abruptly. Never raises."""
        ...
