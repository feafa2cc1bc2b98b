"""Metrics and traces by OpenTelemetry. It needs the extra "otel", and an SDK that your program sets up.

Without it nothing is measured: figures are read from ``health()`` when they are collected, and
what is around handlers, calls and publishing is put there by ``Telemetry.watch`` alone.
"""

from collections.abc import Callable, Coroutine, Generator, Iterable
from contextlib import AbstractContextManager, contextmanager
from time import perf_counter
from typing import Any, Final
from weakref import WeakSet

from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation, get_meter
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, TracerProvider, get_tracer

from bitrix_pull.client import PullClient, put_around, reception_of, rest_of
from bitrix_pull.dispatch.registry import CallNext, Context
from bitrix_pull.errors import InvalidArgument
from bitrix_pull.events import Event, Notice, PullEvent, State, StateChanged
from bitrix_pull.health import Health
from bitrix_pull.publish.receipt import Receipt
from bitrix_pull.telemetry import METRICS

_NAME: Final = "bitrix_pull"
_SYSTEM: Final = {"messaging.system": "bitrix24"}

Attributes = dict[str, Any]
Middleware = Callable[[Event, CallNext, Context], Coroutine[Any, Any, object]]


class Telemetry:
    """Gives the figures of clients to OpenTelemetry, and makes spans of what they do.

    ``telemetry.METRICS`` lists the metrics. Spans are made of each call of a handler, of each
    publish call and of each REST call; one that caused another is its parent. No attribute
    holds a secret, or what events carry.

    Example:
        telemetry = Telemetry()
        telemetry.watch(pull)

    Args:
        meter_provider: Of your SDK; None: the global one.
        tracer_provider: The same for traces.
        traces: False to make no spans.
        handlers: False to measure no calls of handlers, which is what costs something an event:
            some microseconds each for a duration, and more for a span. All else costs nothing.
    """

    def __init__(
        self,
        *,
        meter_provider: MeterProvider | None = None,
        tracer_provider: TracerProvider | None = None,
        traces: bool = True,
        handlers: bool = True,
    ) -> None:
        self._handlers = handlers
        self._clients: WeakSet[PullClient] = WeakSet()
        self._tracer = get_tracer(_NAME, tracer_provider=tracer_provider) if traces else None
        meter = get_meter(_NAME, meter_provider=meter_provider)
        for name, observe in _OBSERVED.items():
            metric = METRICS[name]
            make = (
                meter.create_observable_counter if metric.kind == "counter" else meter.create_observable_gauge
            )
            make(name, [self._observed(observe)], metric.unit, metric.about)

        def histogram(name: str) -> Callable[[float, Attributes], None]:
            return meter.create_histogram(name, METRICS[name].unit, METRICS[name].about).record

        def counter(name: str) -> Callable[[int, Attributes], None]:
            return meter.create_counter(name, METRICS[name].unit, METRICS[name].about).add

        self._handled = histogram("messaging.process.duration")
        self._published = histogram("messaging.client.operation.duration")
        self._called = histogram("bitrix_pull.rest.duration")
        self._sent = counter("messaging.client.sent.messages")
        self._retried = counter("bitrix_pull.handler.retries")
        self._disconnected = counter("bitrix_pull.disconnects")

    def watch(self, client: PullClient) -> None:
        """Give the figures of a client from now on, once it is started. Each client is watched once.

        Raises:
            InvalidArgument: It is none, or is watched already.
        """
        if not isinstance(client, PullClient):
            raise InvalidArgument(f"watch() takes a PullClient, not {type(client).__name__}")
        if client in self._clients:
            raise InvalidArgument("this client is watched already")
        self._clients.add(client)
        where: Attributes = {"server.address": client.portal}

        def publishing(name: str) -> AbstractContextManager[Callable[[Any], None]]:
            return self._publishing(where, name)

        def calling(name: str) -> AbstractContextManager[Callable[[Any], None]]:
            return self._calling(where, name)

        def note(notice: Notice) -> None:
            if isinstance(notice, StateChanged) and notice.state is State.BACKOFF:
                cause = type(notice.error).__name__ if notice.error is not None else "unknown"
                self._disconnected(1, {**where, "error.type": cause})

        put_around(client, publishing, calling)
        reception_of(client).notices.taps.append(note)
        if self._handlers:
            client.middleware(self._around_handlers(where))

    def _observed(
        self, observe: "Callable[[PullClient, Health], Iterable[tuple[float, Attributes]]]"
    ) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def callback(_: CallbackOptions) -> Iterable[Observation]:
            for client in list(self._clients):
                where = {**_SYSTEM, "server.address": client.portal}
                for value, attributes in observe(client, client.health()):
                    yield Observation(value, {**where, **attributes})

        return callback

    # -- what is around ---------------------------------------------------------------

    def _around_handlers(self, where: Attributes) -> Middleware:
        """Return what is around each call of a handler: the one thing here that costs something an event."""
        known: dict[str, Attributes] = {}
        record, tracer = self._handled, self._tracer

        async def around(event: Event, call_next: CallNext, context: Context) -> object:
            handler = context.handler
            if (attributes := known.get(handler)) is None:
                attributes = known[handler] = {**_SYSTEM, **where, "bitrix_pull.handler": handler}
            if event.attempts > 1:
                self._retried(1, attributes)
            if tracer is not None:
                told = event.log_fields
                name, about = f"process {told['event']}", {"messaging.destination.name": told["event"]}
                if isinstance(event, PullEvent):
                    about["messaging.message.id"] = told["mid"]
                with self._measured(record, dict(attributes), name, SpanKind.CONSUMER, about):
                    return await call_next(event)
            began_at = perf_counter()
            try:
                result = await call_next(event)
            except BaseException as error:
                record(perf_counter() - began_at, {**attributes, "error.type": type(error).__name__})
                raise
            record(perf_counter() - began_at, attributes)
            return result

        return around

    @contextmanager
    def _publishing(self, where: Attributes, route: str) -> Generator[Callable[[Any], None]]:
        attributes = {**where, "bitrix_pull.route": route}
        with self._measured(self._published, attributes, "send", SpanKind.PRODUCER, {}) as span:

            def tell(receipt: Receipt) -> None:
                attributes["bitrix_pull.route"] = receipt.route
                failures = receipt.failures
                if accepted := len(receipt.fates) - len(failures):
                    self._sent(accepted, dict(attributes))
                for fate in failures:
                    cause = type(fate.error).__name__ if fate.error is not None else fate.outcome
                    self._sent(1, {**attributes, "error.type": cause})
                if span is not None:
                    span.set_attribute("messaging.batch.message_count", len(receipt.fates))

            yield tell

    @contextmanager
    def _calling(self, where: Attributes, method: str) -> Generator[Callable[[Any], None]]:
        attributes = {**where, "bitrix_pull.method": method}
        with self._measured(self._called, attributes, f"call {method}", SpanKind.CLIENT, {}):
            yield _nobody

    @contextmanager
    def _measured(
        self,
        record: Callable[[float, Attributes], None],
        attributes: Attributes,
        name: str,
        kind: SpanKind,
        told: Attributes,
    ) -> Generator[Span | None]:
        """Measure a block and make a span of it, with its attributes as they are in the end."""
        began_at = perf_counter()
        try:
            if self._tracer is None:
                yield None
                return
            with self._tracer.start_as_current_span(
                name, kind=kind, record_exception=False, set_status_on_exception=False
            ) as span:
                try:
                    yield span
                except BaseException as error:
                    attributes["error.type"] = type(error).__name__
                    # Not its text: users' errors may hold what events carry.
                    span.set_status(Status(StatusCode.ERROR, type(error).__name__))
                    raise
                finally:
                    span.set_attributes({**_SYSTEM, **attributes, **told})
        except BaseException as error:
            attributes["error.type"] = type(error).__name__
            raise
        finally:
            record(perf_counter() - began_at, {**_SYSTEM, **attributes})


def _nobody(_: object) -> None:
    """Take no note of a result."""


def _one(value: float) -> Iterable[tuple[float, Attributes]]:
    return ((value, {}),)


_OBSERVED: dict[str, Callable[[PullClient, Health], Iterable[tuple[float, Attributes]]]] = {
    "messaging.client.consumed.messages": lambda _, health: _one(health.received),
    "bitrix_pull.handler.failures": lambda _, health: _one(health.handler_failures),
    "bitrix_pull.duplicates": lambda _, health: _one(health.duplicates),
    "bitrix_pull.malformed": lambda _, health: _one(health.malformed),
    "bitrix_pull.ignored": lambda _, health: _one(health.ignored),
    "bitrix_pull.healed": lambda _, health: _one(health.healed),
    "bitrix_pull.dropped": lambda _, health: _one(health.dropped),
    "bitrix_pull.unrouted": lambda _, health: _one(sum(health.unrouted.values())),
    "bitrix_pull.gaps": lambda _, health: _one(health.gaps),
    "bitrix_pull.connects": lambda _, health: _one(health.connects),
    "bitrix_pull.live": lambda _, health: _one(int(health.live)),
    "bitrix_pull.state": lambda _, health: (
        (int(state is health.state), {"bitrix_pull.state": state.value}) for state in State
    ),
    "bitrix_pull.silence": lambda _, health: () if health.silent_for_s is None else _one(health.silent_for_s),
    "bitrix_pull.lag": lambda _, health: _one(health.lag_s),
    "bitrix_pull.inbox.events": lambda _, health: _one(health.waiting),
    "bitrix_pull.inbox.size": lambda _, health: _one(health.waiting_bytes),
    "bitrix_pull.store.failing": lambda _, health: _one(int(bool(health.store.error))),
    "bitrix_pull.rest.waited": lambda client, _: _one(rest_of(client).waited_s),
    "bitrix_pull.token.refreshes": lambda client, _: _one(rest_of(client).token_refreshes),
}
"""What is read when figures are collected."""
