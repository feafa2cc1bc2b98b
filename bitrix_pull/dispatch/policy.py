"""How a handler's events are settled: what ``on`` was told, checked."""

import functools
import inspect
import math
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from bitrix_pull.errors import InvalidArgument

Ack = Literal["auto", "on_receive", "manual"]
DeadLetter = Callable[[Any, Exception], Awaitable[object] | object]

_COUNTS = ("two", "three", "four")

RETRY_DELAY_MAX_S = 60.0
"""Longest wait before a retry."""

RETRY_DELAY_S = 1.0
"""That before the first one, where nothing else is said."""


@dataclass(slots=True, frozen=True, kw_only=True)
class Policy:
    """The arguments of ``Router.on`` that say how events are handled; see there.

    Raises:
        InvalidArgument: One of them cannot work, or two do not go together.
    """

    ack: Ack = "auto"
    retries: int = 0
    timeout_s: float | None = None
    retry_delay_s: float = RETRY_DELAY_S
    on_dead_letter: DeadLetter | None = None
    concurrency: int = 1
    key: Callable[[Any], Hashable] | None = None

    @property
    def is_plain(self) -> bool:
        """True if events are just handled, one after the other."""
        return self == _PLAIN

    def __post_init__(self) -> None:
        if self.ack not in get_args(Ack):
            raise InvalidArgument(f"ack must be one of {get_args(Ack)}, not {self.ack!r:.40}")
        _check_count("retries", self.retries, at_least=0)
        _check_count("concurrency", self.concurrency, at_least=1)
        if self.timeout_s is not None:
            _check_seconds("timeout", self.timeout_s, math.inf)
        _check_seconds("retry_delay", self.retry_delay_s, RETRY_DELAY_MAX_S)
        if self.on_dead_letter is not None:
            check_callback("on_dead_letter", self.on_dead_letter, "the event", "the error")
        if self.key is not None:
            check_callback("key", self.key, "the event")
            if is_async(self.key):
                raise InvalidArgument(
                    "key must be a plain function: each coroutine would be a key of its own"
                )
        if self.retries and self.ack == "on_receive":
            raise InvalidArgument('retries= does not go with ack="on_receive", which means at most once')
        if self.retry_delay_s != RETRY_DELAY_S and not self.retries:
            raise InvalidArgument(
                "retry_delay= has no effect without retries=", advice="Say how many: retries=5."
            )


def name_of(callback: object) -> str:
    """Name a callable without its repr, which can show secrets that are bound to it."""
    while isinstance(callback, functools.partial):
        callback = cast("functools.partial[object]", callback).func
    return getattr(callback, "__qualname__", None) or type(callback).__qualname__


def full_name_of(callback: object) -> str:
    """Name a callable with its module: the same in every run of a program."""
    while isinstance(callback, functools.partial):
        callback = cast("functools.partial[object]", callback).func
    module = getattr(callback, "__module__", None) or type(callback).__module__
    return f"{module}.{name_of(callback)}"


def is_async(callback: object) -> bool:
    """Tell whether calling a function makes a coroutine, as far as it shows."""
    return inspect.iscoroutinefunction(callback) or inspect.iscoroutinefunction(
        getattr(callback, "__call__", None)  # noqa: B004 -- an object whose class has an async one
    )


def described(callback: object) -> str:
    """Describe a callable by its name and those of its parameters, for an error's text."""
    try:
        # Not its signature as it is: defaults can hold what no error should show.
        return f"{name_of(callback)}({', '.join(inspect.signature(cast('Any', callback)).parameters)})"
    except (TypeError, ValueError):
        return name_of(callback)


def refuse_generator(what: str, callback: object) -> None:
    """See that a function runs when it is called.

    Raises:
        InvalidArgument: It has a ``yield``: a call of it makes a generator, and runs nothing.
    """
    bodies = (callback, getattr(callback, "__call__", None))  # noqa: B004 -- as in is_async
    if any(inspect.isgeneratorfunction(body) or inspect.isasyncgenfunction(body) for body in bodies):
        raise InvalidArgument(
            f"{what} {described(callback)} is a generator: to call it runs nothing. Leave out its yield."
        )


def check_callback(what: str, callback: object, *arguments: str) -> None:
    """See that a function can be called with these arguments by position, and runs by that.

    Raises:
        InvalidArgument: It cannot.
    """
    if not callable(callback):
        raise InvalidArgument(f"{what} must be callable, not {callback!r:.80}")
    refuse_generator(what, callback)
    try:
        signature = inspect.signature(callback)
    except (TypeError, ValueError):
        return  # A builtin that tells nothing about its parameters.
    try:
        signature.bind(*arguments)
    except TypeError:
        count = ("exactly one positional argument", *(f"{n} positional arguments" for n in _COUNTS))
        raise InvalidArgument(
            f"{what} {described(callback)} must take {count[len(arguments) - 1]}: {', '.join(arguments)}"
        ) from None


def _check_count(what: str, value: object, *, at_least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < at_least:
        raise InvalidArgument(f"{what} must be a whole number of {at_least} or more, not {value!r:.40}")


def _check_seconds(what: str, value: object, most: float) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= most:
        upto = f", {most:g} at most" if most < math.inf else ""
        raise InvalidArgument(f"{what} must be seconds greater than 0{upto}, not {value!r:.40}")
    if value == math.inf:
        raise InvalidArgument(f"{what} must be finite; leave it out for no limit")


_PLAIN = Policy()
