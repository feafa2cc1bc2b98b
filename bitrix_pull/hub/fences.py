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


@runtime_checkable
class Seal(Protocol):
    """Tokens that workers share, where it is known how a portal's secrets are to be kept."""

    def seal(self, content: bytes) -> bytes:
        """Return what is kept of a JSON object, encrypted if the tokens are."""
        ...

    def unseal(self, kept: bytes) -> bytes:
        """Return the JSON object again.

        Raises:
            ValueError: It was changed, or encrypted with another key.
        """
        ...


@runtime_checkable
class KeepsConfigs(Protocol):
    """A portal's store for one owner of it, which can keep the portal's configuration for the next one."""

    def keep_configs(self, seal: Seal) -> None:
        """From now on, do."""
        ...


def under_lease(
    lease: Lease, portal: Portal, kept: ResumeStore, writer: LogWriter | None = None
) -> ResumeStore:
    """Put a portal's tokens under a lease, and return where its resume point is, under it too.

    A store that knows of no leases is left as it is. Tokens take no harm from that where the
    store has a lock: whoever has it may refresh.

    The portal's configuration is a secret as its tokens are. So the next owner gets it only where
    the workers share tokens in a store too, and encrypted by the same cipher.

    Args:
        lease: Of the worker that is to have the portal.
        portal: Which one.
        kept: Where the hub keeps resume points.
        writer: What writes the portal's events down; None: there is no log.
    """
    if writer is not None:
        store = writer.resume
    else:
        store = kept.under(lease) if isinstance(kept, FencedStore) else kept
    if isinstance(portal.credentials, OAuth):
        tokens = own_store(portal.credentials.store)
        if isinstance(tokens, FencedTokenStore):
            tokens.fence(lease)
        if isinstance(tokens, Seal) and isinstance(store, KeepsConfigs):
            store.keep_configs(tokens)
    return store
