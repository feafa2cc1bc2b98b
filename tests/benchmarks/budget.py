"""Holds what a message costs against what it cost when the baseline was recorded."""

import json
import platform
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

BASELINE = Path(__file__).with_name("baseline.json")
TOLERANCE = 0.03
"""By how much a message may cost more."""

_SAME_BUILD = 0.02
"""How far the yardstick may be off: one build's own counts differ by up to 1.1 %."""

_PACKAGES = ("aiohttp", "orjson", "protobuf", "pydantic", "websockets", "yarl")
"""What the hot path runs through beside this package."""


@dataclass(slots=True, frozen=True)
class Counts:
    """The instructions that were counted with one interpreter.

    Attributes:
        yardstick: What a turn of some fixed Python takes: it differs from build to build, and no
            change of this package moves it.
        instructions: What a message takes, by the name of the work.
        packages: The versions of the packages whose instructions are among them.
    """

    yardstick: float
    instructions: Mapping[str, float]
    packages: Mapping[str, str]

    def least(self, again: "Counts") -> "Counts":
        """Return what each work takes at least, by this count and another of the same build.

        Timers that fire while a busy machine holds the counted process up are counted too; they make
        one count dearer, where a change of the code makes each.
        """
        least = {name: min(cost, again.instructions[name]) for name, cost in self.instructions.items()}
        return Counts(self.yardstick, least, self.packages)


class NoBaselineError(Exception):
    """There is nothing to compare with; the text says why."""


def interpreter() -> str:
    """Return the name that this interpreter's baseline goes by."""
    return (
        f"{platform.python_implementation()} {sys.version_info[0]}.{sys.version_info[1]} {platform.machine()}"
    )


def packages() -> dict[str, str]:
    """Return the versions of the packages here that a message runs through."""
    return {name: version(name) for name in _PACKAGES}


def load(path: Path, name: str) -> Counts:
    """Return what was recorded for an interpreter.

    Raises:
        NoBaselineError: Nothing was.
    """
    recorded = _read(path)
    if name not in recorded:
        raise NoBaselineError(f"no baseline was recorded for {name}")
    return Counts(**recorded[name])


def _read(path: Path) -> dict[str, Any]:
    recorded: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return recorded


def save(path: Path, name: str, counts: Counts) -> None:
    """Record an interpreter's counts beside those of others."""
    recorded = _read(path)
    recorded[name] = asdict(counts)
    path.write_text(json.dumps(recorded, indent=2, sort_keys=True) + "\n")


def over_budget(recorded: Counts, counted: Counts) -> list[str]:
    """Return what costs more than it may, a line each; none if the budget holds.

    Raises:
        NoBaselineError: The baseline is that of another build of Python, whose instructions are others.
    """
    build = counted.yardstick / recorded.yardstick
    if abs(build - 1) > _SAME_BUILD:
        raise NoBaselineError(
            f"the baseline is of another build of Python: the same code takes {build:.3f} times as much"
        )
    if recorded.instructions.keys() != counted.instructions.keys():
        raise NoBaselineError("the baseline is of other work than is counted now: record it anew")
    return [
        f"{name}: {cost:,.0f} instructions a message, {cost / recorded.instructions[name] - 1:+.1%}"
        for name, cost in counted.instructions.items()
        if cost > recorded.instructions[name] * (1 + TOLERANCE)
    ]


def other_packages(recorded: Counts, counted: Counts) -> list[str]:
    """Return which packages are not those of the baseline, in words."""
    return [
        f"{name} is {there}, and was {recorded.packages.get(name, 'not there')}"
        for name, there in counted.packages.items()
        if recorded.packages.get(name) != there
    ]


def table(counted: Counts, recorded: Counts | None) -> str:
    """Return the counts for people."""
    before: Mapping[str, float] = {} if recorded is None else recorded.instructions
    width = max(map(len, counted.instructions))
    return "\n".join(
        f"{name:{width}}  {cost:>10,.0f} instructions a message"
        + (f"  {cost / before[name] - 1:+6.1%} of the baseline" if name in before else "")
        for name, cost in counted.instructions.items()
    )
