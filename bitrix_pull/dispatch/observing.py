"""What may look on while handlers work: a test kit. Without one, nothing here is called."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

from bitrix_pull.dispatch.registry import Handler
from bitrix_pull.events import Event

if TYPE_CHECKING:
    from bitrix_pull.dispatch.binding import Bound

E = TypeVar("E", bound=Event)
K = TypeVar("K", bound=Event, contravariant=True)


class Settling(Protocol[K]):
    """Takes note of who has finished with an event; see ``Inbox``."""

    def settle(self, event: K) -> None:
        """Take note that one receiver has finished with an event."""
        ...

    def fail(self, event: K) -> None:
        """Take note that one receiver has finished with an event, in vain."""
        ...


class Observer(Protocol[E]):
    """Looks on: it stands between a dispatcher, its workers and the handlers, and hands everything on."""

    def given(self, events: Sequence[E], handlers: Sequence[Handler]) -> None:
        """Take note that these handlers will get these events."""
        ...

    def bound(self, bound: "Bound[E]") -> "Bound[E]":
        """Return what is called in the place of a handler."""
        ...

    def settling(self, handler: Handler, inbox: Settling[E]) -> Settling[E]:
        """Return what a handler's worker tells how it has finished with events."""
        ...
