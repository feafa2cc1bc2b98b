"""Calls of handlers: each is counted, some are recorded as a span and a duration."""

import math
from collections.abc import Awaitable, Callable, Iterator
from contextvars import ContextVar, Token
from dataclasses import dataclass, replace
from inspect import isawaitable
from time import perf_counter
from types import CoroutineType
from typing import Any, Final, cast

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
        begun: How many calls there were.
        retries: Calls that were not the first with an event.
        record_from: From when on a call is recorded, by ``perf_counter``: those before are only counted.
        attributes: What its metrics have in common: one object, as many readings share it.
    """

    __slots__ = ("attributes", "begun", "record_from", "retries")

    def __init__(self, attributes: Attributes, record_from: float) -> None:
        self.begun: int = 0
        self.retries: int = 0
        self.record_from: float = record_from
        self.attributes: Attributes = attributes

    def figures(self) -> Iterator[Figure]:
        """Yield what was counted, by the names of the metrics."""
        yield "bitrix_pull.handler.calls", self.begun, self.attributes
        yield "bitrix_pull.handler.retries", self.retries, self.attributes


@dataclass(slots=True, frozen=True)
class Recording:
    """How calls are recorded that are.

    Attributes:
        apart_s: How long after one call of a handler the next is recorded; infinite: none is.
        duration: Takes a duration in seconds.
        tracer: Makes spans; None: none are made.
        causes: Names errors.
    """

    apart_s: float
    duration: Callable[[float, Attributes], None]
    tracer: Tracer | None
    causes: Names


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
        self._full_names: dict[str, str] = {}

    def full_name(self, name: str) -> str:
        """Return what a handler is called in metrics, by what it is called in notices."""
        return self._full_names.get(name, name)

    def figures(self) -> Iterator[Figure]:
        """Yield what was counted of all handlers."""
        for calls in list(self._calls.values()):
            yield from calls.figures()

    def wrap(self, bound: Bound[Any]) -> Bound[Any]:
        """Return a handler whose calls are counted here."""
        handler = bound.handler
        name = full_name_of(handler.callback)
        if self._full_names.setdefault(handler.name, name) != name:
            # Two of one name in two modules: notices do not tell which is meant.
            self._full_names[handler.name] = handler.name
        calls = self._calls.get(name)
        if calls is None:
            attributes = {**_PROCESS, **self._where, "bitrix_pull.handler": name}
            never = math.isinf(self._recording.apart_s)
            calls = self._calls[name] = HandlerCalls(attributes, math.inf if never else -math.inf)
        # Where no event is given twice, none needs to be asked for how often it was.
        repeats = not handler.policy.is_plain
        return replace(bound, call=_around(bound.call, calls, self._recording, repeats))


def _around(
    callback: Callable[[Any], Any], calls: HandlerCalls, recording: Recording, repeats: bool
) -> Callable[[Any], Any]:
    # Every event goes through here. What is not recorded costs it no coroutine, and no call into the
    # SDK: there a span that its sampler drops costs almost what one costs that it keeps.
    record = (_recorded if is_async(callback) else _recorded_any)(callback, calls, recording)
    spare = SPARED.set

    def around(event: Event) -> Any:
        if repeats and event.attempts > 1:
            calls.retries += 1
        calls.begun += 1
        if perf_counter() < calls.record_from:
            spare(True)
            return callback(event)
        return record(event)

    return around


def _recorded(
    callback: Callable[[Any], Any], calls: HandlerCalls, recording: Recording
) -> Callable[[Any], Awaitable[object]]:
    async def record(event: Event) -> object:
        call = _Call(event, calls, recording)
        return await call.rest(callback(event))

    return record


def _recorded_any(
    callback: Callable[[Any], Any], calls: HandlerCalls, recording: Recording
) -> Callable[[Any], object]:
    """Do the same with a function that may return something to await, or not."""

    def record(event: Event) -> object:
        call = _Call(event, calls, recording)
        try:
            result: object = callback(event)
        except BaseException as error:
            call.end(error)
            raise
        if result is not None and (type(result) is CoroutineType or isawaitable(result)):
            return call.rest(cast("Awaitable[object]", result))
        call.end(None)
        return result

    return record


class _Call:
    """A call that is recorded."""

    __slots__ = ("_began_at", "_calls", "_recording", "_span", "_token")

    def __init__(self, event: Event, calls: HandlerCalls, recording: Recording) -> None:
        SPARED.set(False)
        self._calls = calls
        self._recording = recording
        self._span: Span | None = None
        self._token: Token[Context] | None = None
        if recording.tracer is not None:
            self._span = span = _span(recording.tracer, event, calls.attributes)
            self._token = attach(set_span_in_context(span))
        self._began_at = began_at = perf_counter()
        calls.record_from = began_at + recording.apart_s

    async def rest(self, awaited: Awaitable[object]) -> object:
        """Await the rest of it."""
        try:
            result = await awaited
        except BaseException as error:
            self.end(error)
            raise
        self.end(None)
        return result

    def end(self, error: BaseException | None) -> None:
        """Record how it has come out."""
        duration_s = perf_counter() - self._began_at
        span, attributes = self._span, self._calls.attributes
        if error is not None:
            attributes = failed(attributes, self._recording.causes.of(error))
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
