"""What is registered with a router, and with those that it includes."""

import inspect
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

from bitrix_pull.dispatch.dependencies import Signature, signature_of
from bitrix_pull.dispatch.patterns import Pattern
from bitrix_pull.dispatch.policy import Policy, check_callback, is_async, name_of
from bitrix_pull.errors import InvalidArgument

if TYPE_CHECKING:
    from pydantic import TypeAdapter

AnyCallback = Callable[..., Awaitable[object] | object]


class Context(dict[str, Any]):
    """What middleware and handlers share while one event is handled, by name.

    Attributes:
        handler: The module and name of the handler that it is for.
    """

    __slots__ = ("handler",)
    handler: str


CallNext = Callable[[Any], Awaitable[Any]]
"""Goes on to the next middleware or the handler, with the event; returns what that returns."""


@dataclass(slots=True, frozen=True, eq=False)
class Registration:
    """A user's function. That of a class's body waits for the instance that it is called on."""

    callback: AnyCallback

    @property
    def name(self) -> str:
        """The function's name, for messages."""
        return name_of(self.callback)

    @property
    def is_method(self) -> bool:
        """True if it was taken from the body of a class, and has no ``self`` yet."""
        if not inspect.isfunction(self.callback):
            return False
        scope = self.callback.__qualname__.rpartition(".")[0]
        parameters = inspect.signature(self.callback).parameters
        return bool(scope) and not scope.endswith("<locals>") and next(iter(parameters), None) == "self"

    def of(self, instance: object) -> Self:
        """Return it as a method of an instance."""
        if not self.is_method:
            return self
        return replace(self, callback=self.callback.__get__(instance))

    def _signature(self, what: str, *given: str) -> Signature:
        given = ("self", *given) if self.is_method else given
        return signature_of(what, self.callback, *given)


@dataclass(slots=True, frozen=True, eq=False)
class Handler(Registration):
    """A function for events: those that it wants, and how they are to be handled."""

    pattern: Pattern
    model: "TypeAdapter[Any] | None"
    policy: Policy
    where: Callable[[Any], object] | None = None
    signature: Signature = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "signature", self._signature("handler", "the event"))
        if self.where is not None:
            check_callback("where", self.where, "the event")
            if is_async(self.where):
                raise InvalidArgument("where must be a plain function: a coroutine is always true")


@dataclass(slots=True, frozen=True, eq=False)
class Middleware(Registration):
    """A function around handlers, and the names of what it puts into the context."""

    provides: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        given = ("self", "the event") if self.is_method else ("the event",)
        check_callback("middleware", self.callback, *given, "call_next", "the context")
        if not is_async(self.callback):
            raise InvalidArgument(f"middleware {self.name} must be async: it awaits call_next(event)")


@dataclass(slots=True, frozen=True, eq=False)
class ErrorHandler(Registration):
    """A function for errors that handlers have failed with."""

    signature: Signature = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "signature", self._signature("error handler", "the event", "the error"))


class Registry:
    """The handlers of one router, what it wants around them, and the registries that it includes."""

    def __init__(self) -> None:
        """Create an empty registry."""
        self.middleware: list[Middleware] = []
        """From the outermost to the innermost."""
        self.error_handlers: dict[type[Exception], ErrorHandler] = {}
        self._handlers: list[Handler] = []
        self._included: list[Registry] = []
        self._watchers: dict[Callable[[], None], None] = {}

    def add(self, handler: Handler) -> None:
        """Add a handler.

        Raises:
            InvalidArgument: A client that runs already cannot give it what it asks for.
        """
        self._handlers.append(handler)
        try:
            self._changed()
        except InvalidArgument:
            self._handlers.remove(handler)
            self._changed()
            raise

    def remove(self, callback: AnyCallback) -> None:
        """Remove a function's handlers.

        Raises:
            InvalidArgument: It has none here.
        """
        left = [handler for handler in self._handlers if handler.callback != callback]
        if len(left) == len(self._handlers):
            raise InvalidArgument(f"{name_of(callback)} is no handler of this router")
        self._handlers = left
        self._changed()

    def surround(self, middleware: Middleware) -> None:
        """Add a middleware, within those that are here."""
        self.middleware.append(middleware)
        self._changed()

    def catch(self, kind: type[Exception], handler: ErrorHandler) -> None:
        """Add an error handler.

        Raises:
            InvalidArgument: There is one for this class.
        """
        if kind in self.error_handlers:
            raise InvalidArgument(
                f"{self.error_handlers[kind].name} is for {kind.__name__} already, on this router"
            )
        self.error_handlers[kind] = handler
        self._changed()

    def include(self, other: "Registry") -> None:
        """Take in another registry's handlers, also those that it gets later.

        Raises:
            InvalidArgument: It would include itself, or has that one already; or a client that
                runs already cannot give its handlers what they ask for.
        """
        if self in other.registries():
            raise InvalidArgument("a router cannot include itself")
        if other in self._included:
            raise InvalidArgument("this router is included already")
        self._included.append(other)
        other.watch(self._changed)
        try:
            self._changed()
        except InvalidArgument:
            other.unwatch(self._changed)
            self._included.remove(other)
            self._changed()
            raise

    def exclude(self, other: "Registry") -> None:
        """Take an included registry's handlers back."""
        self._included.remove(other)
        other.unwatch(self._changed)
        self._changed()

    def routes(self, above: tuple["Registry", ...] = ()) -> Iterator[tuple[Handler, tuple["Registry", ...]]]:
        """Yield its handlers, then those of the included ones, in order of registration.

        Beside each the registries on the way to it, from this one to its own.
        """
        way = (*above, self)
        for handler in self._handlers:
            yield handler, way
        for registry in self._included:
            yield from registry.routes(way)

    def handlers(self) -> Iterator[Handler]:
        """Yield the handlers alone."""
        for handler, _ in self.routes():
            yield handler

    def registries(self) -> "Iterator[Registry]":
        """Yield this registry and all that it includes."""
        yield self
        for registry in self._included:
            yield from registry.registries()

    @property
    def has_methods(self) -> bool:
        """True if some of its own functions wait for the instance that they are called on."""
        return any(
            item.is_method for item in (*self._handlers, *self.middleware, *self.error_handlers.values())
        )

    def of(self, instance: object) -> "Registry":
        """Return a copy whose methods are those of an instance."""
        made = Registry()
        made._handlers = [handler.of(instance) for handler in self._handlers]
        made.middleware = [middleware.of(instance) for middleware in self.middleware]
        made.error_handlers = {kind: handler.of(instance) for kind, handler in self.error_handlers.items()}
        for registry in self._included:
            made.include(registry)
        return made

    def watch(self, changed: Callable[[], None]) -> None:
        """Call ``changed`` whenever something is registered or removed, here or below.

        It may refuse what is new by raising an InvalidArgument.
        """
        self._watchers[changed] = None

    def unwatch(self, changed: Callable[[], None]) -> None:
        """Call it no longer."""
        del self._watchers[changed]

    def _changed(self) -> None:
        for changed in list(self._watchers):
            changed()
