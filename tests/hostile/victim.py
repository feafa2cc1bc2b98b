"""A client in a process of its own, where its memory and its event loop can be measured honestly.

``tracemalloc`` does not see what orjson, protobuf and zlib allocate, so it is the process's
peak of resident memory that counts. Each row gets a fresh copy of a process that has
imported everything, by a fork server.
"""

import asyncio
import contextlib
import ctypes
import gc
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from bitrix_pull import AccessToken, OAuth, PullClient, PullEvent, PullOptions
from bitrix_pull.errors import Unreachable
from bitrix_pull.portal.config import ConfigFetcher
from bitrix_pull.portal.rest import RestClient
from tests.forked import context

MIB = 1024 * 1024
BEAT_S = 0.002
PATIENCE_S = 30.0

CALM = "calm"
"""The command of the events with which a server warms its client up."""
AFTER = "after"
"""The command of the event that tells that an attack is over."""


@dataclass(slots=True)
class Report:
    """What became of a client under attack.

    Attributes:
        error: The class of what ended it or what the attacked call raised, "" for nothing.
        error_text: The same in words.
        recovered: True if it did what it is there for after the attack.
        over_idle_mib: The most memory it took, over what it had when idle.
        stall_ms: The longest that its event loop was kept busy, in processor time.
        yardstick_ms: How long a fixed piece of work took it, in processor time.
        health: ``health()`` at the end; empty for a client that only makes calls.
        commands: The commands of the events that it received since the attack began.
        unprintable: Log lines that hold control characters.
        warnings: Log lines that warn of something.
        result: What the attacked call returned.
    """

    error: str = ""
    error_text: str = ""
    recovered: bool = False
    over_idle_mib: float = 0.0
    stall_ms: float = 0.0
    yardstick_ms: float = 0.0
    health: dict[str, Any] = field(default_factory=dict)
    commands: list[str] = field(default_factory=list)
    unprintable: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    result: str = ""


Role = Callable[[str, "Attacked", dict[str, Any]], Coroutine[Any, Any, None]]


class Attacked:
    """The victim's end of the line to its test."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._idle_mib: float | None = None
        self.report = Report()

    def tell(self) -> None:
        """Send the report, and begin another one."""
        self._pipe.send(self.report)
        self.report = Report()

    @asynccontextmanager
    async def attack(self) -> AsyncIterator[None]:
        """Measure what happens inside; the attack begins with it."""
        gc.collect()
        gc.freeze()
        _forget_peak()
        if self._idle_mib is None:
            self._idle_mib = _status_mib("VmRSS")
        self.report.yardstick_ms = _yardstick_ms()
        beating = asyncio.create_task(self._beat())
        await asyncio.sleep(3 * BEAT_S)
        self.report.stall_ms = 0.0
        self._pipe.send("idle")
        await asyncio.to_thread(self._pipe.recv)
        try:
            yield
        finally:
            await asyncio.sleep(2 * BEAT_S)  # Also what came last has a beat after it.
            beating.cancel()
            self.report.yardstick_ms = max(self.report.yardstick_ms, _yardstick_ms())
            self.report.over_idle_mib = _status_mib("VmHWM") - self._idle_mib

    async def _beat(self) -> None:
        # Processor time of this thread: what else the machine does must not count.
        last = time.thread_time()
        while True:
            await asyncio.sleep(BEAT_S)
            now = time.thread_time()
            self.report.stall_ms = max(self.report.stall_ms, (now - last) * 1000)
            last = now


def _yardstick_ms() -> float:
    began = time.thread_time()
    sum(number * number for number in range(100_000))
    return (time.thread_time() - began) * 1000


def _forget_peak() -> None:
    ctypes.CDLL(None).malloc_trim(0)  # What earlier attacks have left is not idle memory.
    Path("/proc/self/clear_refs").write_text("5")


def _status_mib(name: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise LookupError(name)


class _Log(logging.Handler):
    """Formats every record, as a log file would."""

    def __init__(self, attacked: Attacked) -> None:
        super().__init__()
        self._attacked = attacked

    def emit(self, record: logging.LogRecord) -> None:
        line = record.getMessage()
        if not line.isprintable():
            self._attacked.report.unprintable.append(line)
        if record.levelno >= logging.WARNING and len(self._attacked.report.warnings) < 100:
            self._attacked.report.warnings.append(line)


# -- what a victim does ---------------------------------------------------------


async def listen(address: str, attacked: Attacked, options: dict[str, Any]) -> None:
    """Listen, and under each attack go on until the event that tells that it is over."""
    times = options.pop("times", 1)
    pull = PullClient(AccessToken(f"http://{address}", "token0"), options=PullOptions(**options))
    arrived: asyncio.Queue[str] = asyncio.Queue()

    @pull.on()
    def handle(event: PullEvent[Any]) -> None:
        arrived.put_nowait(event.command)

    serving = asyncio.create_task(pull.run())
    try:
        async with asyncio.timeout(PATIENCE_S):
            await pull.wait_live()
            while await arrived.get() != CALM:
                pass
        for _ in range(times):
            report = attacked.report
            async with attacked.attack():
                finding = asyncio.create_task(_find_after(arrived, report.commands))
                await asyncio.wait({finding, serving}, timeout=PATIENCE_S, return_when="FIRST_COMPLETED")
                report.recovered = finding.done()
                finding.cancel()
                health = pull.health()
                report.health = {name: getattr(health, name) for name in health.__slots__}
                report.health["state"] = str(health.state)
            if serving.done() and (error := serving.exception()) is not None:
                report.error, report.error_text = type(error).__name__, str(error)
            attacked.tell()
    finally:
        await pull.close(drain=0)
        with contextlib.suppress(Exception):
            await serving


async def _find_after(arrived: "asyncio.Queue[str]", commands: list[str]) -> None:
    while (command := await arrived.get()) != AFTER:
        if len(commands) < 100:
            commands.append(command)


async def fetch_config(address: str, attacked: Attacked, options: dict[str, Any]) -> None:
    """Fetch the configuration, and again and again: under each attack, and after it."""
    attacks = options.pop("times", 1)
    rest = RestClient(AccessToken(f"http://{address}", "token0"), options=PullOptions(**options))
    fetcher = ConfigFetcher(rest)
    try:
        await fetcher.fetch()
        for _ in range(attacks):
            await _attacked_call(attacked, fetcher.fetch)
    finally:
        await rest.close()


async def refresh(address: str, attacked: Attacked, options: dict[str, Any]) -> None:
    """Make a call for which the token must be refreshed first, under attack and after it."""
    auth = OAuth(
        f"http://{address}",
        client_id="app.1",
        client_secret="secret-of-app",
        tokens={"access_token": "expired0", "refresh_token": "refresh0"},
        oauth_url=f"http://{address}/oauth/token/",
    )
    rest = RestClient(auth, options=PullOptions(**options))
    try:
        await _attacked_call(attacked, lambda: rest.call("server.time"))
    finally:
        await rest.close()


async def _attacked_call(attacked: Attacked, call: Callable[[], Coroutine[Any, Any, object]]) -> None:
    report = attacked.report
    async with attacked.attack():
        try:
            result = await call()
            report.result = type(result).__name__
        except Exception as error:
            report.error, report.error_text = type(error).__name__, str(error)
    try:
        await call()
    except Unreachable:
        # What was struck may still have been under way and shared by this one.
        await call()
    report.recovered = True
    attacked.tell()


# -- the process ------------------------------------------------------------------


def _live(pipe: Connection, role: Role, address: str, options: dict[str, Any]) -> None:
    # What the imports have left behind is scanned at times that no attack decides.
    gc.freeze()
    attacked = Attacked(pipe)
    logging.getLogger().addHandler(_Log(attacked))
    logging.getLogger("bitrix_pull").setLevel(logging.DEBUG)
    try:
        asyncio.run(role(address, attacked, options))
    except Exception as error:
        attacked.report.error = f"unexpected {type(error).__name__}"
        attacked.report.error_text = str(error)
        attacked.tell()
    # Leave without the farewell of interpreter and fork server, which takes longer than the rest.
    pipe.close()
    os._exit(0)


class Victim:
    """A client in a process of its own."""

    def __init__(self, role: Role, address: str, options: dict[str, Any]) -> None:
        """Start it."""
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_live, args=(theirs, role, address, options), daemon=True)
        self._process.start()
        theirs.close()

    async def idle(self) -> None:
        """Wait until it has connected and has nothing to do."""
        assert await self._receive() == "idle"

    def go(self) -> None:
        """Tell it that the attack has begun."""
        self._pipe.send("go")

    async def report(self) -> Report:
        """Return what became of it."""
        report = await self._receive()
        assert isinstance(report, Report), report
        return report

    async def _receive(self) -> object:
        arrived = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(self._pipe.fileno(), arrived.set)
        try:
            async with asyncio.timeout(2 * PATIENCE_S):
                await arrived.wait()
        finally:
            loop.remove_reader(self._pipe.fileno())
        received = self._pipe.recv()
        if isinstance(received, Report) and received.error.startswith("unexpected"):
            raise AssertionError(f"{received.error}: {received.error_text}")
        return received

    def close(self) -> None:
        """End it, whatever it does."""
        self._pipe.close()
        self._process.kill()
        self._process.join()
        self._process.close()
