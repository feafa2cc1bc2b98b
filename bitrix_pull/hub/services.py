"""The portals that a worker has: each is served from its lease to its release."""

import asyncio
from collections import Counter
from typing import Final
from weakref import WeakValueDictionary

from bitrix_pull.client import PullClient
from bitrix_pull.connection.pace import caught_up
from bitrix_pull.errors import InvalidArgument, NotRunning
from bitrix_pull.hub.cluster import Acquired, Lease, Lost, Membership, Recalled
from bitrix_pull.hub.health import PortalStatus
from bitrix_pull.hub.log import EventLog, LogWriter
from bitrix_pull.hub.portals import Portal, unknown
from bitrix_pull.hub.roster import Roster
from bitrix_pull.hub.service import Fittings, PortalService
from bitrix_pull.redaction import get_logger

logger: Final = get_logger("hub")

_CATCH_UP_S: Final = 1.0
"""For how long the next portal waits at most while the event loop is behind with those before it."""


class PortalServices:
    """What this worker does for the portals that a cluster gives to it.

    What happens to one portal happens in order; the others do not wait for it.

    Args:
        roster: Which portals there are.
        fittings: What the hub gives to each.
        log: Where their events are written down; None: nowhere.

    Attributes:
        drain_s: Seconds for handlers to finish what was received of a portal that is stopped.
        gained: How often this worker was given a portal.
        ended: How often it has one no more, by cause; see ``HubHealth.ended``.
    """

    def __init__(self, roster: Roster, fittings: Fittings, log: EventLog | None) -> None:
        self.drain_s: float = fittings.options.close_drain_s
        self.gained: int = 0
        self.ended: Counter[str] = Counter[str]()
        self._roster = roster
        self._fittings = fittings
        self._log = log
        self._services: dict[str, PortalService] = {}
        self._leases: dict[str, Lease] = {}
        # Why portals of ours have no client, by key.
        self._refused: dict[str, str] = {}
        # What happens to one portal happens in order.
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    # -- what the cluster decides ----------------------------------------------

    async def follow(self, membership: Membership, tasks: asyncio.TaskGroup) -> None:
        """Do what the cluster says, until this worker has left it.

        Args:
            membership: Its place in the cluster.
            tasks: Where each portal's turns run.
        """
        async for change in membership.changes():
            match change:
                case Acquired(lease):
                    self.gained += 1
                    self._leases[lease.key] = lease
                    tasks.create_task(self._take_up(lease))
                    # Who starts portals slowly asks slowly.
                    await self._fittings.pace.turn()
                    await caught_up(_CATCH_UP_S)
                case Recalled(lease):
                    tasks.create_task(self._hand_over(membership, lease))
                case Lost(lease):
                    tasks.create_task(self._drop(lease))

    async def _take_up(self, lease: Lease) -> None:
        """Begin to serve a portal, or begin anew with what has changed of it."""
        async with self._turn(lease.key):
            portal = self._roster.portals.get(lease.key)
            if portal is None or portal.paused or self._leases.get(lease.key) is not lease:
                return
            running = self._services.get(lease.key)
            if running is not None and running.portal == portal and running.lease is lease:
                return
            await self._stop(lease.key, self.drain_s)
            if not lease.valid():
                return
            writer: LogWriter | None = None if self._log is None else self._log.writer(lease)
            try:
                service = PortalService(portal, lease, self._fittings, writer)
            except InvalidArgument as error:
                logger.error("portal %s cannot be served: %s", lease.key, error)
                self._refused[lease.key] = str(error)
                return
            self._refused.pop(lease.key, None)
            self._services[lease.key] = service
            service.start()

    async def _hand_over(self, membership: Membership, lease: Lease) -> None:
        async with self._turn(lease.key):
            await self._stop(lease.key, self.drain_s)
            self._let_go(lease, self._why_given_up(membership, lease.key))
            await membership.release(lease)

    def _why_given_up(self, membership: Membership, key: str) -> str:
        if membership.leaving:
            return "leaving"
        portal = self._roster.portals.get(key)
        return "unwanted" if portal is None or portal.paused else "rebalanced"

    async def _drop(self, lease: Lease) -> None:
        service = self._services.get(lease.key)
        if service is not None and service.lease is lease:
            # Before its turn: whoever drains it must not go on.
            await service.stop(0)
        async with self._turn(lease.key):
            if service is not None and self._services.get(lease.key) is service:
                del self._services[lease.key]
            self._let_go(lease, lease.cause)

    def _turn(self, key: str) -> asyncio.Lock:
        turn = self._turns.get(key)
        if turn is None:
            turn = self._turns[key] = asyncio.Lock()
        return turn

    def _let_go(self, lease: Lease, cause: str) -> None:
        if self._leases.get(lease.key) is lease:
            del self._leases[lease.key]
            self.ended[cause] += 1

    async def _stop(self, key: str, drain_s: float) -> None:
        service = self._services.get(key)
        if service is not None:
            await service.stop(drain_s)
            if self._services.get(key) is service:
                del self._services[key]

    # -- what the hub asks for -------------------------------------------------

    async def renew(self, portal: Portal) -> None:
        """Begin anew with what has changed of a portal, if this worker has it."""
        lease = self._leases.get(portal.key)
        if lease is not None:
            await self._take_up(lease)

    def retry(self, key: str) -> None:
        """Try a portal again now that has failed."""
        service = self._services.get(key)
        if service is not None:
            service.retry()

    async def stop_all(self, drain_s: float) -> None:
        """Serve none of them any more; the leases stay."""
        await asyncio.gather(*(self._stop(key, drain_s) for key in list(self._services)))

    async def give_up(self) -> None:
        """Stop at once what is left after a failure, or a cancellation."""
        await self.stop_all(0)
        await self._fittings.unsaved.give_up()
        self.ended["leaving"] += len(self._leases)
        self._leases.clear()

    # -- state -----------------------------------------------------------------

    @property
    def leases(self) -> int:
        """How many portals this worker has."""
        return len(self._leases)

    @property
    def clients(self) -> tuple[PullClient, ...]:
        """The clients of those that are served."""
        return tuple(service.client for service in self._services.values())

    def client(self, key: str) -> PullClient:
        """Return the client of a portal; see ``Hub.client``."""
        service = self._services.get(key)
        if service is not None:
            return service.client
        if key not in self._roster.portals:
            raise unknown(key)
        raise NotRunning(f"this worker does not serve portal {key!r:.60}")

    def statuses(self) -> tuple[PortalStatus, ...]:
        """Return how each portal is doing, whoever has it."""
        return tuple(self._status(key, portal) for key, portal in self._roster.portals.items())

    def _status(self, key: str, portal: Portal) -> PortalStatus:
        service = self._services.get(key)
        if service is not None:
            return service.status()
        if portal.paused:
            return PortalStatus(key, "paused")
        if key not in self._leases:
            return PortalStatus(key, "elsewhere")
        refused = self._refused.get(key, "")
        return PortalStatus(key, "failed" if refused else "starting", last_error=refused)
