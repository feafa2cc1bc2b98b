"""Counts the instructions that a message costs: the same number on a busy machine and on an idle one.

``valgrind`` runs one interpreter, which does each piece of work in forks of itself: once for so many
messages, once for twice as many. What the second takes more is what so many messages cost; imports,
connecting and closing are in both. The interpreter forks when it has done some of all, so that nothing
is imported or specialised in one fork only.
"""

import gc
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.benchmarks.work import Work

TOOL = "valgrind"
_COUNTED = re.compile(r"Total instructions: (\d+)")
_YARDSTICK = "yardstick"
_YARDSTICK_TURNS = 10_000
_WARM_UP = 5


class UncountableError(Exception):
    """Instructions cannot be counted here; the text says why."""


def count() -> tuple[float, dict[str, float]]:
    """Return what a turn of the yardstick takes, and what a message takes of each piece of work.

    Raises:
        UncountableError: There is no valgrind, or none that works here.
    """
    tool = shutil.which(TOOL)
    if tool is None:
        raise UncountableError(f"there is no {TOOL} here")
    with tempfile.TemporaryDirectory() as folder:
        command = [tool, "--tool=exp-bbv", "--instr-count-only=yes", "--bb-out-file=/dev/null"]
        command += [f"--log-file={folder}/%p", sys.executable, "-m", __name__]
        # Sets and dicts of texts are laid out as their hashes fall.
        done = subprocess.run(
            command, env={**os.environ, "PYTHONHASHSEED": "0"}, stdout=subprocess.PIPE, check=False
        )
        if done.returncode:
            raise UncountableError(f"{TOOL} ended with status {done.returncode}")
        totals = {
            name: [_total(Path(folder, str(pid))) for pid in pids]
            for name, *pids in json.loads(done.stdout)["forks"]
        }
        messages: dict[str, int] = json.loads(done.stdout)["messages"]
    counted = {name: (twice - once) / messages[name] for name, (once, twice) in totals.items()}
    return counted.pop(_YARDSTICK), counted


def _total(log: Path) -> int:
    """Return the instructions of all threads of a process."""
    return sum(map(int, _COUNTED.findall(log.read_text())))


def yardstick(turns: int) -> None:
    """Do what no change of this package makes dearer: it tells one build of Python from another."""
    known: dict[str, int] = {}
    for turn in range(turns):
        key = f"{turn % 100:03}"
        known[key] = known.get(key, 0) + len(key.partition("1")[2])


def _main() -> None:
    """Do the work in forks, and tell their process ids."""
    from tests.benchmarks.work import WORK

    logging.disable(logging.WARNING)
    work = {_YARDSTICK: (yardstick, _YARDSTICK_TURNS), **WORK}
    for do, messages in work.values():
        do(messages // _WARM_UP)
    # A collection that looks at all modules would count for hundreds of messages.
    gc.collect()
    gc.freeze()
    forks = [(name, _fork(do, messages), _fork(do, 2 * messages)) for name, (do, messages) in work.items()]
    print(json.dumps({"forks": forks, "messages": {name: messages for name, (_, messages) in work.items()}}))  # noqa: T201


def _fork(do: "Work", messages: int) -> int:
    pid = os.fork()
    if not pid:
        status = 1
        try:
            do(messages)
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    if status:
        sys.exit(1)
    return pid


if __name__ == "__main__":
    _main()
