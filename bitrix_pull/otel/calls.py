"""Calls of handlers: each is counted, some are recorded as a span and a duration."""

import math
import random
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextvars import ContextVar, Token
from dataclasses import dataclass, replace
from inspect import isawaitable
from time import perf_counter
from types import CoroutineType
from typing import Any, Final

from opentelemetry.context import Context, attach, detach
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context

from bitrix_pull.dispatch.binding import Bound
from bitrix_pull.dispatch.policy import full_name_of, is_async
from bitrix_pull.events import Event, PullEvent
from bitrix_pull.otel.attributes import SYSTEM, Attributes, Names, failed

SPARED: Final = ContextVar("bitrix_pull_spared", default=False)
"""True in what a call does that is not recorded: it makes no spans of its own either."""

_PROCESS: Final = {**SYSTEM, "messaging.operation.name": "process"}

Figure = tuple[str, float, Attributes]


class HandlerCalls:
    """What is counted of one handler's calls.

    Attributes:
        left: How many more calls are only counted, until one is recorded.
        done: Calls that have returned.
        seconds: How long all calls took together.
        retries: Calls that were not the first with an event.
        failed: Calls that have raised something, by its class.
        attributes: What its metrics have in common: one object, as many readings share it.
    """

    __slots__ = ("attributes", "done", "failed", "left", "retries", "seconds")

    def __init__(self, attributes: Attributes, left: int) -> None:
        self.left: int = left
        self.done: int = 0
        self.seconds: float = 0.0
        self.retries: int = 0
        self.failed: Counter[str] = Counter()
        self.attributes: Attributes = attributes

    def figures(self) -> Iterator[Figure]:
        """Yield what was counted, by the names of the metrics."""
        own = self.attributes
        yield "bitrix_pull.handler.calls", self.done, own
        for cause, count in self.failed.items():
            yield "bitrix_pull.handler.calls", count, failed(own, cause)
        yield "bitrix_pull.handler.time", self.seconds, own
        yield "bitrix_pull.handler.retries", self.retries, own


@dataclass(slots=True, frozen=True)
class Recording:
    """How calls are recorded that are.

    Attributes:
        share: How many of all calls, from 0 to 1.
        duration: Takes a duration in seconds.
        tracer: Makes spans; None: none are made.
        causes: Names errors.
    """

    share: float
    duration: Callable[[float, Attributes], None]
    tracer: Tracer | None
    causes: Names

    def skipped(self) -> int:
        """Return how many calls are only counted until the next that is recorded, by chance."""
        if self.share >= 1:
            return 0
        if self.share <= 0:
            return sys.maxsize
        return int(math.log(1.0 - random.random()) / math.log(1.0 - self.share))


class CallCounter:
    """Counts the calls of the handlers of one client, or of many together.

    Args:
        where: What all metrics and spans have beside what is said here.
        recording: How calls are recorded.
    """

    def __init__(self, where: Attributes, recording: Recording) -> None:
        self._where = where
        self._recording = recording
        self._calls: dict[str, HandlerCalls] = {}

    def figures(self) -> Iterator[Figure]:
        """Yield what was counted of all handlers."""
        for calls in list(self._calls.values()):
            yield from calls.figures()

    def wrap(self, bound: Bound[Any]) -> Bound[Any]:
        """Return a handler whose calls are counted here."""
        name = full_name_of(bound.handler.callback)
        calls = self._calls.get(name)
        if calls is None:
            attributes = {**_PROCESS, **self._where, "bitrix_pull.handler": name}
            calls = self._calls[name] = HandlerCalls(attributes, self._recording.skipped())
        # Where no event is given twice, none needs to be asked for how often it was.
        repeats = not bound.handler.policy.is_plain
        around = _around_async if is_async(bound.call) else _around_any
        return replace(bound, call=around(bound.call, calls, self._recording, repeats))


def _around_async(
    callback: Callable[[Any], Any], calls: HandlerCalls, recording: Recording, repeats: bool
) -> Callable[[Any], Awaitable[object]]:
    # Every event goes through here. What is not recorded costs it one coroutine, and no call
    # into the SDK: there a span that its sampler drops costs almost what one costs that it keeps.
    causes, spare = recording.causes, SPARED.set

    async def around(event: Event) -> object:
        if repeats and event.attempts > 1:
            calls.retries += 1
        left = calls.left
        if left:
            calls.left = left - 1
            spare(True)
            began_at = perf_counter()
            try:
                result: object = await callback(event)
            except BaseException as error:
                calls.seconds += perf_counter() - began_at
                calls.failed[causes.of(error)] += 1
                raise
            calls.seconds += perf_counter() - began_at
            calls.done += 1
            return result
        call = _Call(event, calls, recording)
        try:
            result = await callback(event)
        except BaseException as error:
            call.end(error)
            raise
        call.end(None)
        return result

    return around


def _around_any(
    callback: Callable[[Any], Any], calls: HandlerCalls, recording: Recording, repeats: bool
) -> Callable[[Any], object]:
    """Do the same around a function that may return something to await, or not."""

    def around(event: Event) -> object:
        if repeats and event.attempts > 1:
            calls.retries += 1
        call = _Call(event, calls, recording) if not calls.left else _Count(calls, recording)
        try:
            result: object = callback(event)
        except BaseException as error:
            call.end(error)
            raise
        if result is not None and (type(result) is CoroutineType or isawaitable(result)):
            return rest(result, call)
        call.end(None)
        return result

    async def rest(result: Any, call: "_Call | _Count") -> object:
        try:
            result = await result
        except BaseException as error:
            call.end(error)
            raise
        call.end(None)
        return result

    return around


class _Count:
    """A call that is counted."""

    __slots__ = ("_began_at", "_calls", "_causes")

    def __init__(self, calls: HandlerCalls, recording: Recording) -> None:
        calls.left -= 1
        SPARED.set(True)
        self._calls = calls
        self._causes = recording.causes
        self._began_at = perf_counter()

    def end(self, error: BaseException | None) -> None:
        """Count how it has come out."""
        self._calls.seconds += perf_counter() - self._began_at
        if error is None:
            self._calls.done += 1
        else:
            self._calls.failed[self._causes.of(error)] += 1


class _Call:
    """A call that is recorded too."""

    __slots__ = ("_began_at", "_calls", "_recording", "_span", "_token")

    def __init__(self, event: Event, calls: HandlerCalls, recording: Recording) -> None:
        calls.left = recording.skipped()
        SPARED.set(False)
        self._calls = calls
        self._recording = recording
        self._span: Span | None = None
        self._token: Token[Context] | None = None
        if recording.tracer is not None:
            self._span = span = _span(recording.tracer, event, calls.attributes)
            self._token = attach(set_span_in_context(span))
        self._began_at = perf_counter()

    def end(self, error: BaseException | None) -> None:
        """Record how it has come out."""
        calls, span = self._calls, self._span
        duration_s = perf_counter() - self._began_at
        calls.seconds += duration_s
        attributes = calls.attributes
        if error is None:
            calls.done += 1
        else:
            cause = self._recording.causes.of(error)
            calls.failed[cause] += 1
            attributes = failed(attributes, cause)
        # While its span is the present one: the SDK may keep which it was beside the duration.
        self._recording.duration(duration_s, attributes)
        if span is not None and self._token is not None:
            if error is not None:
                tell_failure(span, attributes["error.type"])
            detach(self._token)
            span.end()


def _span(tracer: Tracer, event: Event, attributes: Attributes) -> Span:
    told = event.log_fields
    about = {**attributes, "messaging.operation.type": "process", "messaging.destination.name": told["event"]}
    if isinstance(event, PullEvent):
        about["messaging.message.id"] = told["mid"]
    return tracer.start_span(f"process {told['event']}", kind=SpanKind.CONSUMER, attributes=about)


def tell_failure(span: Span, cause: str) -> None:
    """Say that what a span is of has failed."""
    span.set_attribute("error.type", cause)
    # Not its text: users' errors may hold what events carry.
    span.set_status(Status(StatusCode.ERROR, cause))
