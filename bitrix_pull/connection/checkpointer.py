"""Writes down how far everything is settled, and then acknowledges it to the server."""

import asyncio
import contextlib
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, Literal, TypeVar

from bitrix_pull.connection.cursors import Cursors
from bitrix_pull.connection.resume_point import ResumePoint
from bitrix_pull.connection.stores import MemoryStore, ResumeStore
from bitrix_pull.errors import InvalidArgument, PullError, ResumeStoreFailed
from bitrix_pull.events import PullEvent
from bitrix_pull.flag import Flag
from bitrix_pull.health import StoreHealth
from bitrix_pull.portal.foreign_errors import described, is_failure
from bitrix_pull.portal.models import PullConfig
from bitrix_pull.redaction import get_logger
from bitrix_pull.telemetry import log_fields
from bitrix_pull.wire.urls import START_OF_HISTORY

logger: Final = get_logger("connection")

Start = Literal["resume", "latest", "earliest"]
T = TypeVar("T")
Advance = Callable[[str, ResumePoint], Awaitable[None]]

RETRY_S = 1.0
"""How long to wait after a save that failed."""

ANSWER_WITHIN_S = 20.0
"""How long a store may take for anything."""

LAST_ANSWER_WITHIN_S = 5.0
"""How long it may once the client is closing, which one that never answers must not keep from ending."""

PAUSE_S = 0.02
"""How long to wait at least after any other."""

_GATHER = 64
_GATHER_S = 0.1
"""How many messages to gather for a save, and for how long after the one before: a save costs the
disk the same for one of them and for many. A store may have a longer time of its own: ``gather_s``."""

_WHOLE_AGAIN = 5_000
"""What may be added to a whole point, in mids, before a whole one takes its place."""

_ADVANCE_COST = 3
"""What an addition takes beside its mids, in mids."""


class Checkpointer:
    """Keeps the resume point of one client in a store.

    Saving is a loop: whatever is settled while one save is under way, or shortly after, goes
    into the next, so a slow disk makes saves rarer and nothing else. With a store that lives
    in memory only, the point is saved at the end.
    """

    def __init__(
        self,
        store: ResumeStore,
        start: Start,
        *,
        keys: Callable[[PullConfig], Awaitable[Sequence[str]]],
        known_mids: int,
        unsettled: Callable[[], set[str]],
        acknowledge: Callable[[Sequence[str]], Awaitable[None]],
    ) -> None:
        """Create a checkpointer.

        Args:
            store: Where to keep the resume point.
            start: "resume" where the store's point says, "latest" with what comes from
                now on, "earliest" with all that the server still keeps.
            keys: Gives the key in the store, and after it those that it may have had before.
            known_mids: How many mids a cursor remembers.
            unsettled: Gives the mids that handlers have not finished with.
            acknowledge: Tells the server that messages are safe with us.
        """
        self._store = store
        self._advance: Advance | None = getattr(store, "advance", None)
        self._start = start
        self._keys = keys
        self._known_mids = known_mids
        self._unsettled = unsettled
        self._acknowledge = acknowledge
        self._durable = not isinstance(store, MemoryStore)
        self._cursors: Cursors | None = None
        self._key = ""
        self._settled: list[str] = []
        # What the store has, but for what is settled beyond it, and of whose mids; None if nobody knows.
        self._saved: tuple[ResumePoint, object] | None = None
        self._added = 0
        self._whole_after = 0
        self._dirty = Flag()
        self._gather_s: float = getattr(store, "gather_s", _GATHER_S)
        self._gather_until = -math.inf
        self._stopping = Flag()
        # That of what the store is doing.
        self._deadline: asyncio.Timeout | None = None
        self.health: StoreHealth = StoreHealth()
        """How the store is doing."""

    @property
    def loaded(self) -> bool:
        """True once ``load`` was called."""
        return self._cursors is not None

    async def open(self) -> None:
        """Open the store.

        Raises:
            InvalidArgument: It cannot be used.
            ResumeStoreFailed: It raised an error of its own.
        """
        await self._told("open", self._store.open)

    async def load(self, config: PullConfig) -> Cursors:
        """Return the cursors to start with; the configuration may say whose stream it is.

        Raises:
            InvalidArgument: What the store holds cannot be read.
            ResumeStoreFailed: It raised an error of its own.
            PullError: The portal could not be asked whose stream it is.
        """
        keys = await self._keys(config)
        point: ResumePoint | None = None
        key = keys[0]
        if self._start == "resume":
            for key in keys:
                point = await self._told("load", partial(self._store.load, key))
                if point is not None:
                    break
        if point is not None and not isinstance(point, ResumePoint):
            raise InvalidArgument(
                f"load() of {type(self._store).__name__} returned {type(point).__name__}, not ResumePoint"
            )
        if self._start == "earliest":
            point = ResumePoint(START_OF_HISTORY)
        self._key = keys[0]
        self._cursors = Cursors(known_mids=self._known_mids, resume=point, unsettled=self._unsettled)
        if point is not None and key == self._key and len(point.settled) > _WHOLE_AGAIN:
            # The store has it, and it is large: each restart would write it anew.
            self._saved = replace(point, settled=(), stamps=()), self._cursors.numbering
            self._whole_after = 2 * len(point.settled)
        return self._cursors

    def settled(self, mids: Sequence[str]) -> None:
        """Take note that messages are dealt with: by their handlers, or because they are not for them."""
        self._settled += filter(None, mids)
        if self._settled:
            self._dirty.set()

    def handled(self, events: Sequence[PullEvent[Any]]) -> None:
        """Take note that events are dealt with by their handlers."""
        self._settled += [event.mid for event in events if event.mid]
        if self._settled:
            self._dirty.set()

    def connected(self) -> None:
        """Take note that there is a point to resume from, even if nothing has come yet."""
        self._dirty.set()

    async def run(self) -> None:
        """Save and acknowledge until ``stop``."""
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            await self._dirty.wait()
            while self._may_gather(loop.time()):
                # Nothing tells of each message.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._gather_s / 5):
                        await self._stopping.wait()
            self._dirty.clear()
            began = loop.time()
            if await self._save(durable_only=True):
                self._gather_until = loop.time() + self._gather_s
                await asyncio.sleep(max(PAUSE_S, loop.time() - began))
            else:
                await asyncio.sleep(RETRY_S)
                self._dirty.set()

    def _may_gather(self, now: float) -> bool:
        return not self._stopping.is_set() and len(self._settled) < _GATHER and now < self._gather_until

    def stop(self) -> None:
        """End ``run`` after the save that is under way, for which there is less time from now on."""
        self._stopping.set()
        self._dirty.set()
        if self._deadline is not None and not self._deadline.expired():
            ends_at = asyncio.get_running_loop().time() + LAST_ANSWER_WITHIN_S
            self._deadline.reschedule(min(ends_at, self._deadline.when() or ends_at))

    async def close(self) -> None:
        """Save for the last time, and close the store."""
        await self._save(durable_only=False)
        try:
            await self._told("close", self._store.close)
        except PullError as error:
            logger.error("the resume store could not be closed: %s", error)

    async def _save(self, *, durable_only: bool) -> bool:
        """Save if need be; return False if that failed."""
        if self._cursors is None:
            return True
        settled, self._settled = self._settled, []
        if self._durable or not durable_only:
            try:
                await self._write(self._cursors, settled)
            except Exception as error:
                # Better handled twice than lost: nothing is acknowledged that is not safe.
                self._settled = settled + self._settled
                if isinstance(error, PullError):
                    self._tell_failure(str(error))
                else:
                    # Ours to mend; but what comes after it must be saved.
                    logger.critical("the resume point could not be saved: a fault", exc_info=True)
                    self._tell_failure(f"a fault of bitrix_pull: {type(error).__name__}")
                return False
            self._tell_success(self._cursors.current.forgotten)
        if settled:
            await self._acknowledge(settled)
        return True

    async def _write(self, cursors: Cursors, settled: Sequence[str]) -> None:
        """Give the store what it does not have.

        Raises:
            PullError: It does not take it.
        """
        saved, self._saved = self._saved, None
        point, numbering = cursors.snapshot(), cursors.numbering
        advance = self._advance
        if (
            advance is None
            or saved is None
            or (saved[0].began, saved[1]) != (point.began, numbering)
            or self._added > self._whole_after
        ):
            beyond = cursors.settled_beyond(point.mid)
            whole = replace(point, settled=tuple(beyond), stamps=tuple(beyond.values()))
            await self._saved_by("save", partial(self._store.save, self._key, whole))
            self._added, self._whole_after = 0, max(_WHOLE_AGAIN, 2 * len(beyond))
        else:
            new = cursors.news(settled, point.mid)
            if new or point != saved[0]:
                news = replace(point, settled=tuple(new), stamps=tuple(new.values()), began=None, server="")
                await self._saved_by("advance", partial(advance, self._key, news))
                self._added += len(new) + _ADVANCE_COST
        self._saved = point, numbering

    async def _saved_by(self, method: str, call: Callable[[], Awaitable[None]]) -> None:
        """Let the store save something, and count it."""
        began_at = time.monotonic()
        saves, failures = 1, 0
        try:
            await self._told(method, call)
        except PullError:
            saves, failures = 0, 1
            raise
        finally:
            told = self.health
            self.health = replace(
                told,
                saves=told.saves + saves,
                failures=told.failures + failures,
                saving_s=told.saving_s + time.monotonic() - began_at,
            )

    def _tell_failure(self, text: str) -> None:
        if not self.health.error:
            logger.error("the resume point could not be saved: %s", text)
        self.health = replace(self.health, error=text)

    def _tell_success(self, comes_again: int) -> None:
        if self.health.error:
            logger.info("the resume point is saved again")
        if comes_again and not self.health.comes_again:
            logger.warning(
                "so much is settled after an event that is not that the oldest of it will be handled "
                "again after a restart: see to the handler that does not finish",
                extra=log_fields(count=comes_again),
            )
        self.health = replace(self.health, saved_at=datetime.now(UTC), error="", comes_again=comes_again)

    async def _told(self, method: str, call: Callable[[], Awaitable[T]]) -> T:
        """Let the store do something, and say in one kind of error what it raises.

        Raises:
            PullError: It raised something, or does not answer.
        """
        deadline = asyncio.timeout(LAST_ANSWER_WITHIN_S if self._stopping.is_set() else ANSWER_WITHIN_S)
        try:
            async with deadline:
                self._deadline = deadline
                try:
                    return await call()
                finally:
                    self._deadline = None
        except PullError:
            raise
        except BaseException as error:
            if not is_failure(error):
                raise
            if deadline.expired():
                raise ResumeStoreFailed(
                    f"{method}() of {type(self._store).__name__} has not returned in time"
                ) from None
            # The text of a foreign error may hold a secret.
            of_disk = isinstance(error, OSError) or type(error).__module__ == "sqlite3"
            ours = of_disk and type(self._store).__module__.startswith("bitrix_pull.")
            text = str(error) if ours else described(error)
            raise ResumeStoreFailed(f"{method}() of {type(self._store).__name__} raised {text}") from None
