"""Makes one run: gets it pickled on stdin, and writes its figures to stdout as JSON."""

import json
import logging
import pickle
import sys

from tests.benchmarks.comparison import Run


def main() -> None:
    """Measure once."""
    logging.disable(logging.WARNING)
    run: Run = pickle.load(sys.stdin.buffer)
    print(json.dumps(dict(run())))  # noqa: T201


if __name__ == "__main__":
    main()
