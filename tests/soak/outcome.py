"""What a scenario has measured, and which promises it saw broken."""

import math
from collections.abc import Sequence
from typing import Any


class Outcome:
    """Figures by name, in the order in which they were noted."""

    def __init__(self) -> None:
        self.figures: dict[str, Any] = {}
        self.broken: list[str] = []
        self.late: list[str] = []
        """What real seconds have broken: beside a busy core, that may be another program's doing."""

    def __str__(self) -> str:
        figures = "  ".join(f"{name}={_written(value)}" for name, value in self.figures.items())
        return figures + "".join(f"\n  BROKEN: {promise}" for promise in (*self.broken, *self.late))

    def note(self, **figures: Any) -> None:
        """Note figures that promise nothing."""
        self.figures.update(figures)

    def promise(self, text: str, kept: bool) -> None:
        """Note that a promise was kept or broken; each is told once."""
        if not kept and text not in self.broken:
            self.broken.append(text)

    def at_most(self, limit: float, **figures: float) -> None:
        """Note figures that are promised not to exceed a limit."""
        self.note(**figures)
        for name, value in figures.items():
            self.promise(f"{name} <= {limit:g}", value <= limit)

    def in_time(self, limit: float, **figures: float) -> None:
        """Note real seconds that are promised not to exceed a limit, if nothing else runs here."""
        self.note(**figures)
        self.late += [f"{name} <= {limit:g}" for name, value in figures.items() if value > limit]

    def exactly(self, expected: Any, **figures: Any) -> None:
        """Note figures that are promised to be this."""
        self.note(**figures)
        for name, value in figures.items():
            self.promise(f"{name} == {expected}", value == expected)


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that so many percent of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def _written(value: Any) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
