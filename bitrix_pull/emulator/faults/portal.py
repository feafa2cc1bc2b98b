"""Faults of the portal, or of what stands before it."""

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field


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
    """

    delay_s: float = 0.0
    lose_announcements: bool = False
    _failures: deque[RestFailure] = field(default_factory=deque[RestFailure])

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

    async def meet_call(self) -> None:
        """Be as slow as told."""
        if self.delay_s:
            await asyncio.sleep(self.delay_s)

    def next_rest_failure(self) -> RestFailure | None:
        """Return how the present call fails, if it does."""
        return self._failures.popleft() if self._failures else None
