"""The deals of the portal, in memory: something that events are about."""

from collections.abc import Callable, Mapping
from typing import Any

Changed = Callable[[str, int], None]
"""Told of each change: the event's name and the deal's id."""


class Deals:
    """Deals as ``crm.deal.*`` shows them: every value is text."""

    def __init__(self, changed: Changed, now: Callable[[], str]) -> None:
        """Create no deals.

        Args:
            changed: Told of each change.
            now: The portal's time as it writes it.
        """
        self._changed = changed
        self._now = now
        self._deals: dict[int, dict[str, str]] = {}
        self._last_id = 0

    def add(self, fields: Mapping[str, Any]) -> int:
        """Add a deal, and return its id."""
        self._last_id += 1
        now = self._now()
        self._deals[self._last_id] = {
            "ID": str(self._last_id),
            "TITLE": "",
            "STAGE_ID": "NEW",
            "OPPORTUNITY": "0.00",
            **_texts(fields),
            "DATE_CREATE": now,
            "DATE_MODIFY": now,
        }
        self._changed("ONCRMDEALADD", self._last_id)
        return self._last_id

    def update(self, deal_id: int, fields: Mapping[str, Any]) -> None:
        """Change a deal.

        Raises:
            KeyError: There is none with this id.
        """
        self._deals[deal_id].update(_texts(fields), DATE_MODIFY=self._now())
        self._changed("ONCRMDEALUPDATE", deal_id)

    def delete(self, deal_id: int) -> None:
        """Delete a deal.

        Raises:
            KeyError: There is none with this id.
        """
        del self._deals[deal_id]
        self._changed("ONCRMDEALDELETE", deal_id)

    def get(self, deal_id: int) -> Mapping[str, str]:
        """Return a deal's fields.

        Raises:
            KeyError: There is none with this id.
        """
        return dict(self._deals[deal_id])

    def all(self) -> list[Mapping[str, str]]:
        """Return all deals, by id."""
        return [dict(deal) for _, deal in sorted(self._deals.items())]


def _texts(fields: Mapping[str, Any]) -> dict[str, str]:
    return {name.upper(): str(value) for name, value in fields.items() if name.upper() != "ID"}
