"""Workers that share portals out among themselves over Valkey or Redis."""

import asyncio
import contextlib
import hashlib
import os
import secrets
import socket
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, cast

import orjson

from bitrix_pull.errors import EngineUnavailable, InvalidArgument, PullError
from bitrix_pull.hub.cluster import (
    Acquired,
    Change,
    Lease,
    Lost,
    Membership,
    Recalled,
    Term,
    checked_keys,
    lease_clock,
)
from bitrix_pull.hub.valkey.engine import Engine, Script, as_engine, cancellable, pairs, text
from bitrix_pull.redaction import get_logger

_log: Final = get_logger("hub")

_BEAT, _CLAIM, _RELEASE = Script("beat"), Script("claim"), Script("release")
_MINE, _LEAVE = Script("mine"), Script("leave")

_BEATS_A_LEASE = 5
"""How often a lease is renewed in the time that it lasts."""

_RATES_APART = 0.98
"""By how much two clocks may run at different rates, and more."""

_UNKNOWN = -1
"""No version of a worker's leases: they are compared at the next beat."""

_CLAIMED_AT_ONCE = 100
"""How many portals one claim names; it gets the first that is free."""

_MORE_PATIENCE_MAX = 4
_FORGIVEN_AFTER_S = 300.0

DRAIN: Final = b"drain"


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """How one worker is doing, as the engine knows it.

    Attributes:
        name: As it was given to ``join``.
        session: What tells it from others of the same name.
        leaving: True if it gives its portals up.
        expires_in_s: When it is taken for dead unless it says something, by the engine's clock.
        portals: How many it has.
        health: What it last said with ``Membership.report``.
    """

    name: str
    session: str
    leaving: bool
    expires_in_s: float
    portals: int
    health: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ClusterStatus:
    """Who is there, and who has which portal.

    Attributes:
        workers: By name.
        owners: The worker's name by portal key.
        epochs: The last epoch by portal key, also of portals that nobody has.
    """

    workers: tuple[WorkerStatus, ...]
    owners: Mapping[str, str]
    epochs: Mapping[str, int]


class ValkeyCluster:
    """A cluster of workers that meet at a Valkey or Redis server (6.2 or newer), or a cluster of them.

    Args:
        engine: Its address (see ``Engine``), or one that others use too.
        name: Tells this cluster from others on the same engine.
        lease_s: For how long a worker that falls silent keeps its portals, by the engine's
            clock. Another one begins to take them within 1.2 times that.
        settle_s: For how long a worker must have been there before others give portals up to
            it. It grows for one that has fallen silent lately.
        handovers: How many portals a worker gives up at the same time.
        timeout_s: For how long to wait for the engine, where its address is given.

    Raises:
        InvalidArgument: An argument cannot work.
    """

    def __init__(
        self,
        engine: str | Engine,
        *,
        name: str = "bitrix-pull",
        lease_s: float = 6.0,
        settle_s: float = 3.0,
        handovers: int = 8,
        timeout_s: float = 2.0,
    ) -> None:
        if not name.isprintable() or not name or set(name) & set("{} "):
            raise InvalidArgument("the cluster's name must be printable, without braces and blanks")
        if not 0.1 <= lease_s <= 3600 or not 0 <= settle_s <= 3600 or handovers < 1:
            raise InvalidArgument("lease_s must be 0.1 to 3600, settle_s 0 to 3600, handovers 1 or more")
        self._engine = as_engine(engine, timeout_s=min(timeout_s, lease_s / 3))
        self._lease_s = lease_s
        self._settle_s = settle_s
        self._handovers = handovers
        self._prefix = f"{{{name}}}"

    @asynccontextmanager
    async def join(self, worker: str | None = None) -> AsyncGenerator[Membership]:
        """Take part; see ``Cluster.join``."""
        name = worker or f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(2)}"
        checked_keys([name])
        await self._engine.open()
        try:
            place = _Place(name, self._engine, self._keys, self._lease_s, self._settle_s, self._handovers)
            await place.join()
            tasks = [
                asyncio.create_task(doing, name="bitrix_pull lease") for doing in (place.beat(), place.wake())
            ]
            try:
                yield place
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)
                await place.gone()
                for task in tasks:
                    if not task.cancelled():
                        task.result()
        finally:
            await self._engine.close()

    async def status(self) -> ClusterStatus:
        """Ask the engine who is there, and who has which portal.

        Raises:
            EngineUnavailable: It does not answer.
            InvalidArgument: It cannot be used.
        """
        await self._engine.open()
        try:
            call = self._engine.call
            seconds, micros = await call("TIME")
            alive = await call("ZRANGE", self._keys("workers"), 0, -1, "WITHSCORES")
            about, health, leases, epochs = [
                dict(pairs(await call("HGETALL", self._keys(name))))
                for name in ("about", "health", "leases", "epochs")
            ]
        finally:
            await self._engine.close()
        now = int(seconds) + int(micros) / 1e6
        ends = {session: float(score) / 1000 - now for session, score in pairs(alive)}
        owned = {key: text(value).partition(" ")[2] for key, value in leases.items()}
        told = {session: _read_object(about.get(session)) for session in ends}
        workers = [
            WorkerStatus(
                str(told[session].get("name", session)),
                session,
                bool(told[session].get("leaving")),
                expires_in_s,
                sum(owner == session for owner in owned.values()),
                _read_object(health.get(session)),
            )
            for session, expires_in_s in ends.items()
            if expires_in_s > 0
        ]
        names = {worker.session: worker.name for worker in workers}
        return ClusterStatus(
            tuple(sorted(workers, key=lambda worker: (worker.name, worker.session))),
            {key: names[owner] for key, owner in owned.items() if owner in names},
            {key: int(value) for key, value in epochs.items() if text(value).isdigit()},
        )

    async def drain(self, worker: str) -> int:
        """Ask all workers of a name to leave, and return how many there are. They hear of it within a beat.

        Raises:
            EngineUnavailable: The engine does not answer.
        """
        sessions = [each.session for each in (await self.status()).workers if each.name == worker]
        await self._engine.open()
        try:
            for session in sessions:
                await self._engine.call("HSET", self._keys("orders"), session, DRAIN)
        finally:
            await self._engine.close()
        return len(sessions)

    def _keys(self, name: str) -> str:
        return f"{self._prefix}:{name}"

    def __repr__(self) -> str:
        return f"ValkeyCluster({self._engine.name})"


@dataclass(slots=True)
class _Peer:
    """Another worker that lives, or this one."""

    name: str
    leaving: bool
    since: float
    settled_after_s: float


class _Place:
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
        self._settle_s = settle_s
        self._handovers = handovers
        self._term = Term(0.0)
        self._version = 0
        self._over = ""
        self._peers: dict[str, _Peer] = {}
        self._vanished: dict[str, list[float]] = {}
        self._best: dict[str, str] = {}
        self._wanted: frozenset[str] = frozenset()
        self._held: dict[str, Lease] = {}
        self._recalled: dict[str, Lease] = {}
        self._taken: set[str] = set()
        """What others were found to have, since the last beat."""
        # What there is to do, looked up once for each beat and change of plan: None until then.
        self._free: list[str] | None = None
        self._movers: list[str] | None = None
        self._all_valid = False
        self._leaving = False
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
        self._best.clear()
        self._plan_anew()

    async def changes(self) -> AsyncGenerator[Change]:
        """See ``Membership.changes``."""
        while True:
            self._changed.clear()
            if self._failure is not None:
                raise self._failure
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
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(self._term.until - lease_clock(), 0.05)):
                    await self._changed.wait()

    async def release(self, lease: Lease) -> None:
        """See ``Membership.release``."""
        lease.end()
        if self._held.get(lease.key) is lease:
            del self._held[lease.key]
        self._recalled.pop(lease.key, None)
        heir = self._best_for(lease.key) if lease.key in self._wanted else ""
        if heir == self.worker:
            self._free = None
        await self._give_up(lease, heir if heir != self.worker else "")
        self._changed.set()

    def leave(self) -> None:
        """See ``Membership.leave``."""
        if not self._leaving:
            self._leaving = True
            self._best.clear()
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
            except PullError as error:
                self._failure = error
                self._end_all()
                return
            else:
                if told:
                    _log.info("leases are renewed again")
                told = False
            await asyncio.sleep(max(every_s - (lease_clock() - began), 0.05))

    async def _say(self, join: str) -> bool:
        """Say that this worker is alive; return False if its session is over."""
        async with self._asking:
            about = orjson.dumps({"name": self._name, "leaving": self._leaving})
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
        unsettled = any(
            asked - peer.since <= peer.settled_after_s + self._lease_s for peer in self._peers.values()
        )
        if self._meet(pairs(answer[3:]), asked) or unsettled or self._taken or self._term.disturbed:
            self._taken.clear()
            self._term.disturbed = False
            self._plan_anew()
        if answer[2] == DRAIN:
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

    # -- who is there ---------------------------------------------------------

    def _meet(self, present: Iterable[tuple[str, Any]], now: float) -> bool:
        """Take note of who is there; tell whether that is new."""
        peers = dict[str, _Peer]()
        for session, told in present:
            about = _read_object(told)
            name, leaving = str(about.get("name", session)), bool(about.get("leaving"))
            known = self._peers.get(session)
            if known is None:
                known = _Peer(name, leaving, now, self._patience_s(name, now))
            peers[session] = _Peer(name, leaving, known.since, known.settled_after_s)
        for session, peer in self._peers.items():
            if session not in peers and not peer.leaving and session != self.worker:
                self._vanished.setdefault(peer.name, []).append(now)
        names = [peer.name for peer in peers.values() if not peer.leaving]
        if names.count(self._name) > 1 and peers.keys() != self._peers.keys():
            _log.warning("there are %d workers with the name %s", names.count(self._name), self._name)
        news = {each: peer.leaving for each, peer in peers.items()} != {
            each: peer.leaving for each, peer in self._peers.items()
        }
        if news:
            self._best.clear()
        self._peers = peers
        return news

    def _patience_s(self, name: str, now: float) -> float:
        """Return for how long a worker must be there before it is given portals."""
        lately = [at for at in self._vanished.pop(name, []) if now - at < _FORGIVEN_AFTER_S]
        if lately:
            self._vanished[name] = lately
        return float(self._settle_s * 2 ** min(len(lately), _MORE_PATIENCE_MAX))

    def _best_for(self, key: str) -> str:
        """Return which session is to have a portal: the same answer at every worker; "" if none is."""
        best = self._best.get(key)
        if best is None:
            present = [
                (_weight(peer.name, key), session)
                for session, peer in self._peers.items()
                if not (peer.leaving or (session == self.worker and self._leaving))
            ]
            best = self._best[key] = max(present)[1] if present else ""
        return best

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
            self._movers = [key for key in self._held if self._leaving or self._is_another_s(key, now)]
        while self._movers and len(self._recalled) < self._handovers:
            key = self._movers.pop()
            if key in self._held and key not in self._recalled:
                self._recalled[key] = self._held[key]
                return Recalled(self._held[key])
        return None

    def _is_another_s(self, key: str, now: float) -> bool:
        if key not in self._wanted:
            return True
        best = self._best_for(key)
        peer = self._peers.get(best)
        return best != self.worker and peer is not None and now - peer.since >= peer.settled_after_s

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
        if lease.owner != self.worker or not self._term.valid():
            return  # It ends, or has ended, with its session.
        async with self._asking:
            try:
                self._version = await self._released(lease.key, lease.epoch, heir)
            except PullError:
                self._version = _UNKNOWN

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


def _weight(name: str, key: str) -> bytes:
    """Return a worker's weight for a portal: the greatest one has it (rendezvous hashing)."""
    return hashlib.blake2b(f"{name}\n{key}".encode("utf-8", "replace"), digest_size=8).digest()


def _read_object(told: Any) -> dict[str, Any]:
    try:
        read = orjson.loads(told)
    except (orjson.JSONDecodeError, TypeError):
        return {}
    return cast("dict[str, Any]", read) if isinstance(read, dict) else {}
