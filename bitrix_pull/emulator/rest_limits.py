"""How many REST calls the portal takes (protocol §2)."""

from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Literal

from bitrix_pull.emulator import rest_errors
from bitrix_pull.emulator.rest_errors import RestError

RetryAfter = Literal["seconds", "date"] | None


@dataclass(slots=True)
class RestLimits:
    """How many REST calls the portal takes: as many as anybody likes, until it is told otherwise.

    Attributes:
        clock: The portal's clock.
        burst: Calls at once from one address; None: any number. Cloud portals: 50.
        per_s: Calls a second after that. Cloud portals: 2.
        retry_after: How refusals say when to come again, if they do.
        refused: Calls that were too many so far.
    """

    clock: Callable[[], float]
    burst: int | None = None
    per_s: float = 2.0
    retry_after: RetryAfter = None
    refused: int = 0
    _buckets: dict[str, tuple[float, float]] = field(default_factory=dict[str, tuple[float, float]])
    _exhausted: dict[str, int] = field(default_factory=dict[str, int])

    def exhaust(self, method: str, reset_at_unix: int) -> None:
        """Let a method have used up its execution time until then."""
        self._exhausted[method] = reset_at_unix

    def fill(self, source: str = "127.0.0.1") -> None:
        """Let the bucket of an address be full, as if somebody else there had made calls."""
        if self.burst is not None:
            self._buckets[source] = (self.burst, self.clock())

    def take(self, source: str, method: str) -> None:
        """Count a call.

        Raises:
            RestError: It is one too many.
        """
        now = self.clock()
        reset_at = self._exhausted.get(method, 0)
        if reset_at > now:
            self.refused += 1
            raise RestError(
                *rest_errors.OPERATION_TIME_LIMIT,
                retry_after=self._retry_after(now, reset_at - now),
                operating_reset_at=reset_at,
            )
        if self.burst is None:
            return
        level, at = self._buckets.get(source, (0.0, now))
        level = max(0.0, level - (now - at) * self.per_s)
        if level + 1 > self.burst:
            self.refused += 1
            retry_after = self._retry_after(now, (level + 1 - self.burst) / self.per_s)
            raise RestError(*rest_errors.QUERY_LIMIT_EXCEEDED, retry_after=retry_after)
        self._buckets[source] = (level + 1, now)

    def _retry_after(self, now: float, wait_s: float) -> str | None:
        match self.retry_after:
            case "seconds":
                return str(int(wait_s) + 1)
            case "date":
                return formatdate(now + wait_s + 1, usegmt=True)
            case None:
                return None
