"""All benchmarks by the names that the command knows."""

from tests.benchmarks import handlers, latency, publish, receive, start, streams, telemetry
from tests.benchmarks.comparison import Benchmark

BENCHMARKS: dict[str, Benchmark] = {
    "receive": receive.comparisons,
    "handlers": handlers.comparisons,
    "latency": latency.comparisons,
    "streams": streams.comparisons,
    "publish": publish.comparisons,
    "start": start.comparisons,
    "telemetry": telemetry.comparisons,
}
