"""A PostgreSQL server of the tests' own, where there is one on the machine."""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


def _program(name: str) -> str | None:
    """Return the path of one of PostgreSQL's programs, which Debian keeps off the path."""
    if (found := shutil.which(name)) is not None:
        return found
    installed = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(installed[-1]) if installed else None


@contextlib.contextmanager
def postgres(port: int | None = None) -> Iterator[str]:
    """Run a server in a temporary folder, over a Unix socket alone or on loopback; yield its conninfo."""
    initdb, server = _program("initdb"), _program("postgres")
    if initdb is None or server is None:
        pytest.skip("no PostgreSQL server on this machine: apt-get install postgresql")
    user = _unprivileged_user()
    with tempfile.TemporaryDirectory(prefix="bitrix_pull_pg_") as folder:
        if user is not None:
            shutil.chown(folder, user)
        data = f"{folder}/data"
        run_as = (
            {} if user is None else {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}
        )
        env = {"PATH": os.environ["PATH"], "LC_ALL": "C", "HOME": folder}
        options = {"env": env, "cwd": folder, "stdout": subprocess.DEVNULL, **run_as}
        subprocess.run(
            [initdb, "-D", data, "-U", "tester", "-A", "trust", "--no-sync"], check=True, **options
        )  # type: ignore[call-overload]
        address = "" if port is None else "127.0.0.1"
        flags = [
            *("-c", f"listen_addresses={address}", "-c", f"unix_socket_directories={folder}"),
            *("-c", "fsync=off", "-p", str(port or 5432)),
        ]
        process = subprocess.Popen([server, "-D", data, *flags], stderr=subprocess.PIPE, **options)  # type: ignore[call-overload]
        try:
            for line in process.stderr:
                if b"ready to accept connections" in line:
                    break
            yield f"host={address or folder} port={port or 5432} user=tester dbname=postgres"
        finally:
            # Fast shutdown: another one would wait for clients that a failed test has left behind.
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=30)


def _unprivileged_user() -> str | None:
    """Return whom to run the server as: it refuses to be run by root. None: as we are."""
    if os.geteuid():
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    pytest.skip(f"root cannot run a PostgreSQL server, and {sys.platform} has no user postgres or nobody")
