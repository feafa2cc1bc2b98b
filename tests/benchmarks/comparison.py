"""What a benchmark is made of."""

import resource
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

Figures = Mapping[str, float]
"""What one run has measured, by names that hold the unit: ``cpu_us``, ``peak_mib``."""

Run = Callable[[], Figures]
"""Measures once. It goes to another process, so it is a module's function or a ``partial`` of one."""


@dataclass(slots=True, frozen=True)
class Comparison:
    """Two things that do the same work.

    Attributes:
        name: What work that is.
        ours: This package at it.
        bare: What it is held against.
    """

    name: str
    ours: Run
    bare: Run


Benchmark = Callable[[float], Iterable[Comparison]]
"""What a module of this folder offers: its comparisons at a scale, 1.0 being the full size."""


def peak_mib() -> float:
    """Return the most memory that this process has held."""
    return _status_mib("VmHWM")


def resident_mib() -> float:
    """Return the memory that this process holds now."""
    return _status_mib("VmRSS")


def _status_mib(field: str) -> float:
    """Return a field of what Linux tells about this process; elsewhere the peak is all there is."""
    try:
        # Not by getrusage: there a process begins with the peak of the one that started it.
        with open("/proc/self/status", encoding="ascii") as status:
            return next(int(line.split()[1]) for line in status if line.startswith(field)) / 1024
    except OSError:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most / (1024 * 1024 if sys.platform == "darwin" else 1024)
