"""Runs a scenario, at full size unless told otherwise, and prints its figures."""

import argparse
import inspect
import logging
import sys
import time

from tests.soak.scenarios import SCENARIOS


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--list", action="store_true", help="name the scenarios and what they promise")
    scenarios = parser.add_subparsers(dest="name", metavar="NAME")
    for name, scenario in SCENARIOS.items():
        about = (inspect.getdoc(scenario) or "").partition("\n")[0].replace("%", "%%")  # For argparse.
        options = scenarios.add_parser(name, help=about, description=about)
        for option in inspect.signature(scenario).parameters.values():
            flag = f"--{option.name.replace('_', '-')}"
            if option.default is False:
                options.add_argument(flag, action="store_true")
            else:
                told = f"default: {option.default}"
                options.add_argument(flag, type=type(option.default), default=option.default, help=told)
    return parser


def main() -> int:
    """Return 0 if every promise was kept, 1 if one was broken, 2 for a wrong call."""
    parser = _parser()
    arguments = vars(parser.parse_args())
    name, wants_list = arguments.pop("name"), arguments.pop("list")
    if wants_list:
        for listed, scenario in SCENARIOS.items():
            print(f"{listed:26}{(inspect.getdoc(scenario) or '').partition(chr(10))[0]}")  # noqa: T201
        return 0
    if name is None:
        parser.error("name a scenario, or ask for --list")
    began = time.perf_counter()
    outcome = SCENARIOS[name](**arguments)
    print(f"{name}: {outcome}  ({time.perf_counter() - began:.1f} s)")  # noqa: T201
    return 1 if outcome.broken or outcome.late else 0


if __name__ == "__main__":
    # The scenarios provoke every warning on purpose, thousands of times.
    logging.disable(logging.CRITICAL)
    sys.exit(main())
