"""Each row of protocol §8, end to end: what ends a connection, and what the client does about it."""

import asyncio
import itertools
from dataclasses import dataclass, field
from typing import Any

import pytest

from bitrix_pull import AccessToken, MemoryStore, ResumePoint, State, StateChanged, Webhook
from bitrix_pull.emulator import Emulator
from bitrix_pull.errors import PullError
from tests import virtual_time
from tests.connection.listening import Listener, emulator, running
from tests.connection.stand_ins import (
    StandInPortal,
    WebSocketPeer,
    http_answer,
    listener_of,
    protobuf_frame,
    send,
    tcp_server,
)

CONFIG = "pull.application.config.get"

Range = tuple[float, float]

AT_ONCE: Range = (0.0, 0.01)
FIRST_RUNG: Range = (0.5, 0.61)
"""500 ms, and up to 20 % more."""
AFTER_A_CUT: Range = (0.1, 0.121)


def now() -> float:
    return asyncio.get_running_loop().time()


def rung(delay_s: float) -> Range:
    return delay_s, delay_s * 1.2 + 0.01


@dataclass
class Watched:
    """What a client has done since something happened to it."""

    emu: Emulator
    listener: Listener
    since: float = field(default_factory=now)
    calls: int = 0
    connects: int = 0

    def __post_init__(self) -> None:
        self.calls = self._calls
        self.connects = self.listener.health().connects

    async def reconnected(self) -> float:
        """Wait for the next connection, and return how long it took."""
        async with asyncio.timeout(7200):
            while self.listener.health().connects == self.connects:
                await asyncio.sleep(0.005 if now() - self.since < 1 else 0.1)
        return now() - self.since

    @property
    def configs(self) -> int:
        return self._calls - self.calls

    @property
    def _calls(self) -> int:
        return sum(self.emu.portal.calls[method] for method in (CONFIG, "pull.config.get"))


@dataclass(frozen=True)
class Row:
    """A sign, and what is due: the delay before the next attempt, and a new configuration or not."""

    code: int | None
    delay_s: Range
    fetches_config: bool = False


ROWS = {
    "4010 wrong channel": Row(4010, AT_ONCE, fetches_config=True),
    "4036 wrong client": Row(4036, AT_ONCE, fetches_config=True),
    "4011 history unreadable": Row(4011, FIRST_RUNG),
    **{f"{code} publish refused": Row(code, AT_ONCE) for code in range(4012, 4022)},
    "4029 evicted": Row(4029, (60.0, 76.0)),
    "1000 closed": Row(1000, FIRST_RUNG),
    "1001 going away": Row(1001, FIRST_RUNG),
    "1006 no close frame": Row(None, AFTER_A_CUT),
    "1011 server error": Row(1011, FIRST_RUNG),
    "1012 restart": Row(1012, FIRST_RUNG),
    "1013 try later": Row(1013, FIRST_RUNG),
    "1008 after it was live": Row(1008, AT_ONCE, fetches_config=True),
}


CASES = [
    pytest.param(row, transport, id=f"{name}, {transport}")
    for name, row in ROWS.items()
    for transport in ("websocket", "long_polling")
    # A poll has no close codes but those that its answer names.
    if transport == "websocket" or row.code is None or row.code >= 4000
]


@pytest.mark.parametrize(("row", "transport"), CASES)
def test_what_ends_a_connection(row: Row, transport: str) -> None:
    async def main() -> None:
        async with emulator() as emu, running(Listener(emu, transport=transport)) as listener:
            await listener.reached(State.LIVE)
            emu.portal.send("x", {"n": 0})
            await listener.received(1)
            await asyncio.sleep(100)
            watched = Watched(emu, listener)
            await emu.push.disconnect_all(row.code, "" if row.code is None else f"{row.code}: Whatever.")
            emu.portal.send("x", {"n": 1}, users=[1])
            delay = await watched.reconnected()
            least, most = row.delay_s
            assert least <= delay <= most + 0.05
            assert watched.configs == (1 if row.fetches_config else 0)
            # It resumes with the mid, so nothing is lost.
            await listener.received(2)
            assert listener.numbers == [0, 1]

    virtual_time.run(main)


def user_of(emu: Emulator) -> Listener:
    """Return a listener in user mode: an application is not told that the configuration is outdated."""
    return Listener(emu, auth=Webhook(emu.webhook_url))


@pytest.mark.parametrize("command", ["config_expire", "server_restart"])
def test_what_the_portal_asks_for(command: str) -> None:
    async def main() -> None:
        async with emulator() as emu, running(user_of(emu)) as listener:
            await listener.reached(State.LIVE)
            await asyncio.sleep(100)
            watched = Watched(emu, listener)
            if command == "config_expire":
                emu.portal.expire_config()
            else:
                emu.portal.restart_notice()
            await asyncio.sleep(1)
            assert list(emu.push.connections) == []
            emu.portal.send("x", {"n": 1}, audience="user")
            assert 10 <= await watched.reconnected() <= 121
            assert watched.configs == 1
            await listener.received(1)

    virtual_time.run(main)


def test_the_moments_of_a_server_restart_are_spread() -> None:
    async def delay() -> float:
        async with emulator() as emu, running(Listener(emu)) as listener:
            await listener.reached(State.LIVE)
            emu.portal.restart_notice()
            await listener.reached(State.BACKOFF)
            change = next(n for n in listener.heard if isinstance(n, StateChanged) and n.retry_in_s)
            assert change.retry_in_s is not None
            return change.retry_in_s

    async def main() -> list[float]:
        return [await delay() for _ in range(12)]

    delays = virtual_time.run(main)
    assert all(10 <= delay <= 120 for delay in delays)
    assert max(delays) - min(delays) > 20


@pytest.mark.parametrize("transport", ["websocket", "long_polling"])
def test_a_wrong_channel_for_the_second_time_in_a_row_waits(transport: str) -> None:
    async def main() -> None:
        async with emulator() as emu:
            emu.push.faults.refuse_channels = True
            async with running(Listener(emu, transport=transport)) as listener:
                await asyncio.sleep(10)
                # The first answer was no good; a second one was fetched at once.
                assert emu.portal.calls[CONFIG] == 2
                await asyncio.sleep(3600)
                # From then on it is asked once a minute at most.
                assert emu.portal.calls[CONFIG] <= 60
                emu.push.faults.refuse_channels = False
                # By now the last rung of the ladder has been reached.
                await asyncio.sleep(60 * 1.2 + 1)
                assert listener.state is State.LIVE

    virtual_time.run(main)


def test_a_handshake_with_400_fetches_the_configuration() -> None:
    async def main() -> None:
        async with emulator() as emu, running(Listener(emu)) as listener:
            await listener.reached(State.LIVE)
            await asyncio.sleep(100)
            emu.push.faults.refuse_channels = True
            watched = Watched(emu, listener)
            await emu.push.disconnect_all(1012)
            # At the first handshake after 500 ms, and at the second one right after it.
            await asyncio.sleep(0.65)
            assert watched.configs == 1
            emu.push.faults.refuse_channels = False
            emu.portal.send("x", {"n": 0})
            assert await watched.reconnected() <= 20
            await listener.received(1)
            assert watched.configs <= 2

    virtual_time.run(main)


def test_a_handshake_with_403_where_it_has_worked_fetches_the_configuration() -> None:
    async def main() -> None:
        async with emulator() as emu, running(Listener(emu)) as listener:
            await listener.reached(State.LIVE)
            await asyncio.sleep(100)
            emu.push.faults.websocket_refusal = 403
            watched = Watched(emu, listener)
            await emu.push.disconnect_all()
            await asyncio.sleep(0.15)
            assert watched.configs == 1
            # The second time in a row it is a failure like others, and polling is no remedy.
            await asyncio.sleep(100)
            assert watched.configs <= 3
            assert emu.push.counters.pollings == 0
            emu.push.faults.websocket_refusal = None
            emu.portal.send("x", {"n": 0})
            await listener.received(1)

    virtual_time.run(main)


HANDSHAKES = [404, 405, 426, 500, 502, 503, 504, 429, 200, 302]


@pytest.mark.parametrize("status", HANDSHAKES)
def test_a_handshake_with_another_status_waits_and_fetches_nothing(status: int) -> None:
    async def main() -> None:
        async with emulator() as emu, running(Listener(emu, transport="websocket")) as listener:
            await listener.reached(State.LIVE)
            await asyncio.sleep(100)
            emu.push.faults.websocket_refusal = status
            watched = Watched(emu, listener)
            await emu.push.disconnect_all(1012)
            await asyncio.sleep(5)
            assert emu.push.counters.refused == 1
            emu.push.faults.websocket_refusal = None
            # The first rung was for the cut, the second one is for the refusal.
            assert 5.5 <= await watched.reconnected() <= 6.7
            assert watched.configs == 0

    virtual_time.run(main)


@pytest.mark.parametrize("refusal", ["reset", "black_hole"])
def test_a_handshake_that_is_not_answered_waits_and_fetches_nothing(refusal: Any) -> None:
    async def main() -> None:
        async with emulator() as emu, running(Listener(emu, transport="websocket")) as listener:
            await listener.reached(State.LIVE)
            await asyncio.sleep(100)
            emu.push.faults.websocket_refusal = refusal
            watched = Watched(emu, listener)
            await emu.push.disconnect_all()
            await asyncio.sleep(5)
            emu.push.faults.websocket_refusal = None
            # The longest is the deadline of a handshake.
            assert 5 <= await watched.reconnected() <= 12
            assert watched.configs == 0

    virtual_time.run(main)


def test_a_link_that_is_dead_is_dropped_and_resumed_with_the_mid() -> None:
    requests: list[str] = []

    async def fall_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = WebSocketPeer(reader, writer)
        await peer.accept()
        requests.append(peer.path)
        peer.send(protobuf_frame(len(requests)))
        peer.flush()
        while await peer.receive():
            pass

    async def main() -> None:
        async with tcp_server(fall_silent) as address:
            portal = StandInPortal(websocket=f"ws://{address}/subws/")
            async with running(listener_of(portal)) as listener:
                await listener.received(2)
                assert "mid=" not in requests[0]
                assert "mid=" in requests[1]
                assert len(portal.calls) == 1

    virtual_time.run(main)


# -- the ladder -------------------------------------------------------------------------


LADDER_S = [0.5, 5, 5, 25, 25, 45, 45, 45, 45, 45, 60, 60]
UNANSWERED_S = [0.1, 0.5, 1, 2, 4, 8, 16, 25, 25, 25, 25, 25]


async def delays(listener: Listener, count: int) -> list[float]:
    """Return the waits before the next attempts."""
    found: list[float] = []
    notices = listener.notices()
    async for notice in notices:
        if isinstance(notice, StateChanged) and notice.state is State.BACKOFF:
            assert notice.retry_in_s is not None
            found.append(notice.retry_in_s)
            if len(found) == count:
                break
    await notices.aclose()  # type: ignore[attr-defined]
    return found


def test_the_ladder_where_the_server_answers() -> None:
    async def main() -> list[float]:
        async with tcp_server(send(http_answer(502))) as address:
            listener = listener_of(StandInPortal(websocket=f"ws://{address}/"))
            waiting = asyncio.create_task(delays(listener, len(LADDER_S)))
            async with running(listener):
                return await waiting

    found = virtual_time.run(main)
    for delay, expected in zip(found, LADDER_S, strict=True):
        least, most = rung(expected)
        assert least <= delay <= most
    assert len(set(found)) == len(found), "with jitter"


def test_the_ladder_where_nothing_answers_ends_at_25_s() -> None:
    async def main() -> list[float]:
        listener = listener_of(StandInPortal(websocket="ws://127.0.0.1:1/"))
        waiting = asyncio.create_task(delays(listener, 12))
        async with running(listener):
            return await waiting

    found = virtual_time.run(main)
    for delay, expected in zip(found, UNANSWERED_S, strict=True):
        least, most = rung(expected)
        assert least <= delay <= most


@pytest.mark.parametrize("failure", ["refused", "html", "limit"])
def test_the_ladder_where_the_portal_fails(failure: str) -> None:
    async def main() -> list[float]:
        async with emulator() as emu:
            match failure:
                case "refused":
                    auth: Any = AccessToken("http://127.0.0.1:1", "token-of-nobody")
                case "html":
                    emu.portal.faults.fail_rest(100)
                    auth = AccessToken(emu.portal_url, emu.token)
                case _:
                    body = '{"error":"QUERY_LIMIT_EXCEEDED","error_description":"Too many requests"}'
                    emu.portal.faults.fail_rest(100, 503, body, "application/json")
                    auth = AccessToken(emu.portal_url, emu.token)
            listener = Listener(emu, auth=auth)
            waiting = asyncio.create_task(delays(listener, 8))
            async with running(listener):
                return await waiting

    found = virtual_time.run(main)
    ladder = UNANSWERED_S if failure == "refused" else LADDER_S
    for delay, expected in zip(found, ladder, strict=False):
        least, most = rung(expected)
        assert least <= delay <= most


def test_a_stream_that_was_opened_starts_the_ladder_anew() -> None:
    """What a server answers in the hour of its restart must not cost the client another one."""

    async def main() -> None:
        async with emulator() as emu, running(Listener(emu)) as listener:
            waiting = asyncio.create_task(delays(listener, 6))
            for _ in range(6):
                await listener.reached(State.LIVE)
                await asyncio.sleep(1)
                await emu.push.disconnect_all(1012)
                await asyncio.sleep(0.02)
            assert all(rung(0.5)[0] <= delay <= rung(0.5)[1] for delay in await waiting)

    virtual_time.run(main)


@pytest.mark.parametrize("sign", ["4011", "garbage"])
def test_a_stream_that_is_refused_what_it_came_for_climbs_the_ladder(sign: str) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = WebSocketPeer(reader, writer)
        await peer.accept()
        if sign == "4011":
            peer.close(4011, "4011: Last Message Id is wrong.")
        else:
            peer.send(b"\xff\xff\xff")
        peer.flush()
        await peer.serve()

    async def main() -> list[float]:
        async with tcp_server(refuse) as address:
            listener = listener_of(StandInPortal(websocket=f"ws://{address}/"))
            waiting = asyncio.create_task(delays(listener, 6))
            async with running(listener):
                return await waiting

    for delay, expected in zip(virtual_time.run(main), LADDER_S, strict=False):
        least, most = rung(expected)
        assert least <= delay <= most


@pytest.mark.parametrize(
    ("live_s", "brings", "expected"),
    [
        (1.0, False, UNANSWERED_S[:7]),
        # A stream that brought something was worth its attempt.
        (1.0, True, [0.1] * 7),
        (31.0, False, [0.1] * 7),
    ],
)
def test_the_ladder_where_open_streams_are_cut(live_s: float, brings: bool, expected: list[float]) -> None:
    async def main() -> None:
        async with emulator() as emu, running(Listener(emu)) as listener:
            waiting = asyncio.create_task(delays(listener, len(expected)))
            for n in range(len(expected)):
                await listener.reached(State.LIVE)
                if brings:
                    emu.portal.send("x", {"n": n})
                await asyncio.sleep(live_s)
                await emu.push.disconnect_all()
                await asyncio.sleep(0.02)
            for delay, due in zip(await waiting, expected, strict=True):
                least, most = rung(due)
                assert least <= delay <= most

    virtual_time.run(main)


# -- failed -------------------------------------------------------------------------------


FATAL: dict[str, tuple[int, str]] = {
    "insufficient_scope": (403, "insufficient_scope"),
    "NO_AUTH_FOUND": (401, "NO_AUTH_FOUND"),
    "INVALID_CREDENTIALS": (403, "INVALID_CREDENTIALS"),
    "ACCESS_DENIED": (403, "ACCESS_DENIED"),
    "user_access_error": (403, "user_access_error"),
    "WRONG_AUTH_TYPE": (403, "WRONG_AUTH_TYPE"),
    "OVERLOAD_LIMIT": (503, "OVERLOAD_LIMIT"),
    "PAYMENT_REQUIRED": (402, "PAYMENT_REQUIRED"),
    "PORTAL_DELETED": (403, "PORTAL_DELETED"),
    "INVALID_REQUEST": (400, "INVALID_REQUEST"),
    "expired_token": (401, "expired_token"),
}


@pytest.mark.parametrize("code", FATAL)
def test_where_a_person_must_act_no_further_request_is_made(code: str) -> None:
    async def main() -> None:
        async with emulator() as emu:
            status, name = FATAL[code]
            body = f'{{"error":"{name}","error_description":"Something"}}'
            emu.portal.faults.fail_rest(1000, status, body, "application/json")
            async with running(Listener(emu)) as listener:
                await asyncio.sleep(86_400)
                assert emu.portal.calls.total() == 1
                assert emu.push.counters.websockets == emu.push.counters.pollings == 0
                failed = next(n for n in listener.heard if isinstance(n, StateChanged) and n.error)
                assert failed.state is State.FAILED
                assert isinstance(failed.error, PullError)
                assert not failed.error.retryable
                assert State.BACKOFF not in listener.states

    virtual_time.run(main)


NOT_NOW: dict[str, tuple[int, str, str]] = {
    "a page of a portal under maintenance": (200, "<html>Back soon</html>", "text/html"),
    "a page without a portal": (404, "<html>Not Found</html>", "text/html"),
    "a configuration without channels": (200, '{"result":{"server":{"version":4}}}', "application/json"),
}


@pytest.mark.parametrize("what", NOT_NOW)
def test_a_portal_that_has_worked_may_fail_for_a_while(what: str) -> None:
    """At the start such an answer is final: the address is wrong. After weeks it is a passing trouble."""

    async def main() -> None:
        async with emulator() as emu, running(user_of(emu)) as listener:
            await listener.reached(State.LIVE)
            await asyncio.sleep(100)
            emu.portal.faults.fail_rest(2, *NOT_NOW[what])
            emu.portal.expire_config()
            await asyncio.sleep(1000)
            assert listener.state is State.LIVE

    virtual_time.run(main)


@pytest.mark.parametrize("sign", ["config_expire", "server_restart", "4010"])
def test_the_same_channels_again_are_taken_for_good(sign: str, caplog: pytest.LogCaptureFixture) -> None:
    """A portal answers the same channels until they end (protocol §3): that is peace."""

    async def main() -> None:
        async with emulator() as emu, running(user_of(emu)) as listener:
            await listener.reached(State.LIVE)
            await asyncio.sleep(100)
            watched = Watched(emu, listener)
            match sign:
                case "config_expire":
                    emu.portal.expire_config()
                case "server_restart":
                    emu.portal.restart_notice()
                case _:
                    await emu.push.disconnect_all(4010, "4010: Wrong Channel Id.")
            await asyncio.sleep(2 * 3600)
            assert listener.state is State.LIVE
            assert watched.configs <= 4

    virtual_time.run(main)
    assert "have expired" not in caplog.text


def test_an_unreachable_portal_does_no_harm_to_a_live_connection() -> None:
    async def main() -> None:
        async with emulator(channel_life_s=3600) as emu, running(Listener(emu)) as pull:
            await pull.reached(State.LIVE)
            emu.portal.faults.fail_rest(2)
            for n in range(30):
                emu.portal.send("x", {"n": n})
                await asyncio.sleep(130)
            await pull.received(30)
            assert sorted(pull.numbers) == list(range(30))
            assert State.BACKOFF not in pull.states

    virtual_time.run(main)


class _Unreachable(MemoryStore):
    """A store that cannot be read at first."""

    def __init__(self, failures: int) -> None:
        super().__init__()
        self.asked: list[float] = []
        self._failures = failures

    async def load(self, key: str) -> ResumePoint | None:
        self.asked.append(now())
        if len(self.asked) <= self._failures:
            raise ConnectionRefusedError
        return await super().load(key)


def test_a_store_that_is_back_is_asked_soon_however_long_it_was_away() -> None:
    async def main() -> None:
        store = _Unreachable(failures=20)
        async with emulator() as emu:
            listener = Listener(emu, resume=store)
            async with running(listener):
                await listener.reached(State.LIVE)
        waits = [later - before for before, later in itertools.pairwise(store.asked)]
        for waited, least in zip(waits[:20], [0.5, 1.0, 2.0, *[4.0] * 17], strict=True):
            low, high = rung(least)
            assert low <= waited <= high + 0.5

    virtual_time.run(main)
