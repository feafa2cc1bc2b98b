"""Compares this package with bare loops over the same libraries, on this machine."""

import argparse
import inspect
import json
import sys

from tests.benchmarks.catalogue import BENCHMARKS
from tests.benchmarks.harness import compare, table


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
    return parser


def main() -> int:
    """Return 0 when all has run, 2 for a wrong call."""
    parser = _parser()
    arguments = parser.parse_args()
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
