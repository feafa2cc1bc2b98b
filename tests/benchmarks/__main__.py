"""Compares this package with bare loops over the same libraries, on this machine."""

import argparse
import inspect
import json
import sys

from tests.benchmarks import budget
from tests.benchmarks.catalogue import BENCHMARKS
from tests.benchmarks.harness import compare, table
from tests.benchmarks.instructions import UncountableError, count

HOLDS, OVER, NOT_JUDGED = 0, 1, 77
"""What ``--check`` ends with; the last one is what build tools know as a skipped test."""


def _parser() -> argparse.ArgumentParser:
    listed = [
        f"  {name:10} {(inspect.getdoc(benchmark) or '').partition(chr(10))[0]}"
        for name, benchmark in BENCHMARKS.items()
    ]
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks",
        description=__doc__,
        epilog="\n".join(["benchmarks:", *listed]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="name", help="benchmarks to run; all if none is named")
    parser.add_argument("--only", default="", metavar="TEXT", help="only comparisons with this in their name")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each side (default: 5)")
    parser.add_argument("--scale", type=float, default=1.0, help="size of each run (default: 1.0)")
    parser.add_argument("--json", action="store_true", help="print one JSON object a comparison")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument(
        "--check",
        action="store_true",
        help="instead, hold the instructions of a message against the baseline: ends with 0 if none costs"
        f" over {budget.TOLERANCE:.0%}% more, 1 if one does, {NOT_JUDGED} if that cannot be told here",
    )
    instead.add_argument(
        "--record", action="store_true", help="instead, make them the baseline of this interpreter"
    )
    return parser


def _counted() -> budget.Counts:
    yardstick, instructions = count()
    return budget.Counts(yardstick, instructions, budget.packages())


def check(*, record: bool) -> int:
    """Count instructions, and hold them against the baseline or make them the baseline."""
    name = budget.interpreter()
    try:
        recorded = None if record else budget.load(budget.BASELINE, name)
        counted = _counted()
        if recorded is not None and budget.over_budget(recorded, counted):
            counted = counted.least(_counted())
        print(budget.table(counted, recorded))  # noqa: T201
        if recorded is None:
            budget.save(budget.BASELINE, name, counted)
            return HOLDS
        over = budget.over_budget(recorded, counted)
    except (budget.NoBaselineError, UncountableError) as reason:
        print(f"not judged: {reason}")  # noqa: T201
        return NOT_JUDGED
    for line in over:
        print(f"over the budget: {line}")  # noqa: T201
    for line in budget.other_packages(recorded, counted):
        print(f"not as recorded: {line}")  # noqa: T201
    return OVER if over else HOLDS


def main() -> int:
    """Return 0 when all has run, 2 for a wrong call; see ``--check`` for its own."""
    parser = _parser()
    arguments = parser.parse_args()
    if arguments.check or arguments.record:
        return check(record=arguments.record)
    unknown = [name for name in arguments.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"no such benchmark: {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    for name in arguments.names or BENCHMARKS:
        results = []
        for comparison in BENCHMARKS[name](arguments.scale):
            if arguments.only not in comparison.name:
                continue
            result = compare(comparison, arguments.rounds)
            results.append(result)
            if arguments.json:
                print(json.dumps({"benchmark": name, **result.as_json()}), flush=True)  # noqa: T201
        if results and not arguments.json:
            print(f"{name} (medians of {arguments.rounds})\n{table(results)}\n", flush=True)  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
