"""Which handlers want which events."""

import functools
import inspect
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar, cast, overload

from pydantic import BaseModel

from bitrix_pull.errors import InvalidArgument
from bitrix_pull.events import PullEvent

DEFAULT_MODULE = "application"
"""The module of what applications publish (protocol §2, ``MODULE_ID``)."""

M = TypeVar("M", bound=BaseModel)
E = TypeVar("E", bound=PullEvent[Any])
Callback = Callable[[E], Awaitable[object] | object]
AnyCallback = Callable[[Any], Awaitable[object] | object]
CallbackT = TypeVar("CallbackT", bound=AnyCallback)


@dataclass(slots=True, frozen=True)
class Pattern:
    """What events to take: of one command or all (None), of one module or all (None)."""

    command: str | None
    module: str | None

    @classmethod
    def of(cls, command: str | None, module: str | None, default_module: str | None) -> "Pattern":
        """Build a pattern from what the user wrote.

        A command alone means that command of the default module; nothing at all means
        everything, or everything of a router's own module.
        """
        if module is None:
            module = default_module if command is None else default_module or DEFAULT_MODULE
        # The protocol compares modules in lower case, commands as they are.
        return cls(command, module.lower() if module is not None else None)

    def matches(self, module: str, command: str) -> bool:
        """Tell whether an event of this module and command is wanted."""
        return self.module in (None, module) and self.command in (None, command)


@dataclass(slots=True, frozen=True, eq=False)
class Handler:
    """A user's function and the events it wants."""

    callback: AnyCallback
    pattern: Pattern
    model: type[BaseModel] | None = None

    @property
    def name(self) -> str:
        """The function's name, for messages."""
        return _name_of(self.callback)


class Router:
    """A set of handlers, so that they can live in files of their own.

    Include it in a client, or in another router, with ``include``.
    """

    def __init__(self, *, module: str | None = None) -> None:
        """Create a router.

        Args:
            module: The module that its handlers mean where they name none.
        """
        self._module = module
        self._handlers: list[Handler] = []
        self._routers: list[Router] = []
        self._watchers: list[Callable[[], None]] = []

    @overload
    def on(
        self, command: str | None = ..., *, module: str | None = ..., model: type[M]
    ) -> Callable[[Callback[PullEvent[M]]], Callback[PullEvent[M]]]: ...
    @overload
    def on(
        self, command: str | None = ..., *, module: str | None = ..., model: None = ...
    ) -> Callable[[CallbackT], CallbackT]: ...
    def on(
        self, command: str | None = None, *, module: str | None = None, model: type[BaseModel] | None = None
    ) -> Callable[[Any], Any]:
        """Register the decorated function for events. It is returned unchanged.

        The function takes the event. It may be async, or a plain function that returns
        quickly: a plain one runs on the event loop, so one that blocks belongs into
        ``asyncio.to_thread``. Events of one handler are handled in order, one at a time;
        different handlers run beside each other.

        Args:
            command: The command to take; None for every one.
            module: The module to take; None means the router's own, or else
                "application" if a command is given and every module if not.
            model: A pydantic model that ``event.params`` is turned into.

        Raises:
            InvalidArgument: The function cannot be called with one event, or another
                argument has the wrong type.
        """
        pattern = self.pattern(command, module, model)

        def register(callback: AnyCallback) -> AnyCallback:
            _check_callback(callback)
            self._handlers.append(Handler(callback, pattern, model))
            self._changed()
            return callback

        return register

    def pattern(self, command: object, module: object, model: object = None) -> Pattern:
        """Return the pattern that these arguments mean on this router.

        Raises:
            InvalidArgument: One of them has the wrong type.
        """
        if callable(command):
            raise InvalidArgument("write @pull.on() with parentheses to take every event")
        if model is not None and not (inspect.isclass(model) and issubclass(model, BaseModel)):
            raise InvalidArgument(f"model must be a pydantic model class, not {model!r}")
        return Pattern.of(_name("command", command), _name("module", module), self._module)

    def include(self, router: "Router") -> None:
        """Take in another router's handlers, also those that it gets later.

        Raises:
            InvalidArgument: The router would include itself.
        """
        if self in router.routers():
            raise InvalidArgument("a router cannot include itself")
        if router in self._routers:
            raise InvalidArgument("this router is included already")
        self._routers.append(router)
        router.watch(self._changed)
        self._changed()

    def handlers(self) -> Iterator[Handler]:
        """Yield its handlers, then those of the included routers, in order of registration."""
        yield from self._handlers
        for router in self._routers:
            yield from router.handlers()

    def routers(self) -> "Iterator[Router]":
        """Yield this router and all that it includes."""
        yield self
        for router in self._routers:
            yield from router.routers()

    def watch(self, changed: Callable[[], None]) -> None:
        """Call ``changed`` whenever a handler is added here or below."""
        self._watchers.append(changed)

    def _changed(self) -> None:
        for changed in self._watchers:
            changed()


def _name(what: str, value: object) -> str | None:
    if value is None or (isinstance(value, str) and value):
        return value
    raise InvalidArgument(f"{what} must be a non-empty string or None, not {value!r}")


def _name_of(callback: object) -> str:
    """Name a callable without its repr, which can show secrets that are bound to it."""
    while isinstance(callback, functools.partial):
        callback = cast("functools.partial[object]", callback).func
    return getattr(callback, "__qualname__", None) or type(callback).__qualname__


def _check_callback(callback: object) -> None:
    if not callable(callback):
        raise InvalidArgument(f"a handler must be callable, not {callback!r}")
    try:
        signature = inspect.signature(callback)
    except (TypeError, ValueError):
        return  # A builtin that tells nothing about its parameters.
    try:
        signature.bind(object())
    except TypeError:
        raise InvalidArgument(
            f"handler {_name_of(callback)}{signature} must take exactly one positional argument: the event"
        ) from None
