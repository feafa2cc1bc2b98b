"""Where a hub is told of its portals."""

import asyncio
import os
import sqlite3
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet

from bitrix_pull import AccessToken, Hub, InvalidArgument, OAuth, PullOptions, Webhook
from bitrix_pull.connection.resume_point import ResumePoint
from bitrix_pull.emulator import EmulatedCloud
from bitrix_pull.hub.portals import (
    Portal,
    PortalBook,
    PortalChange,
    PortalList,
    PortalPut,
    PortalRemoved,
    PortalSource,
)
from bitrix_pull.hub.records import write_portal
from bitrix_pull.hub.sqlite import SqlitePortals
from bitrix_pull.hub.valkey import FernetCipher, ValkeyPortals
from bitrix_pull.options import RateLimit
from bitrix_pull.portal.tokens import Tokens

ACME = Portal("acme", AccessToken("acme.bitrix24.com", "token-of-acme"))
BETA = Portal("beta", Webhook("https://beta.bitrix24.com/rest/1/code-of-beta/"), mode="user", paused=True)
GAMMA = Portal(
    "gamma",
    OAuth(
        "gamma.bitrix24.com",
        client_id="app.1",
        client_secret="secret-of-app",
        tokens=Tokens(access_token="first-access", refresh_token="first-refresh", expires=5.0),
    ),
    options=PullOptions(ping_interval_s=20.0, rest_limit=RateLimit(250, 5), ignore_modules={"im", "crm"}),
)


@pytest.fixture(params=["list", "sqlite", "valkey", "valkey, encrypted"])
def book(request: pytest.FixtureRequest, tmp_path: Path, valkey_url: str, name: str) -> PortalBook:
    match request.param:
        case "list":
            return PortalList()
        case "sqlite":
            return SqlitePortals(tmp_path / "portals.db")
        case "valkey":
            return ValkeyPortals(valkey_url, name=name)
        case _:
            return ValkeyPortals(valkey_url, name=name, cipher=FernetCipher(Fernet.generate_key()))


@asynccontextmanager
async def following(source: PortalSource) -> AsyncIterator["asyncio.Queue[PortalChange]"]:
    seen = asyncio.Queue[PortalChange]()

    async def follow() -> None:
        async for change in source.changes():
            seen.put_nowait(change)

    task = asyncio.create_task(follow())
    try:
        yield seen
    finally:
        task.cancel()
        await asyncio.wait({task})


async def test_what_changes_is_told_in_order(book: PortalBook) -> None:
    await book.open()
    await book.put(ACME)
    assert [portal.key for portal in await book.portals()] == ["acme"]
    async with following(book) as seen:
        await book.put(BETA)
        assert (await seen.get()) == PortalPut(BETA) or not isinstance(book, PortalList)
        await book.pause("beta", False)
        change = await seen.get()
        assert isinstance(change, PortalPut)
        assert (change.portal.key, change.portal.paused, change.portal.mode) == ("beta", False, "user")
        await book.remove("acme")
        assert await seen.get() == PortalRemoved("acme")
    assert [portal.key for portal in await book.portals()] == ["beta"]
    await book.close()


async def test_a_portal_that_is_not_there_cannot_be_changed(book: PortalBook) -> None:
    await book.open()
    for change in (book.remove("nobody"), book.pause("nobody", True)):
        with pytest.raises(InvalidArgument, match="no portal 'nobody'"):
            await change
    await book.close()


async def test_another_process_is_heard(tmp_path: Path) -> None:
    ours, theirs = (SqlitePortals(tmp_path / "portals.db") for _ in range(2))
    await ours.open()
    assert await ours.portals() == ()
    async with following(ours) as seen:
        await theirs.put(ACME)
        change = await seen.get()
        assert isinstance(change, PortalPut)
        assert change.portal.key == "acme"
    await ours.close()


async def test_what_has_not_changed_is_the_same_when_all_are_read_again(book: PortalBook) -> None:
    """A hub reads all after an outage of the source, and begins anew with what is another one."""
    await book.open()
    for portal in (ACME, BETA, GAMMA):
        await book.put(portal)
    first = {portal.key: portal for portal in await book.portals()}
    async with following(book) as seen, asyncio.timeout(10):
        await book.pause("beta", False)
        change = await seen.get()
        assert isinstance(change, PortalPut)
        again = {portal.key: portal for portal in await book.portals()}
        assert again == {**first, "beta": change.portal}
        await book.put(ACME)
        (acme,) = (portal for portal in await book.portals() if portal.key == "acme")
        assert (acme != first["acme"]) is not isinstance(book, PortalList)
    await book.close()


async def test_a_change_right_before_the_end_keeps_nobody_from_it(book: PortalBook) -> None:
    """``asyncio.wait_for`` would swallow the cancellation there, before Python 3.12."""
    await book.open()
    await book.portals()
    seen = asyncio.Event()

    async def follow() -> None:
        async for _ in book.changes():
            seen.set()

    following = asyncio.create_task(follow())
    await book.put(ACME)
    await asyncio.wait_for(seen.wait(), 10)
    await asyncio.sleep(0.3)
    await book.put(ACME)
    following.cancel()
    try:
        await asyncio.wait({following}, timeout=3)
        assert following.done()
    finally:
        await book.close()
        following.cancel()
        await asyncio.wait({following})


def in_sqlite(tmp_path: Path) -> tuple[PortalBook, Callable[[], Awaitable[None]]]:
    async def damage() -> None:
        """Change a record as a newer version may."""
        with closing(sqlite3.connect(tmp_path / "portals.db")) as database, database:
            database.execute("UPDATE portal_change SET last = last + 1")
            database.execute(
                "UPDATE portal SET record = ?, changed = (SELECT last FROM portal_change) WHERE key = ?",
                (b'{"credentials": {"kind": "passkey"}}', "beta"),
            )

    return SqlitePortals(tmp_path / "portals.db"), damage


def in_valkey(url: str, name: str) -> tuple[PortalBook, Callable[[], Awaitable[None]]]:
    async def damage() -> None:
        """Change a record as somebody does who has another key."""
        await ValkeyPortals(url, name=name, cipher=FernetCipher(Fernet.generate_key())).put(BETA)

    return ValkeyPortals(url, name=name, cipher=FernetCipher(Fernet.generate_key())), damage


@pytest.mark.parametrize("kept", ["sqlite", "valkey"])
async def test_a_record_that_cannot_be_read_keeps_no_other_change_back(
    kept: str, tmp_path: Path, valkey_url: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    book, damage = in_sqlite(tmp_path) if kept == "sqlite" else in_valkey(valkey_url, name)
    await book.open()
    await book.put(BETA)
    assert [portal.key for portal in await book.portals()] == ["beta"]
    await damage()
    await book.put(ACME)
    async with following(book) as seen, asyncio.timeout(10):
        for portal in (ACME, replace(ACME, paused=True), BETA):
            change = await seen.get()
            assert isinstance(change, PortalPut)
            assert (change.portal.key, change.portal.paused) == (portal.key, portal.paused)
            await book.put(replace(ACME, paused=True) if portal is ACME else BETA)
    await book.close()
    (told,) = (record for record in caplog.records if "'beta'" in record.getMessage())
    assert told.levelname == "ERROR"
    assert "Add the portal again" in told.getMessage()


@pytest.mark.parametrize("kept", ["sqlite", "valkey"])
async def test_a_record_that_cannot_be_read_at_the_start_fails_its_portal_alone(
    kept: str, tmp_path: Path, valkey_url: str, name: str
) -> None:
    async with EmulatedCloud(1) as cloud:
        (portal,) = cloud.portals
        book, damage = in_sqlite(tmp_path) if kept == "sqlite" else in_valkey(valkey_url, name)
        await book.open()
        good = Portal("acme", AccessToken(portal.url, portal.token))
        for each in (good, replace(BETA, paused=False)):
            await book.put(each)
        await damage()
        if kept == "sqlite":
            await book.pause("beta", False)
        await book.close()
        hub = Hub(book)
        async with hub.serving(), asyncio.timeout(20):
            while hub.health().live < 1 or not hub.health().failed:
                await asyncio.sleep(0.02)
            assert hub.health().failed.keys() == {"beta"}
            assert "Add the portal again" in hub.health().failed["beta"]
            # As it says.
            await hub.add(replace(good, key="beta"))
            while hub.health().live < 2:
                await asyncio.sleep(0.02)
            assert hub.health().failed == {}


async def test_everything_comes_back_from_the_database(tmp_path: Path) -> None:
    path = tmp_path / "portals.db"
    first = SqlitePortals(path)
    for portal in (ACME, BETA, GAMMA):
        await first.put(portal)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    found = {portal.key: portal for portal in await SqlitePortals(path).portals()}
    for portal in (ACME, BETA, GAMMA):
        again = found[portal.key]
        assert write_portal(again) == write_portal(portal)
        assert (again.mode, again.paused) == (portal.mode, portal.paused)
    gamma = found["gamma"].credentials
    assert isinstance(gamma, OAuth)
    assert (await gamma.store.load()).refresh_token == "first-refresh"


async def test_tokens_that_were_refreshed_meanwhile_are_not_put_back(tmp_path: Path) -> None:
    book = SqlitePortals(tmp_path / "portals.db")
    await book.put(GAMMA)
    (read,) = await book.portals()
    assert isinstance(read.credentials, OAuth)
    await read.credentials.store.load()
    await book.tokens("gamma").save(Tokens(access_token="second-access", refresh_token="second-refresh"))
    await book.put(replace(read, options=None))
    assert (await book.tokens("gamma").load()).refresh_token == "second-refresh"


async def test_resume_points_and_tokens_live_in_the_same_database(tmp_path: Path) -> None:
    book = SqlitePortals(tmp_path / "portals.db")
    await book.open()
    assert book.resume is not None
    await book.resume.open()
    await book.put(GAMMA)
    await book.resume.save("gamma", ResumePoint("1" * 26))
    await book.remove("gamma")
    point = await book.resume.load("gamma")
    assert point is not None
    assert point.mid == "1" * 26
    with pytest.raises(InvalidArgument, match="holds none"):
        await book.tokens("gamma").load()
    await book.resume.close()
    await book.close()


@pytest.mark.parametrize(
    ("portal", "text"),
    [
        (replace(ACME, options=PullOptions(ssl=__import__("ssl").create_default_context())), "options.ssl"),
        (replace(ACME, credentials=type("Own", (), {"call": lambda self: None})()), "Own"),
        (
            replace(
                ACME,
                credentials=OAuth(
                    "a.b",
                    client_id="a",
                    client_secret="b",
                    tokens=Tokens(access_token="a", refresh_token="b"),
                    on_token=print,
                ),
            ),
            "on_token",
        ),
    ],
)
async def test_what_cannot_be_written_down_is_refused(tmp_path: Path, portal: Portal, text: str) -> None:
    book = SqlitePortals(tmp_path / "portals.db")
    with pytest.raises(InvalidArgument, match=text):
        await book.put(portal)
    assert await book.portals() == ()


async def test_a_database_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "portals.db"
    path.write_bytes(b"no database at all, and long enough to be seen as none" * 100)
    path.chmod(0o600)
    with pytest.raises(InvalidArgument, match=r"portals in .* cannot be used"):
        await SqlitePortals(path).open()
    with pytest.raises(InvalidArgument, match="No such file"):
        await SqlitePortals(tmp_path / "nowhere" / "portals.db").open()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("", ACME.credentials), "key must be printable"),
        (("a", "token"), "no way to call it"),
    ],
)
def test_what_is_no_portal_is_refused(arguments: Any, text: str) -> None:
    with pytest.raises(InvalidArgument, match=text):
        Portal(*arguments)
    with pytest.raises(InvalidArgument, match="two portals have the key"):
        PortalList([ACME, ACME])


def test_a_single_portal_is_no_source() -> None:
    with pytest.raises(InvalidArgument, match=r"Hub\(\[portal\]\)"):
        Hub(ACME)  # type: ignore[arg-type]
