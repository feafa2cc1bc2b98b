"""Which modules' events go on to handlers, and a word about those that an application may not expect."""

from collections.abc import Callable, Collection, Sequence
from typing import Any, Final

from bitrix_pull.connection.intake import Sink
from bitrix_pull.events import PullEvent
from bitrix_pull.redaction import get_logger
from bitrix_pull.wire.skim import Topic

logger: Final = get_logger("connection")

PORTAL_MODULES = frozenset(
    {
        *("bizproc", "calendar", "crm", "disk", "im", "imbot", "imconnector", "imopenlines", "intranet"),
        *("lists", "mail", "main", "sale", "sign", "socialnetwork", "tasks", "timeman", "voximplant"),
    }
)
"""Modules of a portal that send events of their own to its users."""

VERSION_BY_USER = 5
"""From this version on a push server sends by user, whatever the application (protocol §1)."""


class ModuleFilter:
    """Stands before a sink, and keeps from it the events of modules that the user does not want.

    On a server that sends by user, an application's connection gets its user's portal events
    too. Nothing in them tells that, and an application may use any module's name: so nothing
    is left out unasked.
    """

    def __init__(
        self,
        sink: Sink,
        ignored: Collection[str],
        *,
        settled: Callable[[Sequence[PullEvent[Any]]], None],
        sent_by_user: Callable[[], bool],
    ) -> None:
        """Feed ``sink``.

        Args:
            sink: Takes the events that are wanted.
            ignored: Modules whose events are not, in lower case.
            settled: Told of the events that are left out.
            sent_by_user: Whether a portal's events may come to an application just now.
        """
        self._sink = sink
        self._unwanted = frozenset(ignored)
        self._settled = settled
        self._sent_by_user = sent_by_user
        self._told = False
        self.ignored: int = 0
        """Events that were left out."""

    @property
    def full(self) -> bool:
        """True if the sink wants no more just now."""
        return self._sink.full

    async def room(self) -> None:
        """Wait until the sink can take more."""
        await self._sink.room()

    def held_by(self) -> tuple[str, str, int]:
        """Return which event the sink has had longest, for which handlers, and how many it has."""
        return self._sink.held_by()

    def put(self, events: Sequence[PullEvent[Any]]) -> None:
        """Hand on the events that are wanted."""
        if self._unwanted:
            unwanted = [event for event in events if event.module_id in self._unwanted]
            if unwanted:
                self.ignored += len(unwanted)
                self._settled(unwanted)
                events = [event for event in events if event.module_id not in self._unwanted]
        if not self._told and self._sent_by_user():
            self._tell(events)
        if events:
            self._sink.put(events)

    def pass_by(self, topics: Sequence[Topic]) -> None:
        """Hand on what events are about that nobody wants. What is left out here is not among it."""
        self._sink.pass_by(topics)

    def _tell(self, events: Sequence[PullEvent[Any]]) -> None:
        module = next((event.module_id for event in events if event.module_id in PORTAL_MODULES), None)
        if module is None:
            return
        self._told = True
        logger.info(
            "an event of the portal's module %s has come: this push server sends an application what its"
            " user gets, too. PullOptions(ignore_modules=[...]) leaves modules out",
            module,
        )
