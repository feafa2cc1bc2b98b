"""``Telemetry``: what users make, and let watch their clients and hubs."""

import math
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from time import perf_counter
from typing import Any
from weakref import WeakKeyDictionary, ref

from opentelemetry.metrics import CallbackOptions, Meter, MeterProvider, Observation, get_meter
from opentelemetry.trace import Span, SpanKind, Tracer, TracerProvider, get_tracer

from bitrix_pull.client import PullClient, runs_of
from bitrix_pull.errors import InvalidArgument
from bitrix_pull.events import Notice
from bitrix_pull.hub.hub import Hub, follow_clients
from bitrix_pull.otel.attributes import Attributes, Names, failed
from bitrix_pull.otel.calls import SPARED, CallCounter, Recording, tell_failure
from bitrix_pull.otel.figures import Clients
from bitrix_pull.otel.hubs import HubFigures
from bitrix_pull.otel.reading import Loop, Reader, Source
from bitrix_pull.publish.receipt import Receipt
from bitrix_pull.telemetry import METRICS, Around

_NAME = "bitrix_pull"

Record = Callable[[float, Attributes], None]


class Telemetry:
    """Gives the figures of clients and hubs to OpenTelemetry, and makes spans of what they do.

    ``telemetry.METRICS`` lists the metrics. Spans are made of calls of handlers, of each publish
    call and of each REST call; one that caused another is its parent. No attribute holds a
    secret, or what events carry, and each has few values.

    All is counted, also what is not recorded: what happens often is counted in plain figures,
    which are read on the client's event loop when the SDK collects, in whichever thread it does.
    To record a call as a span and a duration costs what the SDK takes for it, several times what
    it takes to receive a message; so where messages come by the thousand, some are recorded.

    Example:
        telemetry = Telemetry()
        telemetry.watch(pull)

    Args:
        meter_provider: Of your SDK; None: the global one.
        tracer_provider: The same for traces.
        traces: False to make no spans.
        handlers: False to count and record no calls of handlers.
        recorded_per_s: How many calls of each handler a second are recorded: those have a span,
            and a place in ``messaging.process.duration``. Where there are fewer, all are; of a
            burst it is the first one and then one after each equal part of the second. 0: none
            is; ``math.inf``: each one. What a call does that is not recorded, publishing and REST
            calls, has no span of ours either. Your tracer's own sampler comes after this, and
            saves less: ours asks it only for these.

    Raises:
        InvalidArgument: ``recorded_per_s`` is no such number.
    """

    def __init__(
        self,
        *,
        meter_provider: MeterProvider | None = None,
        tracer_provider: TracerProvider | None = None,
        traces: bool = True,
        handlers: bool = True,
        recorded_per_s: float = 100.0,
    ) -> None:
        if (
            isinstance(recorded_per_s, bool)
            or not isinstance(recorded_per_s, int | float)
            or not recorded_per_s >= 0
        ):
            raise InvalidArgument(f"recorded_per_s must be 0 or more, not {recorded_per_s!r:.40}")
        self._handlers = handlers
        self._tracer: Tracer | None = get_tracer(_NAME, tracer_provider=tracer_provider) if traces else None
        self._causes = Names()
        self._methods = Names()
        self._clients: WeakKeyDictionary[PullClient, Clients] = WeakKeyDictionary()
        self._hubs: WeakKeyDictionary[Hub, tuple[Source, ...]] = WeakKeyDictionary()
        self._reader = Reader(self._sources)
        meter = get_meter(_NAME, meter_provider=meter_provider)
        for name, metric in METRICS.items():
            if metric.kind == "counter":
                meter.create_observable_counter(name, [self._observed(name)], metric.unit, metric.about)
            elif metric.kind == "gauge":
                meter.create_observable_gauge(name, [self._observed(name)], metric.unit, metric.about)
        self._published = _histogram(meter, "messaging.client.operation.duration")
        self._called = _histogram(meter, "bitrix_pull.rest.duration")
        handled = _histogram(meter, "messaging.process.duration")
        apart_s = 1 / recorded_per_s if recorded_per_s else math.inf
        self._recording = Recording(apart_s, handled, self._tracer, self._causes)

    def watch(self, watched: PullClient | Hub, *, portals: bool = False) -> None:
        """Give the figures of a client or a hub from now on, once it is started. Each is watched once.

        Args:
            watched: What to watch.
            portals: Of a hub: True to tell the figures of each portal on its own. Each metric
                then has as many series as this worker has portals; without it they are those of
                all together, the greatest of lag and silence, and the rest added up.

        Raises:
            InvalidArgument: It is neither, or is watched already.
        """
        if not isinstance(watched, PullClient | Hub):
            raise InvalidArgument(f"watch() takes a PullClient or a Hub, not {type(watched).__name__}")
        if watched in self._clients or watched in self._hubs:
            raise InvalidArgument("this client or hub is watched already")
        if isinstance(watched, PullClient):
            self._begin(watched, self._alone(watched))
        else:
            self._follow(watched, each=portals)

    def _alone(self, client: PullClient) -> Clients:
        weak = ref(client)
        return self._figures({"server.address": client.portal}, lambda: _loop_of(weak))

    def _figures(self, where: Attributes, loop: Callable[[], Loop | None]) -> Clients:
        calls = CallCounter(where, self._recording) if self._handlers else None
        return Clients(where, loop, calls, self._causes)

    def _follow(self, hub: Hub, *, each: bool) -> None:
        whole = HubFigures(hub)
        together = self._figures({}, lambda: whole.loop)
        self._hubs[hub] = (whole,) if each else (whole, together)

        def begun(client: PullClient) -> None:
            self._begin(client, self._alone(client) if each else together)

        follow_clients(hub, begun, self._end)

    def _begin(self, client: PullClient, figures: Clients) -> None:
        """Put around a client what counts and records."""
        self._clients[client] = figures
        figures.add(client)
        runs = runs_of(client)
        reception = runs.reception
        weak = ref(client)

        def note(notice: Notice) -> None:
            if (noted := weak()) is not None:
                figures.note(noted, notice)

        reception.notices.taps.append(note)
        if figures.calls is not None:
            reception.stream.wrap(figures.calls.wrap)
            reception.portal_feed.dispatcher.wrap(figures.calls.wrap)
        runs.around_publishing, runs.rest.around = self._publishing(figures), self._calling(figures)

    def _end(self, client: PullClient) -> None:
        figures = self._clients.pop(client, None)
        if figures is not None:
            figures.remove(client)

    def _sources(self) -> Iterable[Source]:
        while True:
            try:
                hubs = [source for sources in self._hubs.values() for source in sources]
                return dict.fromkeys([*hubs, *self._clients.values()])
            except RuntimeError:
                pass  # A hub's loop has added a client, and this is another thread.

    def _observed(self, name: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def callback(_: CallbackOptions) -> Iterable[Observation]:
            return [Observation(value, attributes) for value, attributes in self._reader.values(name)]

        return callback

    # -- what is around publishing and calls ---------------------------------------------

    def _publishing(self, figures: Clients) -> Around:
        @contextmanager
        def around(name: str) -> Generator[Callable[[Any], None]]:
            own: Attributes = {"bitrix_pull.route": name}
            with self._measured(
                self._published, "send", SpanKind.PRODUCER, figures.where, own, "send"
            ) as span:

                def tell(receipt: Receipt) -> None:
                    own["bitrix_pull.route"] = receipt.route
                    failures = receipt.failures
                    if accepted := len(receipt.given) - len(failures):
                        figures.sent[receipt.route, ""] += accepted
                    for fate in failures:
                        cause = self._causes.of(fate.error) if fate.error is not None else fate.outcome
                        figures.sent[receipt.route, cause] += 1
                    if span is not None:
                        span.set_attribute("messaging.batch.message_count", len(receipt.given))

                yield tell

        return around

    def _calling(self, figures: Clients) -> Around:
        @contextmanager
        def around(name: str) -> Generator[Callable[[Any], None]]:
            method = self._methods.bounded(name)
            own: Attributes = {"bitrix_pull.method": method}
            with self._measured(self._called, f"call {method}", SpanKind.CLIENT, figures.where, own):
                yield _nobody

        return around

    @contextmanager
    def _measured(
        self,
        record: Record,
        name: str,
        kind: SpanKind,
        where: Attributes,
        own: Attributes,
        operation: str = "",
    ) -> Generator[Span | None]:
        """Measure a block and make a span of it, with its own attributes as they are in the end."""
        tracer = None if SPARED.get() else self._tracer
        always = {**where, "messaging.operation.name": operation} if operation else where
        began_at = perf_counter()
        with _span(tracer, name, kind, always, own) as span:
            try:
                yield span
            except BaseException as error:
                own |= failed({}, self._causes.of(error))
                raise
            finally:
                # While its span is the present one: the SDK may keep which it was beside the duration.
                record(perf_counter() - began_at, {**always, **own})


@contextmanager
def _span(
    tracer: Tracer | None, name: str, kind: SpanKind, always: Attributes, own: Attributes
) -> Generator[Span | None]:
    if tracer is None:
        yield None
        return
    with tracer.start_as_current_span(
        name, kind=kind, attributes=always, record_exception=False, set_status_on_exception=False
    ) as span:
        try:
            yield span
        finally:
            span.set_attributes(own)
            if (cause := own.get("error.type")) is not None:
                tell_failure(span, cause)


def _histogram(meter: Meter, name: str) -> Record:
    metric = METRICS[name]
    return meter.create_histogram(name, metric.unit, metric.about).record


def _loop_of(client: "ref[PullClient]") -> Loop | None:
    found = client()
    return None if found is None else runs_of(found).run.loop


def _nobody(_: object) -> None:
    """Take no note of a result."""
