"""Which worker has which portal. No engine is known here: see ``bitrix_pull.hub.valkey`` for one.

A worker joins a cluster, says which portals there are, and is told one change at a time:

    async with cluster.join(worker) as membership:
        membership.want(keys)
        async for change in membership.changes():
            match change:
                case Acquired(lease): start the portal
                case Recalled(lease): stop and drain it, then ``await membership.release(lease)``
                case Lost(lease): stop it at once, drain nothing

Nobody needs synchronised clocks. That two workers serve one portal for a moment does no harm:
what keeps the log and the tokens right is the fence, ``Lease.epoch``, where they are written.
"""

import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from math import inf
from typing import Any, Literal, Protocol, runtime_checkable

from bitrix_pull.errors import InvalidArgument, LeaseLost
from bitrix_pull.flag import Flag

_BOOTTIME = getattr(time, "CLOCK_BOOTTIME", None)


def lease_clock() -> float:
    """Return seconds by the clock that leases end by: this machine's own, which nobody sets.

    Where the system has one that also runs while the machine is suspended, it is that one.
    """
    return time.monotonic() if _BOOTTIME is None else time.clock_gettime(_BOOTTIME)


LeaseCause = Literal["given_up", "expired", "fenced", "forgotten", "gone_back", "damaged"]
"""Why a lease is over: it was given up; it was not renewed in time; another worker has written with
a greater epoch; the cluster does not know of it any more; what it guards has gone back to an older
state, or is not what it was."""


class Term:
    """For how long leases are good: one of a worker's session, which all its leases share.

    Args:
        until: Up to when, by ``clock``.
        clock: Seconds that pass also while this process is stopped.
    """

    __slots__ = ("_clock", "_over", "disturbed", "until")

    def __init__(self, until: float = inf, clock: Callable[[], float] = lease_clock) -> None:
        self.until: float = until
        self.disturbed: bool = False
        """True once a lease of it was ended by itself."""
        self._clock = clock
        self._over = False

    def valid(self) -> bool:
        """Tell whether it lasts. Once False, it stays so."""
        if not self._over and self._clock() >= self.until:
            self._over = True
        return not self._over

    def renew(self, until: float) -> None:
        """Let it last longer. What is over stays so."""
        if self.valid():
            self.until = max(self.until, until)

    def end(self) -> None:
        """Let it be over."""
        self._over = True


class Lease:
    """The right of one worker to serve one portal, until it ends.

    Args:
        key: The portal's key.
        owner: The worker that holds it, as the cluster names it.
        epoch: The fence. Each lease of a portal has a greater one than all before it, for good;
            what is written for the portal is refused once somebody has written with a greater one.
        term: For how long it is good; None: for good.
    """

    __slots__ = ("_cause", "_ended", "_term", "epoch", "key", "owner")

    def __init__(self, key: str, owner: str, epoch: int, term: Term | None = None) -> None:
        self.key: str = key
        self.owner: str = owner
        self.epoch: int = epoch
        self._term = term or Term()
        self._ended = False
        self._cause: LeaseCause = "expired"

    def valid(self) -> bool:
        """Tell whether nobody else can have it by now.

        Told without asking anybody: by this worker's own clock, counted from before the
        request that renewed it last. Ask right before an event is handed on; once False, it
        stays so.
        """
        return not self._ended and self._term.valid()

    def require(self) -> None:
        """Do nothing while it is valid.

        Raises:
            LeaseLost: It is not any more.
        """
        if not self.valid():
            raise LeaseLost(f"this worker does not have the portal {self.key!r:.60} any more")

    @property
    def cause(self) -> LeaseCause:
        """Why it is not valid any more, once it is not."""
        return self._cause

    def end(self, cause: LeaseCause = "given_up") -> None:
        """Let it be good no more: for the cluster, and for whoever finds that what it guards is gone.

        The membership then reports it as ``Lost``, and may acquire the portal anew.

        Args:
            cause: Why; the first one counts.
        """
        if self.valid():
            self._cause = cause
        self._ended = self._term.disturbed = True

    def __repr__(self) -> str:
        return f"Lease({self.key!r:.60}, owner={self.owner!r:.60}, epoch={self.epoch})"


@dataclass(frozen=True, slots=True)
class Acquired:
    """The portal is this worker's now: start it."""

    lease: Lease


@dataclass(frozen=True, slots=True)
class Recalled:
    """The portal is to go to another worker, or is not wanted any more.

    Stop taking what is new, finish what is begun, write down how far it is, and then call
    ``Membership.release``. The lease is renewed until that. Not to be in a hurry is right; not
    to come to an end keeps the portal from its next owner.
    """

    lease: Lease


@dataclass(frozen=True, slots=True)
class Lost:
    """The lease is not valid any more: stop at once, and hand nothing on.

    It needs no release. The next change may be an ``Acquired`` for the same portal, with
    another epoch: stop the one before starting the other.
    """

    lease: Lease


Change = Acquired | Recalled | Lost


class Membership(Protocol):
    """One worker's place in a cluster, from joining to leaving. For one task at a time."""

    worker: str
    """What the cluster calls this worker; unlike any other, also one of the same name before it."""

    @property
    def workers(self) -> int:
        """How many workers live, this one among them, as it has heard last."""
        ...

    @property
    def leaving(self) -> bool:
        """True once it has begun to leave."""
        ...

    def want(self, keys: Collection[str]) -> None:
        """Say which portals there are: all that some worker should serve, the same to each worker.

        Replaces what was said before. What this worker holds beyond it is recalled.
        """
        ...

    def changes(self) -> AsyncIterator[Change]:
        """Tell what changes, one at a time; at most once for each membership.

        The next portal is claimed when the next change is asked for: who starts portals slowly
        asks slowly. ``Lost`` and ``Recalled`` come before ``Acquired``. Leases are renewed
        meanwhile by a task of the membership's own. It ends once the worker has left: after
        ``leave``, when no lease is left.

        Raises:
            PullError: The worker cannot take part, and only a person can help.
        """
        ...

    async def release(self, lease: Lease) -> None:
        """Give a portal up, recalled or not: another worker gets it at once.

        Whatever was to be written for it must have been written. Never raises for a cluster that
        does not answer: the lease then ends by itself.
        """
        ...

    def leave(self) -> None:
        """Begin to leave: nothing more is acquired, and every lease is recalled, a few at a time."""
        ...

    def report(self, health: Mapping[str, Any]) -> None:
        """Say how the worker is doing, as JSON values: who asks the cluster for its state sees it."""
        ...


@runtime_checkable
class Cluster(Protocol):
    """Workers that share portals out among themselves."""

    def join(self, worker: str | None = None) -> AbstractAsyncContextManager[Membership]:
        """Take part from entering to leaving the context, which gives up what is still held.

        Args:
            worker: A name that stays the same from one start to the next, so that its portals
                come back to it; None: one of the cluster's making, unlike any other.

        Raises:
            InvalidArgument: The cluster cannot be used as it is.
            EngineUnavailable: It does not answer. Later it may.
        """
        ...


class SingleWorker:
    """A cluster of one: the only worker gets every portal, for good.

    Epochs begin with the wall clock's milliseconds, so that one process after the other
    has greater ones as long as the clock is not set back over a restart.
    """

    @asynccontextmanager
    async def join(self, worker: str | None = None) -> AsyncGenerator[Membership]:
        """Take part; see ``Cluster.join``."""
        yield _Alone(worker or "the only worker")


@dataclass(slots=True)
class _Alone:
    worker: str
    _wanted: frozenset[str] = frozenset()
    _held: dict[str, Lease] = field(default_factory=dict[str, Lease])
    _recalled: set[str] = field(default_factory=set[str])
    # What is wanted and not held; and for how long all leases are good, which is for good.
    _missing: set[str] = field(default_factory=set[str])
    _term: Term = field(default_factory=Term)
    # Whether what is held may have to be given up: to look at all of thousands takes a while.
    _held_changes: bool = False
    workers: int = 1
    leaving: bool = False
    _changed: Flag = field(default_factory=Flag)
    _epoch: int = field(default_factory=lambda: time.time_ns() // 1_000_000)

    def want(self, keys: Collection[str]) -> None:
        """See ``Membership.want``."""
        self._wanted = checked_keys(keys)
        self._missing = set(self._wanted.difference(self._held))
        self._held_changes = True
        self._changed.set()

    async def changes(self) -> AsyncGenerator[Change]:
        """See ``Membership.changes``."""
        while not (self.leaving and not self._held):
            self._changed.clear()
            change = self._next()
            if change is None:
                await self._changed.wait()
            else:
                yield change

    def _next(self) -> Change | None:
        if self._held_changes or self._term.disturbed:
            for key, lease in self._held.items():
                if not lease.valid():
                    self._forget(key)
                    return Lost(lease)
                if (self.leaving or key not in self._wanted) and key not in self._recalled:
                    self._recalled.add(key)
                    return Recalled(lease)
            self._held_changes = self._term.disturbed = False
        if self._missing and not self.leaving:
            key = self._missing.pop()
            self._epoch += 1
            lease = self._held[key] = Lease(key, self.worker, self._epoch, self._term)
            return Acquired(lease)
        return None

    def _forget(self, key: str) -> None:
        del self._held[key]
        self._recalled.discard(key)
        if key in self._wanted:
            self._missing.add(key)

    async def release(self, lease: Lease) -> None:
        """See ``Membership.release``."""
        lease.end()
        if self._held.get(lease.key) is lease:
            self._forget(lease.key)
        self._changed.set()

    def leave(self) -> None:
        """See ``Membership.leave``."""
        self.leaving = self._held_changes = True
        self._changed.set()

    def report(self, health: Mapping[str, Any]) -> None:
        """See ``Membership.report``: nobody else asks."""


KEY_LENGTH_MAX = 200
"""Characters of a portal's key."""


def checked_keys(keys: Collection[str]) -> frozenset[str]:
    """Return portal keys as a set.

    Raises:
        InvalidArgument: One is none: empty, too long, or no printable text. Or two are alike.
    """
    for key in keys:
        if not isinstance(key, str) or not 0 < len(key) <= KEY_LENGTH_MAX or not key.isprintable():
            raise InvalidArgument(
                f"a portal's key must be printable text of 1 to {KEY_LENGTH_MAX} characters, not {key!r:.60}",
                advice="Use the portal's member_id.",
            )
    distinct = frozenset(keys)
    if len(distinct) != len(keys):
        twice = next(key for key in distinct if sum(key == other for other in keys) > 1)
        raise InvalidArgument(f"two portals have the key {twice!r:.60}", advice="Use each one's member_id.")
    return distinct
