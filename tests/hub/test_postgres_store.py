"""PostgreSQL as a store: its tables, its troubles, and processes that die or stand still."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pytest
from cryptography.fernet import Fernet
from psycopg import sql

from bitrix_pull import (
    EngineUnavailable,
    InvalidArgument,
    LeaseLost,
    PullError,
    ResumePoint,
    ResumeStoreFailed,
    Tokens,
    TokenStoreFailed,
)
from bitrix_pull.hub.cluster import Lease
from bitrix_pull.hub.postgres import FernetCipher, PostgresStore
from tests.fault_proxy import FaultProxy, Weather
from tests.forked import Process

OLD, NEW = (Tokens.read({"access_token": f"access-{n}", "refresh_token": f"refresh-{n}"}) for n in (1, 2))
POINT, LATER = ResumePoint("0" * 25 + "1"), ResumePoint("0" * 25 + "2")


async def run(conninfo: str, statement: str, *names: str) -> list[Any]:
    """Run a statement in which names stand for ``{}``."""
    async with await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as connection:
        query = sql.SQL(statement).format(*map(sql.Identifier, names))
        cursor = await connection.execute(query)
        return await cursor.fetchall() if cursor.description else []


def address(conninfo: str) -> tuple[str, int]:
    words = dict(part.split("=") for part in conninfo.split())
    return words["host"], int(words["port"])


def through(proxy: FaultProxy, conninfo: str) -> str:
    return f"{conninfo} port={proxy.address.rpartition(':')[2]}"


@asynccontextmanager
async def opened(store: PostgresStore) -> AsyncIterator[PostgresStore]:
    await store.open()
    try:
        yield store
    finally:
        await store.close()


# -- tables ----------------------------------------------------------------------


async def test_many_may_open_it_for_the_first_time_at_once(postgres_conninfo: str, name: str) -> None:
    stores = [PostgresStore(postgres_conninfo, schema=name) for _ in range(6)]
    await asyncio.gather(*(store.open() for store in stores))
    await asyncio.gather(*(store.save(f"key {n}", POINT) for n, store in enumerate(stores)))
    assert [await stores[0].load(f"key {n}") for n in range(6)] == [POINT] * 6
    for store in stores:
        await store.close()


async def test_tables_of_something_else_are_left_alone(postgres_conninfo: str, name: str) -> None:
    await run(postgres_conninfo, "CREATE SCHEMA {}", name)
    await run(postgres_conninfo, "CREATE TABLE {}.token (id integer)", name)
    with pytest.raises(InvalidArgument, match=r"of something else.*another schema"):
        await PostgresStore(postgres_conninfo, schema=name).open()
    assert await run(postgres_conninfo, "SELECT * FROM {}.token", name) == []


async def test_tables_of_another_version_are_left_alone(postgres_conninfo: str, name: str) -> None:
    async with opened(PostgresStore(postgres_conninfo, schema=name)):
        pass
    await run(postgres_conninfo, "UPDATE {}.version SET version = 2", name)
    with pytest.raises(InvalidArgument, match=r"of version 2.*Update bitrix_pull"):
        await PostgresStore(postgres_conninfo, schema=name).open()


async def test_a_table_that_was_changed_is_told(postgres_conninfo: str, name: str) -> None:
    async with opened(PostgresStore(postgres_conninfo, schema=name)) as store:
        await run(postgres_conninfo, "ALTER TABLE {}.resume_point DROP COLUMN record", name)
        with pytest.raises(InvalidArgument, match=r"cannot be used.*record"):
            await store.save("key", POINT)


async def test_what_is_damaged_is_told_and_not_shown(postgres_conninfo: str, name: str) -> None:
    async with opened(PostgresStore(postgres_conninfo, schema=name)) as store:
        await store.save("key", POINT)
        await store.tokens("acme").save(OLD)
        await run(postgres_conninfo, "UPDATE {}.resume_point SET record = 'nonsense'", name)
        await run(postgres_conninfo, "UPDATE {}.token SET content = 'nonsense'", name)
        with pytest.raises(InvalidArgument, match=r"damaged") as told:
            await store.load("key")
        assert "nonsense" not in str(told.value)
        with pytest.raises(InvalidArgument, match=r"no JSON"):
            await store.tokens("acme").load()
        # Whoever authorises anew replaces it.
        async with store.tokens("acme").lock(1.0) as held:
            await held.save(NEW)
        assert await store.tokens("acme").load() == NEW


# -- who refuses -----------------------------------------------------------------


async def test_without_rights_it_says_what_to_do(postgres_conninfo: str, name: str) -> None:
    await run(postgres_conninfo, "CREATE ROLE {} LOGIN", name)
    await run(postgres_conninfo, "REVOKE CREATE ON DATABASE postgres FROM PUBLIC")
    guest = f"{postgres_conninfo} user={name}"
    store = PostgresStore(guest, schema=name)
    with pytest.raises(InvalidArgument, match=r"refuses us .permission denied.*rights"):
        await store.open()
    # Made beforehand, with all rights to it, it serves.
    await run(postgres_conninfo, "CREATE SCHEMA {} AUTHORIZATION {}", name, name)
    async with opened(store):
        await store.save("key", POINT)
        await run(postgres_conninfo, "ALTER TABLE {}.token OWNER TO tester", name)
        await run(postgres_conninfo, "REVOKE ALL ON {}.token FROM {}", name, name)
        with pytest.raises(InvalidArgument, match=r"refuses us .permission denied"):
            await store.tokens("acme").save(OLD)
        assert await store.load("key") == POINT


@pytest.mark.parametrize("wrong", ["user=nobody_of_this_name", "dbname=none_of_this_name"])
async def test_who_is_not_known_there_is_told_so(postgres_conninfo: str, wrong: str) -> None:
    with pytest.raises(InvalidArgument, match=r"refuses us .*does not exist"):
        await PostgresStore(f"{postgres_conninfo} {wrong}").open()


def test_what_cannot_work_is_refused_and_not_shown() -> None:
    for conninfo in ("postgresql://acme:secret-word@[::1/x", "password='secret-word", 5):
        with pytest.raises(InvalidArgument, match=r"address is none") as told:
            PostgresStore(conninfo)  # type: ignore[arg-type]
        assert "secret-word" not in str(told.value)
        assert told.value.__cause__ is None
    for options in (
        {"schema": ""},
        {"schema": "x" * 64},
        {"connections": 0},
        {"timeout_s": 0.0},
        {"cipher": object()},
    ):
        with pytest.raises(InvalidArgument):
            PostgresStore("postgresql://localhost/x", **options)
    with pytest.raises(InvalidArgument, match=r"key"):
        PostgresStore("postgresql://localhost/x").tokens("")
    store = PostgresStore("postgresql://acme:secret-word@db.example/shop")
    assert repr(store) == "PostgresStore(db.example/shop, bitrix_pull)"
    assert repr(store.tokens("acme")) == "PostgresTokenStore(db.example/shop, 'acme')"
    assert store.tokens("acme") == PostgresStore("postgresql://db.example/shop").tokens("acme")


# -- who does not answer -----------------------------------------------------------


async def test_a_server_that_is_not_there_may_be_later(postgres_conninfo: str, name: str) -> None:
    async with FaultProxy(*address(postgres_conninfo)) as proxy:
        conninfo = through(proxy, postgres_conninfo)
    store = PostgresStore(conninfo, schema=name)
    with pytest.raises(EngineUnavailable, match=r"does not answer"):
        await store.open()
    for doing in (store.tokens("acme").load(), store.tokens("acme").save(OLD)):
        with pytest.raises(TokenStoreFailed, match=r"does not answer"):
            await doing
    with pytest.raises(TokenStoreFailed, match=r"does not answer"):
        async with store.tokens("acme").lock(1.0):
            pass


async def test_a_server_that_falls_silent_is_given_up_in_time(postgres_conninfo: str, name: str) -> None:
    async with FaultProxy(*address(postgres_conninfo)) as proxy:
        # Even a busy machine connects within that.
        store = PostgresStore(through(proxy, postgres_conninfo), schema=name, timeout_s=2.0)
        async with opened(store):
            await store.save("key", POINT)
            proxy.forecast = Weather.black_hole
            for line in proxy.lines:
                line.cut("silence")
            for _ in range(2):  # By a connection that was good, and by a new one.
                began = time.monotonic()
                with pytest.raises(EngineUnavailable, match=r"does not answer"):
                    await store.save("key", LATER)
                assert time.monotonic() - began < 30
            proxy.forecast = Weather
            await store.save("key", LATER)
            assert await store.load("key") == LATER


async def test_connections_that_the_server_has_ended_are_replaced(postgres_conninfo: str, name: str) -> None:
    async with opened(PostgresStore(postgres_conninfo, schema=name)) as store:
        await asyncio.gather(*(store.save(f"key {n}", POINT) for n in range(8)))
        await run(
            postgres_conninfo,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'bitrix_pull'",
        )
        with pytest.raises(EngineUnavailable, match=r"does not answer"):
            await store.save("key", POINT)
        await store.save("key", LATER)
        assert await store.load("key") == LATER


async def test_no_more_connections_are_opened_than_it_was_told(postgres_conninfo: str, name: str) -> None:
    async def count() -> int:
        ((found,),) = await run(
            f"{postgres_conninfo} application_name=counter",
            f"SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%{name}%'"
            " AND application_name = 'bitrix_pull'",
        )
        return int(found)

    async with opened(PostgresStore(postgres_conninfo, schema=name, connections=2)) as store:
        await asyncio.gather(*(store.save(f"key {n}", POINT) for n in range(40)))
        assert 1 <= await count() <= 2
    assert await count() == 0


# -- owners of before ----------------------------------------------------------------


async def test_all_of_a_portals_points_are_shut_to_owners_of_before(
    postgres_conninfo: str, name: str
) -> None:
    async with opened(PostgresStore(postgres_conninfo, schema=name)) as store:
        old, new = (store.under(Lease("acme", "a", epoch)) for epoch in (1, 2))
        other = store.under(Lease("beta", "a", 1))
        await old.load("one key")
        await old.save("one key", POINT)
        await new.load("another key")
        lease = Lease("acme", "a", 1)
        for doing in (store.under(lease).save("one key", LATER), old.advance("one key", LATER)):
            with pytest.raises(LeaseLost, match=r"another worker"):
                await doing
        assert not lease.valid()
        await other.save("one key", POINT)
        assert await new.load("one key") == POINT
        # Nor does somebody come in who knows of no leases.
        with pytest.raises(ResumeStoreFailed, match=r"a hub has"):
            await store.save("acme", POINT)


async def test_an_advance_of_what_is_gone_asks_for_a_whole_one(postgres_conninfo: str, name: str) -> None:
    async with opened(PostgresStore(postgres_conninfo, schema=name)) as store:
        with pytest.raises(ResumeStoreFailed, match=r"has lost"):
            await store.advance("key", LATER)
        await store.save("key", LATER)
        assert await store.load("key") == LATER


async def test_owners_that_write_at_once_leave_what_the_last_one_wrote(
    postgres_conninfo: str, name: str
) -> None:
    """Many believe that they have the portal: what the last one has loaded is changed by nobody else."""
    async with opened(PostgresStore(postgres_conninfo, schema=name, connections=8)) as store:

        async def serve(epoch: int) -> None:
            points = store.under(Lease("acme", f"worker {epoch}", epoch))
            try:
                point = await points.load("key")
                number = 0 if point is None else int(point.mid)
                await points.save("key", ResumePoint(f"{number + 1:026}"))
                for _ in range(5):
                    number += 1
                    await points.advance("key", ResumePoint(f"{number + 1:026}"))
            except LeaseLost:
                return
            assert await points.load("key") == ResumePoint(f"{number + 1:026}")

        await asyncio.gather(*(serve(epoch) for epoch in range(1, 20)), return_exceptions=True)
        last = store.under(Lease("acme", "the last", 20))
        reached = await last.load("key")
        assert reached is not None
        for epoch in range(1, 20):
            with pytest.raises(LeaseLost):
                await store.under(Lease("acme", "x", epoch)).save("key", POINT)
        assert await last.load("key") == reached


# -- processes that die, or stand still ------------------------------------------------


@asynccontextmanager
async def holder(conninfo: str, schema: str, hold_s: float) -> AsyncIterator[Process]:
    process = await Process.start(
        "tests.hub.postgres_holder", conninfo, schema, str(hold_s), pipes=("stdin", "stdout")
    )
    try:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"held\n"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_who_is_killed_while_it_refreshes_holds_nobody_up(postgres_conninfo: str, name: str) -> None:
    store = PostgresStore(postgres_conninfo, schema=name).tokens("acme")
    await store.save(OLD)
    async with holder(postgres_conninfo, name, 3_600.0) as process:
        with pytest.raises(TokenStoreFailed, match=r"in refresh elsewhere"):
            async with store.lock(0.2):
                pass
        process.kill()
        async with store.lock(60.0) as held:
            assert await held.load() == OLD


async def test_who_stands_still_while_it_refreshes_does_not_go_on_with_it(
    postgres_conninfo: str, name: str
) -> None:
    store = PostgresStore(postgres_conninfo, schema=name).tokens("acme")
    await store.save(OLD)
    async with holder(postgres_conninfo, name, 0.5) as process:
        process.send_signal(signal.SIGSTOP)
        async with store.lock(60.0) as held:
            await held.save(NEW)
        process.send_signal(signal.SIGCONT)
        assert process.stdin is not None
        process.stdin.write(b"go on\n")
        told, _ = await process.communicate()
        assert told.startswith(b"TokenStoreFailed: another worker")
    assert await store.load() == NEW


async def test_encrypted_tokens_are_unreadable(postgres_conninfo: str, name: str) -> None:
    keys = [Fernet.generate_key() for _ in range(2)]
    plain, first, second = (
        PostgresStore(postgres_conninfo, schema=name, cipher=cipher).tokens("acme")
        for cipher in (None, *map(FernetCipher, keys))
    )
    await plain.save(OLD)
    assert await first.load() == OLD
    await first.save(NEW)
    ((kept,),) = await run(postgres_conninfo, "SELECT content FROM {}.token", name)
    assert b"access" not in kept
    for other in (second, plain):
        with pytest.raises(PullError, match=r"cannot be decrypted|no JSON"):
            await other.load()
    assert await first.load() == NEW
