"""What metrics and traces cost a message that is received, and what an SDK alone costs at the same."""

import asyncio
import math
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, Final

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, PeriodicExportingMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import SpanKind

from bitrix_pull import PullClient, PullEvent, PullOptions
from bitrix_pull.otel import Telemetry
from bitrix_pull.wire.formats import WireFormat
from tests.benchmarks.comparison import Comparison, Figures
from tests.benchmarks.flood import Load, flooding
from tests.benchmarks.receive import Meter, Portal

_MESSAGES = 200_000
_SPANS = 50_000
_COLLECT_MS: Final = 5_000

Watch = Callable[[PullClient], AbstractContextManager[object]]


def comparisons(scale: float) -> Iterable[Comparison]:
    """A client that is watched, 20 messages a frame, against one that is not; and an SDK on its own."""
    load = Load(WireFormat.PROTOBUF, max(int(_MESSAGES * scale), 20), 20)
    watches: dict[str, Watch] = {
        "metrics and traces": watched,
        "metrics": partial(watched, traces=False),
        "metrics and traces, each call recorded": partial(watched, recorded_per_s=math.inf),
        "metrics, each call recorded": partial(watched, recorded_per_s=math.inf, traces=False),
        "metrics and traces without handlers": partial(watched, handlers=False),
        "nothing (the noise)": unwatched,
    }
    for name, watch in watches.items():
        yield Comparison(
            f"{load.messages:,} received, {name}",
            partial(receive, load, watch),
            partial(receive, load, unwatched),
        )
    count = max(int(_SPANS * scale), 10)
    yield Comparison(
        f"the SDK alone, {count:,} spans and durations", partial(sdk_alone, count), partial(nothing, count)
    )


def receive(load: Load, watch: Watch) -> Figures:
    """Let a client receive, and give each message to an async handler."""
    return asyncio.run(_receive(load, watch))


async def _receive(load: Load, watch: Watch) -> Figures:
    meter = Meter(load.messages)
    async with flooding(load) as address:
        pull = PullClient(Portal(address, load.wire_format), options=PullOptions(start_timeout_s=60))

        @pull.on()
        async def handle(event: PullEvent) -> None:
            meter.message(event)

        with watch(pull):
            async with pull:
                await meter.done.wait()
    return {"cpu_us": meter.figures()["cpu_us"]}


@contextmanager
def unwatched(pull: PullClient) -> Any:
    """Leave a client alone."""
    yield


@contextmanager
def watched(pull: PullClient, **how: Any) -> Any:
    """Watch a client, with an SDK that collects and exports to nowhere."""
    with _sdk() as (meter_provider, tracer_provider):
        Telemetry(meter_provider=meter_provider, tracer_provider=tracer_provider, **how).watch(pull)
        yield


def sdk_alone(count: int) -> Figures:
    """Make a span and record a duration for each of so many turns of a loop."""
    with _sdk() as (meter_provider, tracer_provider):
        record = meter_provider.get_meter("bare").create_histogram("messaging.process.duration", "s").record
        start = tracer_provider.get_tracer("bare").start_as_current_span
        attributes = {"messaging.system": "bitrix24", "server.address": "acme", "handler": "app.handle"}
        began_s = time.process_time()
        for _ in range(count):
            with start("process", kind=SpanKind.CONSUMER, attributes=attributes):
                record(0.001, attributes)
        return {"cpu_us": (time.process_time() - began_s) / count * 1e6}


def nothing(count: int) -> Figures:
    """Turn the same loop."""
    began_s = time.process_time()
    for _ in range(count):
        pass
    return {"cpu_us": (time.process_time() - began_s) / count * 1e6}


@contextmanager
def _sdk() -> Any:
    reader = PeriodicExportingMetricReader(_NoMetrics(), export_interval_millis=_COLLECT_MS)
    meter_provider, tracer_provider = MeterProvider([reader]), TracerProvider()
    tracer_provider.add_span_processor(BatchSpanProcessor(_NoSpans()))
    try:
        yield meter_provider, tracer_provider
    finally:
        meter_provider.shutdown()
        tracer_provider.shutdown()


class _NoMetrics(MetricExporter):
    def export(self, metrics_data: Any, timeout_millis: float = 10_000, **kwargs: Any) -> MetricExportResult:
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return True

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None: ...


class _NoSpans(SpanExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS
