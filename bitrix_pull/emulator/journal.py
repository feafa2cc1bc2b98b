"""What clients did, one entry after the other, for tests to assert on."""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["rest", "oauth", "subscribed", "ended", "refused", "published", "acknowledged"]
"""A REST call, a token request, a WebSocket or poll that was let in, its end, one that was not let
in (or a publish that was refused), a message of a client, a message that a client has safe."""


@dataclass(slots=True, frozen=True)
class Entry:
    """One thing that a client did.

    Attributes:
        number: From 1 on; entries that were forgotten leave a hole at the beginning only.
        at: When (unix).
        kind: What.
        details: More about it, by kind; no tokens and no signatures.
    """

    number: int
    at: float
    kind: Kind
    details: Mapping[str, Any]


class Journal:
    """Writes down what clients do, and keeps the newest entries.

    Args:
        clock: Unix time.
        keep: How many.
    """

    def __init__(self, clock: Callable[[], float], keep: int = 10_000) -> None:
        self._clock = clock
        self._entries = deque[Entry](maxlen=keep)
        self._last = 0

    def note(self, kind: Kind, **details: Any) -> None:
        """Write something down."""
        self._last += 1
        self._entries.append(Entry(self._last, self._clock(), kind, details))

    def entries(self, *kinds: Kind, after: int = 0) -> list[Entry]:
        """Return what was written down after an entry, the oldest first; of these kinds, or of all."""
        return [
            entry for entry in self._entries if entry.number > after and (not kinds or entry.kind in kinds)
        ]

    def clear(self) -> None:
        """Forget all of it. Numbers go on."""
        self._entries.clear()
