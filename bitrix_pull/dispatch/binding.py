"""Makes of a handler, and of all that is registered around it, what is called with an event."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from inspect import isawaitable
from types import CoroutineType
from typing import Any, Generic, TypeVar

from bitrix_pull.dispatch.blocking import BlockingWatch
from bitrix_pull.dispatch.calls import call, cancelled
from bitrix_pull.dispatch.chain import chained
from bitrix_pull.dispatch.dependencies import Arguments, Supply
from bitrix_pull.dispatch.policy import is_async
from bitrix_pull.dispatch.registry import AnyCallback, ErrorHandler, Handler, Registry
from bitrix_pull.errors import InvalidArgument
from bitrix_pull.events import Event

E = TypeVar("E", bound=Event)


@dataclass(slots=True, frozen=True, eq=False)
class Bound(Generic[E]):
    """A handler that is ready to be called: all that can be found out beforehand has been.

    Attributes:
        handler: What was registered.
        call: Calls it, middleware included.
        shape: Makes of an event what the handler is to get, or None if it does not want it;
            itself None where the handler gets every event as it comes.
        recover: Gives an error that the handler has failed with to the error handlers, and
            returns what is left of it; None where there are none.
    """

    handler: Handler
    call: Callable[[E], Awaitable[object] | object]
    shape: Callable[[E], E | None] | None
    recover: Callable[[E, Exception], Awaitable[Exception | None]] | None


def bind(handler: Handler, way: Sequence[Registry], supply: Supply, blocking: BlockingWatch) -> Bound[Any]:
    """Bind a handler to what surrounds it.

    Args:
        handler: The handler.
        way: The registries from the client's own to the handler's.
        supply: What the client has for its handlers.
        blocking: Is told of plain functions that take long, but for those that are called as
            they are: their worker sees to that, for many events at a time.

    Raises:
        InvalidArgument: It, or an error handler, asks for what nothing provides.
    """
    middleware = [item for registry in way for item in registry.middleware]
    for item in (
        handler,
        *middleware,
        *(item for registry in way for item in registry.error_handlers.values()),
    ):
        if item.is_method:
            raise InvalidArgument(
                f"{item.name} is a method, and of no instance",
                advice="Include the router of an instance: pull.include(instance.router).",
            )
    provided = {name for item in middleware for name in item.provides}
    arguments = Arguments.of("handler", handler.name, handler.signature, supply, provided)
    callback = handler.callback
    if not is_async(callback) and (middleware or not handler.policy.is_plain):
        callback = blocking.over(callback, handler.name)
    if arguments.known:
        callback = partial(callback, **arguments.known)
    if middleware:
        callback = chained(middleware, callback, arguments, supply.by_name, handler)
    return Bound(handler, callback, _shaper(handler), _recoverer(way, supply))


def check(registry: Registry, supply: Supply) -> None:
    """See that all handlers of a registry can be bound, before there is anything that hands them events.

    Raises:
        InvalidArgument: One cannot; see ``bind``.
    """
    for handler, way in registry.routes():
        bind(handler, way, supply, BlockingWatch())


def _shaper(handler: Handler) -> Callable[[Any], Any] | None:
    model, where = handler.model, handler.where
    if where is None:
        return None if model is None else lambda event: event.with_model(model)

    def shape(event: Any) -> Any:
        shown = event if model is None else event.with_model(model)
        try:
            wanted = where(shown)
            if wanted is True:
                return shown
            if isawaitable(wanted):
                if isinstance(wanted, CoroutineType):
                    wanted.close()
                raise TypeError("where returned something to await: it must be a plain function")
        except Exception as error:
            error.add_note(f"Raised by where= of handler {handler.name}.")
            raise
        return shown if wanted else None

    return shape


def _recoverer(
    way: Sequence[Registry], supply: Supply
) -> Callable[[Any, Exception], Awaitable[Exception | None]] | None:
    def ready(item: ErrorHandler) -> AnyCallback:
        return partial(
            item.callback, **Arguments.of("error handler", item.name, item.signature, supply).known
        )

    levels = [
        {kind: ready(item) for kind, item in registry.error_handlers.items()}
        for registry in reversed(way)
        if registry.error_handlers
    ]
    if not levels:
        return None

    async def recover(event: Any, error: Exception) -> Exception | None:
        for level in levels:
            callback = next((level[kind] for kind in type(error).__mro__ if kind in level), None)
            if callback is None:
                continue
            raised = await call(callback, event, error)
            if cancelled():
                raise asyncio.CancelledError
            if raised is None:
                return None
            if raised is not error and raised.__context__ is None:
                raised.__context__ = error
            error = raised
        return error

    return recover
