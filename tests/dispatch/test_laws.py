"""Whatever handlers do, each event is settled exactly once, or still unsettled, and never both."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st

from bitrix_pull.dispatch.router import Router
from bitrix_pull.events import PullEvent
from tests import virtual_time
from tests.dispatch.rig import Running, event, mids, running
from tests.laws import examples


class Strange(BaseException):
    pass


TIMEOUT_S = 5.0


async def succeed(item: PullEvent) -> None: ...


async def wait(item: PullEvent) -> None:
    await asyncio.sleep(1)


async def fail(item: PullEvent) -> None:
    raise ValueError("drawn")


async def fail_strangely(item: PullEvent) -> None:
    raise Strange


async def hang(item: PullEvent) -> None:
    await asyncio.Event().wait()


async def swallow(item: PullEvent) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.Event().wait()


async def let_out_a_cancellation(item: PullEvent) -> None:
    raise asyncio.CancelledError


async def cancel_itself(item: PullEvent) -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)


async def ack_and_fail(item: PullEvent) -> None:
    item.ack()
    raise ValueError("drawn")


async def ack_and_cancel_itself(item: PullEvent) -> None:
    item.ack()
    await cancel_itself(item)


async def nack(item: PullEvent) -> None:
    item.nack(0.5)


async def nack_and_wait(item: PullEvent) -> None:
    item.nack()
    await asyncio.sleep(1)


async def ack_later(item: PullEvent) -> None:
    asyncio.get_running_loop().call_later(30, item.ack)


async def nack_later(item: PullEvent) -> None:
    asyncio.get_running_loop().call_later(3, item.nack)


QUICK = [succeed, wait, fail, fail_strangely, let_out_a_cancellation, cancel_itself]
TIMED = [*QUICK, hang, swallow]
MANUAL = [*TIMED, ack_and_fail, ack_and_cancel_itself, nack, nack_and_wait, ack_later, nack_later]
LAST_WORD = {succeed, wait, swallow}
"""After these a manual handler still has to ack."""

Fate = Callable[[PullEvent], Awaitable[None]]


class Handler:
    """Does with each attempt what was drawn; when nothing is left, it handles the event."""

    def __init__(self, fates: list[Fate], *, manual: bool) -> None:
        self._fates = fates[::-1]
        self._manual = manual

    async def __call__(self, item: PullEvent) -> None:
        fate = self._fates.pop() if self._fates else succeed
        await fate(item)
        if self._manual and fate in LAST_WORD:
            item.ack()


POLICIES = st.fixed_dictionaries(
    {
        "retries": st.integers(0, 2),
        "concurrency": st.integers(1, 3),
        "key": st.sampled_from([None, lambda item: item.params["n"] % 2]),
        "on_dead_letter": st.sampled_from([None, lambda item, error: asyncio.sleep(1)]),
        "timeout": st.just(TIMEOUT_S),
        "ack": st.sampled_from(["auto", "manual", "on_receive"]),
    }
).map(lambda policy: policy | {"retries": 0} if policy["ack"] == "on_receive" else policy)


@st.composite
def handlers(draw: st.DrawFn) -> tuple[dict[str, Any], list[Fate]]:
    """Draw a policy, none at all in some cases, and what the handler does."""
    policy = draw(st.one_of(st.just({}), POLICIES))
    fates = {"manual": MANUAL, "auto": TIMED, "on_receive": TIMED}.get(policy.get("ack", ""), QUICK)
    return policy, draw(st.lists(st.sampled_from(fates), max_size=12))


def check_accounts(rig: Running, put: int) -> None:
    counts = Counter(rig.settled)
    assert max(counts.values(), default=1) == 1, "settled twice"
    assert set(counts).isdisjoint(rig.unsettled), "settled and unsettled"
    assert {*counts, *rig.unsettled} == set(mids(*range(put))), "neither"


@settings(max_examples=examples(50))
@given(
    drawn=st.lists(handlers(), min_size=1, max_size=3),
    count=st.integers(0, 12),
    closes_after_s=st.one_of(st.none(), st.floats(0, 20)),
    overflow=st.sampled_from(["pause", "drop_oldest", "drop_newest"]),
    limit=st.sampled_from([3, 1000]),
    with_consumer=st.booleans(),
)
def test_every_event_is_settled_once_or_still_unsettled(
    drawn: list[tuple[dict[str, Any], list[Fate]]],
    count: int,
    closes_after_s: float | None,
    overflow: Any,
    limit: int,
    with_consumer: bool,
) -> None:
    async def main() -> None:
        router = Router()
        for policy, fates in drawn:
            cast("Any", router.on)("x", **policy)(Handler(fates, manual=policy.get("ack") == "manual"))
        async with running(router, overflow=overflow, max_events=limit) as rig:
            consumer = asyncio.create_task(consume(rig)) if with_consumer else None
            await asyncio.sleep(0)
            for number in range(count):
                rig.put(event(number, size=number))
                await asyncio.sleep(0.1 * (number % 2))
            if closes_after_s is None:
                await rig.idle(timeout=10_000)
                assert sorted(rig.settled) == mids(*range(count))
            else:
                await asyncio.sleep(closes_after_s)
            rig.dispatcher.finish(None)
            if consumer is not None:
                await consumer
        check_accounts(rig, count)
        at_end = sorted(rig.settled)
        await asyncio.sleep(100)
        check_accounts(rig, count)
        late = Counter(rig.settled) - Counter(at_end)
        assert not late or any(policy.get("ack") == "manual" for policy, _ in drawn), "only an ack comes late"
        reports = Counter(failure.event.reference for failure in rig.failures)
        assert max(reports.values(), default=0) <= len(drawn), "once for each handler at most"
        if all(policy.get("ack") != "manual" or policy["retries"] for policy, _ in drawn):
            assert all(failure.attempts <= 3 for failure in rig.failures)
        assert len(asyncio.all_tasks()) == 1

    virtual_time.run(main)


async def consume(rig: Running) -> None:
    async with rig.subscribe() as events:
        async for _ in events:
            await asyncio.sleep(0.2)
