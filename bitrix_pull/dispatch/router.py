"""Which handlers want which events."""

import inspect
from collections.abc import Awaitable, Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar, overload

from pydantic import BaseModel

from bitrix_pull.dispatch.policy import Ack, DeadLetter, Policy, check_callback, name_of
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
    model: type[BaseModel] | None
    policy: Policy

    @property
    def name(self) -> str:
        """The function's name, for messages."""
        return name_of(self.callback)


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
        self,
        command: str | None = ...,
        *,
        module: str | None = ...,
        model: type[M],
        ack: Ack = ...,
        retries: int = ...,
        retry_delay: float = ...,
        timeout: float | None = ...,
        on_dead_letter: DeadLetter | None = ...,
        concurrency: int = ...,
        key: Callable[[PullEvent[M]], Hashable] | None = ...,
    ) -> Callable[[Callback[PullEvent[M]]], Callback[PullEvent[M]]]: ...
    @overload
    def on(
        self,
        command: str | None = ...,
        *,
        module: str | None = ...,
        model: None = ...,
        ack: Ack = ...,
        retries: int = ...,
        retry_delay: float = ...,
        timeout: float | None = ...,
        on_dead_letter: DeadLetter | None = ...,
        concurrency: int = ...,
        key: Callable[[PullEvent[Any]], Hashable] | None = ...,
    ) -> Callable[[CallbackT], CallbackT]: ...
    def on(
        self,
        command: str | None = None,
        *,
        module: str | None = None,
        model: type[BaseModel] | None = None,
        ack: Ack = "auto",
        retries: int = 0,
        retry_delay: float = 1.0,
        timeout: float | None = None,
        on_dead_letter: DeadLetter | None = None,
        concurrency: int = 1,
        key: Callable[[PullEvent[Any]], Hashable] | None = None,
    ) -> Callable[[Any], Any]:
        """Register the decorated function for events. It is returned unchanged.

        The function takes the event. It may be async, or a plain function that returns
        quickly: a plain one runs on the event loop, so one that blocks belongs into
        ``asyncio.to_thread``. Different handlers run beside each other. Events of one handler
        are begun in order, and one at a time unless ``concurrency`` says otherwise.

        A handler fails on an event when it raises, is cancelled from within, or exceeds its
        timeout. While an event waits for its next attempt, the handler goes on with the
        others, so that event comes late; give a ``key`` where that is not allowed. An event
        that fails for good is reported once, as a ``HandlerFailed`` notice and in the log,
        and is settled: it is not delivered again. What is not settled when the client is
        closed comes again in the next run, as far as the server still keeps it.

        Args:
            command: The command to take; None for every one.
            module: The module to take; None means the router's own, or else
                "application" if a command is given and every module if not.
            model: A pydantic model that ``event.params`` is turned into. Params that do not
                fit fail for good at once.
            ack: When an event is settled. "auto": when the function has returned, or has
                failed for good. "on_receive": before the function is called, so at most
                once. "manual": when ``event.ack()`` is called, in the function or after it
                has returned; ``event.nack(delay)`` asks for the event again, and raising
                without either is a failure. An event with neither stays unsettled, and takes
                its place in the inbox.
            retries: How many more attempts to make after a failure; with "manual" also how
                many after a ``nack``, which is unlimited if this is 0.
            retry_delay: Seconds before the first retry; doubled for each further one up to
                60 s, with up to 20 % more at random.
            timeout: Seconds after which the function is cancelled. If it takes no notice, it
                is left running half a second later. A plain function cannot be cancelled.
            on_dead_letter: Called with the event, as it came, and the error, when the event
                has failed for good; async or plain. The event is settled when it has returned.
                What it raises is logged.
            concurrency: How many events the function may be handling at once. More than one
                means that no order is kept, but for what ``key`` says.
            key: Returns what an event belongs to, such as an order's number. Events of the same key
                are handled one by one in order of arrival, each after the one before is settled,
                retries included. It gets the event as the function does; a key that raises or is
                not hashable fails the event for good.

        Raises:
            InvalidArgument: The function cannot be called with one event, or another
                argument cannot work.
        """
        pattern = self.pattern(command, module, model)
        policy = Policy(
            ack=ack,
            retries=retries,
            retry_delay_s=retry_delay,
            timeout_s=timeout,
            on_dead_letter=on_dead_letter,
            concurrency=concurrency,
            key=key,
        )

        def register(callback: AnyCallback) -> AnyCallback:
            check_callback("handler", callback, "the event")
            self._handlers.append(Handler(callback, pattern, model, policy))
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
