"""Long polling: no event falls between two polls, whatever ends them (protocol §4.4 and §8)."""

import asyncio
import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from bitrix_pull import State, StateChanged
from bitrix_pull.emulator import Emulator, Owner
from tests import virtual_time
from tests.connection.listening import Listener, emulator, running
from tests.connection.stand_ins import (
    CANARY,
    StandInPortal,
    http_answer,
    listener_of,
    protobuf_frame,
    tcp_server,
)


def polling(emu: Emulator, **options: Any) -> Listener:
    return Listener(emu, transport="long_polling", **options)


def test_events_arrive_in_order_and_once() -> None:
    async def main() -> None:
        async with emulator() as emu, running(polling(emu)) as listener:
            await listener.reached(State.LIVE)
            for n in range(100):
                emu.portal.send("x", {"n": n}, users=[1] if n % 2 else None)
                await asyncio.sleep(0 if n % 3 else 50)
            await listener.received(100)
            assert listener.numbers == list(range(100))
            assert emu.push.counters.websockets == 0
            assert listener.health().connects == 1

    virtual_time.run(main)


@pytest.mark.parametrize("count", [1, 2, 20])
@pytest.mark.parametrize("options", [{}, {"protobuf": False}], ids=["protobuf", "json"])
def test_what_is_published_the_moment_it_is_live_arrives(count: int, options: dict[str, bool]) -> None:
    """The first poll has not reached the server yet, and a second one follows the first."""

    async def main() -> None:
        async with emulator() as emu, polling(emu, **options) as listener:
            for n in range(count):
                emu.portal.send("x", {"n": n})
            await listener.received(count)
            assert listener.numbers == list(range(count))

    virtual_time.run(main)


def test_what_came_before_the_client_is_not_delivered() -> None:
    async def main() -> None:
        async with emulator() as emu:
            emu.portal.send("x", {"n": -1})
            await asyncio.sleep(60)
            async with running(polling(emu)) as listener:
                await listener.reached(State.LIVE)
                await asyncio.sleep(100)
                emu.portal.send("x", {"n": 1})
                await listener.received(1)
                await asyncio.sleep(100)
                assert listener.numbers == [1]

    virtual_time.run(main)


def test_nothing_is_lost_when_polls_are_cut() -> None:
    async def main() -> None:
        async with emulator() as emu, running(polling(emu)) as listener:
            await listener.reached(State.LIVE)
            for n in range(200):
                if n % 5 == 0:
                    await emu.push.disconnect_all()
                emu.portal.send("x", {"n": n})
                await asyncio.sleep(35 if n % 7 == 0 else 0.3)
            await listener.received(200)
            assert listener.numbers == list(range(200))

    virtual_time.run(main)


def test_a_restart_of_the_server_is_survived() -> None:
    async def main() -> None:
        async with emulator() as emu, running(polling(emu)) as listener:
            await listener.reached(State.LIVE)
            emu.portal.send("x", {"n": 0})
            await listener.received(1)
            await emu.stop()
            await asyncio.sleep(300)
            await emu.start()
            emu.portal.send("x", {"n": 1})
            await listener.received(2)
            assert listener.numbers == [0, 1]

    virtual_time.run(main)


def test_a_wrong_channel_is_answered_with_a_new_configuration() -> None:
    async def main() -> None:
        async with emulator() as emu, running(polling(emu)) as listener:
            await listener.reached(State.LIVE)
            emu.portal.send("x", {"n": 0})
            await listener.received(1)
            await emu.push.disconnect_all(4010, "Wrong Channel Id.")
            emu.portal.send("x", {"n": 1})
            await listener.received(2)
            assert emu.portal.calls["pull.application.config.get"] == 2
            assert State.BACKOFF not in listener.states

    virtual_time.run(main)


def test_channels_are_renewed_without_a_gap() -> None:
    async def main() -> None:
        async with emulator() as emu, running(polling(emu)) as listener:
            await listener.reached(State.LIVE)
            for n in range(20):
                if n % 4 == 3:
                    emu.portal.rotate(Owner("application", 1), Owner("application"))
                emu.portal.send("x", {"n": n}, users=[1] if n % 2 else None)
                await asyncio.sleep(30)
            await listener.received(20)
            assert sorted(listener.numbers) == list(range(20))
            assert State.BACKOFF not in listener.states

    virtual_time.run(main)


# -- against a server that answers as it is told ---------------------------------------


class ScriptedPolls:
    """A push server that gives its polls these answers in turn, and then lets them hang."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)
        self.mids: list[str] = []
        self.times: list[float] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = (await reader.readuntil(b"\r\n\r\n")).decode()
        if request.startswith("OPTIONS"):
            writer.write(http_answer(200))
            return
        found = re.search(r"[?&]mid=(\d*)", request)
        self.mids.append(found[1] if found else "")
        self.times.append(asyncio.get_running_loop().time())
        if self.answers:
            writer.write(self.answers.pop(0))
            await writer.drain()
        else:
            await reader.read()


def ok(*numbers: int) -> bytes:
    return http_answer(200, protobuf_frame(*numbers), "Content-Type: application/octet-stream")


def idle(mid: str, *, trusted: bool = True) -> bytes:
    expires = "Thu, 01 Jan 1973 11:11:01 GMT" if trusted else "Thu, 01 Jan 1970 00:00:01 GMT"
    return http_answer(304, b"", f"Last-Message-Id: {mid}", f"Expires: {expires}")


def run_script(
    *answers: bytes,
    check: Callable[[ScriptedPolls, Listener], None],
    seconds: float = 3,  # Before the audit asks too.
    **options: Any,
) -> None:
    polls = ScriptedPolls(*answers)

    async def main() -> None:
        async with tcp_server(polls) as address:
            portal = StandInPortal(long_polling=f"http://{address}/sub/")
            async with running(listener_of(portal, transport="long_polling", **options)) as listener:
                await asyncio.sleep(seconds)
                check(polls, listener)

    virtual_time.run(main)


def mid(number: int) -> str:
    return f"1800000000{number:016}"


def test_the_mid_is_carried_from_poll_to_poll() -> None:
    def check(polls: ScriptedPolls, listener: Listener) -> None:
        assert polls.mids[1:] == [mid(1), mid(3), mid(4)]
        assert listener.numbers == [1, 2, 3, 4]

    run_script(ok(1), ok(2, 3), ok(4), check=check)


def test_every_poll_names_a_mid() -> None:
    """Without one a poll brings only what comes while it hangs, and between two polls messages are lost."""

    def check(polls: ScriptedPolls, listener: Listener) -> None:
        assert len(polls.mids) == 4
        assert all(len(mid) == 26 for mid in polls.mids)

    run_script(idle(""), idle(""), ok(1), check=check)


def test_the_first_mid_comes_from_an_idle_poll() -> None:
    def check(polls: ScriptedPolls, listener: Listener) -> None:
        assert polls.mids[1:] == [mid(7), mid(8)]

    run_script(idle(mid(7)), ok(8), check=check)


@pytest.mark.parametrize(
    "answer",
    [idle(mid(7), trusted=False), idle(""), idle("7"), idle("x" * 26), http_answer(304)],
    ids=["of a proxy", "empty", "short", "no digits", "missing"],
)
def test_a_mid_that_is_none_is_not_taken(answer: bytes) -> None:
    def check(polls: ScriptedPolls, listener: Listener) -> None:
        assert polls.mids[1] == polls.mids[0]
        assert polls.mids[2] == mid(1)

    run_script(answer, ok(1), check=check)


def test_polls_follow_each_other_at_once() -> None:
    def check(polls: ScriptedPolls, listener: Listener) -> None:
        assert polls.times[-1] - polls.times[0] < 0.5
        assert State.BACKOFF not in listener.states

    run_script(*(ok(n) for n in range(1, 20)), idle(mid(19)), ok(20), check=check)


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_server_in_trouble_is_asked_again_by_the_ladder(status: int) -> None:
    def check(polls: ScriptedPolls, listener: Listener) -> None:
        assert listener.numbers == [1, 2]
        gaps = [later - earlier for earlier, later in pairwise(polls.times)]
        assert 0.5 <= gaps[1] <= 0.7
        assert 5 <= gaps[2] <= 6.1
        # Nothing that came before is forgotten.
        assert polls.mids[3] <= mid(1)

    page = http_answer(status, b"<html>trouble</html>")
    run_script(ok(1), page, page, ok(2), check=check, seconds=25)


def test_a_body_that_is_no_frame_is_not_taken_for_silence() -> None:
    def check(polls: ScriptedPolls, listener: Listener) -> None:
        backoffs = [n for n in listener.heard if isinstance(n, StateChanged) and n.state is State.BACKOFF]
        assert len(backoffs) == 1
        assert listener.numbers == [1]

    run_script(http_answer(200, b"<html>Welcome to the hotel</html>"), ok(1), check=check, seconds=2)


def test_a_poll_that_nobody_answers_is_given_up_after_a_minute() -> None:
    def check(polls: ScriptedPolls, listener: Listener) -> None:
        # Beside it there is the audit's.
        assert any(60 <= time - polls.times[0] <= 61 for time in polls.times)
        assert State.BACKOFF in listener.states

    run_script(check=check, seconds=70)


def test_a_page_that_echoes_the_address_leaks_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        if request.startswith(b"OPTIONS"):
            writer.write(http_answer(200))
        else:
            writer.write(http_answer(403, b"blocked: " + request.split()[1]))

    async def main() -> None:
        async with tcp_server(echo) as address:
            portal = StandInPortal(long_polling=f"http://{address}/sub/")
            async with running(listener_of(portal, transport="long_polling")) as listener:
                await asyncio.sleep(5)
                assert State.BACKOFF in listener.states
                assert CANARY not in repr(listener.heard)

    virtual_time.run(main)
    assert CANARY not in caplog.text


# -- bodies that take their time -------------------------------------------------------


def trickling(*polls: tuple[bytes, float], stalls: bool = False) -> Callable[..., Any]:
    """Return a server that answers each poll in turn with these bytes, in so many seconds."""
    left = list(polls)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        if request.startswith(b"OPTIONS"):
            writer.write(http_answer(200))
            return
        if not left:
            await reader.read()
            return
        content, seconds = left.pop(0)
        step = max(len(content) // 100, 1)
        for at in range(0, len(content), step):
            writer.write(content[at : at + step])
            await writer.drain()
            await asyncio.sleep(seconds / 100)
        if stalls:
            await reader.read()

    return answer


def run_trickle(server: Callable[..., Any], main: Callable[[Listener], Any], **options: Any) -> None:
    async def trickle() -> None:
        async with tcp_server(server) as address:
            portal = StandInPortal(long_polling=f"http://{address}/sub/")
            async with running(listener_of(portal, transport="long_polling", **options)) as listener:
                await main(listener)

    virtual_time.run(trickle)


def test_a_body_may_take_minutes_and_what_has_come_of_it_is_delivered() -> None:
    async def main(listener: Listener) -> None:
        await asyncio.sleep(150)
        assert 150 <= len(listener.events) <= 250
        await listener.received(400)
        assert listener.numbers == list(range(1, 401))
        assert listener.health().connects == 1
        assert State.BACKOFF not in listener.states

    run_trickle(trickling((ok(*range(1, 401)), 300.0)), main)


def test_a_body_that_breaks_off_is_gone_on_with() -> None:
    polls = ScriptedPolls(ok(*range(1, 101))[:-3_000], ok(*range(60, 101)))

    async def main(listener: Listener) -> None:
        await listener.received(100)
        assert sorted(set(listener.numbers)) == list(range(1, 101))
        assert polls.mids[1] > mid(50)
        assert listener.health().connects == 1
        assert State.BACKOFF not in listener.states

    run_trickle(polls, main)


def test_a_body_that_falls_silent_is_given_up() -> None:
    async def main(listener: Listener) -> None:
        loop = asyncio.get_running_loop()
        await listener.received(10)
        silent_at = loop.time()
        await listener.reached(State.BACKOFF)
        # Once with what has come, once without anything new.
        assert 15 <= loop.time() - silent_at <= 31

    spoilt = ok(*range(1, 21))[:-600]
    run_trickle(trickling((spoilt, 1.0), (spoilt[:300], 1.0), stalls=True), main)
