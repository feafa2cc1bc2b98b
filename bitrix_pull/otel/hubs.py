"""What is read of a hub when figures are collected."""

from collections.abc import Iterator
from typing import Final
from weakref import ref

from bitrix_pull.hub.hub import Hub, loop_of_hub
from bitrix_pull.otel.attributes import SYSTEM
from bitrix_pull.otel.figures import with_own
from bitrix_pull.otel.reading import Loop, Readings

_WHERE: Final = dict(SYSTEM)


class HubFigures:
    """Figures of a hub as a whole, beside those of its clients.

    Attributes:
        readings: What was read last.

    Args:
        hub: Which one; it may go.
    """

    def __init__(self, hub: Hub) -> None:
        self.readings: Readings = {}
        self._hub = ref(hub)

    @property
    def loop(self) -> Loop | None:
        """Where it runs; None if it does not."""
        hub = self._hub()
        return None if hub is None else loop_of_hub(hub)

    def read(self) -> Iterator[None]:
        """Read all at once."""
        yield from ()
        hub = self._hub()
        if hub is None:
            return
        health = hub.health()
        figures = {
            "bitrix_pull.hub.portals": health.states,
            "bitrix_pull.hub.leases": {"": health.leases},
            "bitrix_pull.hub.leases.gained": {"": health.gained},
            "bitrix_pull.hub.leases.ended": health.ended,
            "bitrix_pull.hub.workers": {} if health.workers is None else {"": health.workers},
        }
        self.readings = {
            name: [(value, with_own(_WHERE, name, attribute)) for attribute, value in values.items()]
            for name, values in figures.items()
        }
