"""What a connection reads walks through here: known or new, event or control, or unreadable."""

import asyncio
import time
from collections.abc import Callable, Sequence, Set
from operator import attrgetter
from typing import Any, Final, Protocol, cast

from bitrix_pull.connection.cursor import Cursor
from bitrix_pull.connection.stamps import sent_unix, stamp_of, stamps_of
from bitrix_pull.events import MessageDropped, Notice, PullEvent
from bitrix_pull.redaction import get_logger, printable
from bitrix_pull.telemetry import log_fields
from bitrix_pull.wire.messages import Control, Incoming, Malformed, Position, Unread
from bitrix_pull.wire.skim import NO_TOPICS, Topic

logger: Final = get_logger("connection")

KEPT_MAX_S = 86_400
"""Longest time for which the server keeps a message, whatever its expiry says (protocol §6)."""


Streamed = PullEvent[Any] | Unread
"""What counts as an event, whether it was read or not."""

_STREAMED = {PullEvent, Unread}


class Sink(Protocol):
    """Takes the events that are new."""

    @property
    def full(self) -> bool:
        """True if no more should be taken just now."""
        ...

    def put(self, events: Sequence[PullEvent[Any]]) -> None:
        """Take events at once."""
        ...

    def pass_by(self, topics: Sequence[Topic]) -> None:
        """Take note of events that nobody wants, by what they are about; they are dealt with."""
        ...

    async def room(self) -> None:
        """Wait until more can be taken."""
        ...

    def held_by(self) -> tuple[str, str, int]:
        """Return which event has waited longest, for which handlers, and how many wait."""
        ...


class Intake:
    """Sorts what was read, and counts it."""

    def __init__(
        self,
        sink: Sink,
        announce: Callable[[Notice], None],
        settled: Callable[[Sequence[str]], None],
        unwanted: Set[Topic] = NO_TOPICS,
    ) -> None:
        """Feed new events to ``sink``.

        Args:
            sink: Takes the events that are new.
            announce: Takes notices.
            settled: Told of the messages that no handler gets, and so are dealt with at once: by mid.
            unwanted: What nobody wants at present.
        """
        self._sink = sink
        self._announce = announce
        self._settled = settled
        self._unwanted = unwanted
        # Whether anything is unread of what was sorted last.
        self._has_unread = False
        self.received: int = 0
        """Events handed on."""
        self.received_unix: float | None = None
        """When the last of them were."""
        self.healed: int = 0
        """Those of them that the server had left out, and that were fetched afterwards."""
        self.duplicates: int = 0
        """Messages that were known already."""
        self.malformed: int = 0
        """Messages that could not be read."""

    @property
    def full(self) -> bool:
        """True if the sink wants no more just now."""
        return self._sink.full

    async def room(self) -> None:
        """Wait until the sink can take more."""
        await self._sink.room()

    def held_by(self) -> tuple[str, str, int]:
        """Return which event the sink has had longest, for which handlers, and how many it has."""
        return self._sink.held_by()

    def sort(
        self, messages: Sequence[Incoming], cursor: Cursor, *, from_start: bool = False
    ) -> tuple[list[Streamed], list[Control]]:
        """Take in what was read at once; return what is new: events, and what steers the connection.

        What was left unread, and is wanted by now, is read.

        Both are known from here on, so the events must be handed on before anything else is awaited.

        Args:
            messages: What was decoded.
            cursor: That of the server that has sent it.
            from_start: True if it was asked for from the start of history, and some of it may be
                from before this client's first connection.
        """
        now = asyncio.get_running_loop().time()
        kinds = set(map(type, messages))
        self._has_unread = Unread in kinds
        events, others = cast("list[Streamed]", messages), list[Incoming]()
        if not kinds <= _STREAMED:
            events = [message for message in messages if isinstance(message, PullEvent | Unread)]
            others = [message for message in messages if type(message) not in _STREAMED]
        if events:
            events = self._new(events, cursor, now)
            if from_start:
                events = [event for event in events if not self._is_too_old(event, cursor)]
            if self._has_unread:
                events = self._read_wanted(events)
        if not others:
            return events, []
        return events, self._sort_others(others, cursor, now, from_start=from_start)

    def hand_on(self, events: Sequence[Streamed]) -> None:
        """Hand on what was sorted out as new, at once."""
        self.received += len(events)
        self.received_unix = time.time()
        wanted = cast("Sequence[PullEvent[Any]]", events)
        if self._has_unread:
            wanted = [event for event in events if type(event) is PullEvent]
            unread = [event for event in events if type(event) is Unread]
            self._settled([message.mid for message in unread])
            self._sink.pass_by([message.topic for message in unread])
        if wanted:
            self._sink.put(wanted)

    def _read_wanted(self, events: list[Streamed]) -> list[Streamed]:
        """Read what somebody wants by now, although nobody did when it came."""
        unwanted = self._unwanted
        if unwanted >= {event.topic for event in events if type(event) is Unread}:
            return events
        left: list[Streamed] = []
        unreadable: list[Malformed] = []
        for event in events:
            message = event.read() if type(event) is Unread and event.topic not in unwanted else event
            if type(message) is Malformed:
                unreadable.append(message)
            elif isinstance(message, PullEvent | Unread):
                left.append(message)
        if unreadable:
            self._drop(unreadable)
        return left

    def _new(self, events: list[Streamed], cursor: Cursor, now: float) -> list[Streamed]:
        """Return those that are not known; now they are."""
        mids, stamps = list(map(_mid, events)), stamps_of(events)
        known = cursor.admit_all(mids, now, stamps)
        # The newest one that is kept is the last one, or near it.
        for event, stamp in zip(reversed(events[-5:]), reversed(stamps[-5:]), strict=True):
            if event.expiry and event.created_unix:
                cursor.keep(event.mid, stamp, event.created_unix + min(event.expiry, KEPT_MAX_S))
                break
        if not known:
            return events
        self.duplicates += len(known)
        return [event for index, event in enumerate(events) if index not in known]

    def _sort_others(
        self, messages: Sequence[Incoming], cursor: Cursor, now: float, *, from_start: bool
    ) -> list[Control]:
        """Take in what is no event."""
        controls: list[Control] = []
        unreadable: list[Malformed] = []
        for message in messages:
            match message:
                case Control():
                    if not cursor.admit(message.mid, now, stamp_of(message)):
                        self.duplicates += 1
                    elif not (from_start and self._is_too_old(message, cursor)):
                        controls.append(message)
                        self._settled([message.mid])
                case Malformed():
                    if cursor.admit(message.mid, now):
                        unreadable.append(message)
                case Position():
                    cursor.position = message
                case _:
                    pass  # Nobody has asked for it.
        if unreadable:
            self._drop(unreadable)
        return controls

    def _is_too_old(self, message: Streamed | Control, cursor: Cursor) -> bool:
        """Tell whether a message is from before the first connection, and so is nobody's."""
        if not cursor.too_old(message.mid, message.created_unix, sent_unix(message)):
            return False
        self._settled([message.mid])
        return True

    def _drop(self, unreadable: Sequence[Malformed]) -> None:
        for number, message in enumerate(unreadable):
            self.malformed += 1
            self._settled([message.mid])
            self._announce(MessageDropped(message.mid, message.reason, self.malformed))
            # The server chooses how many there are: not a line for each.
            if number == 0:
                logger.warning(
                    "left out message %.40r: %s",
                    message.mid,
                    message.reason,
                    extra=log_fields(mid=printable(message.mid[:26])),
                )
        if len(unreadable) > 1:
            more = len(unreadable) - 1
            logger.warning("left out %d more messages of the same frame", more, extra=log_fields(count=more))


_mid = attrgetter("mid")
