"""Engines that cannot be used: each says why, nothing spins, no password is shown."""

import asyncio
import contextlib
import json
import logging
from typing import Any

import pytest
import redis.asyncio

from bitrix_pull import EngineUnavailable, InvalidArgument
from bitrix_pull.hub.valkey import (
    Engine,
    PublishAnswer,
    ValkeyCluster,
    ValkeyPublisher,
    ValkeyResumeStore,
    ValkeyStream,
    ValkeyTokenStore,
)
from tests.fault_proxy import FaultProxy
from tests.hub.engine import free_port, running, running_cluster

PASSWORD = "the-password-of-a-test"


def _plain(url: str) -> Any:
    return redis.asyncio.Redis.from_url(url)


@pytest.mark.parametrize(
    "url", ["", "acme", "http://acme", "redis://host:port", f"redis://u:{PASSWORD}@h:x", None]
)
def test_an_address_that_is_none_is_refused_at_once(url: str) -> None:
    for make in (Engine, ValkeyCluster, ValkeyResumeStore, ValkeyStream):
        with pytest.raises(InvalidArgument, match="address") as told:
            make(url)
        assert PASSWORD not in str(told.value)
    with pytest.raises(InvalidArgument, match="address"):
        ValkeyTokenStore(url, "acme")


async def test_nobody_at_the_address_is_an_error_that_may_pass() -> None:
    url = f"redis://:{PASSWORD}@127.0.0.1:{free_port()}"
    for opening in (
        ValkeyStream(url).open(),
        ValkeyResumeStore(url).open(),
        ValkeyCluster(url).join().__aenter__(),
    ):
        with pytest.raises(EngineUnavailable, match=r"127\.0\.0\.1") as told:
            await opening
        assert PASSWORD not in str(told.value)
        assert told.value.retryable


async def test_after_a_cut_one_command_fails_and_not_one_for_each_connection(valkey_url: str) -> None:
    async with FaultProxy.before(valkey_url.removeprefix("redis://")) as proxy:
        engine = Engine(f"redis://{proxy.address}", timeout_s=5.0)
        await engine.open()
        await asyncio.gather(*(engine.call("PING") for _ in range(10)))
        assert len(proxy.lines) > 5
        proxy.cut_off()
        await asyncio.sleep(0.05)
        proxy.heal()
        await asyncio.sleep(0.05)
        with contextlib.suppress(EngineUnavailable):
            await engine.call("PING")
        await asyncio.gather(*(engine.call("PING") for _ in range(10)))
        await engine.close()


async def test_a_wrong_password_and_missing_rights_need_a_person() -> None:
    with running(requirepass=PASSWORD) as server:
        address = server.url.removeprefix("redis://")
        with pytest.raises(InvalidArgument, match="refuses us"):
            await Engine(f"redis://:wrong@{address}").open()
        with pytest.raises(InvalidArgument, match="refuses us"):
            await Engine(server.url).open()
        async with redis.asyncio.Redis.from_url(f"redis://:{PASSWORD}@{address}") as client:
            await client.acl_setuser(
                "hub", enabled=True, passwords=["+p"], keys=["*"], commands=["+info", "+get"]
            )
        with pytest.raises(InvalidArgument, match="refuses us"):
            async with ValkeyCluster(f"redis://hub:p@{address}").join():
                pass


async def test_an_engine_of_another_kind_or_age_is_refused() -> None:
    for version, error, text in (
        ("5.0.14", InvalidArgument, "version 5.0.14"),
        ("6.0.16", InvalidArgument, "version 6.0.16"),
        ("6.2.0", None, ""),
    ):
        async with await asyncio.start_server(_answers(version), "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            engine = Engine(f"redis://127.0.0.1:{port}", timeout_s=1.0)
            if error is None:
                await engine.open()
                await engine.close()
            else:
                with pytest.raises(error, match=text):
                    await engine.open()


def _answers(version: str):  # type: ignore[no-untyped-def]
    about = f"redis_version:{version}\r\nmaxmemory:0\r\nmaxmemory_policy:noeviction\r\n".encode()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while command := await reader.read(4096):
            for _ in range(command.count(b"CLIENT") + command.count(b"HELLO")):
                writer.write(b"-ERR unknown command\r\n" if b"HELLO" in command else b"+OK\r\n")
            if b"INFO\r\n" in command and b"SETINFO" not in command:
                writer.write(b"$%d\r\n%b\r\n" % (len(about), about))
        writer.close()

    return answer


async def test_an_engine_that_may_throw_fences_away_is_refused() -> None:
    with running(maxmemory="100mb", maxmemory_policy="allkeys-lru") as server:
        opening = ValkeyStream(server.url).open()
        with pytest.raises(InvalidArgument, match="allkeys-lru"):
            await opening
    with running(maxmemory="100mb", maxmemory_policy="volatile-lru") as server:
        engine = Engine(server.url)
        await engine.open()
        await engine.close()


async def test_hundreds_of_calls_at_once_wait_for_their_turn(valkey_url: str, name: str) -> None:
    engine = Engine(valkey_url)
    await engine.open()
    try:
        counted = await asyncio.gather(*(engine.call("INCR", name) for _ in range(500)))
    finally:
        await engine.call("DEL", name)
        await engine.close()
    assert sorted(counted) == list(range(1, 501))


async def test_what_somebody_else_keeps_under_the_clusters_keys_needs_a_person(
    valkey_url: str, name: str
) -> None:
    async with redis.asyncio.Redis.from_url(valkey_url) as client:
        await client.set(f"{{{name}}}:leases", "something else")
    async with ValkeyCluster(valkey_url, name=name).join("a") as membership:
        membership.want(["acme"])
        changes = aiter(membership.changes())
        with pytest.raises(InvalidArgument, match="something else"):
            await anext(changes)


async def test_entries_that_nobody_can_have_written_do_not_stop_a_worker(valkey_url: str, name: str) -> None:
    async with redis.asyncio.Redis.from_url(valkey_url) as client:
        await client.hset(f"{{{name}}}:leases", mapping={"acme": "no lease", "beta": b"\xff"})
        await client.hset(f"{{{name}}}:epochs", "acme", "no number")
        await client.zadd(f"{{{name}}}:workers", {"a stranger": 10**15})
    async with ValkeyCluster(valkey_url, name=name, lease_s=1.0).join("a") as membership:
        membership.want(["acme", "beta"])
        changes = aiter(membership.changes())
        assert {(await anext(changes)).lease.key for _ in range(2)} == {"acme", "beta"}
        assert (await ValkeyCluster(valkey_url, name=name).status()).owners == {"acme": "a", "beta": "a"}


async def test_an_engine_that_comes_and_goes_is_told_of_once(
    caplog: pytest.LogCaptureFixture, name: str
) -> None:
    caplog.set_level(logging.INFO, "bitrix_pull")
    with running() as server:
        cluster = ValkeyCluster(server.url, name=name, lease_s=1.0, timeout_s=0.2)
        async with cluster.join("a"):
            server.kill()
            await asyncio.sleep(1.5)
            server.start()
            await asyncio.sleep(0.7)
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.INFO]
    assert sum("no lease can be renewed" in each for each in told) == 1
    assert sum("renewed again" in each for each in told) == 1
    assert len(told) < 6


@pytest.mark.parametrize("name", ["", "a{b", "a b", "\n"])
def test_names_that_would_break_keys_are_refused(name: str) -> None:
    for make in (ValkeyCluster, ValkeyStream):
        with pytest.raises(InvalidArgument, match="name"):
            make("redis://localhost", name=name)


async def test_who_is_cancelled_while_it_connects_to_a_cluster_ends() -> None:
    """The redis package swallows that, at some of its steps: a hub would live on."""
    with running_cluster() as url:
        for step in range(40):
            engine = Engine(url)
            opening = asyncio.create_task(engine.open())
            await asyncio.sleep(step * 0.0005)
            if opening.done():
                await engine.close()
                break
            opening.cancel()
            await asyncio.wait({opening})
            assert opening.cancelled(), step


async def test_a_failover_amid_a_wait_for_an_answer_is_an_outage_that_passes(name: str) -> None:
    """Whoever waits is told "UNBLOCKED" by a server that becomes a replica."""
    with running() as server:
        async with ValkeyPublisher(server.url, name=name) as publisher, _plain(server.url) as plain:
            asking = asyncio.create_task(publisher.publish("acme", "order_paid"))
            async with asyncio.timeout(30):
                while "cmd=xread" not in str(await plain.execute_command("CLIENT", "LIST")):
                    await asyncio.sleep(0.01)
                await plain.execute_command("REPLICAOF", "127.0.0.1", "9")
                await asyncio.sleep(0.2)
                await plain.execute_command("REPLICAOF", "NO", "ONE")
                [(_, fields)] = await plain.xrange(f"{{{name}:0}}:publish")
                request = json.loads(fields[b"request"])
                told = PublishAnswer(request["id"], "acme", "accepted").write()
                await plain.xadd(f"{{{name}:0}}:answer:{request['reply_to']}", {"answer": told})
                assert (await asking).outcome == "accepted"
