"""Tokens of many portals in one SQLite database."""

import asyncio
import os
import sqlite3
import stat
from pathlib import Path

import pytest

from bitrix_pull import SqliteTokenStore, Tokens
from bitrix_pull.errors import InvalidArgument, TokenStoreFailed

from .granting import Clients, Grant, read, stale, write


def tokens(number: int) -> Tokens:
    return Tokens(
        access_token=f"access-{number}",
        refresh_token=f"refresh-{number}",
        expires=9.0,
        fields={"status": "L"},
    )


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "tokens.db"


async def test_a_thousand_portals_keep_their_tokens_apart(database: Path) -> None:
    async def save(number: int) -> None:
        await SqliteTokenStore(database, f"member {number}").save(tokens(number))

    # Fewer here, and at once: each save is synced to the disk.
    await asyncio.gather(*map(save, range(40)))
    await save(3)
    for number in range(40):
        assert await SqliteTokenStore(database, f"member {number}").load() == tokens(number)
    left = {path.name for path in database.parent.iterdir()} - {"tokens.db"}
    assert len(left) <= 16
    assert all(name.endswith(".lock") for name in left)


async def test_the_database_is_for_its_owner_only(database: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = SqliteTokenStore(database, "m1")
    await store.save(tokens(1))
    assert {mode(path) for path in database.parent.iterdir()} == {0o600}
    assert not caplog.records
    os.chmod(database, 0o644)
    await store.load()
    assert mode(database) == 0o600
    assert "is now mode 600" in caplog.text


async def test_clients_that_share_a_key_refresh_once(grant: Grant, client: Clients, database: Path) -> None:
    await SqliteTokenStore(database, "m1").save(Tokens.read(stale()))
    await SqliteTokenStore(database, "m2").save(tokens(9))
    rests = [client(SqliteTokenStore(database, "m1")) for _ in range(4)]
    results = await asyncio.gather(*(rest.call("app.info") for rest in rests * 5))
    assert set(results) == {"access-2"}
    assert grant.refreshes == 1
    assert (await SqliteTokenStore(database, "m1").load()).refresh_token == "refresh-2"
    assert (await SqliteTokenStore(database, "m2").load()) == tokens(9)


async def test_portals_do_not_wait_for_each_other(database: Path) -> None:
    async with SqliteTokenStore(database, "m1").lock(1.0):
        await SqliteTokenStore(database, "m2").save(tokens(2))
        with pytest.raises(TokenStoreFailed, match="locked"):
            async with SqliteTokenStore(database, "m1").lock(0.05):
                pass
    assert await SqliteTokenStore(database, "m2").load() == tokens(2)


async def test_what_is_missing_is_named(database: Path) -> None:
    store = SqliteTokenStore(database, "member 7")
    with pytest.raises(InvalidArgument, match="cannot be read: No such file"):
        await store.load()
    assert not list(database.parent.iterdir())
    sqlite3.connect(database).close()
    with pytest.raises(InvalidArgument, match=r"holds none for 'member 7'.*Authorise"):
        await store.load()
    await SqliteTokenStore(database, "another").save(tokens(1))
    with pytest.raises(InvalidArgument, match=r"holds none for 'member 7'.*Authorise"):
        await store.load()


async def test_what_is_no_database_is_refused_and_kept(database: Path) -> None:
    write(database, {"a": "b" * 5000})
    os.chmod(database, 0o600)
    store = SqliteTokenStore(database, "m1")
    for use in (store.load, lambda: store.save(tokens(1))):
        with pytest.raises(InvalidArgument, match="is no database that can be used"):
            await use()
    assert read(database) == {"a": "b" * 5000}


@pytest.mark.parametrize("key", ["", None, 7, "\ud800", "a\0b"])
def test_the_key_is_a_text(database: Path, key: object) -> None:
    with pytest.raises(InvalidArgument, match="the key of the tokens is missing"):
        SqliteTokenStore(database, key)  # type: ignore[arg-type]


async def test_a_database_that_somebody_holds_is_a_passing_failure(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bitrix_pull.portal.token_database._BUSY_TIMEOUT_S", 0.01)
    store = SqliteTokenStore(database, "m1")
    await store.save(tokens(1))
    other = sqlite3.connect(database, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(TokenStoreFailed, match="in use by others"):
        await store.save(tokens(2))
    other.close()
    assert await store.load() == tokens(1)
