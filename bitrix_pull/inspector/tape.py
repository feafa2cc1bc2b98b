"""The last of what happened, in bounded memory, for any number of readers."""

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Final

EVENTS_MAX: Final = 5_000
_EVENTS_MAX_BYTES: Final = 16 * 1024 * 1024
_NOTICES_MAX: Final = 500
_LOOKS_MAX: Final = 900
_SMALL_MAX_BYTES: Final = 2 * 1024 * 1024


@dataclass(slots=True, frozen=True)
class Portion:
    """What a reader gets at once.

    Attributes:
        first: The number of the first entry.
        entries: JSON texts, one an entry.
        missed: Entries before these that the reader was too late for.
    """

    first: int
    entries: list[bytes]
    missed: int

    @property
    def next(self) -> int:
        """Where the reader goes on."""
        return self.first + len(self.entries)


class Tape:
    """Entries, numbered from 0 on; the oldest make room for new ones.

    A reader is nothing but the number at which it goes on: whoever does not read costs no
    memory, and is told what it has missed.

    Attributes:
        next: The number that the next entry gets.
        size: Bytes of the entries that are kept.
    """

    def __init__(self, max_entries: int, max_bytes: int, news: asyncio.Event) -> None:
        """Keep so many entries, of so many bytes together; ``news`` is set with each new one."""
        self.next: int = 0
        self.size: int = 0
        self._entries: deque[bytes] = deque()
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._news = news

    @property
    def first(self) -> int:
        """The number of the oldest entry that is kept."""
        return self.next - len(self._entries)

    @property
    def newest(self) -> bytes | None:
        """The last entry; None if there is none."""
        return self._entries[-1] if self._entries else None

    def append(self, entry: bytes) -> None:
        """Keep an entry."""
        self._entries.append(entry)
        self.next += 1
        self.size += len(entry)
        while len(self._entries) > 1 and (
            len(self._entries) > self._max_entries or self.size > self._max_bytes
        ):
            self.size -= len(self._entries.popleft())
        self._news.set()

    def entry(self, number: int) -> bytes | None:
        """Return the entry of a number, or None if it is not kept."""
        return self._entries[number - self.first] if self.first <= number < self.next else None

    def read(self, number: int, max_bytes: int) -> Portion:
        """Return the entries from a number on: of about so many bytes, and one at least if there is one."""
        begin = min(max(number, self.first), self.next)
        entries: list[bytes] = []
        size = 0
        for index in range(begin - self.first, len(self._entries)):
            entries.append(self._entries[index])
            size += len(entries[-1])
            if size >= max_bytes:
                break
        return Portion(begin, entries, max(begin - number, 0))


class Tapes:
    """The three tapes of a page.

    Attributes:
        news: Set when something has been added to one, or it is over.
        events: What was received.
        notices: What has happened.
        looks: Figures, about once a second: the last quarter of an hour.
        over: True at the end: nothing is added any more.
    """

    def __init__(self) -> None:
        """Begin with empty ones."""
        self.news: asyncio.Event = asyncio.Event()
        self.events: Tape = Tape(EVENTS_MAX, _EVENTS_MAX_BYTES, self.news)
        self.notices: Tape = Tape(_NOTICES_MAX, _SMALL_MAX_BYTES, self.news)
        self.looks: Tape = Tape(_LOOKS_MAX, _SMALL_MAX_BYTES, self.news)
        self.over: bool = False

    @property
    def all(self) -> tuple[Tape, Tape, Tape]:
        """All three."""
        return self.events, self.notices, self.looks

    def end(self) -> None:
        """Add nothing any more, and let readers know."""
        self.over = True
        self.news.set()
