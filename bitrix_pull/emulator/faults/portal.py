"""Faults of the portal, or of what stands before it."""

import asyncio
from collections import deque
from dataclasses import dataclass, field


@dataclass(slots=True, frozen=True)
class RestFailure:
    """What the portal answers instead of doing what it is asked."""

    status: int
    body: str
    content_type: str


@dataclass(slots=True)
class PortalFaults:
    """Faults of the portal, or of what stands before it. For expired tokens: ``Portal.expire_token``.

    Attributes:
        delay_s: Seconds that every REST call and token request waits before it is served.
    """

    delay_s: float = 0.0
    _failures: deque[RestFailure] = field(default_factory=deque[RestFailure])

    def fail_rest(
        self,
        times: int,
        status: int = 502,
        body: str = "<html><body>Bad Gateway</body></html>",
        content_type: str = "text/html",
    ) -> None:
        """Let the next REST calls fail, whatever they are, after those that shall fail already."""
        self._failures.extend([RestFailure(status, body, content_type)] * times)

    async def meet_call(self) -> None:
        """Be as slow as told."""
        if self.delay_s:
            await asyncio.sleep(self.delay_s)

    def next_rest_failure(self) -> RestFailure | None:
        """Return how the present call fails, if it does."""
        return self._failures.popleft() if self._failures else None
