"""Runs two things in turn, each time in a process of its own, and compares the medians."""

import json
import pickle
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.benchmarks.comparison import Comparison, Figures, Run


@dataclass(slots=True, frozen=True)
class Result:
    """The medians of a comparison's rounds, figure by figure."""

    name: str
    ours: Figures
    bare: Figures

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values, with what follows from the medians."""
        return {
            "name": self.name,
            "figures": {
                figure: {
                    "ours": self.ours[figure],
                    "bare": self.bare[figure],
                    "ratio": ratio(self.ours[figure], self.bare[figure]),
                    "difference": self.ours[figure] - self.bare[figure],
                }
                for figure in self.ours
            },
        }


def compare(comparison: Comparison, rounds: int) -> Result:
    """Let both run in turn, so that what else the machine does befalls both."""
    ours: list[Figures] = []
    bare: list[Figures] = []
    for _ in range(rounds):
        bare.append(run_apart(comparison.bare))
        ours.append(run_apart(comparison.ours))
    return Result(comparison.name, _medians(ours), _medians(bare))


def run_apart(run: Run) -> Figures:
    """Measure in a fresh process: nothing of an earlier run is in its memory or its caches."""
    command = [sys.executable, "-m", "tests.benchmarks.apart"]
    done = subprocess.run(command, input=pickle.dumps(run), stdout=subprocess.PIPE, check=True)
    figures: Figures = json.loads(done.stdout)
    return figures


def table(results: Sequence[Result]) -> str:
    """Return the results for people."""
    rows = [("", "", "ours", "bare", "ratio", "difference")]
    for result in results:
        for figure, ours in result.ours.items():
            bare = result.bare[figure]
            numbers = (f"{ours:,.2f}", f"{bare:,.2f}", f"{ratio(ours, bare):.2f}", f"{ours - bare:+,.2f}")
            rows.append((result.name if figure == next(iter(result.ours)) else "", figure, *numbers))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def ratio(ours: float, bare: float) -> float:
    """Return how many times the bare thing ours is."""
    return ours / bare if bare else float("inf")


def _medians(runs: Sequence[Figures]) -> Figures:
    return {figure: statistics.median(run[figure] for run in runs) for figure in runs[0]}
