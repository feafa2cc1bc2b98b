"""Who is online, and who wants to know (protocol §4.3: version 5 knows its users)."""

from collections import Counter
from collections.abc import Callable, Iterable

from bitrix_pull.emulator.channels import Owner


class Presence:
    """Counts the connections of each user."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._connections = Counter[Owner]()
        self._left_at: dict[Owner, float] = {}

    def arrive(self, owner: Owner) -> bool:
        """Count a connection; return True if it brings its user online."""
        self._connections[owner] += 1
        return self._connections[owner] == 1

    def leave(self, owner: Owner) -> bool:
        """Count a connection off; return True if it was its user's last."""
        self._connections[owner] -= 1
        if self._connections[owner] > 0:
            return False
        self._left_at[owner] = self._clock()
        return True

    def last_seen_s(self, owners: Iterable[Owner]) -> dict[Owner, int]:
        """Return how many seconds ago each was online, 0 for now; who never was is missing."""
        found: dict[Owner, int] = {}
        for owner in owners:
            if self._connections[owner] > 0:
                found[owner] = 0
            elif owner in self._left_at:
                # Whoever has just left is not online any more.
                found[owner] = max(1, int(self._clock() - self._left_at[owner]))
        return found
