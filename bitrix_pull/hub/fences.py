"""A portal's stores under the lease of the worker that has it, with a log and without.

Here, and nowhere else, a portal's client gets them, so that what a worker writes that was
stopped or cut off is refused once another one has the portal.
"""

from typing import Protocol, runtime_checkable

from bitrix_pull.connection.stores import ResumeStore
from bitrix_pull.hub.cluster import Lease
from bitrix_pull.hub.log import LogWriter
from bitrix_pull.hub.portals import Portal
from bitrix_pull.portal.oauth import OAuth
from bitrix_pull.portal.token_stores import own_store


@runtime_checkable
class FencedStore(Protocol):
    """Resume points that workers share: under a lease they are safe from earlier owners."""

    def under(self, lease: Lease) -> ResumeStore:
        """Return the store of one portal for one owner of it.

        Its ``load`` raises the fence: from then on nothing is taken from the portal's owners
        before. What it refuses raises ``LeaseLost``.
        """
        ...


@runtime_checkable
class FencedTokenStore(Protocol):
    """Tokens that workers share, where the right to refresh may outlast a lease, or end before it."""

    def fence(self, lease: Lease) -> None:
        """From now on, act for this owner of the portal: once a later one has refreshed, it may not."""
        ...


def under_lease(
    lease: Lease, portal: Portal, kept: ResumeStore, writer: LogWriter | None = None
) -> ResumeStore:
    """Put a portal's tokens under a lease, and return where its resume point is, under it too.

    A store that knows of no leases is left as it is. Tokens take no harm from that where the
    store has a lock: whoever has it may refresh.

    Args:
        lease: Of the worker that is to have the portal.
        portal: Which one.
        kept: Where the hub keeps resume points.
        writer: What writes the portal's events down; None: there is no log.
    """
    if isinstance(portal.credentials, OAuth):
        tokens = own_store(portal.credentials.store)
        if isinstance(tokens, FencedTokenStore):
            tokens.fence(lease)
    if writer is not None:
        return writer.resume
    return kept.under(lease) if isinstance(kept, FencedStore) else kept
