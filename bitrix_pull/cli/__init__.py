"""The command ``bitrix-pull``. It needs the extra "cli"."""

import importlib.util
import sys


def main() -> None:
    """Run the command line and exit with its code: 0 done, 1 failed, 2 usage, 3 a person must act."""
    if any(importlib.util.find_spec(name) is None for name in ("typer", "rich")):
        sys.exit(_missing_extra())
    from bitrix_pull.cli.app import run_command_line

    sys.exit(run_command_line())


def _missing_extra() -> int:
    sys.stderr.write("The command line needs typer and rich: pip install 'bitrix-pull[cli]'\n")
    return 2
