"""Faults of the portal, or of what stands before it."""

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

ChannelKind = Literal["private", "shared"]
Maintenance = Literal["PORTAL_DELETED", "PAYMENT_REQUIRED", "SERVER_ERROR"]


@dataclass(slots=True, frozen=True)
class RestFailure:
    """What the portal answers instead of doing what it is asked."""

    status: int
    body: str
    content_type: str
    applied: bool = False
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(slots=True)
class PortalFaults:
    """Faults of the portal, or of what stands before it. For expired tokens: ``Portal.expire_token``.

    Attributes:
        delay_s: Seconds that every REST call and token request waits before it is served.
        lose_announcements: True to queue offline events without saying so on the stream.
        maintenance: What every call is answered while the portal is shut: "PORTAL_DELETED"
            (on a box: its public part is closed), "PAYMENT_REQUIRED" or "SERVER_ERROR".
        locked_channels: Which channels every configuration leaves out, as if the portal
            could not lock its table of channels (protocol §2); with both, all of ``channels``.
    """

    delay_s: float = 0.0
    lose_announcements: bool = False
    maintenance: Maintenance | None = None
    locked_channels: frozenset[ChannelKind] = frozenset()
    _failures: deque[RestFailure] = field(default_factory=deque[RestFailure])
    _locks: deque[frozenset[ChannelKind]] = field(default_factory=deque[frozenset[ChannelKind]])

    def fail_rest(
        self,
        times: int,
        status: int = 502,
        body: str = "<html><body>Bad Gateway</body></html>",
        content_type: str = "text/html",
        *,
        applied: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Let the next REST calls fail, whatever they are, after those that shall fail already.

        Args:
            times: How many.
            status: HTTP status of the answers.
            body: Of the answers.
            content_type: Of the answers.
            applied: True if what is asked is done all the same.
            headers: Of the answers, such as ``Retry-After``.
        """
        failure = RestFailure(status, body, content_type, applied, headers or {})
        self._failures.extend([failure] * times)

    def heal_rest(self) -> None:
        """Let no further REST call fail."""
        self._failures.clear()

    def fail_locks(self, times: int, *channels: ChannelKind) -> None:
        """Let the next configurations leave channels out, both of them if none are named."""
        self._locks.extend([frozenset(channels or ("private", "shared"))] * times)

    def next_locked_channels(self) -> frozenset[ChannelKind]:
        """Return the channels that the present configuration leaves out."""
        return self._locks.popleft() if self._locks else self.locked_channels

    async def meet_call(self) -> None:
        """Be as slow as told."""
        if self.delay_s:
            await asyncio.sleep(self.delay_s)

    def next_rest_failure(self) -> RestFailure | None:
        """Return how the present call fails, if it does."""
        return self._failures.popleft() if self._failures else None
