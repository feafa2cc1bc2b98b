"""Tokens that many processes share, and processes that are killed while they refresh them."""

import asyncio
import contextlib
import random
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

from bitrix_pull import FileTokenStore, OAuth, PullError, SqliteTokenStore, Tokens
from bitrix_pull.emulator import Emulator
from bitrix_pull.portal.rest import RestClient
from tests.forked import Process
from tests.soak.outcome import Outcome
from tests.soak.token_user import DATABASE, TASKS, token_store

WINDOW_S = 1.0
"""How long before the kill the server may have spent a refresh token whose successor is lost."""

_FILES = {"file": "tokens.json", "sqlite": DATABASE}
_BESIDE = {"tokens.json": {".tokens.json.new"}, DATABASE: {f"{DATABASE}-wal", f"{DATABASE}-shm"}}


@contextlib.asynccontextmanager
async def _user(emu: Emulator, store: Path, *log: str) -> AsyncIterator[Process]:
    process = await Process.start(
        "tests.soak.token_user",
        *(emu.portal_url, emu.portal.client_id, str(store), *log),
        pipes=("stdin", "stdout"),
    )
    try:
        _write(process, emu.portal.client_secret)
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        # Reads what is left, and closes the pipes.
        await process.communicate()


def _write(process: Process, line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(f"{line}\n".encode())


def _is_written(file: Path) -> bool:
    return file.stat().st_size > 0


def _expired_grant(emu: Emulator, *, known: bool) -> Tokens:
    """Return tokens whose access token has expired, which only the portal may know."""
    return Tokens(
        access_token=emu.portal.issue_token(1, -60),
        refresh_token=emu.portal.issue_refresh_token(),
        expires=time.time() - 60 if known else None,
    )


def token_race(
    *, seed: int = 1, rounds: int = 25, processes: int = 8, stores: str = "file,sqlite"
) -> Outcome:
    """8 processes of 50 tasks find one token expired, 25 times a store: 1 refresh, nobody fails."""
    outcome, rng = Outcome(), random.Random(seed)

    async def one_store(kind: str) -> None:
        async with contextlib.AsyncExitStack() as stack:
            store = Path(stack.enter_context(tempfile.TemporaryDirectory())) / _FILES[kind]
            emu = await stack.enter_async_context(Emulator())
            users = [await stack.enter_async_context(_user(emu, store)) for _ in range(processes)]
            refreshes, failed = list[int](), 0
            for _ in range(rounds):
                await token_store(store).save(_expired_grant(emu, known=rng.random() < 0.5))
                emu.portal.faults.delay_s = rng.choice([0.0, 0.02, 0.2])
                before = len(emu.portal.token_requests)
                for user in users:
                    _write(user, "go")
                for user in users:
                    assert user.stdout is not None
                    count, _, errors = (await user.stdout.readline()).decode().partition(" ")
                    failed += int(count)
                    outcome.promise(f"nobody fails: {errors}", not errors.strip())
                refreshes.append(len(emu.portal.token_requests) - before)
            outcome.note(**{f"{kind}_rounds": rounds, f"{kind}_calls": rounds * processes * TASKS})
            outcome.exactly(1, **{f"{kind}_refreshes_a_round": max(refreshes)})
            outcome.exactly(0, **{f"{kind}_failed": failed})

    async def main() -> None:
        for kind in stores.split(","):
            await one_store(kind)

    asyncio.run(main())
    return outcome


def token_sigkill(*, seed: int = 1, kills: int = 100, stores: str = "file,sqlite") -> Outcome:
    """SIGKILL while tokens are refreshed, 100 times a store: readable, and the newest grant works.

    What the OAuth server has answered and the killed process has not written down is lost
    with it, which nobody can cure: the old refresh token is spent by then. This is counted,
    and how long before the kill the server had answered.
    """
    outcome = Outcome()

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            for kind in stores.split(","):
                group.create_task(_Kills(outcome, kind, random.Random(seed)).run(kills))

    asyncio.run(main())
    return outcome


class _Kills:
    """Kills one process after the other, and looks at the store that each leaves behind."""

    def __init__(self, outcome: Outcome, kind: str, rng: random.Random) -> None:
        self._outcome = outcome
        self._kind = kind
        self._rng = rng
        self._emu = Emulator()
        self._late: list[float] = []
        self._slowest_s = 0.0

    async def run(self, kills: int) -> None:
        with tempfile.TemporaryDirectory() as directory:
            store = Path(directory) / _FILES[self._kind]
            log = Path(directory) / "stored"
            async with self._emu:
                await token_store(store).save(_expired_grant(self._emu, known=True))
                for _ in range(kills):
                    log.write_bytes(b"")
                    killed_at = await self._kill_one(store, log)
                    await self._look(token_store(store), log.read_text().split(), killed_at)
                    left = {path.name for path in store.parent.iterdir()} - {log.name, store.name}
                    strays = {name for name in left - _BESIDE[store.name] if not name.endswith(".lock")}
                    self._promise("nothing but lock files is left over", not strays)
        kind = self._kind
        self._outcome.note(
            **{
                f"{kind}_kills": kills,
                f"{kind}_refreshes": sum(request.granted for request in self._emu.portal.token_requests),
                f"{kind}_answer_lost_with_the_process": len(self._late),
            }
        )
        self._outcome.in_time(
            WINDOW_S,
            **{
                f"{kind}_answered_before_kill_s": max(self._late, default=0.0),
                f"{kind}_waited_for_a_dead_lock_s": self._slowest_s,
            },
        )

    async def _kill_one(self, store: Path, log: Path) -> float:
        self._emu.portal.token_life_s = 0.0
        async with _user(self._emu, store, str(log)) as user:
            async with asyncio.timeout(60):
                while not _is_written(log) and user.returncode is None:
                    await asyncio.sleep(0.005)
            await asyncio.sleep(self._rng.uniform(0, 0.1))
            self._promise("each process can read the store and refreshes", user.returncode is None)
            killed_at = time.time()
            with contextlib.suppress(ProcessLookupError):
                user.kill()
        for _ in range(10):
            # What it had sent may still be on its way to the server, which is in this event loop.
            await asyncio.sleep(0.01)
        return killed_at

    async def _look(
        self, store: FileTokenStore | SqliteTokenStore, stored: list[str], killed_at: float
    ) -> None:
        """Judge what a killed process has left behind.

        Args:
            store: Its store.
            stored: The refresh tokens that it was told are stored.
            killed_at: When it was killed (unix).
        """
        began = time.monotonic()
        try:
            await store.load()
            async with store.lock(5.0) as locked:
                left = await locked.load()
        except PullError:
            self._promise("the store is readable and its lock is free", kept=False)
            return
        self._slowest_s = max(self._slowest_s, time.monotonic() - began)
        if self._spent(left.refresh_token):
            self._promise("what was told to be stored is stored", left.refresh_token == stored[-1])
            self._late.append(killed_at - self._emu.portal.token_requests[-1].at)
            await store.save(_expired_grant(self._emu, known=True))
            return
        self._promise(
            "what was told to be stored is stored",
            left.refresh_token == stored[-1] or self._spent(stored[-1]),
        )
        self._emu.portal.token_life_s = 3600.0
        rest = RestClient(
            OAuth(
                self._emu.portal_url,
                client_id=self._emu.portal.client_id,
                client_secret=self._emu.portal.client_secret,
                tokens=store,
                oauth_url=self._emu.oauth_url,
            )
        )
        try:
            await rest.call("server.time")
        except PullError:
            self._promise("the newest grant works", kept=False)
        finally:
            await rest.close()
        await store.save(_expired_grant(self._emu, known=True))

    def _spent(self, refresh_token: str) -> bool:
        grant = self._emu.portal.tokens.open("refresh", refresh_token)
        return grant is None or grant.expired

    def _promise(self, text: str, kept: bool) -> None:
        self._outcome.promise(f"{self._kind}: {text}", kept)
