"""An OpenTelemetry SDK in memory."""

import asyncio
import math
from collections.abc import Callable
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, NumberDataPoint
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from bitrix_pull.otel import Telemetry


class Sdk:
    """An SDK in memory."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self._spans = InMemorySpanExporter()
        self.meter_provider = MeterProvider([self._reader])
        self.tracer_provider = TracerProvider()
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self._spans))

    def telemetry(self, **how: Any) -> Telemetry:
        """Return one that records each call, unless told otherwise."""
        how = {"recorded_per_s": math.inf, **how}
        return Telemetry(meter_provider=self.meter_provider, tracer_provider=self.tracer_provider, **how)

    @property
    def all_spans(self) -> tuple[ReadableSpan, ...]:
        return self._spans.get_finished_spans()

    @property
    def spans(self) -> dict[str, ReadableSpan]:
        return {span.name: span for span in self.all_spans}

    def points(self) -> dict[str, list[tuple[dict[str, Any], Any]]]:
        """Return the value, or of a histogram the count, of each metric by its attributes."""
        data = self._reader.get_metrics_data()
        if data is None:
            return {}
        return {
            metric.name: [
                (
                    dict(point.attributes or {}),
                    point.value if isinstance(point, NumberDataPoint) else point.count,
                )
                for point in metric.data.data_points
            ]
            for metric in data.resource_metrics[0].scope_metrics[0].metrics
        }

    def value(self, name: str, **attributes: str) -> Any:
        told = {key.replace("__", "."): value for key, value in attributes.items()}
        return sum(value for has, value in self.points().get(name, ()) if told.items() <= has.items())

    def shut_down(self) -> None:
        self.meter_provider.shutdown()
        self.tracer_provider.shutdown()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.02)
