"""The portals of a hub, and where a hub is told of them."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterable
from dataclasses import dataclass, field, replace
from typing import Protocol, get_args, runtime_checkable

from bitrix_pull.connection.stores import ResumeStore
from bitrix_pull.errors import InvalidArgument
from bitrix_pull.hub.cluster import checked_keys
from bitrix_pull.options import PullOptions
from bitrix_pull.portal.auth import Caller, Credentials, Mode


@dataclass(frozen=True, slots=True)
class Portal:
    """One portal of a hub.

    Attributes:
        key: Tells it from all others, for good: best the portal's ``member_id``, as its domain
            may change. It is ``event.portal``.
        credentials: As for ``PullClient``.
        mode: As for ``PullClient``.
        options: Its own; None: the hub's.
        paused: True to keep it, and not to serve it.

    Raises:
        InvalidArgument: One of them cannot work.
    """

    key: str
    credentials: Credentials | Caller
    mode: Mode | None = field(default=None, kw_only=True)
    options: PullOptions | None = field(default=None, kw_only=True)
    paused: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        checked_keys([self.key])
        if not isinstance(self.credentials, Credentials) and not callable(
            getattr(self.credentials, "call", None)
        ):
            raise InvalidArgument(
                f"the credentials of portal {self.key!r:.60} are no way to call it",
                advice="Pass OAuth, AccessToken, Webhook or an object with async call(method, params).",
            )
        if self.mode is not None and self.mode not in get_args(Mode):
            raise InvalidArgument(f"mode must be one of {get_args(Mode)}, not {self.mode!r:.40}")
        if self.options is not None and not isinstance(self.options, PullOptions):
            raise InvalidArgument(f"options must be PullOptions, not {type(self.options).__name__}")


@dataclass(frozen=True, slots=True)
class PortalPut:
    """A portal is new, or something of it is: credentials, options, whether it is paused."""

    portal: Portal


@dataclass(frozen=True, slots=True)
class PortalRemoved:
    """A portal is not wanted any more."""

    key: str


PortalChange = PortalPut | PortalRemoved


@runtime_checkable
class PortalSource(Protocol):
    """Tells a hub which portals there are. A source of your own needs these four.

    A hub opens it when it starts, reads it once, and then follows the changes.
    """

    async def open(self) -> None:
        """Make ready.

        Raises:
            InvalidArgument: It cannot be used as it is.
        """
        ...

    async def portals(self) -> Collection[Portal]:
        """Return all portals, paused ones included.

        Asked again, it returns the same objects for those that have not changed: a hub goes on with
        them, and begins anew with those that are equal to none from before.

        Whatever it raises but ``InvalidArgument`` is taken to pass: it is asked again.
        """
        ...

    def changes(self) -> AsyncIterator[PortalChange]:
        """Tell what changes from the last call of ``portals`` on, until it is closed.

        When it ends by itself, nothing changes any more. What it raises is logged, and
        ``portals`` is asked anew.
        """
        ...

    async def close(self) -> None:
        """Let go of it; it may be opened again."""
        ...


@runtime_checkable
class PortalBook(PortalSource, Protocol):
    """A source in which a hub can write: for ``Hub.add``, ``remove``, ``pause`` and ``resume``."""

    resume: ResumeStore | None
    """Where the resume points of its portals are kept; None: the hub keeps them in memory."""

    async def put(self, portal: Portal) -> None:
        """Keep a portal, in place of what was kept under its key.

        Raises:
            InvalidArgument: It cannot be kept here.
        """
        ...

    async def remove(self, key: str) -> None:
        """Forget a portal, and its tokens.

        Raises:
            InvalidArgument: There is none of this key.
        """
        ...

    async def pause(self, key: str, paused: bool) -> None:
        """Say whether a portal is paused.

        Raises:
            InvalidArgument: There is none of this key.
        """
        ...


class PortalList:
    """Portals in memory: what was added is forgotten with the process.

    Args:
        portals: The first ones.
        resume: Where their resume points are kept; None: in memory.

    Raises:
        InvalidArgument: Two of them have one key.
    """

    def __init__(self, portals: Iterable[Portal] = (), *, resume: ResumeStore | None = None) -> None:
        given = tuple(portals)
        for portal in given:
            if not isinstance(portal, Portal):
                raise InvalidArgument(f"a hub takes Portal(key, credentials), not {type(portal).__name__}")
        checked_keys([portal.key for portal in given])
        self.resume: ResumeStore | None = resume
        self._portals = {portal.key: portal for portal in given}
        self._news: asyncio.Queue[PortalChange] | None = None

    async def open(self) -> None:
        """Do nothing."""

    async def portals(self) -> Collection[Portal]:
        """Return them."""
        self._news = asyncio.Queue()
        return tuple(self._portals.values())

    async def changes(self) -> AsyncGenerator[PortalChange]:
        """Tell what ``put``, ``remove`` and ``pause`` change."""
        assert self._news is not None, "portals() comes first"
        news = self._news
        while True:
            yield await news.get()

    async def put(self, portal: Portal) -> None:
        """Add a portal, or replace the one of its key."""
        self._portals[portal.key] = portal
        self._tell(PortalPut(portal))

    async def remove(self, key: str) -> None:
        """Forget a portal."""
        self._find(key)
        del self._portals[key]
        self._tell(PortalRemoved(key))

    async def pause(self, key: str, paused: bool) -> None:
        """Say whether a portal is paused."""
        await self.put(replace(self._find(key), paused=paused))

    def _find(self, key: str) -> Portal:
        portal = self._portals.get(key)
        if portal is None:
            raise unknown(key)
        return portal

    def _tell(self, change: PortalChange) -> None:
        if self._news is not None:
            self._news.put_nowait(change)

    async def close(self) -> None:
        """Tell no more changes."""
        self._news = None


def unknown(key: str) -> InvalidArgument:
    """Return the error for a key that no portal has."""
    return InvalidArgument(f"there is no portal {key!r:.60}", advice="Name one by the key it was added with.")
