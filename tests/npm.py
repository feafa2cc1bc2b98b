"""Packages of npm for tests: kept in a cache outside of the repository, and never in it."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

OFFICIAL_CLIENT = "@bitrix24/b24jssdk@2.2.0"
"""The vendor's own JavaScript SDK, whose Push & Pull client meets our emulator."""

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bitrix_pull_tests"


def installed(*packages: str) -> Path:
    """Return the ``node_modules`` with the packages, which is kept for the next time; skip without npm."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("there is no npm")
    home = CACHE / "+".join(packages).replace("/", "_")
    if not home.is_dir():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as directory:
            command = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", *packages]
            try:
                subprocess.run(command, cwd=directory, capture_output=True, check=True, timeout=120)
            except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
                pytest.skip(f"npm cannot install {' '.join(packages)}: is there a network?")
            if not home.is_dir():
                # Another process may be as far.
                os.rename(directory, home)
                os.mkdir(directory)
    return home / "node_modules"
