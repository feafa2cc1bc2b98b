"""Takes the portal's events out of its queue whenever there may be some, and hands them to handlers."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import Any, Final, cast

from bitrix_pull.dispatch.dispatcher import Dispatcher
from bitrix_pull.errors import PullError, WrongLicense
from bitrix_pull.events import PortalEvent, PullEvent
from bitrix_pull.flag import Flag
from bitrix_pull.portal.batches import BATCH_MAX
from bitrix_pull.portal_events.binding import Bindings
from bitrix_pull.portal_events.queue import OVERLAP, RIPE_AFTER_S, OfflineQueue, Portion
from bitrix_pull.portal_events.records import Record
from bitrix_pull.portal_events.roll_call import NAMES_MAX, RollCall
from bitrix_pull.redaction import get_logger
from bitrix_pull.telemetry import log_fields
from bitrix_pull.wire.messages import is_object

logger: Final = get_logger("portal_events")

IN_HAND_MAX = 500
"""Events with handlers from which on no more are taken."""

PAUSE_S = 0.5
"""Least time between the beginnings of two looks: what is announced meanwhile is one of them.
The push server gathers for 0.4 s what follows a first message."""

BURST_LOOKS = 5
"""Looks in a row from which on they go as slowly as ``steady_s`` says."""

GATHER_S = 0.5
"""How long to gather what is handled before it is deleted in one request, if more is in hand."""

RETRY_S = (1.0, 30.0)
"""Wait after what failed: the first one, doubled each time up to the last."""

RECOVER_AGAIN_S = 30.0
"""When to ask again for reservations where nobody could be asked."""

UNRIPE_MAX_S = 5.0
"""How long a record that keeps changing is waited for before it is handled as it was."""


class Retry:
    """How long to wait after failures in a row."""

    def __init__(self) -> None:
        """Begin without one."""
        self._next_s = RETRY_S[0]

    def reset(self) -> None:
        """Take note of a success."""
        self._next_s = RETRY_S[0]

    def next_s(self) -> float:
        """Return the wait after one more failure."""
        delay_s, self._next_s = self._next_s, min(2 * self._next_s, RETRY_S[1])
        return delay_s


class Drain:
    """The one that reads a client's queue: one look at a time, however much is announced.

    A look takes all that is there. It is due at the start, when the portal announces
    something, after each reconnect, and at an interval in case an announcement was lost.
    What was handled is deleted, what failed for good is marked so, and what is in neither
    state when the process dies is still there for the next one: reserved, until it finds out
    by the roll call that nobody is at work on it.

    Records that are marked as failed are attempted once more by the first look, and
    whenever they have changed again.
    """

    def __init__(
        self,
        queue: OfflineQueue,
        bindings: Bindings,
        dispatcher: Dispatcher[PortalEvent[Any]],
        make_roll_call: Callable[[Callable[[], Collection[str]]], RollCall],
        *,
        connector: str,
        wanted: Callable[[], frozenset[str]],
        interval_s: float,
        steady_s: float,
    ) -> None:
        """Create a drain that does nothing yet.

        Args:
            queue: The calls.
            bindings: What is bound.
            dispatcher: Hands events to handlers; its inbox tells what became of them.
            make_roll_call: Makes a roll call of what gives the reservations held here.
            connector: Whose queue it is.
            wanted: Gives the names that handlers want at present.
            interval_s: How long to go without a look.
            steady_s: Least time between two looks where something is announced all the time, so
                that the portal's limits leave room for others.
        """
        self._queue = queue
        self._bindings = bindings
        self._dispatcher = dispatcher
        self._roll_call = make_roll_call(lambda: list(self._held))
        self._connector = connector
        self._wanted = wanted
        self._interval_s = interval_s
        self._steady_s = steady_s
        # By which of the two ways records are taken: reserving until the portal refuses it.
        self._reserves = True
        # Of each event that is with handlers, its record.
        self._taken: dict[PortalEvent[Any], Record] = {}
        # What is not to be taken again: unripe, with handlers, or waiting for its deletion.
        self._in_hand: set[tuple[int, str]] = set()
        self._held = Counter[str]()
        # What is not ripe yet: its latest time as written, and since when it has been waited for.
        self._unripe: dict[int, tuple[str, float]] = {}
        self._handled: list[Record] = []
        self._failed: list[Record] = []
        # What is marked as failed, with its time as written: another time is another change.
        self._failures: dict[int, str] = {}
        # From when on to read; and whether something older has come back meanwhile.
        self._since: datetime | None = None
        self._rewind = False
        self._first = True
        # Whether something was reserved that nobody here wants.
        self._strange = False
        self._known_wanted: frozenset[str] = frozenset()
        self._refused: frozenset[str] = frozenset()
        self._look = Flag()
        self._freed = Flag()
        self._settled = Flag()
        self._enough = Flag()
        self._failing = Flag()
        self._recovery = Flag()
        self._live = Flag()
        self._stopping = False
        self._tasks: asyncio.TaskGroup | None = None
        dispatcher.inbox.settled = self._on_settled
        dispatcher.inbox.failed = self._on_failed

    # -- what it is told ------------------------------------------------------------

    def look(self) -> None:
        """Let there be a look into the queue soon."""
        self._look.set()

    def live(self) -> None:
        """Take note that the stream is open, anew: an announcement may have been missed."""
        self._live.set()
        self._look.set()

    def announced(self, event: PullEvent[Any]) -> None:
        """Take in the portal's word that something was queued (``rest``, ``event_offline``)."""
        params: Any = event.params
        counts = cast("list[object]", params) if isinstance(params, list) else [params]
        connectors = [item.get("connector_id") or "" for item in counts if is_object(item)]
        if self._connector in connectors or not connectors:
            self._look.set()

    async def hear(self, event: PullEvent[Any]) -> None:
        """Take in what the clients of the application say about reservations."""
        try:
            if await self._roll_call.hear(event):
                self._recovery.set()
        except PullError as error:
            logger.warning("could not answer whose reservations these are: %s", error)

    def give_back(self, events: Sequence[PortalEvent[Any]]) -> None:
        """Take note that these are not handled here after all: they stay in the queue."""
        for event in events:
            record = self._taken.pop(event, None)
            if record is not None:
                self._release(record)
                # Whoever wants it next is the first to want it again.
                self._known_wanted -= {record.name}
        if events:
            # Others may want them still: they are taken over as if from somebody else.
            self._recovery.set()
        self._since, self._rewind = None, True
        self._freed.set()

    # -- life -------------------------------------------------------------------------

    async def run(self) -> None:
        """Take and delete until cancelled."""
        self._look.set()
        self._recovery.set()
        async with asyncio.TaskGroup() as self._tasks:
            for work in (self._looking, self._settling, self._marking, self._recovering):
                self._tasks.create_task(work(), name=f"bitrix_pull portal events {work.__name__.strip('_')}")

    def stop(self) -> None:
        """Take no more; what is with handlers goes on."""
        self._stopping = True

    async def finish(self, timeout_s: float) -> None:
        """Tell the portal what was handled and what has failed, as far as that succeeds in time."""
        with contextlib.suppress(TimeoutError, PullError):
            async with asyncio.timeout(timeout_s):
                if self._handled:
                    await self._settle()
                if self._failed:
                    await self._mark()

    # -- looking ------------------------------------------------------------------------

    async def _looking(self) -> None:
        loop = asyncio.get_running_loop()
        complete_at, retry, looks = loop.time(), Retry(), 0
        while True:
            looks = looks + 1 if self._look.is_set() else 0
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._interval_s):
                    await self._look.wait()
            self._look.clear()
            began_at = loop.time()
            is_complete = began_at >= complete_at
            if is_complete:
                self._since = None
                self._recovery.set()
            try:
                await self._take()
            except PullError as error:
                # What was asked for may have been done: it is reserved then, and nobody knows.
                self._recovery.set()
                self._look.set()
                delay_s = retry.next_s()
                _tell_delay("the portal's events could not be taken, again in %.0f s: %s", delay_s, error)
                await asyncio.sleep(delay_s)
                continue
            retry.reset()
            if is_complete:
                complete_at = began_at + self._interval_s
            # What is only read is not handled any sooner for being read again.
            pause_s = PAUSE_S if self._reserves else RIPE_AFTER_S
            if looks >= BURST_LOOKS:
                pause_s = max(pause_s, self._steady_s)
            await asyncio.sleep(max(began_at + pause_s - loop.time(), 0.0))

    async def _take(self) -> None:
        """Take all that there is."""
        wanted = self._wanted()
        if wanted - self._known_wanted:
            # What was left alone until now may be wanted.
            self._since = None
            self._recovery.set()
        self._known_wanted = wanted
        await self._bind(wanted)
        names = self._names(wanted)
        if self._first or self._failures:
            await self._look_at_failed()
            self._first = False
        since, self._since, self._rewind = self._since, None, False
        first_answer: datetime | None = None
        for name in names:
            if self._reserves:
                try:
                    await self._take_reserved(name)
                    continue
                except WrongLicense:
                    logger.info("the portal's plan has no reservation of events: they are read before taking")
                    self._reserves = False
            answered = await self._take_waiting(name, since)
            first_answer = first_answer or answered
        if self._strange:
            # Somebody else has bound events of this connector: ask for ours only from now on.
            await self._bindings.fetch()
            await self._roll_call.leave()
            self._strange = False
        if first_answer is not None and not self._rewind:
            self._since = first_answer - OVERLAP

    async def _bind(self, wanted: frozenset[str]) -> None:
        """Bind what has been wanted only since the start."""
        missing = wanted - self._bindings.names - self._refused
        if not missing:
            return
        try:
            await self._bindings.bind(wanted - self._refused)
        except PullError as error:
            if error.retryable:
                raise
            self._refused |= missing
            names = ", ".join(sorted(missing))
            logger.error("cannot bind %s: %s", names, error, extra=log_fields(event=names, error=error))

    def _names(self, wanted: frozenset[str]) -> list[str | None]:
        """Return what to ask for: everything at once, unless there are events of others in the queue."""
        if not wanted:
            return []
        if self._bindings.names <= wanted:
            return [None]
        return [*sorted(wanted)]

    async def _take_reserved(self, name: str | None) -> None:
        more = True
        while more and not self._stopping:
            await self._room()
            portion = await self._queue.reserve(name)
            self._deliver(portion.records)
            more = portion.full

    async def _take_waiting(self, name: str | None, since: datetime | None) -> datetime | None:
        """Read what waits, and return when the portal answered first."""
        answered: list[datetime | None] = []
        after_id, more = 0, True
        while more and not self._stopping:
            await self._room()
            portion = await self._queue.waiting(name, since, after_id)
            self._deliver_ripe(portion, portion.records)
            answered.append(portion.server_time)
            after_id, more = portion.last_id, portion.full
        return answered[0] if answered else None

    async def _look_at_failed(self) -> None:
        after_id, more = 0, True
        wanted = self._wanted()
        while more:
            await self._room()
            portion = await self._queue.failed(after_id)
            again: list[Record] = []
            for record in portion.records:
                if record.name not in wanted:
                    continue
                known = self._failures.setdefault(record.id, "" if self._first else record.stamp)
                if known != record.stamp:
                    again.append(record)
            self._deliver_ripe(portion, again)
            after_id, more = portion.last_id, portion.full

    async def _room(self) -> None:
        while len(self._taken) >= IN_HAND_MAX:
            self._freed.clear()
            await self._freed.wait()

    # -- handing on -----------------------------------------------------------------------

    def _deliver(self, records: Sequence[Record]) -> None:
        """Hand records to handlers; leave alone what none of them wants."""
        wanted = self._wanted()
        events: list[PortalEvent[Any]] = []
        for record in records:
            if record.name not in wanted or self._stopping:
                # It is somebody else's: who wants it finds it by the roll call, or reads it.
                self._in_hand.discard(record.version)
                self._strange |= bool(record.process_id) and not self._stopping
                continue
            event = record.event(self._connector)
            self._taken[event] = record
            self._in_hand.add(record.version)
            if record.process_id:
                self._held[record.process_id] += 1
            events.append(event)
        if events:
            self._dispatcher.put(events)

    def _deliver_ripe(self, portion: Portion, records: Sequence[Record]) -> None:
        """Hand on what was only read, each record when the second of its last change is over."""
        now = asyncio.get_running_loop().time()
        by_delay: dict[float, list[Record]] = {}
        for record in records:
            if record.version not in self._in_hand:
                self._in_hand.add(record.version)
                _, since = self._unripe.get(record.id, ("", now))
                self._unripe[record.id] = (record.stamp, since)
                by_delay.setdefault(portion.ripe_in_s(record), []).append(record)
        assert self._tasks is not None
        for delay_s, ripening in by_delay.items():
            self._tasks.create_task(self._ripen(ripening, delay_s), name="bitrix_pull portal events ripening")

    async def _ripen(self, records: Sequence[Record], delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        now = asyncio.get_running_loop().time()
        ripe: list[Record] = []
        for record in records:
            latest, since = self._unripe.get(record.id, (record.stamp, now))
            if latest == record.stamp:
                self._unripe.pop(record.id, None)
            elif now - since < UNRIPE_MAX_S:
                # It has changed again: what is waited for now covers this change too.
                self._in_hand.discard(record.version)
                continue
            else:
                self._unripe[record.id] = (latest, now)
            ripe.append(record)
        self._deliver(ripe)

    def _release(self, record: Record) -> None:
        self._in_hand.discard(record.version)
        if record.process_id:
            self._held[record.process_id] -= 1
            if self._held[record.process_id] <= 0:
                del self._held[record.process_id]

    # -- what became of them ----------------------------------------------------------------

    def _on_settled(self, events: Sequence[PortalEvent[Any]]) -> None:
        self._handled += [record for event in events if (record := self._taken.pop(event, None)) is not None]
        self._freed.set()
        self._settled.set()
        if not self._taken or len(self._handled) >= BATCH_MAX:
            self._enough.set()

    def _on_failed(self, events: Sequence[PortalEvent[Any]]) -> None:
        self._failed += [record for event in events if (record := self._taken.pop(event, None)) is not None]
        self._freed.set()
        self._failing.set()

    async def _settling(self) -> None:
        retry = Retry()
        while True:
            await self._settled.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GATHER_S):
                    await self._enough.wait()
            self._settled.clear()
            self._enough.clear()
            try:
                await self._settle()
                retry.reset()
            except PullError as error:
                delay_s = retry.next_s()
                _tell_delay("what is handled could not be deleted, again in %.0f s: %s", delay_s, error)
                await asyncio.sleep(delay_s)
                self._settled.set()
                self._enough.set()

    async def _settle(self) -> None:
        """Delete what is handled.

        Raises:
            PullError: Not all of it could be.
        """
        handled, self._handled = self._handled, []
        try:
            outcome = await self._queue.take_out(handled)
        except BaseException:
            self._handled = handled + self._handled
            raise
        for record in outcome.gone:
            self._release(record)
            self._failures.pop(record.id, None)
        if outcome.strays:
            self._dispatcher.put([record.event(self._connector) for record in outcome.strays])
        if outcome.changed:
            self._look.set()
        self._handled = outcome.left + self._handled
        if outcome.error is not None:
            if outcome.left:
                raise outcome.error
            logger.error("the portal does not delete what is handled: %s", outcome.error)

    async def _marking(self) -> None:
        retry = Retry()
        while True:
            await self._failing.wait()
            self._failing.clear()
            # A change within the second of the last one could not be told from it afterwards.
            await asyncio.sleep(RIPE_AFTER_S)
            try:
                await self._mark()
                retry.reset()
            except PullError as error:
                delay_s = retry.next_s()
                _tell_delay("what failed could not be marked, again in %.0f s: %s", delay_s, error)
                await asyncio.sleep(delay_s)
                self._failing.set()

    async def _mark(self) -> None:
        """Mark what has failed.

        Raises:
            PullError: Not all of it could be.
        """
        while self._failed:
            record = self._failed[0]
            same = await self._queue.same_message(record)
            own = next((other for other in same if other.id == record.id), None)
            is_newer = any(other.id != record.id and not other.failed for other in same)
            is_marked = own is not None and own.failed
            if own is not None and not own.failed:
                if not is_newer and own.stamp == record.stamp:
                    await self._queue.mark_failed(record)
                    is_marked = True
                elif record.process_id:
                    # What has changed since will be handled; marking would delete it.
                    await self._queue.delete_reserved(record)
            self._failed.remove(record)
            if is_marked:
                self._failures[record.id] = record.stamp
            self._release(record)

    # -- what others have left behind ---------------------------------------------------------

    async def _recovering(self) -> None:
        await self._live.wait()
        retry = Retry()
        while True:
            await self._recovery.wait()
            self._recovery.clear()
            try:
                if await self._recover():
                    retry.reset()
                    continue
                delay_s = RECOVER_AGAIN_S
            except PullError as error:
                delay_s = retry.next_s()
                _tell_delay("reserved events could not be looked for, again in %.0f s: %s", delay_s, error)
            await asyncio.sleep(delay_s)
            self._recovery.set()

    async def _recover(self) -> bool:
        """Take over what nobody is at work on; return False if nobody could be asked."""
        process_ids = sorted({record.process_id for record in await self._foreign()})
        if not process_ids:
            return True
        if len(process_ids) > NAMES_MAX:
            self._recovery.set()  # The rest of them is next.
        async with self._roll_call.unclaimed(process_ids[:NAMES_MAX]) as unclaimed:
            if not unclaimed:
                return unclaimed is not None
            # Some of it may have been handled and deleted meanwhile.
            present = [record for record in await self._foreign() if record.process_id in unclaimed]
            if present:
                logger.info(
                    "took over %d events that a process has left reserved",
                    len(present),
                    extra=log_fields(count=len(present)),
                )
            for begin in range(0, len(present), BATCH_MAX):
                await self._room()
                self._deliver(present[begin : begin + BATCH_MAX])
        return True

    async def _foreign(self) -> list[Record]:
        wanted = self._wanted()
        records = await self._queue.reserved()
        return [record for record in records if record.process_id not in self._held and record.name in wanted]


def _tell_delay(text: str, delay_s: float, error: PullError) -> None:
    logger.warning(text, delay_s, error, extra=log_fields(retry_in_s=delay_s, error=error))
