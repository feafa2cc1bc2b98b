"""``close()`` in every state: soon done, and nothing left."""

import asyncio
import contextlib
import gc
import os
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bitrix_pull import AccessToken, PullClient, PullEvent, PullOptions, State
from bitrix_pull.emulator import Emulator
from bitrix_pull.errors import PullError
from bitrix_pull.options import Transport
from tests.fault_proxy import FaultProxy, Weather
from tests.soak.outcome import Outcome
from tests.soak.stand import behind_proxy

Situation = Callable[[PullClient, Emulator, FaultProxy], Awaitable[None]]

CLOSED_WITHIN_S = 2.0


async def _idle(pull: PullClient, emu: Emulator, proxy: FaultProxy) -> None:
    pass


async def _configuring(pull: PullClient, emu: Emulator, proxy: FaultProxy) -> None:
    """The portal takes the request, and is silent."""
    emu.portal.faults.delay_s = 60
    await _start(pull)
    await asyncio.sleep(0.05)
    assert pull.state is State.CONFIGURING


async def _connecting(pull: PullClient, emu: Emulator, proxy: FaultProxy) -> None:
    emu.push.faults.websocket_refusal = "black_hole"
    await _start(pull)
    await _reached(pull, State.CONNECTING)


async def _connecting_to_silence(pull: PullClient, emu: Emulator, proxy: FaultProxy) -> None:
    await _live(pull, emu, proxy)
    proxy.forecast = Weather.black_hole
    for line in proxy.lines:
        line.cut("reset")
    await _reached(pull, State.CONNECTING)


async def _catching_up(pull: PullClient, emu: Emulator, proxy: FaultProxy) -> None:
    await _live(pull, emu, proxy)
    for line in proxy.lines:
        line.cut("reset")
    await _reached(pull, State.CATCHING_UP)


async def _live(pull: PullClient, emu: Emulator, proxy: FaultProxy) -> None:
    await _start(pull)
    await _reached(pull, State.LIVE)


async def _live_and_silent(pull: PullClient, emu: Emulator, proxy: FaultProxy) -> None:
    await _live(pull, emu, proxy)
    for line in proxy.lines:
        line.cut("silence")


async def _live_with_a_backlog(pull: PullClient, emu: Emulator, proxy: FaultProxy) -> None:
    """A handler that never returns, and events behind it. Not drained: see below."""
    await _live(pull, emu, proxy)
    for _ in range(10):
        emu.portal.send("hang")
    await asyncio.sleep(0.1)


async def _polling(pull: PullClient, emu: Emulator, proxy: FaultProxy) -> None:
    """A poll hangs."""
    await _live(pull, emu, proxy)
    await asyncio.sleep(0.1)


async def _renewing(pull: PullClient, emu: Emulator, proxy: FaultProxy) -> None:
    await _live(pull, emu, proxy)
    emu.portal.rotate()
    emu.portal.send("x", users=[1])
    await _reached(pull, State.RENEWING)


async def _backoff(pull: PullClient, emu: Emulator, proxy: FaultProxy) -> None:
    await _live(pull, emu, proxy)
    emu.push.faults.websocket_refusal = 503
    for line in proxy.lines:
        line.cut("reset")
    await _reached(pull, State.BACKOFF)


async def _failed(pull: PullClient, emu: Emulator, proxy: FaultProxy) -> None:
    emu.portal.expire_token(emu.token)
    await _start(pull)
    await _reached(pull, State.FAILED)


async def _closing(pull: PullClient, emu: Emulator, proxy: FaultProxy) -> None:
    await _live(pull, emu, proxy)
    closing = asyncio.create_task(pull.close())
    await asyncio.sleep(0)
    _BACKGROUND.append(closing)


async def _closed(pull: PullClient, emu: Emulator, proxy: FaultProxy) -> None:
    await _live(pull, emu, proxy)
    await pull.close()


SITUATIONS: tuple[Situation, ...] = (
    _idle,
    _configuring,
    _connecting,
    _connecting_to_silence,
    _catching_up,
    _live,
    _live_and_silent,
    _live_with_a_backlog,
    _polling,
    _renewing,
    _backoff,
    _failed,
    _closing,
    _closed,
)

_BACKGROUND: list["asyncio.Task[None]"] = []


def closing(*, seed: int = 1, moments: int = 300) -> Outcome:
    """close() in every state, a silent server too, and a cancelled run() at any moment: <= 2 s, nothing left.

    Nothing: no task, timer or open file. What handlers are still busy with is not waited
    for here (``drain=0``), as that is what a user asks for by ``drain=``.
    """
    outcome, rng = Outcome(), random.Random(seed)
    took: dict[str, float] = {}
    for situation in SITUATIONS:
        name = situation.__name__.strip("_")
        took[name] = asyncio.run(_close_in(situation, outcome))
    outcome.in_time(CLOSED_WITHIN_S, **{f"slowest ({max(took, key=took.__getitem__)})": max(took.values())})
    longest = asyncio.run(_cancel_at_any_moment(outcome, rng, moments))
    outcome.in_time(CLOSED_WITHIN_S, slowest_cancelled_s=longest)
    outcome.note(situations=len(took), moments=moments)
    return outcome


async def _close_in(situation: Situation, outcome: Outcome) -> float:
    async with _surroundings() as (emu, proxy, store):
        left = _Left()
        pull = _client(emu, store, "long_polling" if situation is _polling else "auto")
        await situation(pull, emu, proxy)
        began = time.perf_counter()
        await pull.close(drain=0)
        took = time.perf_counter() - began
        for task in _BACKGROUND:
            await asyncio.wait({task})
        _BACKGROUND.clear()
        await left.check(outcome, proxy, situation.__name__.strip("_"))
    return took


async def _cancel_at_any_moment(outcome: Outcome, rng: random.Random, moments: int) -> float:
    """Cancel ``run()`` after any number of steps of the loop, through start and reconnect."""
    longest = 0.0
    async with _surroundings() as (emu, proxy, store):
        for moment in range(moments):
            left = _Left()
            pull = _client(emu, store)
            running = asyncio.create_task(pull.run())
            if moment % 3 == 2:
                await _reached(pull, State.LIVE)
                for line in proxy.lines:
                    line.cut(rng.choice(["fin", "reset", "silence"]))
            for _ in range(rng.randrange(80)):
                await asyncio.sleep(0)
            await asyncio.sleep(rng.choice([0, 0, 0.01, 0.2]))
            began = time.perf_counter()
            running.cancel()
            await asyncio.wait({running})
            longest = max(longest, time.perf_counter() - began)
            await left.check(outcome, proxy, "cancelled")
    return longest


@asynccontextmanager
async def _surroundings() -> AsyncIterator[tuple[Emulator, FaultProxy, Path]]:
    async with Emulator() as emu, FaultProxy.before(emu.portal.address) as proxy:
        behind_proxy(emu, proxy)
        # Something in the history, so that there is something to catch up with.
        emu.portal.send("x")
        with TemporaryDirectory() as directory:
            yield emu, proxy, Path(directory) / "resume.json"


def _client(emu: Emulator, store: Path, transport: Transport = "auto") -> PullClient:
    pull = PullClient(
        AccessToken(emu.portal_url, emu.token), resume=store, options=PullOptions(transport=transport)
    )

    @pull.on("hang")
    async def hang(event: PullEvent[Any]) -> None:
        await asyncio.Event().wait()

    return pull


class _Left:
    """What was there before a client: tasks and descriptors."""

    def __init__(self) -> None:
        self._tasks = asyncio.all_tasks()
        self._descriptors = len(_open_files())

    async def check(self, outcome: Outcome, proxy: FaultProxy, name: str) -> None:
        """Promise that no task, timer, socket or file is left of it."""
        gc.collect()
        tasks = [task for task in asyncio.all_tasks() - self._tasks if "bitrix_pull" in task.get_name()]
        outcome.promise(f"no task left ({name}): {tasks}", not tasks)
        timers = [timer for timer in _timers() if "/bitrix_pull/" in timer and "/emulator/" not in timer]
        outcome.promise(f"no timer left ({name}): {timers}", not timers)
        # The other ends of its sockets are in this process too: they take some steps to close.
        for line in proxy.lines:
            line.abort()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                while len(_open_files()) > self._descriptors:
                    await asyncio.sleep(0.001)
        left = len(_open_files()) - self._descriptors
        outcome.promise(f"no socket or file left ({name}): {left}", left <= 0)


def _timers() -> list[str]:
    scheduled: list[asyncio.TimerHandle] = asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]
    return [repr(handle) for handle in scheduled if not handle.cancelled()]


def _open_files() -> list[str]:
    names: list[str] = []
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            names.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        except OSError:
            continue
    return names


async def _start(pull: PullClient) -> None:
    _BACKGROUND.append(asyncio.create_task(_run(pull)))
    await asyncio.sleep(0.01)


async def _run(pull: PullClient) -> None:
    # FAILED is what one of the situations wants.
    with contextlib.suppress(PullError):
        await pull.run()


async def _reached(pull: PullClient, state: State) -> None:
    async with asyncio.timeout(20):
        while pull.state is not state:
            await asyncio.sleep(0)
