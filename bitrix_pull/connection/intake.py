"""What a connection reads walks through here: known or new, event or control, or unreadable."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from bitrix_pull.connection.cursor import Cursor
from bitrix_pull.events import MessageDropped, Notice, PullEvent
from bitrix_pull.redaction import get_logger
from bitrix_pull.wire.messages import (
    ChannelStatus,
    Control,
    Incoming,
    Malformed,
    Ping,
    Position,
    Reply,
    UnknownRequest,
)

logger = get_logger("connection")


class Sink(Protocol):
    """Takes the events that are new."""

    def put(self, event: PullEvent[Any]) -> None:
        """Take an event at once."""
        ...

    async def room(self) -> None:
        """Wait until more can be taken."""
        ...


class Intake:
    """Sorts what was read, and counts it."""

    def __init__(
        self, sink: Sink, announce: Callable[[Notice], None], settled: Callable[[str], None]
    ) -> None:
        """Feed new events to ``sink``.

        Args:
            sink: Takes the events that are new.
            announce: Takes notices.
            settled: Told of the messages that are no events, and so are dealt with at once.
        """
        self.cursor = Cursor()
        """Says what is new; put in place before the first connection."""
        self._sink = sink
        self._announce = announce
        self._settled = settled
        self.received = 0
        """Events handed on."""
        self.duplicates = 0
        """Messages that were known already."""
        self.malformed = 0
        """Messages that could not be read."""

    async def room(self) -> None:
        """Wait until the sink can take what the next frame holds."""
        await self._sink.room()

    def take(
        self,
        messages: Sequence[Incoming],
        *,
        from_history: bool = False,
        replayed: bool = False,
        healed: bool = False,
    ) -> list[Control]:
        """Take in what one frame held, and return what the server wants of the connection.

        Args:
            messages: What was decoded.
            from_history: True if some of it may be from before this client's first connection.
            replayed: True if the frame is, or may be, a replay of history.
            healed: True if the server was asked for what it may have left out.
        """
        controls: list[Control] = []
        unreadable: list[Malformed] = []
        newest = self.cursor.newest
        now = asyncio.get_running_loop().time()
        for message in messages:
            match message:
                case PullEvent():
                    if self._is_new(message, now, from_history=from_history):
                        message.replayed = replayed
                        # The last replay left it out, and this one has brought it.
                        message.healed = healed or (replayed and message.mid < newest)
                        self.received += 1
                        self._sink.put(message)
                case Control():
                    if self._is_new(message, now, from_history=from_history):
                        controls.append(message)
                        self._settled(message.mid)
                case Malformed():
                    if self.cursor.admit(message.mid, now):
                        unreadable.append(message)
                case Position():
                    self.cursor.position = message
                case ChannelStatus() | Ping() | Reply() | UnknownRequest():
                    pass  # Nobody has asked for it.
        self._drop(unreadable)
        return controls

    def _is_new(self, message: PullEvent[Any] | Control, now: float, *, from_history: bool) -> bool:
        created = message.created_unix
        kept_until = 0.0
        if created is not None and isinstance(message, PullEvent) and message.expiry:
            kept_until = created + message.expiry
        if not self.cursor.admit(message.mid, now, kept_until_unix=kept_until):
            self.duplicates += 1
            return False
        if not from_history:
            return True
        sent = message.extra.get("server_time_unix")
        if not self.cursor.too_old(created, sent if isinstance(sent, int | float) else None):
            return True
        self._settled(message.mid)
        return False

    def _drop(self, unreadable: Sequence[Malformed]) -> None:
        for number, message in enumerate(unreadable):
            self.malformed += 1
            self._settled(message.mid)
            self._announce(MessageDropped(message.mid, message.reason, self.malformed))
            # The server chooses how many there are: not a line for each.
            if number == 0:
                logger.warning("left out message %.40r: %s", message.mid, message.reason)
        if len(unreadable) > 1:
            logger.warning("left out %d more messages of the same frame", len(unreadable) - 1)
