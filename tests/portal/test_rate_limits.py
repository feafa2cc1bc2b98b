"""A portal's limits are kept, shared, and waited out, in virtual time (protocol §2)."""

import asyncio
import gc
import logging
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import wraps
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitrix_pull import AccessToken, RateLimit, Webhook
from bitrix_pull.emulator import Emulator
from bitrix_pull.errors import (
    InvalidArgument,
    OperationTimeLimit,
    PortalUnavailable,
    RateLimited,
    TokenExpired,
)
from bitrix_pull.options import PullOptions
from bitrix_pull.portal.config import ConfigFetcher
from bitrix_pull.portal.rate_limits import PAUSE_MAX_S, LeakyBucket, bucket_for
from bitrix_pull.portal.rest import RestClient
from tests import virtual_time
from tests.laws import examples
from tests.virtual_time import unix_time

METHOD = "server.time"
QUERY_LIMIT = '{"error": "QUERY_LIMIT_EXCEEDED", "error_description": "Too many requests"}'


def in_virtual_time(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @wraps(test)
    def run(*arguments: Any, **named: Any) -> None:
        virtual_time.run(lambda: test(*arguments, **named))

    return run


def now() -> float:
    return asyncio.get_running_loop().time()


@asynccontextmanager
async def portal() -> AsyncIterator[Emulator]:
    async with Emulator(clock=unix_time) as emulator:
        yield emulator


@asynccontextmanager
async def client(emulator: Emulator, **options: Any) -> AsyncIterator[RestClient]:
    rest = RestClient(AccessToken(emulator.portal_url, emulator.token), options=PullOptions(**options))
    try:
        yield rest
    finally:
        await rest.close()


async def call_many(rest: RestClient, count: int) -> list[float]:
    """Make calls at once, and return when each was answered."""

    async def call() -> float:
        await rest.call(METHOD)
        return now()

    return await asyncio.gather(*(call() for _ in range(count)))


# -- the bucket -----------------------------------------------------------------------


@in_virtual_time
async def test_all_clients_of_a_portal_share_its_limit_and_another_portal_has_its_own() -> None:
    async with portal() as emulator, portal() as other_emulator:
        # One more than the limit: calls take different times to arrive.
        emulator.portal.limits.burst = other_emulator.portal.limits.burst = 51
        limit = RateLimit()
        async with (
            client(emulator, rest_limit=limit) as one,
            client(emulator, rest_limit=limit) as another,
            client(other_emulator, rest_limit=limit) as elsewhere,
        ):
            started = now()
            async with asyncio.TaskGroup() as group:
                calls = [group.create_task(call_many(rest, 50)) for rest in (one, another)]
                apart = group.create_task(call_many(elsewhere, 50))
        assert emulator.portal.limits.refused == other_emulator.portal.limits.refused == 0
        assert emulator.portal.calls[METHOD] == 100
        done = sorted(at - started for call in calls for at in call.result())
        assert done[49] < 1
        assert done[50] > 0.4
        assert 24.9 < done[-1] < 27
        assert max(apart.result()) - started < 1


@in_virtual_time
async def test_without_the_client_keeping_to_it_the_portal_would_refuse() -> None:
    async with portal() as emulator:
        emulator.portal.limits.burst = 51
        async with client(emulator, rest_limit=None) as rest:
            await call_many(rest, 60)
        assert emulator.portal.limits.refused > 0


@in_virtual_time
async def test_a_call_that_would_wait_past_its_deadline_fails_at_once_and_is_not_sent() -> None:
    async with portal() as emulator, client(emulator, rest_limit=RateLimit(5, 1.0)) as rest:
        await call_many(rest, 5)
        waiting = [asyncio.create_task(rest.call(METHOD)) for _ in range(9)]
        await asyncio.sleep(0)
        started = now()
        with pytest.raises(RateLimited, match=r"server\.time: not sent") as caught:
            await rest.call(METHOD, timeout_s=8.0)
        assert now() == started
        assert caught.value.retryable
        assert 8.0 < (caught.value.retry_after_s or 0) <= 10.0
        await asyncio.gather(*waiting)
        assert emulator.portal.calls[METHOD] == 14


@in_virtual_time
async def test_who_is_cancelled_gives_its_place_to_those_behind() -> None:
    async with portal() as emulator, client(emulator, rest_limit=RateLimit(5, 1.0)) as rest:
        await call_many(rest, 5)
        started = now()
        waiting = [asyncio.create_task(rest.call(METHOD)) for _ in range(20)]
        await asyncio.sleep(0.2)
        for task in waiting[:-1]:
            task.cancel()
        await waiting[-1]
        assert now() - started < 1.5
        # And nothing of them is left in the bucket.
        await asyncio.sleep(10)
        started = now()
        await call_many(rest, 5)
        assert now() - started < 0.5


@in_virtual_time
async def test_a_limit_is_forgotten_with_its_last_client() -> None:
    async with portal() as emulator:
        for _ in range(2):
            async with client(emulator, rest_limit=RateLimit(5, 0.001)) as rest:
                started = now()
                await call_many(rest, 5)
                assert now() - started < 1
                with pytest.raises(RateLimited):
                    await rest.call(METHOD)
            del rest
            gc.collect()


@pytest.mark.parametrize(
    ("host", "limit"),
    [
        ("acme.bitrix24.com", RateLimit(50, 2.0)),
        ("acme.bitrix24.de", RateLimit(50, 2.0)),
        ("b24-x1.bitrix24.com.br", RateLimit(50, 2.0)),
        ("acme.bitrix24.site", RateLimit(50, 2.0)),
        ("bitrix24.acme.com", None),
        ("portal.bitrix24.acme.com", None),
        ("acme.bitrix24.com.evil.example", None),
        ("bitrix.acme.com", None),
        ("127.0.0.1:8080", None),
    ],
)
def test_cloud_portals_have_the_documented_limit_and_others_none(host: str, limit: RateLimit | None) -> None:
    assert bucket_for(f"https://{host}/rest/", "auto").limit == limit


def test_what_a_client_says_counts_for_all_and_auto_says_nothing() -> None:
    bucket = bucket_for("https://one.bitrix24.com/rest/", "auto")
    assert bucket_for("https://one.bitrix24.com/rest/1/code/", RateLimit(250, 5)) is bucket
    assert bucket_for("https://one.bitrix24.com/rest/", "auto").limit == RateLimit(250, 5)
    assert bucket_for("https://one.bitrix24.com/rest/", None).limit is None
    assert bucket_for("https://two.bitrix24.com/rest/", "auto") is not bucket


@pytest.mark.parametrize("limit", ["none", 50, (50, 2), True])
def test_a_limit_is_one(limit: Any) -> None:
    with pytest.raises(InvalidArgument, match="rest_limit"):
        PullOptions(rest_limit=limit)


@pytest.mark.parametrize("sizes", [(0, 2.0), (50, 0.0), (50, float("nan"))])
def test_a_limit_lets_something_through(sizes: tuple[int, float]) -> None:
    with pytest.raises(InvalidArgument):
        RateLimit(*sizes)


Arrival = tuple[float, float | None]
"""Seconds after the one before, and seconds until it is cancelled."""
ARRIVALS: st.SearchStrategy[list[Arrival]] = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.0, 0.1, 0.7, 3.0]),
        st.sampled_from([None, None, None, 0.05, 0.4, 2.0]),
    ),
    min_size=1,
    max_size=30,
)


@settings(max_examples=examples(20))
@given(arrivals=ARRIVALS, limit=st.builds(RateLimit, st.integers(1, 5), st.sampled_from([0.5, 2.0, 7.0])))
def test_the_bucket_never_overflows_keeps_the_order_and_wastes_no_time(
    arrivals: list[Arrival], limit: RateLimit
) -> None:
    admitted: list[tuple[int, float]] = []
    arrived: list[float] = []

    async def main() -> None:
        bucket = LeakyBucket(limit)

        async def enter(number: int) -> None:
            await bucket.admit("x", deadline=1e9)
            admitted.append((number, now()))

        async with asyncio.TaskGroup() as group:
            for number, (gap_s, patience_s) in enumerate(arrivals):
                await asyncio.sleep(gap_s)
                arrived.append(now())
                task = group.create_task(enter(number))
                await asyncio.sleep(0)
                if patience_s is not None:
                    asyncio.get_running_loop().call_later(patience_s, task.cancel)

    virtual_time.run(main)
    slack = 0.01
    assert [number for number, _ in admitted] == sorted(number for number, _ in admitted)
    assert {number for number, (_, patience) in enumerate(arrivals) if patience is None} <= {
        number for number, _ in admitted
    }
    level, last = 0.0, 0.0
    for number, at in admitted:
        level = max(0.0, level - (at - last) * limit.per_s)
        # It went when it came, or when there was just room for one.
        at_once = at - arrived[number] < slack
        assert at_once or level + 1 > limit.burst - slack * limit.per_s - slack
        level, last = level + 1, at
        assert level <= limit.burst + slack


@in_virtual_time
async def test_who_waits_for_a_method_of_its_own_holds_up_nobody() -> None:
    bucket = LeakyBucket(RateLimit(1, 1.0))
    bucket.pause(OperationTimeLimit("x", method="slow"), 100.0)
    waiting = [asyncio.create_task(bucket.admit("slow", now() + 1_000)) for _ in range(20)]
    await asyncio.sleep(0)
    started = now()
    for _ in range(3):
        await bucket.admit("quick", now() + 10)
    assert now() - started < 2.5
    await asyncio.gather(*waiting)
    assert now() - started > 118


@in_virtual_time
async def test_a_flood_of_other_calls_does_not_hold_up_the_configuration() -> None:
    async with portal() as emulator, client(emulator, rest_limit=RateLimit(5, 1.0)) as rest:
        emulator.portal.limits.burst = 7
        flood = [asyncio.create_task(rest.call(METHOD, timeout_s=600)) for _ in range(100)]
        await asyncio.sleep(5)
        for _ in range(3):
            started = now()
            await ConfigFetcher(rest).fetch()
            assert now() - started < 1.1
        await asyncio.gather(*flood)
        assert emulator.portal.limits.refused == 0


@in_virtual_time
async def test_a_pause_is_heard_of_by_those_who_wait_already() -> None:
    bucket = LeakyBucket(RateLimit(1, 1.0))
    await bucket.admit("x", now())
    waiting = [asyncio.create_task(bucket.admit("x", now() + 5)) for _ in range(4)]
    await asyncio.sleep(0.5)
    started = now()
    bucket.pause(RateLimited("full"), 60.0)
    for task in waiting:
        with pytest.raises(RateLimited):
            await task
    assert now() == started


@in_virtual_time
async def test_after_a_pause_the_bucket_is_still_full() -> None:
    bucket = LeakyBucket(RateLimit(10, 2.0))
    bucket.pause(RateLimited("full"), 3.0)
    started, times = now(), list[float]()
    for _ in range(4):
        await bucket.admit("x", now() + 60)
        times.append(now() - started)
    assert times == pytest.approx([3.0, 3.5, 4.0, 4.5], abs=0.01)


def test_event_loops_in_several_threads_share_a_bucket() -> None:
    bucket = LeakyBucket(RateLimit(1, 100.0))
    times: list[float] = []

    async def enter() -> None:
        await bucket.admit("x", deadline=now() + 60)
        times.append(now())

    async def main() -> None:
        await asyncio.gather(*(enter() for _ in range(10)))

    threads = [threading.Thread(target=lambda: asyncio.run(main())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert len(times) == 30
    # 29 calls had to drain before the last.
    assert max(times) - min(times) > 0.285


# -- when the portal refuses all the same ------------------------------------------------


@in_virtual_time
async def test_a_call_over_the_limit_is_repeated_until_it_gets_through() -> None:
    async with portal() as emulator, client(emulator) as rest:
        emulator.portal.limits.burst = 10
        emulator.portal.limits.fill()
        started = now()
        await rest.call("pull.application.event.add", {"COMMAND": "x"})
        assert 0.4 < now() - started < 2
        assert emulator.portal.limits.refused >= 1
        assert emulator.portal.calls["pull.application.event.add"] == 1


@in_virtual_time
async def test_a_refusal_holds_up_every_caller_of_this_process() -> None:
    async with portal() as emulator, client(emulator) as one, client(emulator) as another:
        emulator.portal.faults.fail_rest(1, 503, QUERY_LIMIT, "application/json")
        refused = asyncio.create_task(one.call(METHOD))
        while not emulator.portal.calls[METHOD]:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        started = now()
        await another.call(METHOD)
        assert now() - started > 0.3
        await refused
        assert emulator.portal.calls[METHOD] == 3


@in_virtual_time
async def test_what_is_refused_again_and_again_is_told_within_the_deadline() -> None:
    async with portal() as emulator, client(emulator) as rest:
        emulator.portal.faults.fail_rest(100, 503, QUERY_LIMIT, "application/json")
        started = now()
        with pytest.raises(RateLimited) as caught:
            await rest.call(METHOD, timeout_s=20.0)
        assert now() - started <= 20.0
        assert caught.value.code == "QUERY_LIMIT_EXCEEDED"
        # 0.5, 1, 2, 4, 8 s apart: nobody is hammered.
        assert emulator.portal.calls[METHOD] == 6


@pytest.mark.parametrize("form", ["seconds", "date"])
@in_virtual_time
async def test_retry_after_is_kept_in_either_form_and_by_the_portals_clock(form: Any) -> None:
    async with portal() as emulator, client(emulator) as rest:
        emulator.portal.clock_offset_s = 5_000.0
        emulator.portal.limits.retry_after = form
        emulator.portal.limits.burst, emulator.portal.limits.per_s = 1, 0.1
        emulator.portal.limits.fill()
        started = now()
        await rest.call(METHOD)
        assert 9.5 < now() - started < 12
        assert emulator.portal.limits.refused == 1


@pytest.mark.parametrize("status", [429, 503])
@in_virtual_time
async def test_a_proxy_may_say_when_to_come_again(status: int) -> None:
    async with portal() as emulator, client(emulator) as rest:
        emulator.portal.faults.fail_rest(1, status, headers={"Retry-After": "7"})
        started = now()
        await rest.call(METHOD)
        assert 7 <= now() - started < 8


@in_virtual_time
async def test_a_method_without_time_waits_alone_until_the_portal_resets_it() -> None:
    async with portal() as emulator, client(emulator) as rest:
        emulator.portal.clock_offset_s = -7_200.0
        emulator.portal.limits.exhaust(METHOD, int(emulator.portal.now()) + 20)
        started = now()
        waiting = asyncio.create_task(rest.call(METHOD))
        await asyncio.sleep(1)
        await rest.call("pull.application.config.get")
        assert now() - started < 2
        await waiting
        assert 19 <= now() - started < 22
        assert emulator.portal.limits.refused == 1


@in_virtual_time
async def test_a_reset_past_the_deadline_is_an_error_at_once_for_everybody() -> None:
    async with portal() as emulator, client(emulator) as one, client(emulator) as another:
        reset_at = int(emulator.portal.now()) + 300
        emulator.portal.limits.exhaust(METHOD, reset_at)
        started = now()
        with pytest.raises(OperationTimeLimit, match=r"takes the call again in (300|299) s") as caught:
            await one.call(METHOD)
        assert caught.value.reset_at == reset_at
        with pytest.raises(OperationTimeLimit, match="not sent") as caught:
            await another.call(METHOD)
        assert now() - started < 1
        assert 298 < (caught.value.retry_after_s or 0) <= 300
        # The portal was asked once: the second call knew.
        assert emulator.portal.limits.refused == 1
        await asyncio.sleep(301)
        await another.call(METHOD)


@in_virtual_time
async def test_no_portal_is_left_alone_for_longer_than_an_hour() -> None:
    async with portal() as emulator, client(emulator) as rest:
        emulator.portal.faults.fail_rest(1, 429, headers={"Retry-After": "999999999"})
        with pytest.raises(RateLimited) as caught:
            await rest.call(METHOD)
        assert caught.value.retry_after_s == 999_999_999
        await asyncio.sleep(PAUSE_MAX_S)
        await rest.call(METHOD)


@pytest.mark.parametrize("status", [500, 502, 503, 504])
@in_virtual_time
async def test_what_may_have_been_carried_out_is_not_repeated(status: int) -> None:
    async with portal() as emulator, client(emulator) as rest:
        emulator.portal.faults.fail_rest(1, status)
        with pytest.raises(PortalUnavailable):
            await rest.call(METHOD)
        assert emulator.portal.calls[METHOD] == 1


@in_virtual_time
async def test_a_token_that_expires_in_the_queue_is_told_as_ever() -> None:
    async with portal() as emulator:
        token = emulator.portal.issue_token(1, expires_in_s=3.0)
        rest = RestClient(
            AccessToken(emulator.portal_url, token), options=PullOptions(rest_limit=RateLimit(1, 0.2))
        )
        await rest.call(METHOD)
        with pytest.raises(TokenExpired):
            await rest.call(METHOD)
        await rest.close()


@in_virtual_time
async def test_webhooks_share_the_limit_too() -> None:
    async with portal() as emulator, client(emulator, rest_limit=RateLimit(2, 0.1)) as rest:
        webhook = RestClient(Webhook(emulator.webhook_url))
        await call_many(rest, 2)
        with pytest.raises(RateLimited):
            await webhook.call(METHOD, timeout_s=5.0)
        await webhook.close()


@in_virtual_time
async def _wait_for_the_bucket() -> None:
    async with portal() as emulator, client(emulator, rest_limit=RateLimit(3, 2)) as rest:
        await call_many(rest, 10)
        with pytest.raises(
            RateLimited, match=r"its limit of 3 calls, and then 2 a second.*endpoint"
        ) as caught:
            await asyncio.gather(*(rest.call(METHOD, timeout_s=1) for _ in range(10)))
        assert caught.value.retry_after_s is not None


def test_what_calls_wait_for_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "bitrix_pull")
    _wait_for_the_bucket()
    (told,) = [record.getMessage() for record in caplog.records if "calls at once" in record.getMessage()]
    assert told.startswith("server.time waits 0.5 s: the portal takes 3 calls at once, and then 2 a second.")
    assert 'route="endpoint"' in told
    assert "rest_limit" in told
