"""Other services ask the owner of a portal to publish: once at most, and with an answer."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio

from bitrix_pull import AccessToken, Hub, InvalidArgument, Message, Portal, PullEvent, Unreachable
from bitrix_pull.emulator import EmulatedCloud
from bitrix_pull.errors import OutcomeUnknown
from bitrix_pull.hub.cluster import Lease
from bitrix_pull.hub.log import Publish, TakesRequests
from bitrix_pull.hub.valkey import PublishAnswer, ValkeyCluster, ValkeyPublisher, ValkeyStream
from bitrix_pull.hub.valkey.requests import REQUESTS_MAX
from bitrix_pull.publish.publisher import Route
from bitrix_pull.publish.receipt import Receipt
from tests.fault_proxy import FaultProxy
from tests.hub.engine import FaultyEngine, running, running_cluster, until

Engine = Any


@asynccontextmanager
async def engine_of(url: str) -> AsyncGenerator[Engine]:
    async with redis.asyncio.Redis.from_url(url) as client:
        yield client


@asynccontextmanager
async def opened(*logs: ValkeyStream) -> AsyncGenerator[None]:
    async with contextlib.AsyncExitStack() as stack:
        for log in logs:
            await log.open()
            stack.push_async_callback(log.close)
        yield


class Press:
    """Publishes for an owner of a portal, at no portal: it writes down what, and may be held up."""

    def __init__(self) -> None:
        self.published: list[Any] = []
        self.begun = asyncio.Event()
        self.free = asyncio.Event()
        self.free.set()

    async def publish(self, message: Message, route: Route, timeout_s: float) -> Receipt:
        self.begun.set()
        await self.free.wait()
        self.published.append(message.params.get("n"))
        return Receipt("rest", 1, 1, True, [message])


@asynccontextmanager
async def owner(log: ValkeyStream, lease: Lease, publish: Publish) -> AsyncGenerator["asyncio.Task[None]"]:
    writer = log.writer(lease)
    assert isinstance(writer, TakesRequests)
    task = asyncio.create_task(writer.requests(publish).run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait({task})


def lease(epoch: int, key: str = "acme") -> Lease:
    return Lease(key, f"worker {epoch}", epoch)


async def ask(engine: Engine, name: str, shard: int = 0, /, **request: Any) -> str:
    """Ask as any language can, and return the entry's id."""
    told = json.dumps({"v": 1, "portal": "acme", "command": "order", **request})
    entry: bytes = await engine.xadd(f"{{{name}:{shard}}}:publish", {"request": told})
    return entry.decode()


async def answer(engine: Engine, name: str, reply_to: str, count: int = 1, shard: int = 0) -> Any:
    key = f"{{{name}:{shard}}}:answer:{reply_to}"
    entries: list[Any] = []
    async with asyncio.timeout(30):
        while len(entries) < count:
            entries = await engine.xrange(key)
            await asyncio.sleep(0.02)
    assert 0 < await engine.ttl(key) <= 600
    answers = [json.loads(fields[b"answer"]) for _, fields in entries]
    return answers[0] if count == 1 else answers


async def test_a_service_asks_with_plain_commands_and_is_answered_as_documented(
    valkey_url: str, name: str
) -> None:
    async with EmulatedCloud(1) as cloud, engine_of(valkey_url) as engine:
        (portal,) = cloud.portals
        hub = Hub(
            [Portal("acme", AccessToken(portal.url, portal.token))],
            cluster=ValkeyCluster(valkey_url, name=name),
            stream=ValkeyStream(valkey_url, name=name),
        )
        got: list[PullEvent[Any]] = []
        hub.on("order_paid")(got.append)
        async with hub.serving():
            await until(lambda: hub.health().live == 1)
            (status,) = hub.list()
            await ask(engine, name, id="7f31", command="order_paid", params={"id": 2**70}, users=[1])
            assert await answer(engine, name, "7f31") == {
                "v": 1,
                "id": "7f31",
                "portal": "acme",
                "outcome": "accepted",
                "error": None,
                "route": "rest",
                "confirmed": True,
                "missed": [],
                "in_doubt": [],
                "epoch": status.epoch,
            }
            await until(lambda: got)
            assert [event.params for event in got] == [{"id": 2**70}]
            # Several answers in one place; a request without a name has that of its entry.
            entry = await ask(engine, name, reply_to="billing")
            await ask(engine, name, reply_to="billing", id="other", command="no command")
            first, second = await answer(engine, name, "billing", 2)
            assert (first["id"], first["outcome"]) == (entry, "accepted")
            assert (second["id"], second["outcome"]) == ("other", "refused")
            assert (second["error"]["type"], second["error"]["retryable"]) == ("InvalidArgument", False)
            assert "the command holds ' '" in second["error"]["message"]
            assert await engine.xlen(f"{{{name}:0}}:publish") == 0


async def test_the_publisher_tells_what_the_portal_said(valkey_url: str, name: str) -> None:
    async with EmulatedCloud(2) as cloud:
        one, two = cloud.portals
        employee = two.issue_token(2)
        hub = Hub(
            [Portal("one", AccessToken(one.url, one.token)), Portal("two", AccessToken(two.url, employee))],
            stream=ValkeyStream(valkey_url, name=name, shards=3),
        )
        async with hub.serving(), ValkeyPublisher(valkey_url, name=name, shards=3) as publisher:
            fine, refused = await asyncio.gather(
                publisher.publish("one", "order", {"id": 7}, users=[1]),
                publisher.publish("two", "order", {"id": 7}, users=[1]),
            )
            assert (fine.outcome, fine.portal, fine.route, fine.confirmed) == (
                "accepted",
                "one",
                "rest",
                True,
            )
            assert (refused.outcome, refused.error_type, refused.retryable) == (
                "refused",
                "UserAccessError",
                False,
            )
            assert refused.error
            with pytest.raises(InvalidArgument, match="command"):
                await publisher.publish("one", "no command")
            with pytest.raises(InvalidArgument, match="expires_in_s"):
                await publisher.publish("one", "order", expires_in_s=0)


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (b"{", "no JSON"),
        (b"\xff", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b"7", "no JSON object"),
        (b'{"v": 2, "portal": "acme", "command": "order"}', "version 1"),
        (b'{"v": 1, "portal": "acme", "command": "order", "user": 5}', "'user'"),
        (b'{"v": 1, "portal": "acme", "command": "order", "users": null}', "null"),
        (b'{"v": 1, "portal": "acme", "command": "order", "expires_in_s": 1e300}', "expires_in_s"),
        (b'{"v": 1, "portal": "acme", "command": "order", "expires_in_s": true}', "expires_in_s"),
        (b'{"v": 1, "portal": ["acme"], "command": "order"}', "a portal's key"),
        (b'{"v": 1, "command": "order"}', "a portal's key"),
        (b'{"v": 1, "portal": "acme", "id": 7, "command": "order"}', "id must be"),
        (b'{"v": 1, "portal": "acme", "command": "order", "users": []}', "users is empty"),
        (b'{"v": 1, "portal": "acme", "command": "order", "users": {"a": 1}}', "no user id"),
        (b'{"v": 1, "portal": "acme", "command": 7}', "command must be text"),
        (b'{"v": 1, "portal": "acme", "command": "order", "route": "tunnel"}', "route"),
        (b'{"v": 1, "portal": "acme", "command": "order", "params": []}', "params must be"),
        (b'{"v": 1, "portal": "acme", "command": "order", "channels": ["x"]}', "public channel"),
    ],
)
async def test_what_is_no_request_is_refused_and_stops_nobody(
    valkey_url: str, name: str, raw: bytes, told: str
) -> None:
    log, press = ValkeyStream(valkey_url, name=name), Press()
    async with engine_of(valkey_url) as engine, opened(log), owner(log, lease(1), press.publish):
        entry = (await engine.xadd(f"{{{name}:0}}:publish", {"request": raw})).decode()
        await ask(engine, name, id="good", params={"n": 1})
        refused = await answer(engine, name, entry)
        assert (refused["outcome"], refused["error"]["type"]) == ("refused", "InvalidArgument")
        assert told in refused["error"]["message"]
        assert (await answer(engine, name, "good"))["outcome"] == "accepted"
        assert press.published == [1]
        assert await engine.xlen(f"{{{name}:0}}:publish") == 0


async def test_an_entry_of_another_kind_and_one_of_another_shard_are_refused(
    valkey_url: str, name: str
) -> None:
    log, press = ValkeyStream(valkey_url, name=name, shards=2), Press()
    home = int(log.stream_of("acme").removesuffix("}:events")[-1])
    async with engine_of(valkey_url) as engine, opened(log), owner(log, lease(1, "acme"), press.publish):
        # Whoever has a portal of that shard answers.
        other = next(key for key in "abcdefgh" if log.stream_of(key) != log.stream_of("acme"))
        async with owner(log, lease(1, other), press.publish):
            # An id far in the future would never expire.
            entry = "99999999999999-1"
            await engine.xadd(f"{{{name}:{home}}}:publish", {"order": "{}"}, id=entry)
            assert "no field request" in (await answer(engine, name, entry, 1, home))["error"]["message"]
            await ask(engine, name, 1 - home, id="lost")
            assert "another shard" in (await answer(engine, name, "lost", 1, 1 - home))["error"]["message"]
        assert press.published == []


async def test_a_request_that_nobody_can_serve_waits_until_it_expires(valkey_url: str, name: str) -> None:
    log, press = ValkeyStream(valkey_url, name=name), Press()
    async with engine_of(valkey_url) as engine, opened(log):
        await ask(engine, name, id="early", params={"n": 1}, expires_in_s=600)
        await ask(engine, name, id="late", params={"n": 2}, expires_in_s=0.05)
        await ask(engine, name, id="nobody", portal="nobody", expires_in_s=0.05)
        await asyncio.sleep(0.1)
        async with owner(log, lease(1), press.publish):
            assert (await answer(engine, name, "early"))["outcome"] == "accepted"
            for request_id in ("late", "nobody"):
                refused = await answer(engine, name, request_id)
                assert (refused["outcome"], refused["error"]["type"]) == ("refused", "Expired")
        assert press.published == [1]
        assert await engine.xlen(f"{{{name}:0}}:publish") == 0


async def test_who_asks_where_no_worker_is_takes_the_request_back(valkey_url: str, name: str) -> None:
    async with engine_of(valkey_url) as engine, ValkeyPublisher(valkey_url, name=name) as publisher:
        refused = await publisher.publish("acme", "order", expires_in_s=1.0)
        assert (refused.outcome, refused.error_type, refused.retryable) == ("refused", "Expired", True)
        assert await engine.xlen(f"{{{name}:0}}:publish") == 0


async def test_an_owner_that_dies_in_mid_publish_leaves_it_unknown_and_published_once(
    valkey_url: str, name: str
) -> None:
    old, new = (ValkeyStream(valkey_url, name=name) for _ in range(2))
    slow, press = Press(), Press()
    slow.free.clear()
    async with (
        engine_of(valkey_url) as engine,
        opened(old, new),
        owner(old, lease(1), slow.publish) as stale,
    ):
        for number in range(3):
            await ask(engine, name, id=f"request-{number}", params={"n": number})
        await asyncio.wait_for(slow.begun.wait(), 30)
        async with owner(new, lease(2), press.publish):
            unknown = await answer(engine, name, "request-0")
            assert (unknown["outcome"], unknown["error"]["type"]) == ("unknown", "OutcomeUnknown")
            assert unknown["epoch"] == 1
            for number in (1, 2):
                assert (await answer(engine, name, f"request-{number}"))["epoch"] == 2
            assert press.published == [1, 2]
            # It wakes up: what it had begun comes to its end, and it takes nothing more.
            slow.free.set()
            await asyncio.wait_for(stale, 30)
            assert slow.published == [0]
            assert len(await engine.xrange(f"{{{name}:0}}:answer:request-0")) == 1


async def test_what_was_taken_long_ago_and_is_not_answered_is_unknown_whoever_has_the_portal(
    valkey_url: str, name: str
) -> None:
    log, press = ValkeyStream(valkey_url, name=name), Press()
    about = {"portal": "removed", "epoch": 7, "id": "old", "to": "billing"}
    async with engine_of(valkey_url) as engine, opened(log):
        taken = f"{{{name}:0}}:publish:taken"
        now, _ = await engine.time()
        young = f"{now * 1000} {json.dumps({**about, 'id': 'young', 'to': 'young'})}"
        told = {"1-1": f"{now * 1000 - 61_000} {json.dumps(about)}", "1-2": "nonsense", "1-3": young}
        await engine.hset(taken, mapping=told)
        async with owner(log, lease(1), press.publish):
            unknown = await answer(engine, name, "billing")
            assert (unknown["id"], unknown["outcome"], unknown["epoch"]) == ("old", "unknown", 7)
            assert (await answer(engine, name, "1-2"))["outcome"] == "unknown"
        # Whoever has taken it may be at it.
        assert await engine.hkeys(taken) == [b"1-3"]


async def test_a_stale_owner_takes_nothing_once_another_has_begun(valkey_url: str, name: str) -> None:
    """Owners follow each other while it is asked: each request has one that publishes it, and one answer."""
    logs = [ValkeyStream(valkey_url, name=name) for _ in range(3)]
    presses = [Press() for _ in range(9)]
    async with engine_of(valkey_url) as engine, opened(*logs), contextlib.AsyncExitStack() as owners:
        for number in range(90):
            if number % 10 == 0:
                # Those before it live on, and believe that the portal is theirs.
                epoch = number // 10
                await owners.enter_async_context(
                    owner(logs[epoch % 3], lease(epoch + 1), presses[epoch].publish)
                )
            await ask(engine, name, id=f"{number}", params={"n": number})
            await asyncio.sleep(0.01)
        outcomes = [(await answer(engine, name, str(number)))["outcome"] for number in range(90)]
        published = [number for press in presses for number in press.published]
        assert sorted(published) == sorted(set(published))
        assert {n for n, outcome in enumerate(outcomes) if outcome == "accepted"} <= set(published)
        assert outcomes.count("unknown") <= len(presses)
        assert "refused" not in outcomes
        assert [len(await engine.xrange(f"{{{name}:0}}:answer:{n}")) for n in range(90)] == [1] * 90


async def test_a_request_that_is_sent_again_is_published_once(valkey_url: str, name: str) -> None:
    log, press = ValkeyStream(valkey_url, name=name), Press()
    async with engine_of(valkey_url) as engine, opened(log), owner(log, lease(1), press.publish):
        for _ in range(3):
            await ask(engine, name, id="same", params={"n": 1})
        await answer(engine, name, "same")
        await ask(engine, name, id="same", params={"n": 1})
        await ask(engine, name, id="other", params={"n": 2})
        await answer(engine, name, "other")
        assert press.published == [1, 2]
        assert len(await engine.xrange(f"{{{name}:0}}:answer:same")) == 1


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (Unreachable("nothing answered", unsent=True), "refused"),
        (OutcomeUnknown("cut"), "unknown"),
        (ZeroDivisionError(), "unknown"),
    ],
)
async def test_what_publishing_fails_with_is_told(
    valkey_url: str, name: str, error: Exception, outcome: str
) -> None:
    async def fail(message: Message, route: Route, timeout_s: float) -> Receipt:
        raise error

    log = ValkeyStream(valkey_url, name=name)
    async with opened(log), owner(log, lease(1), fail), ValkeyPublisher(valkey_url, name=name) as publisher:
        told = await publisher.publish("acme", "order")
    known = isinstance(error, Unreachable)
    assert (told.outcome, told.retryable, told.epoch) == (outcome, known, 1)
    assert told.error_type == ("Unreachable" if known else "OutcomeUnknown")
    assert PublishAnswer.read(told.write()) == told


async def test_many_are_published_in_their_order(valkey_url: str, name: str) -> None:
    log, press = ValkeyStream(valkey_url, name=name), Press()
    async with engine_of(valkey_url) as engine, opened(log):
        for number in range(600):
            await ask(engine, name, params={"n": number}, reply_to="all")
        async with owner(log, lease(1), press.publish):
            await until(lambda: len(press.published) == 600)
        assert press.published == list(range(600))


async def test_many_who_wait_for_an_answer_take_one_connection_and_hold_up_nobody(
    valkey_url: str, name: str
) -> None:
    log, press = ValkeyStream(valkey_url, name=name), Press()
    async with (
        engine_of(valkey_url) as engine,
        opened(log),
        owner(log, lease(1), press.publish),
        ValkeyPublisher(valkey_url, name=name) as publisher,
        asyncio.TaskGroup() as asking,
    ):
        waiting = [
            asking.create_task(publisher.publish("nobody", "order", expires_in_s=600)) for _ in range(150)
        ]
        while await engine.xlen(f"{{{name}:0}}:publish") < 150:
            await asyncio.sleep(0.02)
        served = [publisher.publish("acme", "order", {"n": number}) for number in range(200)]
        async with asyncio.timeout(60):
            assert {told.outcome for told in await asyncio.gather(*served)} == {"accepted"}
        assert sorted(press.published) == list(range(200))
        # Each worker's desk has one, and so has the publisher.
        reading = [each for each in await engine.client_list() if each["cmd"].startswith("xread")]
        assert len(reading) <= 4
        for task in waiting:
            task.cancel()


async def test_of_too_many_the_oldest_are_refused(valkey_url: str, name: str) -> None:
    log, press = ValkeyStream(valkey_url, name=name), Press()
    async with engine_of(valkey_url) as engine, opened(log):
        async with engine.pipeline(transaction=False) as pipeline:
            for number in range(REQUESTS_MAX + 3):
                await ask(pipeline_of(pipeline), name, portal="nobody", reply_to="all", id=f"{number}")
            await pipeline.execute()
        async with owner(log, lease(1), press.publish):
            refused = await answer(engine, name, "all", 3)
        assert [each["id"] for each in refused] == ["0", "1", "2"]
        assert {each["error"]["type"] for each in refused} == {"PublishBusy"}
        assert await engine.xlen(f"{{{name}:0}}:publish") == REQUESTS_MAX


def pipeline_of(pipeline: Any) -> Any:
    class Later:
        async def xadd(self, key: str, fields: dict[str, str]) -> bytes:
            pipeline.xadd(key, fields)
            return b""

    return Later()


async def test_a_cut_line_neither_loses_nor_doubles(valkey_url: str, name: str) -> None:
    async with FaultProxy.before(valkey_url.removeprefix("redis://")) as proxy:
        shaky = ValkeyStream(f"redis://{proxy.address}", name=name, timeout_s=0.5)
        press = Press()
        async with engine_of(valkey_url) as engine, opened(shaky), owner(shaky, lease(1), press.publish):
            for number in range(300):
                await ask(engine, name, id=f"{number}", params={"n": number})
            for after in range(60):
                await asyncio.sleep(0.02)
                for line in proxy.lines:
                    # The command arrives; of its answer a few bytes do, or none.
                    line.weather.cut_after_bytes = after % 7
            await until(lambda: len(press.published) == 300)
            assert press.published == list(range(300))
            for number in range(300):
                assert (await answer(engine, name, str(number)))["outcome"] == "accepted"


async def test_an_engine_that_goes_back_makes_its_worker_publish_nothing_twice(
    tmp_path: Path, name: str
) -> None:
    with running(tmp_path) as server:
        log, press = ValkeyStream(server.url, name=name), Press()
        async with engine_of(server.url) as engine, opened(log):
            async with owner(log, lease(1), press.publish):
                await ask(engine, name, id="before")
                await answer(engine, name, "before")
                press.free.clear()
                press.begun.clear()
                await ask(engine, name, id="held up")
                await asyncio.wait_for(press.begun.wait(), 30)
                await ask(engine, name, id="lost", params={"n": 1})
                kept = [(key, await engine.dump(key)) async for key in engine.scan_iter()]
                press.free.set()
                await answer(engine, name, "lost")
                await engine.flushall()
                for key, dump in kept:
                    await engine.restore(key, 0, dump)
            async with owner(log, lease(2), press.publish):
                assert (await answer(engine, name, "lost"))["outcome"] == "accepted"
                # What was under way then is answered too.
                assert (await answer(engine, name, "held up"))["outcome"] == "accepted"
        assert press.published == [None, None, 1]


async def test_something_else_under_its_key_stops_requests_alone(
    valkey_url: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    log, press = ValkeyStream(valkey_url, name=name), Press()
    async with engine_of(valkey_url) as engine, opened(log), owner(log, lease(1), press.publish):
        await engine.set(f"{{{name}:0}}:publish", "something else")
        await until(lambda: "requests to publish are not taken" in caplog.text)
        await engine.delete(f"{{{name}:0}}:publish")
        await ask(engine, name, id="good", params={"n": 1})
        await answer(engine, name, "good")
        assert caplog.text.count("requests to publish are not taken") == 1


async def test_what_is_begun_at_a_hand_over_is_finished_and_the_rest_is_the_next_owners(
    valkey_url: str, name: str
) -> None:
    async with EmulatedCloud(1) as cloud, engine_of(valkey_url) as engine:
        (portal,) = cloud.portals

        def hub(worker: str) -> Hub:
            return Hub(
                [Portal("acme", AccessToken(portal.url, portal.token))],
                cluster=ValkeyCluster(valkey_url, name=name, lease_s=3.0, settle_s=0.1),
                stream=ValkeyStream(valkey_url, name=name),
                worker=worker,
            )

        got: list[int] = []
        one, two = hub("one"), hub("two")
        for each in (one, two):
            each.on("order")(lambda event: got.append(event.params["n"]))
        async with contextlib.AsyncExitStack() as later:
            async with one.serving():
                await until(lambda: one.health().live == 1)
                for number in range(30):
                    await ask(engine, name, id=f"{number}", params={"n": number})
                await answer(engine, name, "3")
                await later.enter_async_context(two.serving())
            # However fast the first owner was, these are the second's.
            for number in range(30, 33):
                await ask(engine, name, id=f"{number}", params={"n": number})
            answers = [await answer(engine, name, f"{number}") for number in range(33)]
            await until(lambda: len(got) == 33)
        assert sorted(got) == list(range(33))
        assert {each["outcome"] for each in answers} == {"accepted"}
        assert len({each["epoch"] for each in answers}) == 2


async def test_it_works_on_a_cluster_of_three_nodes(name: str) -> None:
    with running_cluster() as url:
        log, press = ValkeyStream(url, name=name, shards=8), Press()
        keys = [f"portal-{number}" for number in range(12)]
        async with (
            opened(log),
            ValkeyPublisher(url, name=name, shards=8) as publisher,
            contextlib.AsyncExitStack() as owners,
        ):
            for key in keys:
                await owners.enter_async_context(owner(log, lease(1, key), press.publish))
            answers = await asyncio.gather(
                *(publisher.publish(key, "order", {"n": number}) for number, key in enumerate(keys))
            )
        assert {each.outcome for each in answers} == {"accepted"}
        assert sorted(press.published) == list(range(12))


async def test_after_a_fault_of_our_own_requests_are_published_and_answered_all_the_same(
    valkey_url: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    press, log = Press(), ValkeyStream(FaultyEngine(valkey_url), name=name)
    async with engine_of(valkey_url) as engine, opened(log), owner(log, lease(1), press.publish):
        await ask(engine, name, id="one", params={"n": 1})
        assert (await answer(engine, name, "one"))["outcome"] == "accepted"
        assert press.published == [1]
    assert any(record.levelname == "CRITICAL" for record in caplog.records)


async def test_what_is_no_answer_keeps_nobody_from_theirs(valkey_url: str, name: str) -> None:
    log, press = ValkeyStream(valkey_url, name=name), Press()
    async with (
        engine_of(valkey_url) as engine,
        opened(log),
        owner(log, lease(1), press.publish),
        ValkeyPublisher(valkey_url, name=name) as publisher,
    ):
        assert (await publisher.publish("acme", "order", {"n": 1})).outcome == "accepted"
        (key,) = [each async for each in engine.scan_iter(f"*{name}*:answer:*")]
        real = json.loads(PublishAnswer("id", "acme", "accepted").write())
        ids: tuple[object, ...] = ([], {}, None)
        for strange in (b"{", b"[]", b"\xff", *(json.dumps({**real, "id": each}) for each in ids)):
            await engine.xadd(key, {"answer": strange})
        async with asyncio.timeout(10):
            assert (await publisher.publish("acme", "order", {"n": 2})).outcome == "accepted"
