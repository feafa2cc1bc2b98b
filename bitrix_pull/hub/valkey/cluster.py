"""Workers that share portals out among themselves over Valkey or Redis, and how it looks from outside."""

import asyncio
import os
import secrets
import socket
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from bitrix_pull.errors import InvalidArgument
from bitrix_pull.hub.cluster import Membership, checked_keys
from bitrix_pull.hub.valkey.engine import Engine, as_engine, pairs, read_object, text
from bitrix_pull.hub.valkey.place import DRAIN, Place

LEASE_S: Final = 5.0
"""So that some hundred portals of a worker that died have other owners within ten seconds."""


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
            clock. Others begin to take them as soon as that is over.
        settle_s: For how long a worker must have been there before others give portals up to
            it. It grows for one that has fallen silent lately.
        handovers: How many portals a worker gives up at the same time; each counts until another one has it.
        timeout_s: For how long to wait for the engine, where its address is given.

    Raises:
        InvalidArgument: An argument cannot work.
    """

    def __init__(
        self,
        engine: str | Engine,
        *,
        name: str = "bitrix-pull",
        lease_s: float = LEASE_S,
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
            place = Place(name, self._engine, self._keys, self._lease_s, self._settle_s, self._handovers)
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
        told = {session: read_object(about.get(session)) for session in ends}
        workers = [
            WorkerStatus(
                str(told[session].get("name", session)),
                session,
                bool(told[session].get("leaving")),
                expires_in_s,
                sum(owner == session for owner in owned.values()),
                read_object(health.get(session)),
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
