"""The offline queue of one connector, as REST calls that lose nothing (protocol §10).

There are two ways to take records out of it.

**Reserving** (``event.offline.get`` with ``clear=0``) is the portal's own: records are put
under a new process id, hidden from everybody else, and deleted when they are handled. Of
two processes each gets others. A change of what is reserved makes a record of its own.
The newest portals choose records first and mark them then: two requests within the same
milliseconds may get the same ones, and both processes then handle them.

**Reading** is for plans where that is refused (``WRONG_LICENSE``): records are listed, left
where they are, and each is deleted once it is handled, on condition that it has not changed
since. Nothing is ever deleted that was not handled: a crash costs a repetition. Two
processes both handle everything. The portal tells times in whole seconds, so a change in the
second of the last one cannot be told from it; therefore a record is handled only when the
second of its last change is over (``ripe_in_s``), which includes any such change.

A record that is marked as failed is no longer under its process, and what the portal queues
of the same message from then on goes into it: it stays failed, and only its time tells that
there was a change. So the times of failed records are looked at as well.
"""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final, cast

from bitrix_pull.errors import NotAPortal, PortalError
from bitrix_pull.portal.answers import RestAnswer
from bitrix_pull.portal.batches import BATCH_MAX, PAGE_SIZE, Call, call_batch
from bitrix_pull.portal.rest import RestClient
from bitrix_pull.portal_events.records import Record, read_record
from bitrix_pull.redaction import get_logger
from bitrix_pull.wire.messages import is_object

logger: Final = get_logger("portal_events")

SLACK_S = 0.5
"""How long after the end of a second the portal may still write a change with its time: between
telling the time and writing, and between the clocks of its machines."""

RIPE_AFTER_S = 1.0 + SLACK_S
"""How long after it was seen the second of a record's last change is over, whatever it was."""

OVERLAP = timedelta(seconds=2)
"""How much earlier than the newest known change the next look begins, for the same reasons."""


@dataclass(slots=True, frozen=True)
class Portion:
    """Records that one call brought.

    Attributes:
        records: In the order in which they changed.
        server_time: The portal's clock when it answered, or None.
        full: Whether there may be more.
    """

    records: Sequence[Record]
    server_time: datetime | None
    full: bool

    @property
    def last_id(self) -> int:
        """The greatest number among them."""
        return max((record.id for record in self.records), default=0)

    def ripe_in_s(self, record: Record) -> float:
        """Return how long after the answer the second of a record's last change is surely over.

        What is reserved does not change any more. Else the second began before the answer.
        """
        longest = RIPE_AFTER_S
        if record.process_id:
            return 0.0
        if record.changed_at is None or self.server_time is None:
            return longest
        over_in_s = (record.changed_at - self.server_time).total_seconds() + longest
        return min(max(over_in_s, 0.0), longest)


class OfflineQueue:
    """The calls. All are made by an administrator, and each may raise any ``PullError``."""

    def __init__(self, rest: RestClient, connector: str) -> None:
        """Call the portal through ``rest``, for the queue of a connector."""
        self._rest = rest
        self._common: Mapping[str, Any] = {"auth_connector": connector} if connector else {}

    async def reserve(self, name: str | None) -> Portion:
        """Reserve the next records, of one event or of all.

        Raises:
            WrongLicense: The portal's plan has no reservation.
        """
        params: dict[str, Any] = {
            "clear": 0,
            "limit": PAGE_SIZE,
            "order": {"TIMESTAMP_X": "ASC", "ID": "ASC"},
        }
        if name is not None:
            params["filter"] = {"=EVENT_NAME": name}
        answer = await self._rest.ask("event.offline.get", {**params, **self._common})
        process_id = answer.result.get("process_id") if is_object(answer.result) else None
        if not isinstance(process_id, str) or not process_id:
            raise NotAPortal("event.offline.get: the answer names no process", method="event.offline.get")
        return _portion(replace(answer, result=answer.result.get("events")), process_id)

    async def waiting(self, name: str | None, since: datetime | None, after_id: int) -> Portion:
        """List what waits, of one event or of all, that has changed since then: one page, by number.

        A page begins after a number and not at a position, so that none is left out where
        others are deleted or change meanwhile.
        """
        wanted: dict[str, Any] = {"=PROCESS_ID": "", "=ERROR": 0}
        if name is not None:
            wanted["=EVENT_NAME"] = name
        if since is not None:
            wanted[">=TIMESTAMP_X"] = since.isoformat(timespec="seconds")
        return await self._page(wanted, after_id)

    async def reserved(self) -> list[Record]:
        """List what is reserved, by whomever."""
        return [record async for record in self._all({">PROCESS_ID": ""})]

    async def failed(self, after_id: int) -> Portion:
        """List what is marked as failed: one page, by number."""
        return await self._page({"=PROCESS_ID": "", "=ERROR": 1}, after_id)

    async def same_message(self, record: Record) -> list[Record]:
        """Return all records of a record's message: itself, and what has changed since."""
        wanted = {"=MESSAGE_ID": record.message_id}
        return [other async for other in self._all(wanted)]

    async def take_out(self, records: Iterable[Record]) -> "TakenOut":
        """Delete records that are handled, if they are still as they were, in few requests."""
        calls = list(_removals(records))
        taken = TakenOut()
        for begin in range(0, len(calls), BATCH_MAX):
            chunk = calls[begin : begin + BATCH_MAX]
            if len(chunk) == 1:
                _, (method, params) = chunk[0]
                try:
                    results = [await self._rest.call(method, {**params, **self._common})]
                except PortalError as error:
                    results = [error]
            else:
                results = await call_batch(self._rest, [call for _, call in chunk], self._common)
            for (handled, _), result in zip(chunk, results, strict=True):
                taken.add(handled, result)
        return taken

    async def delete_reserved(self, record: Record) -> None:
        """Delete a record that is reserved."""
        await self._rest.call(
            "event.offline.clear", {"process_id": record.process_id, "id": [record.id], **self._common}
        )

    async def mark_failed(self, record: Record) -> None:
        """Mark a record as failed. Whatever else is queued of its message is deleted: look before."""
        await self._rest.call(
            "event.offline.error",
            {"process_id": record.process_id, "message_id": [record.message_id], **self._common},
        )

    async def _all(self, wanted: Mapping[str, Any]) -> AsyncIterator[Record]:
        after_id, full = 0, True
        while full:
            portion = await self._page(wanted, after_id)
            for record in portion.records:
                yield record
            full, after_id = portion.full, portion.last_id

    async def _page(self, wanted: Mapping[str, Any], after_id: int) -> Portion:
        params = {"filter": {**wanted, ">ID": after_id}, "order": {"ID": "ASC"}}
        portion = _portion(await self._rest.ask("event.offline.list", {**params, **self._common}))
        # What does not heed the filter would be asked for the same page for ever.
        return replace(portion, full=portion.full and portion.last_id > after_id)


class TakenOut:
    """What became of records that were to be deleted.

    Attributes:
        gone: Those that are not in the queue any more as they were.
        left: Those about which the portal could not be asked: it must be asked again.
        changed: True if one was not there any more as it had been.
        strays: What was deleted without having been asked for: it must be handled.
        error: The last refusal.
    """

    def __init__(self) -> None:
        """Begin with nothing."""
        self.gone: list[Record] = []
        self.left: list[Record] = []
        self.changed: bool = False
        self.strays: list[Record] = []
        self.error: PortalError | None = None

    def add(self, handled: Sequence[Record], result: object) -> None:
        """Take note of one call's result."""
        if isinstance(result, PortalError):
            self.error = result
            if result.retryable:
                self.left += handled
            return
        self.gone += handled
        if is_object(result):
            deleted = _read(result.get("events"), "")
            versions = {record.version for record in handled}
            self.strays += [record for record in deleted if record.version not in versions]
            self.changed |= not deleted
            for stray in self.strays:
                logger.warning(
                    "the portal deleted record %d, which nobody asked for; it is handled", stray.id
                )


def _removals(records: Iterable[Record]) -> Iterable[tuple[Sequence[Record], Call]]:
    """Yield what deletes records, with those that each call deletes."""
    by_process: dict[str, list[Record]] = {}
    for record in records:
        if record.process_id:
            by_process.setdefault(record.process_id, []).append(record)
            continue
        unchanged = {"=ID": record.id, "<=TIMESTAMP_X": record.stamp}
        yield (
            [record],
            (
                "event.offline.get",
                {"clear": 1, "limit": 1, "error": int(record.failed), "filter": unchanged},
            ),
        )
    for process_id, reserved in by_process.items():
        ids = [record.id for record in reserved]
        yield reserved, ("event.offline.clear", {"process_id": process_id, "id": ids})


def _portion(answer: RestAnswer, process_id: str | None = None) -> Portion:
    rows = answer.result
    records = sorted(_read(rows, process_id), key=lambda record: (_unix(record.changed_at), record.id))
    count = len(cast("list[object]", rows)) if isinstance(rows, list) else 0
    # Of a full page without a readable record there is nowhere to go on from.
    return Portion(records, answer.server_time, count >= PAGE_SIZE and bool(records))


def _read(rows: object, process_id: str | None) -> list[Record]:
    if not isinstance(rows, list):
        return []
    records = [read_record(row, process_id) for row in cast("list[object]", rows)]
    if None in records:
        logger.warning("left out %d records of the portal's queue that cannot be read", records.count(None))
    return [record for record in records if record is not None]


def _unix(at: datetime | None) -> float:
    return at.timestamp() if at is not None else 0.0
