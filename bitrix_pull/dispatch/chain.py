"""Middleware around a handler, made into one call."""

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from functools import partial
from inspect import CORO_CREATED, getcoroutinestate, isawaitable
from types import CoroutineType
from typing import Any, Final, cast

from bitrix_pull.dispatch.dependencies import Arguments
from bitrix_pull.dispatch.policy import full_name_of, is_async
from bitrix_pull.dispatch.registry import AnyCallback, Context, Handler, Middleware
from bitrix_pull.events import Event
from bitrix_pull.redaction import get_logger
from bitrix_pull.telemetry import log_fields

logger: Final = get_logger("dispatch")


def chained(
    middleware: Sequence[Middleware],
    callback: AnyCallback,
    arguments: Arguments,
    base: Mapping[str, Any],
    handler: Handler,
) -> Callable[[Any], Awaitable[object]]:
    """Return what calls a handler within its middleware.

    Args:
        middleware: From the outermost to the innermost.
        callback: What is called in the end.
        arguments: Where its arguments come from.
        base: What the context of each event begins as.
        handler: The handler that it is for.
    """
    # Many events go through here: each costs a coroutine for this, one for each middleware and
    # that of the handler, and one call between them.
    callbacks: list[Any] = [item.callback for item in middleware]
    first, last, depth = callbacks[0], len(callbacks) - 1, len(callbacks)
    begin = _beginning(callback, arguments)
    full_name = full_name_of(handler.callback)
    told: set[int] = set()

    async def run(event: Any) -> object:
        context = Context(base)
        context.handler = full_name
        # The coroutines that call_next has made, from that of the outermost middleware on.
        begun: list[Any] = []
        result = await first(event, partial(go_on, 0, event, context, begun), context)
        # If the handler has come to its end, all around it have waited.
        if len(begun) == depth and begun[last].cr_frame is None:
            return result
        stopper = _stopper(middleware, begun)
        if stopper not in told:
            told.add(stopper)
            _tell_stopped(middleware[stopper].name, event, handler.name)
        return result

    def go_on(place: int, came: Event, context: Context, begun: list[Any], event: Any) -> object:
        """Be ``call_next`` of the middleware at a place."""
        if len(begun) != place:
            raise RuntimeError("middleware called call_next a second time: each event is handled once")
        if event is not came:
            _take_place(event, came)
        if place == last:
            coroutine = begin(event, context)
        else:
            call_next = partial(go_on, place + 1, event, context, begun)
            coroutine = callbacks[place + 1](event, call_next, context)
        begun.append(coroutine)
        return coroutine

    return run


def _beginning(
    callback: AnyCallback, arguments: Arguments
) -> Callable[[Any, Context], Coroutine[Any, Any, object]]:
    """Return what makes a coroutine of a handler's call."""
    has_later = bool(arguments.later)

    def begin(event: Any, context: Context) -> Any:
        return callback(event, **arguments.later_ones(context)) if has_later else callback(event)

    async def begin_and_wait(event: Any, context: Context) -> object:
        result: object = begin(event, context)
        if type(result) is CoroutineType or (result is not None and isawaitable(result)):
            return await cast("Awaitable[object]", result)
        return result

    return begin if is_async(callback) else begin_and_wait


def _stopper(middleware: Sequence[Middleware], begun: Sequence[Any]) -> int:
    """Return the place of the middleware that has not called ``call_next``.

    Raises:
        RuntimeError: One before it has called it, and not waited.
    """
    for item, coroutine in zip(middleware, begun, strict=False):
        if coroutine.cr_frame is not None:
            if getcoroutinestate(coroutine) == CORO_CREATED:
                coroutine.close()
            raise RuntimeError(
                f"middleware {item.name} did not wait for call_next: write await call_next(event)"
            )
    return len(begun)


def _tell_stopped(middleware: str, event: Event, handler: str) -> None:
    logger.info(
        "middleware %s has stopped %s before handler %s: it did not call call_next"
        " (told once; the event counts as settled)",
        middleware,
        event.label,
        handler,
        extra=event.log_fields | log_fields(handler=handler),
    )


def _take_place(shown: object, event: Event) -> None:
    if not isinstance(shown, Event):
        raise TypeError(f"call_next takes the event, not {type(shown).__name__}")
    shown.follow(event)
