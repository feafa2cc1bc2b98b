"""Many portals in one process."""

import json
import subprocess
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager

from tests.soak.outcome import Outcome

_WINDOW_S = 10.0
"""Over how long a rate is counted: a busy machine holds things up for a second, and lets them go together."""


def hub_embedded(
    portals: int = 3_000,
    rate: float = 60.0,
    idle_s: float = 30.0,
    live_s: float = 60.0,
    kib: float = 45.0,
    cpu_percent: float = 4.0,
) -> Outcome:
    """3,000 portals on one process: soon live, never faster than the rate, and cheap while idle."""
    outcome = Outcome()
    with _cloud(portals) as (cloud, told):
        bare = _held("bare", told, rate, idle_s)
        _starts(cloud)
        hub = _held("hub", told, rate, idle_s)
        asked, connected = _starts(cloud)
    outcome.note(portals=portals, kib_bare=bare["kib"], cpu_percent_bare=bare["cpu_percent"])
    outcome.exactly(portals, still_live=int(hub["still_live"]))
    outcome.at_most(live_s, live_s=hub["live_s"])
    outcome.at_most(kib, kib_over_bare=hub["kib"] - bare["kib"])
    outcome.at_most(cpu_percent, idle_cpu_percent=hub["cpu_percent"])
    outcome.at_most(
        rate * 1.05, asked_per_s=_busiest(asked, portals), connected_per_s=_busiest(connected, portals)
    )
    return outcome


def _held(how: str, told: str, rate: float, idle_s: float) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.soak.hub_holder", how, str(rate), str(idle_s)]
    done = subprocess.run(command, input=told, stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def _starts(cloud: "subprocess.Popen[str]") -> tuple[list[float], list[float]]:
    assert cloud.stdin is not None
    assert cloud.stdout is not None
    cloud.stdin.write("starts\n")
    cloud.stdin.flush()
    answer = json.loads(cloud.stdout.readline())
    return answer["asked"], answer["connected"]


def _busiest(moments: Sequence[float], count: int) -> float:
    """Return the rate in the busiest seconds."""
    assert len(moments) >= count
    ordered = sorted(moments)
    window_s = min(_WINDOW_S, ordered[-1] - ordered[0])
    first, most = 0, 0
    for last, moment in enumerate(ordered):
        while moment - ordered[first] > window_s:
            first += 1
        most = max(most, last - first)
    return most / window_s


@contextmanager
def _cloud(portals: int) -> Generator[tuple["subprocess.Popen[str]", str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.soak.hub_cloud", str(portals)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline()
    finally:
        process.kill()
        process.communicate()
