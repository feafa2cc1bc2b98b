"""Watches the hubs that meet at an engine: their log, their workers, and who reads the log."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from typing import Any, Final

import orjson

from bitrix_pull.errors import EngineUnavailable, PullError
from bitrix_pull.failures import one_failure
from bitrix_pull.hub.valkey import ClusterStatus, Engine, GroupLag, ValkeyCluster, ValkeyStream, WorkerStatus
from bitrix_pull.hub.valkey.reader import LogReader
from bitrix_pull.inspector.logged import shown_entry
from bitrix_pull.inspector.tape import Tapes
from bitrix_pull.redaction import one_line
from bitrix_pull.wire.messages import is_object

NEWEST: Final = 200
"""How many of the events that are in the log the page begins with, of each shard."""

_EVERY_S: Final = 1.0
_STATUS_EVERY_S: Final = 2.0
_STATUS_SHARE: Final = 0.1
"""All portals are told of each time: of many thousands less often, so that it takes no more of the time."""

_AGAIN_S: Final = 1.0
_TOLD_AT_ONCE: Final = 5
"""Failures of portals that are told one by one; of more, the number."""


class HubWatcher:
    """What happens at an engine, on three tapes. It only reads, and moves no group's position.

    Attributes:
        tapes: The events of all portals, what has happened to workers and portals, and figures.
        status: Who is there, and who has which portal, as the engine said last; None before that.
        groups: How far each group that reads the log is behind.
        received: How many events have come, without those that the page began with.
    """

    def __init__(self, engine: Engine, name: str, shards: int) -> None:
        """Watch an engine, from entering ``watching`` on."""
        self.tapes: Tapes = Tapes()
        self.status: ClusterStatus | None = None
        self.groups: Sequence[GroupLag] = ()
        self._engine = engine
        self._cluster = ValkeyCluster(engine, name=name)
        self._log = ValkeyStream(engine, name=name, shards=shards)
        self._readers = [LogReader(engine, name, shard) for shard in range(shards)]
        self.received: int = 0
        self._late_s = 0.0
        self._contacts = 0
        self._trouble: str | None = None

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncGenerator[None]:
        """Watch in the background of a block, also while the engine is away.

        Raises:
            InvalidArgument: The engine cannot be used. When that shows later on, the block is cancelled.
        """
        is_open = await self._opened()
        try:
            with one_failure():
                async with asyncio.TaskGroup() as tasks:
                    watching = [
                        tasks.create_task(self._watch(is_open), name="bitrix_pull inspector hub"),
                        tasks.create_task(self._look(), name="bitrix_pull inspector figures"),
                    ]
                    try:
                        yield
                    finally:
                        self.tapes.end()
                        for task in watching:
                            task.cancel()
        finally:
            await self._engine.close()

    @property
    def failed(self) -> Mapping[str, str]:
        """What is wrong with the portals that have failed, by key, as their workers said last."""
        found: dict[str, str] = {}
        for worker in () if self.status is None else self.status.workers:
            told = worker.health.get("failed")
            if is_object(told):
                found |= {key: one_line(str(error)) for key, error in told.items()}
        return found

    async def _opened(self) -> bool:
        try:
            await self._engine.open()
        except EngineUnavailable as error:
            self._lose(error)
            return False
        return True

    async def _watch(self, is_open: bool) -> None:
        while not is_open:
            await asyncio.sleep(_AGAIN_S)
            is_open = await self._opened()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch_cluster())
            for reader in self._readers:
                tasks.create_task(self._follow(reader))

    # -- the log --------------------------------------------------------------

    async def _follow(self, reader: LogReader) -> None:
        has_begun = False
        while True:
            try:
                if not has_begun:
                    self._show(await reader.newest(NEWEST))
                    has_begun = True
                async with contextlib.aclosing(reader.following()) as batches:
                    async for batch in batches:
                        self.received += len(batch)
                        self._show(batch, are_new=True)
            except PullError as error:
                self._lose(error)
            await asyncio.sleep(_AGAIN_S)

    def _show(self, batch: Sequence[bytes], *, are_new: bool = False) -> None:
        now = time.time()
        for raw in batch:
            entry = shown_entry(raw, now)
            if entry is not None:
                self.tapes.events.append(entry)
        if batch and are_new:
            created = orjson.loads(self.tapes.events.newest or b"{}").get("created")
            if created:
                # A push server tells whole seconds, begun ones too.
                self._late_s = max(self._late_s, now - created - isinstance(created, int))

    # -- workers and portals --------------------------------------------------

    async def _watch_cluster(self) -> None:
        asked_at = time.monotonic()
        while True:
            began = time.monotonic()
            try:
                status, groups = await self._cluster.status(), await self._log.lag()
            except PullError as error:
                self._lose(error)
            else:
                self._find()
                known = self.status, self.failed, self.groups
                after_s, asked_at = time.monotonic() - asked_at, time.monotonic()
                self.status, self.groups = status, groups
                for level, told in _news(*known, status, self.failed, groups, after_s):
                    self._tell("hub", level, told)
            await asyncio.sleep(max(_STATUS_EVERY_S, (time.monotonic() - began) / _STATUS_SHARE))

    def _lose(self, error: PullError) -> None:
        text = f"{one_line(str(error)).rstrip('.')}."
        text = text[:1].upper() + text[1:]
        if self._trouble is None:
            self._tell("state", "bad", text, state="backoff")
        self._trouble = text

    def _find(self) -> None:
        if self._trouble is not None or not self._contacts:
            self._contacts += 1
            self._tell("state", "good", f"The engine at {self._engine.name} answers.", state="live")
        self._trouble = None

    def _tell(self, kind: str, level: str, text: str, **more: str) -> None:
        now = round(time.time(), 3)
        notice = {"at": now, "kind": kind, "level": level, "text": one_line(text), **more}
        self.tapes.notices.append(orjson.dumps(notice))

    async def _look(self) -> None:
        while True:
            self.tapes.looks.append(orjson.dumps(self._figures()))
            self._late_s = 0.0
            await asyncio.sleep(_EVERY_S)

    def _figures(self) -> dict[str, Any]:
        workers = () if self.status is None else self.status.workers
        state = "backoff" if self._trouble is not None else "live" if self._contacts else "connecting"
        return {
            "at": round(time.time(), 3),
            "state": state,
            "last_error": self._trouble,
            "received": self.received,
            "lag_s": round(self._late_s, 3),
            "connects": self._contacts,
            "healed": 0,
            "gaps": sum(group.lost for group in self.groups),
            "workers": len(workers),
            "portals": 0 if self.status is None else len(self.status.epochs),
            "owned": 0 if self.status is None else len(self.status.owners),
            "live": sum(number_of(worker, "live") for worker in workers),
            "failed": len(self.failed),
            "behind": max((group.behind for group in self.groups), default=None),
            "endangered": any(group.endangered for group in self.groups),
        }


def number_of(worker: WorkerStatus, name: str) -> int:
    """Return a figure that a worker has told of itself; 0 if it has not."""
    told = worker.health.get(name)
    return told if isinstance(told, int) else 0


def _news(
    before: ClusterStatus | None,
    failed_before: Mapping[str, str],
    groups_before: Sequence[GroupLag],
    status: ClusterStatus,
    failed: Mapping[str, str],
    groups: Sequence[GroupLag],
    after_s: float,
) -> Iterator[tuple[str, str]]:
    """Yield what is new after so many seconds: how grave it is, and a sentence."""
    if before is None:
        yield "", f"There are {len(status.workers)} workers, with {len(status.owners)} portals."
    else:
        yield from _comings(before, status, after_s)
        yield from _moves(before, status)
    yield from _failures(failed_before, failed)
    told = {(group.stream, group.group): group for group in groups_before}
    for group in groups:
        known = told.get((group.stream, group.group))
        if group.endangered and not (known is not None and known.endangered):
            what = "has lost" if group.lost else "is about to lose"
            yield (
                "bad" if group.lost else "warn",
                f"The group {group.group} {what} entries of {group.stream}: it is {group.behind:,} behind.",
            )


def _comings(before: ClusterStatus, status: ClusterStatus, after_s: float) -> Iterator[tuple[str, str]]:
    known = {worker.session: worker for worker in before.workers}
    present = {worker.session: worker for worker in status.workers}
    for session, worker in present.items():
        if session not in known:
            yield "good", f"Worker {worker.name} has come."
        elif worker.leaving and not known[session].leaving:
            yield "", f"Worker {worker.name} gives its portals up."
    for session, worker in known.items():
        if session not in present:
            # Who says goodbye is gone before its lease ends.
            left = worker.leaving or worker.expires_in_s > after_s
            yield "" if left else "warn", f"Worker {worker.name} is {'gone' if left else 'taken for dead'}."


def _moves(before: ClusterStatus, status: ClusterStatus) -> Iterator[tuple[str, str]]:
    moves = Counter[tuple[str, str]]()
    for key in before.owners.keys() | status.owners.keys():
        old, new = before.owners.get(key, ""), status.owners.get(key, "")
        if old != new or before.epochs.get(key) != status.epochs.get(key):
            moves[old, new] += 1
    for (old, new), count in sorted(moves.items()):
        portals = f"{count:,} portal{'' if count == 1 else 's'}"
        if not new:
            yield "warn", f"{portals} of {old}: nobody has them now."
        elif not old:
            yield "", f"{portals} went to {new}."
        elif old != new:
            yield "", f"{portals} went from {old} to {new}."
        else:
            yield "", f"{portals} went from {old} to {new} again."


def _failures(before: Mapping[str, str], failed: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    new = [key for key in failed if key not in before]
    for key in new[:_TOLD_AT_ONCE]:
        yield "bad", f"{key} has failed: {failed[key]}"
    if len(new) > _TOLD_AT_ONCE:
        yield "bad", f"{len(new) - _TOLD_AT_ONCE:,} more portals have failed."
    well = [key for key in before if key not in failed]
    if well:
        named = ", ".join(well[:_TOLD_AT_ONCE])
        yield "good", f"Failed no more: {named}{' and others' if len(well) > _TOLD_AT_ONCE else ''}."
