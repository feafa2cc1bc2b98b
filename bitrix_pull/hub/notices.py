"""What a hub tells of its portals, beside the notices of their clients."""

from dataclasses import dataclass

from bitrix_pull.events import Notice


@dataclass(slots=True, frozen=True)
class PortalFailed:
    """A portal's client has failed for good, as only a person can help. The hub tries it again, slowly.

    Attributes:
        portal: The portal's key.
        error: Why.
        attempts: How often in a row it has failed.
        retry_in_s: Seconds until the next attempt.
    """

    portal: str
    error: Exception
    attempts: int
    retry_in_s: float


@dataclass(slots=True, frozen=True)
class PortalUninstalled:
    """The application is not installed on a portal any more, or the portal is no more.

    The portal has said ``ONAPPUNINSTALL`` (where a handler for it is registered), the OAuth
    server refuses the grant, or the portal has answered that it is deleted, three times in a
    row. The hub goes on trying, slowly, until it is told to ``remove`` the portal.

    Attributes:
        portal: The portal's key.
        error: What it was refused with; None after ``ONAPPUNINSTALL``.
    """

    portal: str
    error: Exception | None = None


HubNotice = Notice | PortalFailed | PortalUninstalled
