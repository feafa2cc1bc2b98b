"""Resume stores: found again, cheap, and damaged."""

import asyncio
import contextlib
import json
import logging
import os
import random
import shutil
import signal
import sqlite3
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from bitrix_pull import AccessToken, FileStore, OAuth, PullClient, PullError, ResumePoint, SqliteStore, State
from bitrix_pull.connection.resume_point import Beginning
from bitrix_pull.emulator import Emulator
from bitrix_pull.portal.auth import Caller, Credentials
from bitrix_pull.portal.rest import RestClient
from tests import virtual_time
from tests.connection.listening import Listener, emulator, running
from tests.soak.crashes import ended, has_worked, store_at, until, victim
from tests.soak.outcome import Outcome

KINDS = {"file": "resume.json", "sqlite": "resume.db"}

# -- found again ------------------------------------------------------------------------


class _Through:
    """A REST client of the user's own, which shows the client another configuration than the portal's."""

    def __init__(self, emu: Emulator, public_channels: object) -> None:
        self.portal = emu.portal_url
        self._rest = RestClient(AccessToken(emu.portal_url, emu.token))
        self._public_channels = public_channels

    async def call(self, method: str, params: Mapping[str, Any], /) -> Any:
        try:
            result = await self._rest.call(method, params)
        finally:
            await self._rest.close()
        if method == "pull.application.config.get":
            own = result["publicChannels"]
            match self._public_channels:
                case "others too":
                    other = next(iter(own.values()))
                    own = {"0": other, "9": other, **own}
                case "others only":
                    own = {"2": next(iter(own.values()))}
                case "as it is":
                    pass
                case _:
                    own = self._public_channels
            result = {**result, "publicChannels": own}
        return result


def _oauth(emu: Emulator, host: str, *, told: bool) -> OAuth:
    """Tokens of one portal under one of its names; they may or may not tell which portal it is."""
    portal = emu.portal
    tokens = {"access_token": emu.token, "refresh_token": portal.issue_refresh_token(1)}
    fields = {"member_id": portal.member_id, "user_id": 1} if told else {}
    port = portal.address.partition(":")[2]
    return OAuth(
        f"http://{host}:{port}",
        client_id=portal.client_id,
        client_secret=portal.client_secret,
        tokens={**tokens, **fields},
    )


_CHANGES: dict[str, tuple[Callable[[Emulator], Credentials | Caller], ...]] = {
    "no public channels": (
        lambda emu: _Through(emu, "as it is"),
        lambda emu: _Through(emu, []),
        lambda emu: _Through(emu, "as it is"),
    ),
    "none at first": (lambda emu: _Through(emu, None), lambda emu: _Through(emu, "as it is")),
    "others' too": (lambda emu: _Through(emu, "as it is"), lambda emu: _Through(emu, "others too")),
    "others' only": (lambda emu: _Through(emu, "others only"), lambda emu: _Through(emu, "as it is")),
    "another host": (
        lambda emu: _oauth(emu, "127.0.0.1", told=True),
        lambda emu: _oauth(emu, "localhost", told=True),
    ),
    "tokens that tell more": (
        lambda emu: _oauth(emu, "127.0.0.1", told=False),
        lambda emu: _oauth(emu, "127.0.0.1", told=True),
        lambda emu: _oauth(emu, "localhost", told=True),
    ),
}


def store_key() -> Outcome:
    """Six changes of the configuration between runs: every run resumes, with both stores."""
    outcome = Outcome()
    for change, credentials in _CHANGES.items():
        for kind in KINDS:
            virtual_time.run(partial(_change, outcome, change, kind, credentials))
    outcome.exactly(2 * sum(len(runs) - 1 for runs in _CHANGES.values()), resumed=outcome.figures["resumed"])
    return outcome


async def _change(
    outcome: Outcome,
    change: str,
    kind: str,
    credentials: tuple[Callable[[Emulator], Credentials | Caller], ...],
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        async with emulator() as emu:
            missed: list[int] = []
            for run, made in enumerate(credentials):
                listener = Listener(emu, auth=made(emu), resume=store_at(Path(directory) / KINDS[kind]))
                async with running(listener):
                    await listener.reached(State.LIVE)
                    emu.portal.send("x", {"n": 10 * run})
                    await asyncio.sleep(20)
                resumed = listener.numbers == [*missed, 10 * run]
                outcome.promise(f"resumes after a change of {change} ({kind}, run {run})", resumed)
                outcome.note(resumed=outcome.figures.get("resumed", 0) + (resumed and run > 0))
                missed = [10 * run + 1]
                emu.portal.send("x", {"n": missed[0]})
                await asyncio.sleep(20)


# -- one event that is not settled ----------------------------------------------------------


IN_FLIGHT_S = 1.0
"""What a killed process has handled before this is written down, however slow the disk is."""


def stuck_event(
    *, seed: int = 1, events: int = 30_000, kills: int = 20, stores: str = "file,sqlite"
) -> Outcome:
    """30,000 settled behind one event that is not, 20 SIGKILLs: what comes again was in flight."""
    outcome = Outcome()
    for kind in stores.split(","):
        asyncio.run(_stuck(outcome, kind, random.Random(seed), events, kills))
    return outcome


@dataclass(slots=True)
class _Life:
    """What one process has handled, and when it was killed."""

    handled: dict[int, float]
    killed_at: float
    written: int


async def _stuck(outcome: Outcome, kind: str, rng: random.Random, events: int, kills: int) -> None:
    lives: list[_Life] = []
    with tempfile.TemporaryDirectory() as directory:
        store, log = Path(directory) / KINDS[kind], Path(directory) / "handled"
        log.touch()
        async with Emulator() as emu:
            async with PullClient(AccessToken(emu.portal_url, emu.token), resume=store_at(store)):
                pass
            emu.portal.send("stuck", {"n": -1})
            publishing = asyncio.create_task(_publish(emu, events))
            for _ in range(kills):
                lives.append(await _life(outcome, emu, store, log, rng.uniform(0, 0.8)))
            await publishing
            lives.append(await _life(outcome, emu, store, log, 0.5, until_all_of=events))
    _judge_stuck(outcome, kind, lives, events)


async def _life(
    outcome: Outcome, emu: Emulator, store: Path, log: Path, life_s: float, *, until_all_of: int = 0
) -> _Life:
    """Let a process live for some seconds after it has begun to work; say what it has done."""
    begun = os.stat(log).st_size
    async with victim(emu, store, log) as process:
        await until(partial(has_worked, log, begun, process))
        await until(lambda: len(_numbers(_lines(log))) >= until_all_of, every_s=0.5, within_s=600)
        await asyncio.sleep(life_s)
        outcome.promise("each process can read the store and works", not ended(process))
        process.send_signal(signal.SIGSTOP)
        written = _written(process.pid)
        killed_at = time.time()
        process.kill()
        await process.wait()
    lines = _lines(log, begun)
    return _Life(_numbers(lines), killed_at, written - len(lines))


async def _publish(emu: Emulator, events: int) -> None:
    for n in range(events):
        emu.portal.send("x", {"n": n})
        if n % 20 == 19:
            await asyncio.sleep(0.02)


def _judge_stuck(outcome: Outcome, kind: str, lives: list[_Life], events: int) -> None:
    known: dict[int, float] = {}
    again: list[float] = []
    for life in lives:
        again += [known[n] for n in life.handled.keys() & known.keys()]
        known.update({n: life.killed_at - at for n, at in life.handled.items()})
    written = sum(life.written for life in lives)
    outcome.note(**{f"{kind}_settled_behind_it": max(len(life.handled) for life in lives)})
    outcome.exactly(0, **{f"{kind}_lost": events - len(known)})
    outcome.note(**{f"{kind}_came_again": len(again)})
    outcome.in_time(IN_FLIGHT_S, **{f"{kind}_came_again_age_s": max(again, default=0.0)})
    outcome.at_most(200, **{f"{kind}_bytes_an_event": written / events})


def _lines(log: Path, begin: int = 0) -> bytes:
    return log.read_bytes()[begin:]


def _numbers(lines: bytes) -> dict[int, float]:
    return {int(n): float(at) for _, n, at in map(bytes.split, lines.splitlines())}


def _written(pid: int) -> int:
    """Bytes that a process has handed to the system to write to files."""
    figures = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
    return int(figures["wchar"])


# -- damaged --------------------------------------------------------------------------------


_POINT = ResumePoint("1" * 26, tuple(str(n) * 26 for n in range(2, 9)), Beginning(1000.0, 2000.0))
_NEWS = ResumePoint("2" * 26, ("9" * 26,))

Damage = Callable[[Path], object]


def _bytes(change: Callable[[bytes], bytes]) -> Damage:
    return lambda path: path.write_bytes(change(path.read_bytes()))


def _record(**fields: Any) -> Damage:
    """Change fields of the whole point."""

    def change(text: bytes) -> bytes:
        header, whole, *rest = text.splitlines(keepends=True)
        return b"".join((header, orjson.dumps({**orjson.loads(whole), **fields}), b"\n", *rest))

    return _bytes(change)


def _line(number: int, line: bytes) -> Damage:
    """Put another line in the place of one."""

    def change(text: bytes) -> bytes:
        lines = text.splitlines(keepends=True)
        lines[number] = line + b"\n"
        return b"".join(lines)

    return _bytes(change)


def _sql(*statements: str) -> Damage:
    def change(path: Path) -> None:
        with contextlib.closing(sqlite3.connect(path)) as database:
            for statement in statements:
                database.execute(statement)
            database.commit()

    return change


def _sql_record(**fields: Any) -> Damage:
    """Change fields of the whole point."""
    record = orjson.dumps({**_POINT.write(), **fields}).decode()
    return _sql(f"UPDATE resume_point SET record = '{record}'")


def _replace(path: Path, make: Damage) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    make(path)


def _instead(make: Damage) -> Damage:
    """Put something else in the place of the file."""
    return lambda path: _replace(path, make)


def _page(number: int, content: bytes) -> Damage:
    def change(path: Path) -> None:
        with path.open("r+b") as file:
            file.seek(number * 512)
            file.write(content)

    return change


def _old_database(columns: str) -> Damage:
    def make(path: Path) -> None:
        _sql(f"CREATE TABLE point ({columns})", "CREATE TABLE settled (key TEXT, mid TEXT)")(path)

    return _instead(make)


_ANYWHERE: dict[str, Damage] = {
    "garbage": lambda path: path.write_bytes(random.Random(1).randbytes(5_000)),
    "another kind of text": lambda path: path.write_text("[store]\npoint = 7\n"),
    "a directory in its place": _instead(Path.mkdir),
    "a pipe in its place": _instead(os.mkfifo),
    "a link to nowhere": _instead(lambda path: path.symlink_to("/nowhere/at/all")),
    "a directory in the place of its lock": lambda path: _replace(
        path.with_name(f"{path.name}.lock"), Path.mkdir
    ),
}
_FILE: dict[str, Damage] = {
    "emptied": _bytes(lambda text: b""),
    "cut in its header": _bytes(lambda text: text[:20]),
    "cut after its header": _bytes(lambda text: text[: text.index(b"\n") + 1]),
    "cut in its first record": _bytes(lambda text: text[: text.index(b"settled")]),
    "cut in what was appended": _bytes(lambda text: text[:-10]),
    "filled with zeros": _bytes(lambda text: bytes(len(text))),
    "zeros in the middle": _bytes(lambda text: text[:100] + bytes(50) + text[150:]),
    "in UTF-16": _bytes(lambda text: text.decode().encode("utf-16")),
    "JSON of something else": _bytes(lambda text: json.dumps({"points": [1, 2], "x": None}).encode()),
    "a list": _bytes(lambda text: b"[]"),
    "no mid": _record(mid=None),
    "a number for a mid": _record(mid=7),
    "a short mid": _record(mid="17953130010000"),
    "words for a mid": _record(mid="newest"),
    "a number for what is settled": _record(settled=3),
    "numbers in what is settled": _record(settled=[1, 2]),
    "a long id in what is settled": _record(settled=["1" * 100]),
    "no list below a prefix": _record(settled={"1": "2"}),
    "words for its beginning": _record(began="yesterday"),
    "half a beginning": _record(began=[1000.0]),
    "a number for its server": _record(server=7),
    "another version": _line(0, b'{"format":"bitrix_pull resume points","version":99}'),
    "a broken line in the middle": _line(1, b'{"key": "acme'),
    "news of nothing": _line(2, b'{"of":7,"mid":"' + b"1" * 26 + b'"}'),
    "news without a mid": _line(2, b'{"of":0,"settled":{}}'),
    "the first format, broken": _bytes(lambda text: b'{"points": {"acme": {"mid": null}}}'),
}
_SQLITE: dict[str, Damage] = {
    "cut to its header": _bytes(lambda text: text[:100]),
    "cut to half": _bytes(lambda text: text[: len(text) // 2]),
    "cut by a page": _bytes(lambda text: text[:-512]),
    "a page of zeros": _page(1, bytes(512)),
    "a page of garbage": _page(2, random.Random(2).randbytes(512)),
    "its schema overwritten": _page(0, b"SQLite format 3\0" + bytes(490)),
    "a database of something else": _instead(_sql("CREATE TABLE deals (id INTEGER PRIMARY KEY, title TEXT)")),
    "its table with other columns": _instead(_sql("CREATE TABLE resume_point (key TEXT, position INTEGER)")),
    "the first schema with other columns": _old_database("key TEXT, offset INTEGER"),
    "a column dropped": _sql("ALTER TABLE resume_point RENAME COLUMN record TO content"),
    "a number for a record": _sql("UPDATE resume_point SET record = 7"),
    "no JSON": _sql("UPDATE resume_point SET record = '{'"),
    "a list": _sql("UPDATE resume_point SET record = '[]'"),
    "bytes for JSON": _sql("UPDATE resume_point SET record = x'00ff00ff'"),
    "no mid": _sql_record(mid=None),
    "a number for a mid": _sql_record(mid=7),
    "a short mid": _sql_record(mid="17953130010000"),
    "words for a mid": _sql_record(mid="newest"),
    "a number for what is settled": _sql_record(settled=3),
    "numbers in what is settled": _sql_record(settled=[1, 2]),
    "a long id in what is settled": _sql_record(settled=["1" * 100]),
    "words for its beginning": _sql_record(began="yesterday"),
    "too few stamps": _sql_record(stamps=[1.0]),
    "news that are no JSON": _sql("UPDATE resume_advance SET record = 'x'"),
    "news without a mid": _sql("UPDATE resume_advance SET record = '{}'"),
    "a file store": _bytes(lambda text: b'{"format":"bitrix_pull resume points","version":2}\n'),
}


_IN_USE: dict[str, Damage] = {
    "its directory removed": lambda path: shutil.rmtree(path.parent),
    "its directory moved away": lambda path: path.parent.rename(path.parent.with_name("elsewhere")),
    "a file in the place of its directory": lambda path: _replace(path.parent, Path.touch),
}
"""While a client uses it."""


class _Records(logging.Handler):
    """Keeps what is logged of a store."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING and "resume" in (text := record.getMessage()):
            self.texts.append(text)


def damaged_stores(*, every: int = 1) -> Outcome:
    """Stores damaged in 30 and more ways, two kinds: one clear word each, at start or in health()."""
    outcome = Outcome()
    for kind in KINDS:
        at_start = [*{**_ANYWHERE, **(_FILE if kind == "file" else _SQLITE)}.items()][::every]
        told = [asyncio.run(_start_damaged(outcome, kind, name, damage)) for name, damage in at_start]
        told += [asyncio.run(_damage_in_use(outcome, kind, name, damage)) for name, damage in _IN_USE.items()]
        outcome.exactly(len(at_start) + len(_IN_USE), **{f"{kind}_told": sum(told)})
    return outcome


@contextlib.asynccontextmanager
async def _listening_to_log() -> AsyncIterator[list[str]]:
    records, log, disabled = _Records(), logging.getLogger("bitrix_pull"), logging.root.manager.disable
    log.addHandler(records)
    logging.disable(logging.NOTSET)
    try:
        yield records.texts
    finally:
        logging.disable(disabled)
        log.removeHandler(records)


def _disk_store(kind: str, path: Path) -> FileStore | SqliteStore:
    return FileStore(path) if kind == "file" else SqliteStore(path)


async def _start_damaged(outcome: Outcome, kind: str, name: str, damage: Damage) -> bool:
    """Damage a store and start a client with it; return True if it says so in one clear word."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / KINDS[kind]
        store = _disk_store(kind, path)
        async with Emulator() as emu, _listening_to_log() as logged:
            key = f"{emu.portal.address} application user 1"
            await store.open()
            await store.save(key, _POINT)
            await store.advance(key, _NEWS)
            await store.close()
            damage(path)
            client = PullClient(AccessToken(emu.portal_url, emu.token), resume=store)
            try:
                async with client:
                    pass
            except PullError as error:
                text = str(error)
                clear = (
                    not client.health().connects
                    and str(path) in text
                    and len(text) < 400
                    and "\n" not in text
                )
                clear = clear and not any(word in text for word in ("KeyError", "NoneType", "Traceback"))
                outcome.promise(f"{kind}, {name}: a clear error, not {text!r}", clear)
                return clear
            except Exception as error:
                outcome.promise(f"{kind}, {name}: an error of ours, not {error!r}", False)
                return False
            # Only what a kill may leave too is no error.
            outcome.promise(f"{kind}, {name}: told", len(logged) == 1)
            return len(logged) == 1


async def _damage_in_use(outcome: Outcome, kind: str, name: str, damage: Damage) -> bool:
    """Damage the store of a client that is live; return True if log and health() say so."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "folder" / KINDS[kind]
        path.parent.mkdir()
        async with Emulator() as emu, _listening_to_log() as logged:
            store = _disk_store(kind, path)
            pull = PullClient(AccessToken(emu.portal_url, emu.token), resume=store)
            handled: list[int] = []
            pull.on("x")(lambda event: handled.append(event.params["n"]))
            async with pull:
                emu.portal.send("x", {"n": 0})
                await until(lambda: handled == [0] and pull.health().store.saved_at is not None)
                await asyncio.sleep(0.2)
                damage(path)
                emu.portal.send("x", {"n": 1})
                await until(lambda: bool(pull.health().store.error))
                told = bool(pull.health().store.error) and pull.state is State.LIVE and handled == [0, 1]
                told = told and len(logged) == 1 and "could not be saved" in logged[0]
                outcome.promise(f"{kind}, {name}: told in health() and log", told)
                return told
