"""Who is online, and who wants to know (protocol §4.3: version 5 knows its users)."""

from collections import Counter
from collections.abc import Callable, Iterable


class Presence:
    """Counts the connections of each user."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._connections = Counter[int]()
        self._left_at: dict[int, float] = {}

    def arrive(self, user_id: int) -> bool:
        """Count a connection; return True if it brings its user online."""
        self._connections[user_id] += 1
        return self._connections[user_id] == 1

    def leave(self, user_id: int) -> bool:
        """Count a connection off; return True if it was its user's last."""
        self._connections[user_id] -= 1
        if self._connections[user_id] > 0:
            return False
        self._left_at[user_id] = self._clock()
        return True

    def learn(self, user_id: int, left_at: float) -> None:
        """Take the portal's word for when a user was last there, if nothing newer is known."""
        self._left_at[user_id] = max(left_at, self._left_at.get(user_id, left_at))

    def last_seen_s(self, user_ids: Iterable[int]) -> dict[int, int]:
        """Return how many seconds ago each was online, 0 for now; who never was is missing."""
        found: dict[int, int] = {}
        for user_id in user_ids:
            if self._connections[user_id] > 0:
                found[user_id] = 0
            elif user_id in self._left_at:
                # Whoever has just left is not online any more.
                found[user_id] = max(1, int(self._clock() - self._left_at[user_id]))
        return found
