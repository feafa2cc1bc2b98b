"""Metrics and traces by OpenTelemetry. It needs the extra "otel", and an SDK that your program sets up.

Without it nothing is measured. With it, what happens often is counted in plain figures, which are
read when they are collected; and what is around handlers, calls and publishing is put there by
``Telemetry.watch`` alone.
"""

from bitrix_pull.otel.telemetry import Telemetry

__all__ = ["Telemetry"]
