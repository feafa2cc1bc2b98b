"""Each benchmark runs; how fast is another matter."""

import json
import math
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor

import pytest

from tests.benchmarks.catalogue import BENCHMARKS
from tests.benchmarks.comparison import Comparison
from tests.forked import context

SCALE = 0.001
SMOKE = [
    pytest.param(comparison, id=f"{name}: {comparison.name}")
    for name, benchmark in BENCHMARKS.items()
    for comparison in list(benchmark(SCALE))[::5]
]


@pytest.mark.parametrize("comparison", SMOKE)
def test_it_runs(comparison: Comparison) -> None:
    # As the command does, but forked: below, a fresh interpreter for each is shown to do.
    with ProcessPoolExecutor(1, mp_context=context) as apart:
        ours, bare = apart.submit(comparison.ours).result(), apart.submit(comparison.bare).result()
    assert ours.keys() == bare.keys()
    assert all(math.isfinite(figure) for figures in (ours, bare) for figure in figures.values())


def test_the_command_tells_how_to_call_it() -> None:
    command = [sys.executable, "-m", "tests.benchmarks", "--help"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    assert all(name in done.stdout for name in BENCHMARKS)


def test_the_command_prints_one_object_a_comparison() -> None:
    command = [
        sys.executable,
        "-m",
        "tests.benchmarks",
        "latency",
        "--rounds",
        "1",
        "--scale",
        "0.001",
        "--json",
    ]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    (line,) = done.stdout.splitlines()
    result = json.loads(line)
    assert result["benchmark"] == "latency"
    assert result["figures"]["p50_ms"].keys() == {"ours", "bare", "ratio", "difference"}
