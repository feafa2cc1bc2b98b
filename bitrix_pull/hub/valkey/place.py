"""One worker's place among those that meet at a Valkey or Redis server."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncGenerator, Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Final

import orjson

from bitrix_pull.errors import EngineUnavailable, PullError
from bitrix_pull.flag import Flag
from bitrix_pull.hub.cancelling import cancellable
from bitrix_pull.hub.cluster import Acquired, Change, Lease, Lost, Recalled, Term, checked_keys, lease_clock
from bitrix_pull.hub.valkey.engine import Engine, Script, pairs, text
from bitrix_pull.hub.valkey.peers import Peers
from bitrix_pull.redaction import get_logger

_log: Final = get_logger("hub")

_BEAT, _CLAIM, _RELEASE = Script("beat"), Script("claim"), Script("release")
_MINE, _LEAVE = Script("mine"), Script("leave")

_BEATS_A_LEASE = 5
"""How often a lease is renewed in the time that it lasts."""

_BEATS_APART_S = 0.05
"""For how long the engine is left alone at least between two of them."""

_LOOK_EVERY_S = 0.1
"""How often to look whether what was given up has been taken."""

_RATES_APART = 0.98
"""By how much two clocks may run at different rates, and more."""

_UNKNOWN = -1
"""No version of a worker's leases: they are compared at the next beat."""

_CLAIMED_AT_ONCE = 100
"""How many portals one claim names; it gets the first that is free."""

DRAIN: Final = b"drain"
"""The order to leave."""


class Place:
    """One worker's membership. Three tasks use it: beats, wakings, and whoever reads the changes."""

    def __init__(
        self,
        name: str,
        engine: Engine,
        keys: Callable[[str], str],
        lease_s: float,
        settle_s: float,
        handovers: int,
    ) -> None:
        self.worker: str = name
        self._name = name
        self._engine = engine
        self._keys = keys
        self._lease_s = lease_s
        self._handovers = handovers
        self._term = Term(0.0)
        self._version = 0
        self._over = ""
        self._peers = Peers(name, settle_s)
        self._wanted: frozenset[str] = frozenset()
        self._held: dict[str, Lease] = {}
        self._recalled: dict[str, Lease] = {}
        # What was given up for others and has no owner yet, and until when that counts; when to look again.
        self._given: dict[str, float] = {}
        self._look_at = 0.0
        self._taken: set[str] = set()
        """What others were found to have, since the last beat."""
        # What there is to do, looked up once for each beat and change of plan: None until then.
        self._free: list[str] | None = None
        self._movers: list[str] | None = None
        self._all_valid = False
        self._leaving = False
        # Portals are given up once others can know why: else the next owner might give them back.
        self._leaves = False
        self._hurry = Flag()
        self._health = b""
        self._failure: PullError | None = None
        self._changed = asyncio.Event()
        # Beats, claims and releases one after the other: the version that each tells is the next one's.
        self._asking = asyncio.Lock()

    # -- what users call ------------------------------------------------------

    @property
    def workers(self) -> int:
        """See ``Membership.workers``."""
        return len(self._peers)

    @property
    def leaving(self) -> bool:
        """See ``Membership.leaving``."""
        return self._leaving

    def want(self, keys: Collection[str]) -> None:
        """See ``Membership.want``."""
        self._wanted = checked_keys(keys)
        self._peers.forget_all_but(self._wanted)
        self._plan_anew()

    async def changes(self) -> AsyncGenerator[Change]:
        """See ``Membership.changes``."""
        while True:
            self._changed.clear()
            if self._failure is not None:
                raise self._failure
            if self._given and lease_clock() >= self._look_at:
                await self._look_after_given()
            change: Change | None = self._due()
            if change is None:
                if self._leaving and not self._held:
                    return
                change = await self._claimed()
            if change is not None:
                if isinstance(change, Lost):
                    # Ended by who holds it, it is this worker's still, by the engine's word.
                    await self._give_up(change.lease, "")
                    self._free = None
                yield change
                continue
            until = min(self._term.until, self._look_at) if self._given else self._term.until
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(until - lease_clock(), 0.05)):
                    await self._changed.wait()

    async def release(self, lease: Lease) -> None:
        """See ``Membership.release``."""
        lease.end()
        if self._held.get(lease.key) is lease:
            del self._held[lease.key]
        self._recalled.pop(lease.key, None)
        heir = self._best_for(lease.key) if lease.key in self._wanted else ""
        if heir == self.worker:
            self._free, heir = None, ""
        if heir:
            self._given[lease.key] = lease_clock() + self._lease_s * 2
        await self._give_up(lease, heir)
        self._changed.set()

    def leave(self) -> None:
        """See ``Membership.leave``."""
        if not self._leaving:
            self._leaving = True
            self._hurry.set()
            self._plan_anew()

    def _leave_now(self) -> None:
        if self._leaving and not self._leaves:
            self._leaves = True
            self._plan_anew()

    def _plan_anew(self) -> None:
        self._free = self._movers = None
        self._all_valid = False
        self._changed.set()

    def report(self, health: Mapping[str, Any]) -> None:
        """See ``Membership.report``."""
        self._health = orjson.dumps(health, default=str)

    # -- the life of a session ------------------------------------------------

    async def join(self) -> None:
        """Begin a session, the first one or after one that is over."""
        self._over, self.worker = (
            self.worker if self._term.until else "",
            f"{self._name} {secrets.token_hex(4)}",
        )
        self._version, self._term = 0, Term(0.0)
        await self._say("join")
        self._over = ""

    async def gone(self) -> None:
        """End it."""
        for lease in self._held.values():
            lease.end()
        with contextlib.suppress(PullError):
            await self._engine.run(_LEAVE, self._session_keys(), self.worker)

    async def beat(self) -> None:
        """Say that this worker is alive, again and again; begin anew when it was not heard in time."""
        every_s = self._lease_s / _BEATS_A_LEASE
        told = False
        while True:
            began = lease_clock()
            try:
                if not self._term.valid():
                    self._end_all()
                    await self.join()
                elif not await self._say(""):
                    continue
            except EngineUnavailable as error:
                (_log.debug if told else _log.warning)("no lease can be renewed: %s", error)
                told = True
                self._leave_now()  # There is nobody to be told.
            except PullError as error:
                self._failure = error
                self._end_all()
                return
            except Exception:
                # Ours to mend, or the redis package's; but leases must be renewed.
                _log.critical("no lease can be renewed: a fault", exc_info=not told)
                told = True
                self._leave_now()
            else:
                if told:
                    _log.info("leases are renewed again")
                told = False
            # Those that fall silent are taken for dead as soon as they may be.
            next_at = min(began + every_s, self._peers.next_end(self.worker))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(next_at - lease_clock(), _BEATS_APART_S)):
                    await self._hurry.wait()
            self._hurry.clear()

    async def _say(self, join: str) -> bool:
        """Say that this worker is alive; return False if its session is over."""
        async with self._asking:
            leaving = self._leaving
            about = orjson.dumps({"name": self._name, "leaving": leaving})
            health, self._health = self._health, b""
            asked = lease_clock()
            answer = await self._engine.run(
                _BEAT,
                self._session_keys(),
                self.worker,
                round(self._lease_s * 1000),
                about,
                health,
                join,
                self._over,
            )
            if answer[0] == 0:
                _log.warning("the engine has taken this worker for dead: it begins anew")
                self._term.end()
                self._end_all()
                return False
            until = asked + self._lease_s * _RATES_APART
            if join:
                self._term = Term(until)
            else:
                self._term.renew(until)
            if answer[1] != self._version:
                await self._compare()
        settling = self._peers.settling(asked, self._lease_s)
        news = self._peers.meet(_present(answer[3:]), self.worker, asked)
        if news or settling or self._taken or self._term.disturbed:
            self._taken.clear()
            self._term.disturbed = False
            self._plan_anew()
        if leaving:
            self._leave_now()
        elif answer[2] == DRAIN:
            self.leave()
        return True

    async def _compare(self) -> None:
        """Find what this worker and the engine do not agree on.

        An answer was lost on its way, or the engine has come back without its last second.
        """
        version, *rows = await self._engine.run(
            _MINE, [self._keys("leases"), self._keys("versions")], self.worker
        )
        known = {key: int(epoch) for key, epoch in pairs(rows)}
        for key, lease in self._held.items():
            if known.get(key) != lease.epoch:
                lease.end("forgotten")
        self._version = version
        for key, epoch in known.items():
            if key not in self._held or self._held[key].epoch != epoch:
                self._version = await self._released(key, epoch, "")

    def _end_all(self) -> None:
        for lease in self._held.values():
            lease.end("expired")
        self._plan_anew()

    # -- what is to be done ---------------------------------------------------

    def _due(self) -> Lost | Recalled | None:
        now = lease_clock()
        if not self._all_valid or not self._term.valid():
            for key, lease in self._held.items():
                if not lease.valid():
                    del self._held[key]
                    self._recalled.pop(key, None)
                    return Lost(lease)
            self._all_valid = True
        if self._movers is None:
            self._movers = [key for key in self._held if self._leaves or self._is_another_s(key, now)]
        while self._movers and len(self._recalled) + len(self._given) < self._handovers:
            key = self._movers.pop()
            if key in self._held and key not in self._recalled:
                self._recalled[key] = self._held[key]
                return Recalled(self._held[key])
        return None

    def _is_another_s(self, key: str, now: float) -> bool:
        if key not in self._wanted:
            return True
        best = self._best_for(key)
        return best != self.worker and self._peers.settled(best, now)

    def _best_for(self, key: str) -> str:
        return self._peers.best_for(key, but=self.worker if self._leaves else "")

    async def _claimed(self) -> Acquired | None:
        while not self._leaving and self._term.valid():
            if self._free is None:
                self._free = [
                    key
                    for key in self._wanted
                    if key not in self._held and key not in self._taken and self._best_for(key) == self.worker
                ]
            some = [key for key in self._free[:_CLAIMED_AT_ONCE] if key not in self._held]
            if not some:
                if not self._free:
                    return None
                self._free = self._free[_CLAIMED_AT_ONCE:]
                continue
            try:
                lease = await self._claim(some)
            except EngineUnavailable:
                # The beats tell. Whether it has come about is found out by the next one.
                self._version = _UNKNOWN
                self._term.disturbed = True
                return None
            if lease is not None:
                # Those before it have other owners.
                self._passed_over(some[: some.index(lease.key) + 1])
                return Acquired(lease)
            self._taken.update(some)
            self._passed_over(some)
        return None

    def _passed_over(self, keys: list[str]) -> None:
        if self._free is not None:
            gone = set(keys)
            self._free = [key for key in self._free[:_CLAIMED_AT_ONCE] if key not in gone] + self._free[
                _CLAIMED_AT_ONCE:
            ]

    async def _claim(self, keys: list[str]) -> Lease | None:
        async with self._asking:
            answer = await self._engine.run(
                _CLAIM,
                [self._keys(name) for name in ("workers", "leases", "versions", "epochs")],
                self.worker,
                *keys,
            )
            if len(answer) < 4:
                return None
            key, self._version = text(answer[1]), answer[3]
            # Where somebody else's lease had ended before this one's, that one is not held here any more.
            lease = self._held[key] = Lease(key, self.worker, int(answer[2]), self._term)
            return lease

    async def _give_up(self, lease: Lease, heir: str) -> None:
        if self._is_over(lease):
            return
        async with self._asking:
            # It may have been waited for so long that there is nothing left to give up.
            if self._is_over(lease):
                return
            try:
                self._version = await self._released(lease.key, lease.epoch, heir)
            except PullError:
                self._version = _UNKNOWN

    def _is_over(self, lease: Lease) -> bool:
        """Tell whether a lease ends, or has ended, with its session."""
        return lease.owner != self.worker or not self._term.valid()

    async def _released(self, key: str, epoch: int, heir: str) -> int:
        version: int = await self._engine.run(
            _RELEASE,
            [self._keys("leases"), self._keys("versions"), self._wake_key(heir)],
            self.worker,
            key,
            epoch,
            round(self._lease_s * 1000) if heir else 0,
        )
        return version

    async def _look_after_given(self) -> None:
        """Find out which of the portals that were given up have another owner.

        Until then each counts as being given up: to somebody who is busy, or dead and not yet known
        to be, not more of them go than wait there for a moment.
        """
        keys = list(self._given)
        try:
            owners = await self._engine.call("HMGET", self._keys("leases"), *keys)
        except PullError:
            owners = [None] * len(keys)
        now = lease_clock()
        self._look_at = now + _LOOK_EVERY_S
        for key, told in zip(keys, owners, strict=True):
            # Its release may be on its way still.
            owner = self.worker if told is None else text(told).partition(" ")[2]
            if owner != self.worker or now >= self._given[key] or key not in self._wanted:
                del self._given[key]

    async def wake(self) -> None:
        """Hear at once of portals that others have given up for this worker."""
        wait_s = max(self._lease_s, 1.0)
        client: Any = self._engine.blocking_client(wait_s)  # Its commands are typed in part.
        try:
            while True:
                try:
                    with cancellable():
                        await client.ping()  # That connects: see cancellable().
                    with cancellable():
                        given = await client.blpop([self._wake_key(self.worker)], timeout=wait_s)
                except Exception:
                    # Without it they are found by the next beat.
                    await asyncio.sleep(self._lease_s / _BEATS_A_LEASE)
                    continue
                if given:
                    key = text(given[1])
                    self._taken.discard(key)
                    if self._free is not None and key in self._wanted:
                        self._free.insert(0, key)
                    self._changed.set()
        finally:
            await client.aclose()

    def _wake_key(self, session: str) -> str:
        return self._keys(f"wake:{session}")

    def _session_keys(self) -> list[str]:
        return [self._keys(name) for name in ("workers", "leases", "versions", "about", "health", "orders")]


def _present(told: Sequence[Any]) -> Iterator[tuple[str, Any, float]]:
    """Return who lives, as a beat is told: session, what it tells of itself, and for how long it lasts."""
    for session, about, lasts_ms in zip(*[iter(told)] * 3, strict=True):
        yield text(session), about, lasts_ms / 1000
