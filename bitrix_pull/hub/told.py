"""What a hub was told of the portals in a store."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NoReturn

from bitrix_pull.errors import InvalidArgument
from bitrix_pull.hub.portals import Portal, PortalChange, PortalPut, PortalRemoved
from bitrix_pull.redaction import get_logger

logger: Final = get_logger("hub")


class Told:
    """What of each portal was told last, by the version of its record.

    What has not changed is told as the same object again: a hub goes on with it. A record that
    cannot be read keeps no other back: the portal is told with credentials that say so, and fails.
    """

    def __init__(self) -> None:
        self._told: dict[str, tuple[object, Portal]] = {}

    def changed(self, versions: Mapping[str, object]) -> list[str]:
        """Return the keys of those of whom another version, or none, was told."""
        told = self._told
        return [key for key, version in versions.items() if key not in told or told[key][0] != version]

    def all(self, versions: Mapping[str, object], read: Callable[[str], Portal]) -> tuple[Portal, ...]:
        """Tell all portals.

        Args:
            versions: Of each record, by the portal's key.
            read: Returns the portal of a key; raises ``InvalidArgument`` if its record cannot be read.
        """
        told = {key: self._told[key][1] for key in versions.keys() - self.changed(versions)}
        portals = {key: told.get(key) or _read(key, read) for key in versions}
        self._told = {key: (versions[key], portal) for key, portal in portals.items()}
        return tuple(portals.values())

    def news(
        self, versions: Mapping[str, object], changed: Iterable[str], read: Callable[[str], Portal]
    ) -> list[PortalChange]:
        """Tell what is new. A portal whose record cannot be read any more stays what it was.

        Args:
            versions: As for ``all``.
            changed: Which of them can be read, of those that ``changed`` has told.
            read: As for ``all``.
        """
        news: list[PortalChange] = [PortalRemoved(key) for key in self._told if key not in versions]
        told = {key: self._told[key] for key in self._told if key in versions}
        for key in changed:
            portal, before = _read(key, read), told.get(key)
            if before is not None and isinstance(portal.credentials, Unreadable):
                logger.error("a change of portal %s is not followed: %s", key, portal.credentials.error)
                portal = before[1]
            else:
                news.append(PortalPut(portal))
            told[key] = versions[key], portal
        self._told = told
        return news


class Unreadable:
    """Stands in the place of credentials that cannot be read: a client with it fails for good, and says why.

    Attributes:
        error: Why.
    """

    def __init__(self, error: InvalidArgument) -> None:
        self.error = error

    async def call(self, method: str, params: Mapping[str, Any], /) -> NoReturn:
        """Raise it.

        Raises:
            InvalidArgument: Always.
        """
        raise self.error.with_traceback(None)


def _read(key: str, read: Callable[[str], Portal]) -> Portal:
    try:
        return read(key)
    except InvalidArgument as error:
        return Portal(key, Unreadable(error))
