"""Many messages: few requests, each receiver's order kept, each message's fate told."""

import asyncio
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitrix_pull import Fate, Message, PublicChannel, PullClient, Receipt, Webhook
from bitrix_pull.emulator import Emulator
from bitrix_pull.errors import InvalidArgument, PublishTooLarge, RouteUnavailable
from bitrix_pull.publish.order import AHEAD_MAX, in_order
from bitrix_pull.publish.packing import Part, Request, Target
from bitrix_pull.publish.publisher import Route
from tests import virtual_time
from tests.laws import examples
from tests.publish.conftest import channel_of, client, next_numbers


class Sent:
    """Counts what a push server sends, by raw channel id."""

    def __init__(self, emu: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
        self.times = Counter[bytes]()
        self.most_receivers = 0
        send = emu.push.send

        def counted(channels: Sequence[bytes], *args: Any) -> str:
            self.times.update(channels)
            self.most_receivers = max(self.most_receivers, len(channels))
            return send(channels, *args)

        monkeypatch.setattr(emu.push, "send", counted)


# -- few requests ------------------------------------------------------------------------


async def test_10_000_messages_to_one_user_take_100_requests(emu: Emulator) -> None:
    async with client(emu) as pull, pull.subscribe() as events:
        messages = [Message("x", {"n": n}, users=1) for n in range(10_000)]
        receipt = await pull.publish_many(messages, route="endpoint")
        assert receipt == Receipt("endpoint", messages=10_000, requests=100, confirmed=True)
        assert emu.push.counters.requests == 100
        assert await next_numbers(events, 10_000) == list(range(10_000))


async def test_one_message_to_10_000_users_reaches_each_once(
    emu: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = Sent(emu, monkeypatch)
    async with client(emu) as pull:
        receipt = await pull.publish("x", users=range(1, 10_001), route="endpoint")
        assert receipt == Receipt("endpoint", messages=100, requests=1, confirmed=True)
        assert sent.most_receivers == 100
        assert set(sent.times.values()) == {1}
        users = {channel_of(emu, user).id for user in range(1, 10_001)}
        assert set(sent.times) == users


@pytest.mark.parametrize(
    ("route", "version", "requests"),
    [("rest", 4, 30), ("endpoint", 4, 1), ("socket", 4, 1), ("socket", 5, 30)],
)
async def test_each_route_takes_many(route: Route, version: int, requests: int) -> None:
    async with Emulator(version=version) as emu, client(emu) as pull, pull.subscribe() as events:
        messages = [Message("x", {"n": n}, to_self=True) for n in range(30)]
        receipt = await pull.publish_many(messages, route=route)
        confirmed = (route, version) != ("socket", 4)
        assert receipt == Receipt(route, messages=30, requests=requests, confirmed=confirmed)
        assert receipt.fates == tuple(Fate(message, "accepted") for message in messages)
        assert await next_numbers(events, 30) == list(range(30))


async def test_the_shared_channel_and_users_keep_their_order_over_rest(emu: Emulator) -> None:
    async with client(emu) as pull, pull.subscribe() as events:
        messages = [Message("x", {"n": n}, users=1 if n % 3 else None) for n in range(30)]
        await pull.publish_many(messages)
        assert await next_numbers(events, 30) == list(range(30))


async def test_large_messages_are_spread_over_requests(emu: Emulator) -> None:
    async with client(emu) as pull, pull.subscribe() as events:
        messages = [Message("x", {"n": n, "t": "x" * 400_000}, to_self=True) for n in range(6)]
        receipt = await pull.publish_many(messages, route="endpoint")
        assert receipt.requests == 3
        assert await next_numbers(events, 6) == list(range(6))


async def test_nothing_is_nothing(emu: Emulator) -> None:
    async with client(emu) as pull:
        for route in ("auto", "endpoint", "socket"):
            receipt = await pull.publish_many([], route=route)
            assert (receipt.messages, receipt.requests, receipt.fates) == (0, 0, ())
            assert receipt.raise_for_failures() is receipt


# -- order -------------------------------------------------------------------------------


@settings(max_examples=examples(20))
@given(
    receivers=st.lists(st.sets(st.integers(1, 4), min_size=1), max_size=12),
    at_once=st.integers(1, 4),
    seed=st.integers(0, 1_000),
)
def test_each_receiver_gets_requests_in_their_order(
    receivers: list[set[int]], at_once: int, seed: int
) -> None:
    rng = random.Random(seed)
    requests = [
        Request([Part(position, Message("x"), [Target(user) for user in users])])
        for position, users in enumerate(receivers)
    ]
    heard: dict[int, list[int]] = {}
    under_way = most = 0

    async def send(request: Request) -> None:
        nonlocal under_way, most
        (part,) = request.parts
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(rng.random())
        under_way -= 1
        for target in part.targets:
            assert isinstance(target.receiver, int)
            heard.setdefault(target.receiver, []).append(part.position)

    virtual_time.run(lambda: in_order(requests, send, at_once=at_once))
    assert most <= at_once
    for user, positions in heard.items():
        assert positions == [at for at, users in enumerate(receivers) if user in users]


def test_requests_without_a_common_receiver_go_at_the_same_time() -> None:
    async def main() -> float:
        requests = [Request([Part(n, Message("x"), [Target(n)])]) for n in range(8)]
        await in_order(requests, lambda request: asyncio.sleep(1), at_once=4)
        return asyncio.get_running_loop().time()

    assert virtual_time.run(main) == pytest.approx(2, abs=0.1)


def test_those_that_wait_for_the_same_one_go_at_the_same_time() -> None:
    async def main() -> float:
        receivers: list[list[int]] = [[1, 2], [1], [2], [1], [2], [1, 2]]
        requests = [
            Request([Part(n, Message("x"), [Target(user) for user in users])])
            for n, users in enumerate(receivers)
        ]
        await in_order(requests, lambda request: asyncio.sleep(1), at_once=4)
        return asyncio.get_running_loop().time()

    assert virtual_time.run(main) == pytest.approx(4, abs=0.1)


def test_a_request_waits_for_all_that_came_before_to_its_receivers() -> None:
    async def main() -> dict[int, float]:
        receivers: list[list[int]] = [[1], [2], [3], [1, 2, 3], [2]]
        lasts_s = [1, 5, 3, 1, 1]
        began_s: dict[int, float] = {}

        async def send(request: Request) -> None:
            (part,) = request.parts
            began_s[part.position] = round(asyncio.get_running_loop().time())
            await asyncio.sleep(lasts_s[part.position])

        requests = [
            Request([Part(n, Message("x"), [Target(user) for user in users])])
            for n, users in enumerate(receivers)
        ]
        await in_order(requests, send, at_once=4)
        return began_s

    assert virtual_time.run(main) == {0: 0, 1: 0, 2: 0, 3: 5, 4: 6}


@pytest.mark.parametrize("users", [1, 1_000], ids=["one receiver", "many receivers"])
def test_requests_are_taken_when_others_have_gone_out(users: int) -> None:
    at_once, taken, begun, done = 4, 0, 0, 0

    def requests() -> Iterator[Request]:
        nonlocal taken
        for n in range(1_000):
            taken += 1
            # No further ahead than twice of what went out, and a limit.
            assert taken <= begun + min(at_once + begun, AHEAD_MAX) + 1
            yield Request([Part(n, Message("x"), [Target(1 + n % users)])])

    async def send(request: Request) -> None:
        nonlocal begun, done
        begun += 1
        await asyncio.sleep(1)
        done += 1

    virtual_time.run(lambda: in_order(requests(), send, at_once=at_once))
    assert taken == done == 1_000


# -- fates -------------------------------------------------------------------------------


async def test_a_failed_one_does_not_hide_the_others(emu: Emulator) -> None:
    async with client(emu) as pull, pull.subscribe() as events:
        messages = [
            Message("x", {"n": 0}, users=1),
            Message("everybody", {"n": 1}),
            Message("large", {"n": 2, "t": "x" * 1_048_576}, users=1),
            Message("x", {"n": 3}, users=1),
        ]
        receipt = await pull.publish_many(messages, route="endpoint")
        assert [fate.outcome for fate in receipt.fates] == ["accepted", "refused", "refused", "accepted"]
        assert [fate.message.command for fate in receipt.failures] == ["everybody", "large"]
        assert isinstance(receipt.fates[1].error, RouteUnavailable)
        assert isinstance(receipt.fates[2].error, PublishTooLarge)
        assert receipt.fates[2].missed == (1,)
        assert (receipt.messages, receipt.confirmed) == (2, False)
        with pytest.raises(RouteUnavailable):
            receipt.raise_for_failures()
        assert await next_numbers(events, 2) == [0, 3]


async def test_of_a_split_message_it_is_known_who_missed_it(emu: Emulator) -> None:
    async with client(emu) as pull:
        channels = [channel_of(emu, user) for user in range(1, 251)]
        bad = PublicChannel(channels[120].id, bytes(20))
        channels[120] = bad
        receipt = await pull.publish_many([Message("x", channels=channels)], route="endpoint")
        (fate,) = receipt.fates
        assert (fate.outcome, fate.missed, fate.in_doubt) == ("refused", (bad,), ())


async def test_a_receipt_shows_no_secret(emu: Emulator) -> None:
    async with client(emu) as pull:
        channel = channel_of(emu, 1)
        receipt = await pull.publish("x", {"p": "payload"}, channels=channel, route="endpoint")
        for secret in (channel.id.hex(), channel.signature.hex(), "payload"):
            assert secret not in repr((receipt, receipt.fates))


# -- batches -----------------------------------------------------------------------------


async def test_a_batch_is_sent_at_the_end_of_its_block(emu: Emulator) -> None:
    async with client(emu) as pull, pull.subscribe() as events:
        async with pull.batch(route="endpoint") as batch:
            params = {"n": 0}
            for n in range(150):
                params["n"] = n
                batch.publish("x", params, to_self=True)
            assert len(batch) == 150
            assert emu.push.counters.requests == 0
            with pytest.raises(RuntimeError, match="async with"):
                _ = batch.receipt
        assert batch.receipt == Receipt("endpoint", messages=150, requests=2, confirmed=True)
        assert await next_numbers(events, 150) == list(range(150))


async def test_a_batch_begins_anew_with_each_block(emu: Emulator) -> None:
    async with client(emu) as pull, pull.subscribe() as events:
        batch = pull.batch(route="endpoint")
        for n in range(2):
            async with batch:
                batch.publish("x", {"n": n}, to_self=True)
            assert batch.receipt.messages == 1
        assert await next_numbers(events, 2) == [0, 1]
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(events), 0.1)


async def test_outside_of_its_block_a_batch_takes_nothing_that_it_would_never_send(emu: Emulator) -> None:
    pull = PullClient(Webhook(emu.webhook_url))
    batch = pull.batch()
    with pytest.raises(RuntimeError, match="async with"):
        batch.publish("x", users=1)
    async with batch:
        pass
    with pytest.raises(RuntimeError, match="async with"):
        batch.publish("x", users=1)
    await pull.close()


async def test_an_exception_in_the_block_sends_nothing(emu: Emulator) -> None:
    pull = PullClient(Webhook(emu.webhook_url))
    batch = pull.batch()
    with pytest.raises(InvalidArgument):  # noqa: PT012 - the block is what is tested
        async with batch:
            batch.publish("x", users=1)
            batch.publish("x y", users=1)
    assert emu.push.counters.requests == 0
    with pytest.raises(RuntimeError):
        _ = batch.receipt
    await pull.close()


async def test_a_batch_does_not_raise_for_what_failed(emu: Emulator) -> None:
    pull = PullClient(Webhook(emu.webhook_url))
    async with pull.batch() as batch:
        batch.publish("x", users=1)
        batch.publish("x")
    assert [fate.outcome for fate in batch.receipt.fates] == ["accepted", "refused"]
    await pull.close()
