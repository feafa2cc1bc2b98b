"""Packages of npm for tests: kept in a cache outside of the repository, and never in it."""

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

import pytest

_DEADLINE_S = 180


def installed(name: str, version: str) -> Path:
    """Return the directory of a package, after installing it if it was not; skip where that is impossible."""
    if os.name == "nt" or shutil.which("npm") is None:
        pytest.skip("there is no npm here")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "bitrix_pull-tests", "npm")
    place = cache / f"{name.replace('/', '-').lstrip('@')}-{version}"
    place.mkdir(parents=True, exist_ok=True)
    package = place / "node_modules" / name
    done = place / "installed"
    with (place / "lock").open("w") as lock:
        # One process of a parallel run installs, and the others wait for it.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", f"{name}@{version}"]
            try:
                subprocess.run(
                    command,
                    cwd=place,
                    check=True,
                    capture_output=True,
                    timeout=_DEADLINE_S,
                    env=_prefixed(place),
                )
            except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
                pytest.skip(f"npm cannot install {name} here")
            done.touch()
    return package


def _prefixed(place: Path) -> dict[str, str]:
    return {**os.environ, "npm_config_prefix": str(place), "npm_config_update_notifier": "false"}
