"""What is registered with a router, and with those that it includes."""

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from bitrix_pull.dispatch.patterns import Pattern
from bitrix_pull.dispatch.policy import Policy, check_callback, name_of
from bitrix_pull.errors import InvalidArgument

AnyCallback = Callable[..., Awaitable[object] | object]


@dataclass(slots=True, frozen=True, eq=False)
class Handler:
    """A user's function, the events it wants, and how they are to be handled."""

    callback: AnyCallback
    pattern: Pattern
    model: TypeAdapter[Any] | None
    policy: Policy

    def __post_init__(self) -> None:
        check_callback("handler", self.callback, "the event")

    @property
    def name(self) -> str:
        """The function's name, for messages."""
        return name_of(self.callback)


class Registry:
    """The handlers of one router, and the registries of the routers that it includes."""

    def __init__(self) -> None:
        """Create an empty registry."""
        self._handlers: list[Handler] = []
        self._included: list[Registry] = []
        self._watchers: list[Callable[[], None]] = []

    def add(self, handler: Handler) -> None:
        """Add a handler."""
        self._handlers.append(handler)
        self._changed()

    def include(self, other: "Registry") -> None:
        """Take in another registry's handlers, also those that it gets later.

        Raises:
            InvalidArgument: It would include itself, or has that one already.
        """
        if self in other.registries():
            raise InvalidArgument("a router cannot include itself")
        if other in self._included:
            raise InvalidArgument("this router is included already")
        self._included.append(other)
        other.watch(self._changed)
        self._changed()

    def handlers(self) -> Iterator[Handler]:
        """Yield its handlers, then those of the included ones, in order of registration."""
        yield from self._handlers
        for registry in self._included:
            yield from registry.handlers()

    def registries(self) -> "Iterator[Registry]":
        """Yield this registry and all that it includes."""
        yield self
        for registry in self._included:
            yield from registry.registries()

    def watch(self, changed: Callable[[], None]) -> None:
        """Call ``changed`` whenever something is registered here or below."""
        self._watchers.append(changed)

    def unwatch(self, changed: Callable[[], None]) -> None:
        """Call it no longer."""
        self._watchers.remove(changed)

    def _changed(self) -> None:
        for changed in self._watchers:
            changed()
