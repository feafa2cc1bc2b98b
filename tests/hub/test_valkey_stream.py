"""The log: each event once, by who has the portal, and the resume point with it."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio

from bitrix_pull import EngineUnavailable, InvalidArgument, LeaseLost, ResumePoint
from bitrix_pull.hub.cluster import Lease
from bitrix_pull.hub.log import EventLog
from bitrix_pull.hub.valkey import Engine, GroupLag, ValkeyStream, stream
from tests.fault_proxy import FaultProxy
from tests.hub.engine import FaultyEngine, running, running_cluster, until
from tests.hub.events import change, message, mid

POINT = ResumePoint(mid(0), server="push.example:443")


def lease(epoch: int, key: str = "acme") -> Lease:
    return Lease(key, "a worker", epoch)


@asynccontextmanager
async def opened(log: ValkeyStream) -> AsyncGenerator[ValkeyStream]:
    await log.open()
    try:
        yield log
    finally:
        await log.close()


async def entries(url: str, log: ValkeyStream) -> list[dict[str, Any]]:
    async with redis.asyncio.Redis.from_url(url) as client:
        rows: list[Any] = [row for key in log.streams for row in await client.xrange(key) or ()]
    return [json.loads(fields[b"event"]) for _, fields in rows]


async def test_an_event_is_written_down_as_documented_and_is_settled_by_that(
    valkey_url: str, name: str
) -> None:
    async with opened(ValkeyStream(valkey_url, name=name)) as log:
        assert isinstance(log, EventLog)
        writer = log.writer(lease(7))
        assert await writer.resume.load("key") is None
        await writer.resume.save("key", POINT)
        await writer.append(message(1))
        await writer.append(change(20))
        assert await entries(valkey_url, log) == [
            {
                "v": 1,
                "portal": "acme",
                "epoch": 7,
                "kind": "server",
                "created": 1_700_000_100,
                "mid": mid(1),
                "module": "application",
                "command": "order",
                "params": {"n": 1},
                "healed": False,
            },
            {
                "v": 1,
                "portal": "acme",
                "epoch": 7,
                "kind": "portal",
                "created": 1_700_000_100.0,
                "message_id": "0123456789abcdef0123456789abcdef",
                "record": 20,
                "name": "ONCRMDEALUPDATE",
                "data": {"FIELDS": {"ID": "7"}},
                "user_id": 1,
            },
        ]
        point = await log.writer(lease(8)).resume.load("key")
        assert point is not None
        assert (point.mid, point.settled, point.server) == (mid(0), (mid(1),), "push.example:443")
        assert point.stamps == (1_700_000_100.25,)


async def test_nothing_is_written_twice_whoever_has_the_portal(valkey_url: str, name: str) -> None:
    async with opened(ValkeyStream(valkey_url, name=name)) as log:
        for epoch in (1, 2):
            writer = log.writer(lease(epoch))
            for _ in range(2):
                await writer.append(message(1))
                await writer.append(change(20))
        # Another message under a mid that was handed out before, and another change of the record.
        await writer.append(message(1, 1_700_000_999))
        await writer.append(change(20, 1_700_000_999))
        assert [entry["created"] for entry in await entries(valkey_url, log)] == [
            1_700_000_100,
            1_700_000_100.0,
            1_700_000_999,
            1_700_000_999.0,
        ]


async def test_an_owner_is_refused_once_the_next_one_has_begun(valkey_url: str, name: str) -> None:
    async with (
        opened(ValkeyStream(valkey_url, name=name)) as log,
        opened(ValkeyStream(valkey_url, name=name)) as other,
    ):
        old = log.writer(lease(1))
        await old.resume.load("key")
        await old.append(message(1))
        await other.writer(lease(2)).resume.load("key")
        with pytest.raises(LeaseLost, match="another worker"):
            await old.append(message(2))
        assert not old.lease.valid()
        assert old.lease.cause == "fenced"
        with pytest.raises(LeaseLost):
            await log.writer(lease(1)).resume.save("key", POINT)
        with pytest.raises(LeaseLost):
            await log.writer(lease(1)).resume.load("key")
        assert [entry["mid"] for entry in await entries(valkey_url, log)] == [mid(1)]


async def test_who_has_lost_the_lease_sends_nothing(valkey_url: str, name: str) -> None:
    async with opened(ValkeyStream(valkey_url, name=name)) as log:
        writer = log.writer(lease(1))
        writer.lease.end()
        with pytest.raises(LeaseLost):
            await writer.append(message(1))
        assert await entries(valkey_url, log) == []


async def test_many_at_once_are_written_in_the_order_in_which_they_began(valkey_url: str, name: str) -> None:
    async with opened(ValkeyStream(valkey_url, name=name, shards=3)) as log:
        writers = [log.writer(lease(1, f"portal-{number}")) for number in range(10)]
        await asyncio.gather(*(writer.append(message(number)) for number in range(200) for writer in writers))
        written = await entries(valkey_url, log)
        assert len(written) == 2_000
        for writer in writers:
            of_portal = [entry["mid"] for entry in written if entry["portal"] == writer.lease.key]
            assert of_portal == [mid(number) for number in range(200)]
        assert len({log.stream_of(writer.lease.key) for writer in writers}) > 1


async def test_what_comes_now_and_then_is_written_at_once_and_what_comes_often_by_few_scripts(
    valkey_url: str, name: str
) -> None:
    loop = asyncio.get_running_loop()
    async with (
        opened(ValkeyStream(valkey_url, name=name)) as log,
        redis.asyncio.Redis.from_url(valkey_url) as at,
    ):
        writer = log.writer(lease(1))
        began = loop.time()
        appending = list[asyncio.Task[None]]()
        for number in range(100):
            appending.append(asyncio.create_task(writer.append(message(number))))
            await asyncio.sleep(0.001)
        await asyncio.gather(*appending)
        engine: Any = at  # Its commands have no types.
        writes = int(await engine.hget(f"{{{name}:0}}:at:acme", "writes"))
        assert writes <= (loop.time() - began) / 0.01 + 1
        assert len(await entries(valkey_url, log)) == 100


async def test_a_cut_line_neither_loses_nor_doubles(valkey_url: str, name: str) -> None:
    async with FaultProxy.before(valkey_url.removeprefix("redis://")) as proxy:
        shaky = ValkeyStream(f"redis://{proxy.address}", name=name, timeout_s=0.5)
        async with opened(shaky) as log:
            writer = log.writer(lease(1))
            appending = asyncio.gather(*(writer.append(message(number)) for number in range(3_000)))
            for after in range(0, 60, 5):
                await asyncio.sleep(0.01)
                for line in proxy.lines:
                    # The command arrives; of its answer a few bytes do, or none.
                    line.weather.cut_after_bytes = after % 7
            await appending
            written = await entries(valkey_url, log)
            assert [entry["mid"] for entry in written] == [mid(number) for number in range(3_000)]


async def test_settled_messages_beyond_the_point_are_kept_until_it_passes_them(
    valkey_url: str, name: str
) -> None:
    async with opened(ValkeyStream(valkey_url, name=name)) as log:
        writer = log.writer(lease(1))
        await writer.resume.load("key")
        await writer.resume.save("key", POINT)
        for number in (2, 3, 5):
            await writer.append(message(number))
        # 4 was for no handler; 1 is not settled yet.
        await writer.resume.advance("key", ResumePoint(mid(0), (mid(2), mid(3), mid(4), mid(5))))
        point = await log.writer(lease(1)).resume.load("key")
        assert point is not None
        assert (point.mid, sorted(point.settled)) == (mid(0), [mid(number) for number in (2, 3, 4, 5)])
        await writer.resume.advance("key", ResumePoint(mid(4), (mid(1),)))
        point = await log.writer(lease(1)).resume.load("key")
        assert point is not None
        assert (point.mid, point.settled) == (mid(4), (mid(5),))


async def test_an_engine_that_goes_back_takes_the_lease_and_the_next_owner_begins_where_it_is(
    tmp_path: Path, name: str
) -> None:
    with running(tmp_path, appendonly="yes", appendfsync="always") as server:
        async with opened(ValkeyStream(server.url, name=name)) as log:
            writer, idle = log.writer(lease(1)), log.writer(lease(1, "idle"))
            for each in (writer, idle):
                await each.resume.load("key")
                await each.resume.save("key", POINT)
                await each.append(message(1))
            await _go_back(
                server.url, log, ["acme", "idle"], [writer.append(message(2)), idle.append(message(2))]
            )
            with pytest.raises(LeaseLost, match="has lost"):
                await writer.append(message(3))
            with pytest.raises(LeaseLost):
                await writer.resume.save("key", ResumePoint(mid(3)))
            # Who writes nothing finds out too.
            await until(lambda: not idle.lease.valid())

            again = log.writer(lease(2))
            point = await again.resume.load("key")
            assert point is not None
            assert point.settled == (mid(1),)
            for number in (2, 3):
                await again.append(message(number))
            of_acme = [entry["mid"] for entry in await entries(server.url, log) if entry["portal"] == "acme"]
            assert of_acme == [mid(1), mid(2), mid(3)]


async def _go_back(url: str, log: ValkeyStream, portals: list[str], lost: list[Any]) -> None:
    """Let the engine forget what happens in between, as a fail-over does to a replica that is behind."""
    async with redis.asyncio.Redis.from_url(url) as client:
        keys = [key async for key in client.scan_iter()]
        kept = [(key, await client.dump(key)) for key in keys]
        for each in lost:
            await each
        await client.flushall()
        for key, dump in kept:
            await client.restore(key, 0, dump or b"")


async def test_a_full_engine_makes_it_wait_and_loses_nothing(name: str) -> None:
    with running(maxmemory="4mb") as server:
        async with opened(ValkeyStream(server.url, name=name)) as log:
            writer = log.writer(lease(1))
            appending = asyncio.gather(*(writer.append(message(n, text="x" * 20_000)) for n in range(300)))
            await asyncio.sleep(0.5)
            assert not appending.done()
            async with redis.asyncio.Redis.from_url(server.url) as client:
                await client.config_set("maxmemory", "100mb")
            await asyncio.wait_for(appending, 30)
            written = await entries(server.url, log)
            assert [entry["mid"] for entry in written] == [mid(number) for number in range(300)]


async def test_what_somebody_else_keeps_under_a_portals_keys_stops_that_portal_alone(
    valkey_url: str, name: str
) -> None:
    async with opened(ValkeyStream(valkey_url, name=name)) as log:
        async with redis.asyncio.Redis.from_url(valkey_url) as client:
            await client.set(f"{{{name}:0}}:at:acme", "something else")
        poisoned, other = log.writer(lease(1)), log.writer(lease(1, "other"))
        bad, good = await asyncio.gather(
            poisoned.append(message(1)), other.append(message(1)), return_exceptions=True
        )
        assert isinstance(bad, LeaseLost)
        assert good is None
        with pytest.raises(InvalidArgument, match="something else"):
            await log.writer(lease(2)).resume.load("key")


async def test_the_oldest_go_beyond_the_limit_and_a_slow_group_is_told_of_before(
    valkey_url: str, name: str
) -> None:
    told: list[GroupLag] = []
    log = ValkeyStream(valkey_url, name=name, max_events=1_000, on_behind=told.append)
    async with redis.asyncio.Redis.from_url(valkey_url) as client:
        await client.xgroup_create(log.streams[0], "slow", id="0", mkstream=True)
    async with opened(log):
        writer = log.writer(lease(1))
        for many in (range(700), range(700, 900), range(900, 1_500)):
            await asyncio.gather(*(writer.append(message(number)) for number in many))
            [lag] = await log.lag()
            assert (lag.group, lag.behind, lag.lost) == ("slow", many.stop, many.stop > 1_200)
            assert lag.endangered is (many.stop >= 800)
        assert 1_000 <= lag.length < 1_200
    async with opened(log):
        await until(lambda: told)
        assert (told[0].group, told[0].lost) == ("slow", True)


async def test_who_is_told_of_slow_groups_may_raise(
    valkey_url: str, name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(stream, "_WATCH_S", 0.02)
    told: list[str] = []

    def behind(lag: GroupLag) -> None:
        told.append(lag.group)
        raise LookupError("nobody is on call")

    log = ValkeyStream(valkey_url, name=name, max_events=10, on_behind=behind)
    async with redis.asyncio.Redis.from_url(valkey_url) as client:
        await client.xgroup_create(log.streams[0], "one", id="0", mkstream=True)
        async with opened(log):
            writer = log.writer(lease(1))
            await asyncio.gather(*(writer.append(message(number)) for number in range(9)))
            await until(lambda: told == ["one"])
            await client.xgroup_create(log.streams[0], "other", id="0")
            await until(lambda: told == ["one", "other"])
    assert "nobody is on call" in caplog.text


async def test_a_group_that_catches_up_while_it_is_looked_at_is_behind_by_nothing(
    valkey_url: str, name: str
) -> None:
    async with redis.asyncio.Redis.from_url(valkey_url) as client:

        class Busy(Engine):
            """One whose group finishes right before it is asked what is pending."""

            async def call(self, *command: Any, **by: Any) -> Any:
                if command[0] == "XPENDING":
                    rows: Any = await client.xrange(command[1])
                    await client.xack(command[1], command[2], *(entry for entry, _ in rows))
                return await super().call(*command, **by)

        log = ValkeyStream(Busy(valkey_url), name=name)
        async with opened(log):
            await log.writer(lease(1)).append(message(1))
            await client.xgroup_create(log.streams[0], "quick", id="0")
            await client.xreadgroup("quick", "one", {log.streams[0]: ">"})
            [lag] = await log.lag()
        assert (lag.group, lag.lost) == ("quick", False)


async def test_a_fault_of_our_own_does_not_end_the_writing(
    valkey_url: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    log = ValkeyStream(FaultyEngine(valkey_url), name=name)
    async with opened(log), asyncio.timeout(20):
        writer = log.writer(lease(1))
        await asyncio.gather(*(writer.append(message(number)) for number in range(5)))
    assert [entry["mid"] for entry in await entries(valkey_url, log)] == [mid(n) for n in range(5)]
    assert any(record.levelname == "CRITICAL" for record in caplog.records)


async def test_young_entries_stay_beyond_the_limit(valkey_url: str, name: str) -> None:
    async with opened(ValkeyStream(valkey_url, name=name, max_events=100, min_age_s=3_600)) as log:
        writer = log.writer(lease(1))
        await asyncio.gather(*(writer.append(message(number)) for number in range(1_000)))
        assert len(await entries(valkey_url, log)) == 1_000


async def test_a_closed_log_takes_nothing_and_leaves_nothing_hanging(name: str) -> None:
    with running() as server:
        log = ValkeyStream(server.url, name=name, timeout_s=0.3)
        writer = log.writer(lease(1))
        with pytest.raises(EngineUnavailable):
            await writer.append(message(1))
        async with opened(log):
            server.kill()
            hanging = asyncio.ensure_future(writer.append(message(1)))
            await asyncio.sleep(0.2)
            assert not hanging.done()
        with pytest.raises(EngineUnavailable, match="closed"):
            await hanging
        with pytest.raises(EngineUnavailable, match="does not answer"):
            await log.open()


async def test_it_works_on_a_cluster_of_three_nodes(name: str) -> None:
    with running_cluster() as url:
        async with opened(ValkeyStream(url, name=name, shards=8)) as log:
            writers = [log.writer(lease(1, f"portal-{number}")) for number in range(20)]
            for writer in writers:
                await writer.resume.load("key")
                await writer.resume.save("key", POINT)
            await asyncio.gather(*(writer.append(message(n)) for n in range(1, 20) for writer in writers))
            for writer in writers:
                point = await log.writer(lease(2, writer.lease.key)).resume.load("key")
                assert point is not None
                assert sorted(point.settled) == [mid(number) for number in range(1, 20)]
            with contextlib.suppress(LeaseLost):
                await writers[0].append(message(21))
            assert not writers[0].lease.valid()
