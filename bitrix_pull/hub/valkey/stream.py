"""A log of many portals' events in streams of Valkey or Redis."""

import asyncio
import contextlib
import itertools
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any, Final, cast

from bitrix_pull.connection.resume_point import ResumePoint
from bitrix_pull.connection.stamps import stamp_of
from bitrix_pull.errors import EngineUnavailable, InvalidArgument, LeaseLost, PullError
from bitrix_pull.events import PortalEvent, PullEvent
from bitrix_pull.hub.cluster import Lease, checked_keys
from bitrix_pull.hub.log import Publish
from bitrix_pull.hub.valkey.desk import Clerk, Desk
from bitrix_pull.hub.valkey.engine import Engine, Script, as_engine, pairs, text
from bitrix_pull.hub.valkey.envelope import envelope
from bitrix_pull.hub.valkey.requests import prefix_of, shard_of
from bitrix_pull.hub.valkey.resume import FencedPoints, point_keys
from bitrix_pull.redaction import get_logger

_log: Final = get_logger("hub")

_APPEND, _VERIFY = Script("append"), Script("verify")

_AT_ONCE = 500
_AT_ONCE_BYTES = 1 << 20
"""What one script appends at most, but for a single event that is larger."""

_ENOUGH = 64
_GATHER_S = 0.01
"""A script for each of a thousand portals' events costs a worker more than the events themselves:
where fewer than enough are waiting, the next one is begun no sooner after the one before."""

_EVENT_BYTES_MAX = 64 << 20
_PAUSES_S = (0.05, 0.1, 0.2, 0.5, 1.0)
_WATCH_S = 10.0
_VERIFY_S = 2.0
_BEHIND = 0.8
_AFTER_FAULT_S = 1.0


@dataclass(frozen=True, slots=True)
class GroupLag:
    """How far a consumer group is behind in one shard of the log.

    Attributes:
        stream: The shard's key.
        group: The group's name.
        behind: How many entries it has not acknowledged, about.
        length: How many entries the shard holds.
        room: How many it keeps at most, about; 0: all.
        lost: True if entries are gone that the group had not acknowledged.
    """

    stream: str
    group: str
    behind: int
    length: int
    room: int
    lost: bool

    @property
    def endangered(self) -> bool:
        """True if it will lose entries soon, unless it reads faster, or has lost some."""
        return self.lost or (self.room > 0 and self.behind >= _BEHIND * self.room)


@dataclass(slots=True, eq=False)
class _Item:
    writer: "_Writer"
    mid: str
    mark: str
    event: bytes
    done: "asyncio.Future[None]"


class ValkeyStream:
    """Writes events down in Valkey or Redis (6.2 or newer), for any number of consumer groups.

    That an event is new, that its writer still has the portal, the entry itself, and that the
    event need not come again: all that is one step at the engine. So whatever is killed, an
    event is in the log once; and where the engine itself has lost its last second, the portal
    is begun anew from what the engine has, and what is missing comes again from Bitrix24.

    Other services can ask the owner of a portal to publish, and are answered: see
    ``bitrix_pull.hub.valkey.requests`` for how, in any language.

    The entries are in the streams ``{NAME:0}:events``, ``{NAME:1}:events``, …; a portal's are
    all in one of them, in order. See ``bitrix_pull.hub.valkey.envelope`` for what they hold.

    When a group is slower than what comes: the log goes on, and the oldest entries go once
    there are more than ``max_events``, whoever has not read them. Before that, at four fifths
    of it, there is a warning in the log records and a call of ``on_behind``, once for each
    group and shard until it has caught up; ``lag()`` tells the figures at any time.

    Args:
        engine: Its address (see ``Engine``), or one that others use too.
        name: Tells this log from others on the same engine.
        shards: Over how many streams portals are spread: more than one is for a cluster of
            engines. Changing it moves portals; stop all workers for that, and read old
            streams to their end.
        max_events: How many entries a shard keeps, about; 0: all.
        min_age_s: Entries younger than this stay also beyond ``max_events``.
        on_behind: Called with each group that is about to lose entries, or has lost some.
        timeout_s: For how long to wait for the engine, where its address is given.

    Raises:
        InvalidArgument: An argument cannot work.
    """

    def __init__(
        self,
        engine: str | Engine,
        *,
        name: str = "bitrix-pull",
        shards: int = 1,
        max_events: int = 1_000_000,
        min_age_s: float = 0.0,
        on_behind: Callable[[GroupLag], None] | None = None,
        timeout_s: float = 5.0,
    ) -> None:
        if not name.isprintable() or not name or set(name) & set("{} "):
            raise InvalidArgument("the log's name must be printable, without braces and blanks")
        if shards < 1 or max_events < 0 or not 0 <= min_age_s < inf:
            raise InvalidArgument("shards must be 1 or more, max_events and min_age_s 0 or more")
        self._engine = as_engine(engine, timeout_s=timeout_s)
        self._max_events = max_events
        self._min_age_ms = round(min_age_s * 1000)
        self._on_behind = on_behind
        self._shards = [
            _Shard(self, prefix, Desk(self._engine, prefix, number, shards))
            for number, prefix in enumerate(prefix_of(name, number) for number in range(shards))
        ]
        self._opened = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._writers: dict[str, _Writer] = {}
        self._told: set[tuple[str, str]] = set()

    @property
    def streams(self) -> tuple[str, ...]:
        """The keys of the streams, one for each shard."""
        return tuple(shard.log for shard in self._shards)

    def stream_of(self, portal: str) -> str:
        """Return the key of the stream that has a portal's events."""
        return self._shard_of(portal).log

    async def open(self) -> None:
        """Connect; see ``EventLog.open``."""
        await self._engine.open()
        self._opened += 1
        if self._opened == 1:
            work = [self._verify, self._watch]
            for shard in self._shards:
                work += [shard.run, shard.desk.run]
            self._tasks = [asyncio.create_task(_always(doing), name="bitrix_pull log") for doing in work]

    async def close(self) -> None:
        """Let go; see ``EventLog.close``."""
        self._opened = max(self._opened - 1, 0)
        if self._opened == 0 and self._tasks:
            tasks, self._tasks = self._tasks, []
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            for shard in self._shards:
                shard.give_up()
        await self._engine.close()

    def writer(self, lease: Lease) -> "_Writer":
        """Return what writes a portal's events; see ``EventLog.writer``."""
        checked_keys([lease.key])
        writer = self._writers[lease.key] = _Writer(self._shard_of(lease.key), lease, self._engine)
        return writer

    async def lag(self) -> tuple[GroupLag, ...]:
        """Return how far each consumer group is behind, in each shard.

        Raises:
            EngineUnavailable: The engine does not answer.
        """
        await self._engine.open()
        try:
            return tuple([lag for shard in self._shards for lag in await shard.lag(self._max_events)])
        finally:
            await self._engine.close()

    async def requests_waiting(self) -> int:
        """Return how many requests to publish wait for their turn.

        Raises:
            EngineUnavailable: The engine does not answer.
        """
        await self._engine.open()
        try:
            return sum([int(await self._engine.call("XLEN", shard.desk.requests)) for shard in self._shards])
        finally:
            await self._engine.close()

    def _shard_of(self, portal: str) -> "_Shard":
        return self._shards[shard_of(portal, len(self._shards))]

    async def _verify(self) -> None:
        """Find portals whose log went back while nothing was written."""
        while True:
            await asyncio.sleep(_VERIFY_S)
            self._writers = {key: each for key, each in self._writers.items() if each.lease.valid()}
            for shard in self._shards:
                writers = [
                    each for each in self._writers.values() if each.shard is shard and each.resume.begun
                ]
                with contextlib.suppress(PullError):
                    await shard.verify(writers)

    async def _watch(self) -> None:
        """Say which groups are about to lose entries."""
        while True:
            with contextlib.suppress(PullError):
                lags = [lag for shard in self._shards for lag in await shard.lag(self._max_events)]
                for lag in lags:
                    self._tell(lag)
            await asyncio.sleep(_WATCH_S)

    def _tell(self, lag: GroupLag) -> None:
        about = lag.stream, lag.group
        if not lag.endangered:
            self._told.discard(about)
        elif about not in self._told:
            self._told.add(about)
            _log.warning(
                "the group %s %s entries of %s: it is %d behind, and %d are kept",
                lag.group,
                "has lost" if lag.lost else "is about to lose",
                lag.stream,
                lag.behind,
                lag.room,
            )
            if self._on_behind is not None:
                try:
                    self._on_behind(lag)
                except Exception:
                    _log.exception("on_behind has failed for the group %s", lag.group)

    def __repr__(self) -> str:
        return f"ValkeyStream({self._engine.name})"


class _Writer:
    """Writes one portal's events under one lease; see ``LogWriter``."""

    def __init__(self, shard: "_Shard", lease: Lease, engine: Engine) -> None:
        self.shard = shard
        self.lease = lease
        self.keys: tuple[str, str, str] = (
            *point_keys(shard.prefix, lease.key),
            f"{shard.prefix}:taken:{lease.key}",
        )
        self.resume: _Points = _Points(engine, self.keys[:2], lease)
        self._tries = itertools.count()

    async def append(self, event: PullEvent[Any] | PortalEvent[Any]) -> None:
        """Write an event down; see ``LogWriter.append``."""
        self.lease.require()
        written = envelope(self.lease.key, self.lease.epoch, event)
        if len(written) > _EVENT_BYTES_MAX:
            raise InvalidArgument(f"{event.label} is too large for the log: {len(written)} bytes")
        if isinstance(event, PullEvent):
            mid, mark = event.mid, repr(stamp_of(event))
        else:
            mid, mark = "", self._mark(event)
        await self.shard.put(_Item(self, mid, mark, written, asyncio.get_running_loop().create_future()))
        if mid:
            self.resume.appended.add(mid)

    def requests(self, publish: Publish) -> Clerk:
        """Return what publishes by request; see ``TakesRequests``."""
        return Clerk(self.shard.desk, self.lease, self.resume, self.keys[0], publish)

    def _mark(self, event: PortalEvent[Any]) -> str:
        """Return what tells a portal event from all others: its record, and when that changed last."""
        if event.record_id:
            changed_at = event.changed_at
            return (
                f"{event.record_id} {'' if changed_at is None else changed_at.timestamp()} {event.message_id}"
            )
        # One try, however often its answer is lost.
        return f"{self.lease.epoch} {next(self._tries)}"


class _Points(FencedPoints):
    """A resume point that the log moves by itself: what was appended need not be told again.

    Attributes:
        gather_s: It is saved only so that its owner's successor need not look back far: what it
            then hears again, the log knows.
    """

    _by = "log"
    gather_s: float = 20.0

    def __init__(self, engine: Engine, keys: tuple[str, str], lease: Lease) -> None:
        super().__init__(engine, keys, lease)
        self.appended: set[str] = set()

    async def save(self, key: str, point: ResumePoint) -> None:
        """See ``FencedPoints.save``."""
        await super().save(key, point)
        self.appended.clear()

    async def advance(self, key: str, news: ResumePoint) -> None:
        """See ``FencedPoints.advance``."""
        stamps = news.stamps or (0.0,) * len(news.settled)
        told = {
            mid: stamp for mid, stamp in zip(news.settled, stamps, strict=True) if mid not in self.appended
        }
        rest = ResumePoint(
            news.mid, tuple(told), stamps=tuple(told.values()), kept=news.kept, stamp=news.stamp
        )
        await super().advance(key, rest)
        self.appended.difference_update(news.settled)
        self.appended = {mid for mid in self.appended if mid > news.mid}


@dataclass(slots=True, eq=False)
class _Shard:
    """One stream. A single task appends to it, so that what was begun first is written first."""

    stream: ValkeyStream
    prefix: str
    desk: Desk
    waiting: deque[_Item] = field(default_factory=deque[_Item])
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    begun: list[_Item] = field(default_factory=list[_Item])
    began_at: float = -inf

    @property
    def log(self) -> str:
        return f"{self.prefix}:events"

    async def put(self, item: _Item) -> None:
        if not self.stream._tasks:  # pyright: ignore[reportPrivateUsage]
            raise EngineUnavailable("the log is not open")
        self.waiting.append(item)
        self.arrived.set()
        await item.done

    async def run(self) -> None:
        """Append what is waiting, as much at a time as there is."""
        while True:
            # Something is begun where a fault has ended this before.
            if not (self.begun or self.waiting):
                self.arrived.clear()
                await self.arrived.wait()
            await self._gather()
            self._begin()
            pauses = iter(_PAUSES_S)
            told = False
            while self._still_wanted():
                try:
                    await self._append()
                except PullError as error:
                    if not told:
                        _log.error("events are not written to the log for now: %s", error)
                        told = True
                    await asyncio.sleep(next(pauses, _PAUSES_S[-1]))
                else:
                    break
            if told:
                _log.info("events are written to the log again")

    async def _gather(self) -> None:
        """Wait for more, unless there is enough, or nothing was written just now."""
        loop = asyncio.get_running_loop()
        if len(self.waiting) < _ENOUGH and (pause_s := self.began_at + _GATHER_S - loop.time()) > 0:
            await asyncio.sleep(pause_s)
        self.began_at = loop.time()

    def _begin(self) -> None:
        size = 0
        while self.waiting and len(self.begun) < _AT_ONCE and (not size or size < _AT_ONCE_BYTES):
            item = self.waiting.popleft()
            self.begun.append(item)
            size += len(item.event)

    def _still_wanted(self) -> bool:
        """Leave out what may not be written any more; tell whether there is anything else."""
        wanted = list[_Item]()
        for item in self.begun:
            if item.done.done():
                continue
            try:
                item.writer.lease.require()
            except LeaseLost as error:
                item.done.set_exception(error)
            else:
                wanted.append(item)
        self.begun = wanted
        return bool(wanted)

    async def _append(self) -> None:
        for writer in dict.fromkeys(item.writer for item in self.begun):
            await self._begin_writer(writer)
        if not self._still_wanted():
            return
        by_writer = dict[_Writer, list[_Item]]()
        for item in self.begun:
            by_writer.setdefault(item.writer, []).append(item)
        keys, values = [self.log], list[str | bytes | float]()
        for writer, items in by_writer.items():
            keys += writer.keys
            values += (writer.lease.epoch, writer.resume.confirmed, len(items))
            for item in items:
                values += (item.mid, item.mark, item.event)
        limits = self.stream._max_events, self.stream._min_age_ms  # pyright: ignore[reportPrivateUsage]
        answer = await self.stream._engine.run(_APPEND, keys, *limits, *values)  # pyright: ignore[reportPrivateUsage]
        self.begun = []
        for (writer, items), result in zip(by_writer.items(), answer, strict=True):
            self._settle(writer, items, result)

    async def _begin_writer(self, writer: _Writer) -> None:
        """Shut earlier owners out, where no client has loaded the resume point."""
        try:
            await writer.resume.begin()
        except EngineUnavailable:
            raise
        except PullError as error:
            # The next owner's load says what it is.
            _log.error("%r cannot be written to the log: %s", writer.lease.key, error)
            writer.lease.end("damaged")

    def _settle(self, writer: _Writer, items: Iterable[_Item], result: Any) -> None:
        error: PullError | None = None
        if isinstance(result, bytes | str):
            _log.error("%r cannot be written to the log: %s", writer.lease.key, text(result))
            writer.lease.end("damaged")
            error = LeaseLost(f"something else is stored under the keys of {writer.lease.key!r:.60}")
        elif result < 0:
            error = writer.resume.refused(result)
        else:
            writer.resume.confirmed = max(writer.resume.confirmed, result)
        for item in items:
            if item.done.done():
                continue
            if error is None:
                item.done.set_result(None)
            else:
                item.done.set_exception(error)

    def give_up(self) -> None:
        """Leave what is not written."""
        for item in (*self.begun, *self.waiting):
            if not item.done.done():
                item.done.set_exception(EngineUnavailable("the log was closed"))
        self.begun.clear()
        self.waiting.clear()

    async def verify(self, writers: Sequence[_Writer]) -> None:
        """End the leases of those of whom something is gone that was confirmed."""
        if not writers:
            return
        values = [value for each in writers for value in (each.lease.epoch, each.resume.confirmed)]
        answer = await self.stream._engine.run(_VERIFY, [each.keys[0] for each in writers], *values)  # pyright: ignore[reportPrivateUsage]
        for writer, result in zip(writers, answer, strict=True):
            if result < 0:
                writer.resume.refused(result)

    async def lag(self, room: int) -> list[GroupLag]:
        call = self.stream._engine.call  # pyright: ignore[reportPrivateUsage]
        if not await call("EXISTS", self.log):
            return []
        about = dict(pairs(await call("XINFO", "STREAM", self.log)))
        length, last = int(about["length"]), _id(about["last-generated-id"])
        first = _id(about["first-entry"][0]) if about["first-entry"] else last
        # Older engines count neither.
        added = about.get("entries-added")
        lags = list[GroupLag]()
        for told in await call("XINFO", "GROUPS", self.log):
            group = dict(pairs(told))
            name, pending = text(group["name"]), int(group["pending"])
            delivered, read, unread = (
                _id(group["last-delivered-id"]),
                group.get("entries-read"),
                group.get("lag"),
            )
            lost = False
            if delivered == (0, 0):
                read = 0
            if pending and (oldest := _oldest(await call("XPENDING", self.log, name))) is not None:
                lost = _id(oldest) < first
            if added is not None and read is not None:
                unread = int(added) - int(read)
                lost = lost or unread > length
            elif unread is None:
                # By time, as if entries came evenly.
                share = max(last[0] - delivered[0], 1) / max(last[0] - first[0], 1)
                unread = 0 if delivered >= last else length * min(share, 1)
            lags.append(GroupLag(self.log, name, round(unread) + pending, length, room, lost))
        return lags


async def _always(work: Callable[[], Awaitable[None]]) -> None:
    """Do what has no end. After a fault of our own, or of the redis package, it is begun anew."""
    while True:
        try:
            await work()
        except Exception:
            # Ours to mend; but nobody shall wait for good because of it.
            _log.critical("a task of the log is begun anew", exc_info=True)
        await asyncio.sleep(_AFTER_FAULT_S)


def _oldest(pending: Any) -> Any:
    """Return the id of a group's oldest pending entry; None if it has none any more."""
    # The redis package makes a map of it, as of some other answers.
    told: Any = cast("dict[str, Any]", pending)["min"] if isinstance(pending, dict) else pending[1]
    return told


def _id(told: Any) -> tuple[int, int]:
    time_ms, _, number = text(told).partition("-")
    return int(time_ms), int(number or 0)
