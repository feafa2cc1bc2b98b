"""What a connection reads walks through here: known or new, event or control, or unreadable."""

import asyncio
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, Protocol

from bitrix_pull.connection.cursor import Cursor
from bitrix_pull.events import MessageDropped, Notice, PullEvent
from bitrix_pull.redaction import get_logger
from bitrix_pull.wire.messages import Control, Incoming, Malformed, Position

logger = get_logger("connection")


class Sink(Protocol):
    """Takes the events that are new."""

    @property
    def full(self) -> bool:
        """True if no more should be taken just now."""
        ...

    def put(self, events: Sequence[PullEvent[Any]]) -> None:
        """Take events at once."""
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

    @property
    def full(self) -> bool:
        """True if the sink wants no more just now."""
        return self._sink.full

    async def room(self) -> None:
        """Wait until the sink can take more."""
        await self._sink.room()

    def take(
        self,
        messages: Sequence[Incoming],
        *,
        from_history: bool = False,
        replayed: bool = False,
        healed: bool = False,
        newest: str = "",
    ) -> list[Control]:
        """Take in what was read at once, and return what the server wants of the connection.

        Args:
            messages: What was decoded.
            from_history: True if some of it may be from before this client's first connection.
            replayed: True if the frame is, or may be, a replay of history.
            healed: True if the server was asked for what it may have left out.
            newest: The highest mid that was seen before a replay.
        """
        now = asyncio.get_running_loop().time()
        events = [message for message in messages if type(message) is PullEvent]
        others_count = len(messages) - len(events)
        events = self._new(events, now)
        if from_history:
            events = [event for event in events if not self._is_too_old(event)]
            for event in events:
                event.replayed = replayed
                # The last replay left it out, and this one has brought it.
                event.healed = healed or (replayed and event.mid < newest)
        if events:
            self.received += len(events)
            self._sink.put(events)
        if not others_count:
            return []
        others = [message for message in messages if type(message) is not PullEvent]
        return self._take_others(others, now, from_history=from_history)

    def _new(self, events: list[PullEvent[Any]], now: float) -> list[PullEvent[Any]]:
        """Return those that are not known; now they are."""
        known = self.cursor.admit_all(list(map(_mid, events)), now, _kept_until_unix(events))
        self.duplicates += len(known)
        return [event for index, event in enumerate(events) if index not in known] if known else events

    def _take_others(self, messages: Sequence[Incoming], now: float, *, from_history: bool) -> list[Control]:
        """Take in what is no event."""
        controls: list[Control] = []
        unreadable: list[Malformed] = []
        for message in messages:
            match message:
                case Control():
                    if not self.cursor.admit(message.mid, now):
                        self.duplicates += 1
                    elif not (from_history and self._is_too_old(message)):
                        controls.append(message)
                        self._settled(message.mid)
                case Malformed():
                    if self.cursor.admit(message.mid, now):
                        unreadable.append(message)
                case Position():
                    self.cursor.position = message
                case _:
                    pass  # Nobody has asked for it.
        if unreadable:
            self._drop(unreadable)
        return controls

    def _is_too_old(self, message: PullEvent[Any] | Control) -> bool:
        """Tell whether a message is from before the first connection, and so is nobody's."""
        sent = message.extra.get("server_time_unix")
        if not self.cursor.too_old(message.created_unix, sent if isinstance(sent, int | float) else None):
            return False
        self._settled(message.mid)
        return True

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


def _kept_until_unix(events: Sequence[PullEvent[Any]]) -> Sequence[float]:
    """Return until when the server must keep each of them; 0 where it need not, or nobody knows."""
    return [
        created + expiry if (created := event.created_unix) and (expiry := event.expiry) else 0.0
        for event in events
    ]


_mid = attrgetter("mid")
