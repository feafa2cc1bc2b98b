"""How fast a portal may be asked: a leaky bucket for each, shared by this process (protocol §2)."""

import asyncio
import contextlib
import re
import threading
from collections import Counter
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

from bitrix_pull.errors import OperationTimeLimit, RateLimited
from bitrix_pull.options import RateLimit, RestLimit
from bitrix_pull.portal.portal_clock import Moment
from bitrix_pull.redaction import get_logger
from bitrix_pull.telemetry import log_fields

_log = get_logger("portal")

PAUSE_MAX_S = 3600.0
"""The longest pause that is kept, however long a portal, or a proxy before it, asks for."""

_CLOUD_HOST = re.compile(r"[a-z0-9-]+\.bitrix24\.(?:com?\.)?[a-z]{2,}")
_DUST_S = 1e-6
"""A wait that is none: what is left when fractions of calls do not quite add up."""


class LeakyBucket:
    """The calls that a portal still counts against us, and those that wait for it to forget some.

    They go in the order in which they came, but for those that go first. Clients in several
    event loops, each in its own thread, may share a bucket: the clocks of asyncio's loops
    are one.

    Attributes:
        limit: What the portal allows; None: it sets no limit, and only pauses are kept.
    """

    def __init__(self, limit: RateLimit | None) -> None:
        """Create an empty bucket."""
        self.limit = limit
        self._lock = threading.Lock()
        self._level = 0.0
        self._pause_s = 0.0
        self._method_pauses_s: dict[str, float] = {}
        self._drained_at: Moment | None = None
        self._queue: list[_Waiter] = []
        self._told = False
        self.waited_s: float = 0.0
        """Seconds that calls have waited in all."""
        self.refused: Counter[str] = Counter()
        """How often the portal has refused a call over its limits, by what it said."""

    async def admit(self, method: str, deadline: float, *, first: bool = False) -> None:
        """Wait until the portal should take one more call, and count it.

        A caller that is cancelled while it waits gives its place to those behind it.

        Args:
            method: The REST method that is to be called.
            deadline: By the loop's clock.
            first: True to go before all that wait already.

        Raises:
            RateLimited: It would not before the deadline. Raised at once;
                ``OperationTimeLimit`` if it is this method that must wait.
        """
        waiter = _Waiter(method)
        with self._lock:
            self._queue.insert(0 if first else len(self._queue), waiter)
        try:
            while (wait_s := self._enter(waiter)) > 0:
                if waiter.loop.time() + wait_s > deadline:
                    raise self._too_long(method, wait_s)
                self._tell(method, wait_s)
                began_at = waiter.loop.time()
                await waiter.sleep(wait_s)
                self.waited_s += waiter.loop.time() - began_at
        finally:
            self._leave(waiter)

    def wait_s(self) -> float:
        """Return how long a call would have to wait now; 0 if it may go."""
        with self._lock:
            self._drain()
            wait_s = self._pause_s
            if self.limit is not None:
                ahead = len(self._queue)
                wait_s = max(wait_s, (self._level + ahead + 1 - self.limit.burst) / self.limit.per_s)
            return wait_s if wait_s > _DUST_S else 0.0

    def pause(self, error: RateLimited, pause_s: float) -> None:
        """Take note that the portal has refused a call: its bucket is fuller than we knew.

        Args:
            error: What it answered. An ``OperationTimeLimit`` is about one method.
            pause_s: How long it shall not be asked again.
        """
        pause_s = min(pause_s, PAUSE_MAX_S)
        with self._lock:
            self.refused[(error.code or f"HTTP {error.status}").upper()] += 1
            self._drain()
            if isinstance(error, OperationTimeLimit):
                pauses = self._method_pauses_s
                pauses[error.method] = max(pauses.get(error.method, 0.0), pause_s)
            else:
                self._pause_s = max(self._pause_s, pause_s)
                if self.limit is not None:
                    # Full still when the pause ends, but for one.
                    level = self.limit.burst - 1 + pause_s * self.limit.per_s
                    self._level = max(self._level, level)
            for waiter in self._queue:
                waiter.wake()

    def _enter(self, waiter: "_Waiter") -> float:
        """Count a call if it may go now; return the seconds that it must wait, or 0."""
        with self._lock:
            self._drain()
            wait_s = max(self._pause_s, self._method_pauses_s.get(waiter.method, 0.0))
            if self.limit is not None:
                ahead = 0
                for other in self._queue:
                    if other is waiter:
                        break
                    # Whoever waits for a method of its own must not hold up the others.
                    ahead += other.method not in self._method_pauses_s
                wait_s = max(wait_s, (self._level + ahead + 1 - self.limit.burst) / self.limit.per_s)
            if wait_s > _DUST_S:
                return wait_s
            if self.limit is not None:
                self._level += 1
            return 0.0

    def _leave(self, waiter: "_Waiter") -> None:
        with self._lock:
            self._queue.remove(waiter)
            if self._queue:
                self._queue[0].wake()

    def _drain(self) -> None:
        """Let go of what has drained since the last time."""
        # Time in which this machine slept counts: the portal's bucket has drained meanwhile.
        elapsed_s = 0.0 if self._drained_at is None else self._drained_at.elapsed_s
        self._drained_at = Moment.now()
        if self.limit is not None:
            self._level = max(0.0, self._level - elapsed_s * self.limit.per_s)
        self._pause_s = max(0.0, self._pause_s - elapsed_s)
        self._method_pauses_s = {
            method: left_s - elapsed_s
            for method, left_s in self._method_pauses_s.items()
            if left_s > elapsed_s
        }

    def _tell(self, method: str, wait_s: float) -> None:
        """Say once what calls wait for, as nothing else shows it, and what to do about it."""
        if self._told or self.limit is None:
            return
        self._told = True
        _log.info(
            "%s waits %.1f s: the portal takes %d calls at once, and then %g a second. Publish much by"
            ' route="endpoint" with users=[…]; if the portal takes more, say so by'
            " PullOptions(rest_limit=RateLimit(…))",
            method,
            wait_s,
            self.limit.burst,
            self.limit.per_s,
            extra=log_fields(method=method, retry_in_s=wait_s),
        )

    def _too_long(self, method: str, wait_s: float) -> RateLimited:
        kind = OperationTimeLimit if method in self._method_pauses_s else RateLimited
        used_up = ""
        if self.limit is not None and kind is RateLimited:
            used_up = f": its limit of {self.limit.burst} calls, and then {self.limit.per_s:g} a second"
        error = kind(
            f"{method}: not sent, since the portal is expected to take it in {wait_s:.1f} s only,"
            f" which is past the deadline{used_up}",
            method=method,
        )
        error.retry_after_s = wait_s
        return error


class _Waiter:
    """A call that waits; its loop may be another one than that of those before it."""

    def __init__(self, method: str) -> None:
        self.method = method
        self.loop = asyncio.get_running_loop()
        self._woken = asyncio.Event()

    async def sleep(self, wait_s: float) -> None:
        """Wait so long, or until woken."""
        self._woken.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._woken.wait()

    def wake(self) -> None:
        """Let it look again how long it has to wait. May be called in any thread."""
        with contextlib.suppress(RuntimeError):  # Its loop is closed, and it with it.
            self.loop.call_soon_threadsafe(self._woken.set)


_buckets: WeakValueDictionary[str, LeakyBucket] = WeakValueDictionary()
_buckets_lock = threading.Lock()


def bucket_for(endpoint: str, limit: RestLimit) -> LeakyBucket:
    """Return the bucket of a portal, which is gone when its last user is.

    Args:
        endpoint: An address on the portal.
        limit: What a client says of it. The last word counts for all clients of the
            portal; "auto" says nothing where another one has.
    """
    parts = urlsplit(endpoint)
    with _buckets_lock:
        bucket = _buckets.get(parts.netloc)
        if bucket is None:
            is_cloud = _CLOUD_HOST.fullmatch(parts.hostname or "") is not None
            bucket = _buckets[parts.netloc] = LeakyBucket(RateLimit() if is_cloud else None)
        if limit != "auto":
            bucket.limit = limit
        return bucket
