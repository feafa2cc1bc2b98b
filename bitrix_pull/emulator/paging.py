"""How the portal gives out long lists: 50 at a time (protocol §10)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

PAGE_SIZE = 50


@dataclass(slots=True, frozen=True)
class Page:
    """One page of a list: beside ``result`` the answer tells the total, and where the next begins."""

    items: Sequence[Any]
    total: int
    next: int | None

    @classmethod
    def of(cls, items: Sequence[Any], start: object) -> "Page":
        """Return the page that begins at ``start``, which the portal rounds down to whole pages."""
        try:
            offset = max(int(str(start)), 0) // PAGE_SIZE * PAGE_SIZE
        except ValueError:
            offset = 0
        end = offset + PAGE_SIZE
        return cls(items[offset:end], len(items), end if end < len(items) else None)

    @property
    def beside(self) -> Mapping[str, int]:
        """What stands beside the result."""
        return {"total": self.total} if self.next is None else {"next": self.next, "total": self.total}
