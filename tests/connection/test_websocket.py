"""The WebSocket: dead links are noticed, healthy ones are left alone, and nothing leaks."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

from bitrix_pull import MessageDropped, PullEvent, State, StateChanged
from bitrix_pull.connection.disconnects import Ended, Sign
from bitrix_pull.emulator import Emulator
from tests import virtual_time
from tests.connection.listening import Listener, emulator, running
from tests.connection.stand_ins import (
    CANARY,
    Answer,
    StandInPortal,
    WebSocketPeer,
    http_answer,
    listener_of,
    protobuf_frame,
    send,
    stay_silent,
    tcp_server,
)


def listener_on(address: str, **options: Any) -> Listener:
    """Return a listener whose portal knows a WebSocket at this address and nothing else."""
    return listener_of(StandInPortal(websocket=f"ws://{address}/subws/"), **options)


async def first_failure(listener: Listener) -> Ended:
    """Wait for the first failure and return it."""
    async with asyncio.timeout(3600):
        while True:
            for notice in listener.heard:
                if isinstance(notice, StateChanged) and notice.state is State.BACKOFF:
                    assert isinstance(notice.error, Ended)
                    return notice.error
            await asyncio.sleep(0.05)


# -- liveness ---------------------------------------------------------------------


def test_a_half_open_link_is_noticed_within_15_s() -> None:
    async def accept_and_fall_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = WebSocketPeer(reader, writer)
        await peer.accept()
        while await peer.receive():
            pass

    async def main() -> None:
        async with tcp_server(accept_and_fall_silent) as address, running(listener_on(address)) as listener:
            await listener.reached(State.LIVE)
            live_at = asyncio.get_running_loop().time()
            failure = await first_failure(listener)
            assert asyncio.get_running_loop().time() - live_at <= 15.1
            assert failure.sign is Sign.SILENT
            # It goes on trying.
            await listener.reached(State.LIVE)

    virtual_time.run(main)


def test_a_quiet_but_healthy_server_causes_no_alarm_in_an_hour() -> None:
    async def main() -> None:
        async with emulator() as emu, running(Listener(emu)) as listener:
            await listener.reached(State.LIVE)
            await asyncio.sleep(3600)
            emu.portal.send("x", {"n": 1})
            await listener.received(1)
            assert listener.health().connects == 1
            assert listener.states == [State.CONFIGURING, State.CONNECTING, State.LIVE]

    virtual_time.run(main)


def test_a_server_that_answers_pings_late_but_in_time_causes_no_alarm() -> None:
    async def answer_slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = WebSocketPeer(reader, writer)
        await peer.accept()
        while await peer.receive():
            await asyncio.sleep(4.5)
            peer.flush()

    async def main() -> None:
        async with tcp_server(answer_slowly) as address, running(listener_on(address)) as listener:
            await listener.reached(State.LIVE)
            await asyncio.sleep(600)
            assert listener.state is State.LIVE
            assert listener.health().connects == 1

    virtual_time.run(main)


def test_a_pong_behind_many_frames_is_found() -> None:
    """The frames were on their way before our ping arrived: reading has to go on while it waits."""
    count, size = 40, 30_000

    async def burst_before_pong(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = WebSocketPeer(reader, writer)
        await peer.accept()
        await peer.receive()
        pong = peer.take_ready()
        for number in range(1, count + 1):
            peer.send(protobuf_frame(number, padding_bytes=size))
        peer.flush()
        writer.write(pong)
        await peer.serve()

    async def main() -> None:
        async with tcp_server(burst_before_pong) as address, running(listener_on(address)) as listener:
            await listener.reached(State.LIVE)
            await listener.received(count)
            await asyncio.sleep(60)
            assert listener.numbers == list(range(1, count + 1))
            assert listener.health().connects == 1

    virtual_time.run(main)


def test_slow_handlers_stop_the_reading_and_cause_no_alarm() -> None:
    async def main() -> None:
        async with emulator() as emu, running(Listener(emu, inbox_max_events=5)) as listener:
            done: list[int] = []

            @listener.on("x")
            async def slow(event: PullEvent[dict[str, int]]) -> None:
                await asyncio.sleep(3)
                done.append(event.params["n"])

            await listener.reached(State.LIVE)
            for n in range(30):
                emu.portal.send("x", {"n": n})
                await asyncio.sleep(0.5)
            await asyncio.sleep(30)
            assert listener.state is State.PAUSED
            assert listener.health().waiting <= 8
            await asyncio.sleep(60)
            assert done == list(range(30))
            assert listener.health().live
            assert State.BACKOFF not in listener.states
            assert listener.health().connects == 1
            assert listener.health().waiting == 0

    virtual_time.run(main)


def test_a_handler_that_holds_up_the_inbox_for_an_hour_loses_nothing() -> None:
    """The server drops a client that does not read its pings; it resumes from what it had."""

    async def main() -> None:
        async with emulator() as emu, running(Listener(emu, inbox_max_events=1)) as listener:
            done: list[int] = []
            gate = asyncio.Event()

            @listener.on("x")
            async def held(event: PullEvent[dict[str, int]]) -> None:
                await gate.wait()
                done.append(event.params["n"])

            await listener.reached(State.LIVE)
            for n in range(40):
                emu.portal.send("x", {"n": n})
                await asyncio.sleep(1)
            await asyncio.sleep(3600)
            assert not done
            gate.set()
            await listener.received(40)
            await asyncio.sleep(30)
            assert done == list(range(40))
            assert listener.state is State.LIVE

    virtual_time.run(main)


# -- handshakes -------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_at_the_handshake_is_not_followed(status: int) -> None:
    visitors = 0

    async def count_visitor(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal visitors
        visitors += 1

    async def main() -> None:
        async with tcp_server(count_visitor) as elsewhere:
            redirect = send(http_answer(status, b"", f"Location: ws://{elsewhere}/subws/"))
            async with tcp_server(redirect) as address, running(listener_on(address)) as listener:
                await asyncio.sleep(60)
                assert (await first_failure(listener)).sign is Sign.SERVER_TROUBLE
        assert visitors == 0

    virtual_time.run(main)


GARBAGE = {
    "no HTTP": send(b"SSH-2.0-OpenSSH_9.6\r\n"),
    "binary": send(bytes(range(256)) * 40),
    "a plain page": send(http_answer(200, b"<html>hello</html>")),
    "an upgrade to something else": send(
        b"HTTP/1.1 101 Switching\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n"
    ),
    "half a head": send(b"HTTP/1.1 101 Switching Protocols\r\nUpgr"),
    "nothing": send(b""),
}


@pytest.mark.parametrize("what", GARBAGE)
def test_what_is_no_handshake_is_answered_with_patience(what: str) -> None:
    attempts = 0

    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal attempts
        attempts += 1
        await GARBAGE[what](reader, writer)

    async def main() -> None:
        async with tcp_server(count) as address, running(listener_on(address)) as listener:
            await asyncio.sleep(12)
            assert listener.state is State.BACKOFF
            # By the ladders: at once, after 0.5, 5 and 5 s; or after 0.1, 0.5, 1, 2 and 4 s.
            assert 3 <= attempts <= 6

    virtual_time.run(main)


def test_a_silent_server_is_given_up_after_the_connect_timeout() -> None:
    async def main() -> None:
        async with tcp_server(stay_silent) as address, running(listener_on(address)) as listener:
            await listener.reached(State.CONNECTING)
            since = asyncio.get_running_loop().time()
            failure = await first_failure(listener)
            assert 9.9 <= asyncio.get_running_loop().time() - since <= 10.2
            assert failure.sign is Sign.UNANSWERED

    virtual_time.run(main)


def after_handshake(act: Callable[[WebSocketPeer], None]) -> Answer:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = WebSocketPeer(reader, writer)
        await peer.accept()
        act(peer)
        peer.flush()
        await peer.serve()

    return answer


def test_a_message_over_the_limit_is_left_out_and_told_and_the_connection_stays() -> None:
    def act(peer: WebSocketPeer) -> None:
        peer.send(protobuf_frame(1, padding_bytes=20_000) + protobuf_frame(2))
        peer.send(protobuf_frame(3, padding_bytes=20_000))
        peer.send(protobuf_frame(4))

    async def main() -> None:
        async with tcp_server(after_handshake(act)) as address, running(limited(address)) as listener:
            await listener.received(2)
            assert listener.numbers == [2, 4]
            dropped = [notice for notice in listener.heard if isinstance(notice, MessageDropped)]
            assert [int(notice.mid[10:]) for notice in dropped] == [1, 3]
            assert "max_message_bytes" in dropped[0].reason
            assert listener.health().malformed == 2
            assert listener.health().connects == 1

    def limited(address: str) -> Listener:
        return listener_on(address, max_message_bytes=10_000)

    virtual_time.run(main)


@pytest.mark.parametrize("text", [False, True], ids=["binary", "text"])
def test_a_frame_that_is_none_of_the_protocol_ends_the_connection(text: bool) -> None:
    answer = after_handshake(lambda peer: peer.send(b"#?!" * 10, text=text))

    async def main() -> None:
        async with tcp_server(answer) as address, running(listener_on(address)) as listener:
            assert (await first_failure(listener)).sign is Sign.GARBLED

    virtual_time.run(main)


def test_what_came_before_an_unreadable_frame_is_received() -> None:
    def act(peer: WebSocketPeer) -> None:
        peer.send(protobuf_frame(1))
        for content in (protobuf_frame(2), protobuf_frame(3), b"#?!" * 10, protobuf_frame(4)):
            peer.send(content)

    async def main() -> None:
        async with tcp_server(after_handshake(act)) as address, running(listener_on(address)) as listener:
            assert (await first_failure(listener)).sign is Sign.GARBLED
            assert listener.numbers[:3] == [1, 2, 3]
            assert 4 not in listener.numbers

    virtual_time.run(main)


def test_a_server_that_closes_at_once_for_a_refused_publish_is_not_stormed() -> None:
    """Nothing was published, so it is no publish that it refuses (protocol §8 says: reconnect at once)."""
    attempts = 0

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal attempts
        attempts += 1
        if attempts > 100:
            await stay_silent(reader, writer)
        peer = WebSocketPeer(reader, writer)
        await peer.accept()
        peer.close(4013, "4013: Wrong Request Data.")
        peer.flush()
        await peer.serve()

    async def main() -> None:
        async with tcp_server(refuse) as address, running(listener_on(address)):
            await asyncio.sleep(12)
            assert attempts <= 5

    virtual_time.run(main)


# -- addresses --------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [f"https://127.0.0.1:1/{CANARY}", f"ws://127.0.0.1:99999/{CANARY}", f"ws://{CANARY}@127.0.0.1:1/"],
)
def test_an_address_that_is_none_fails_with_an_error_that_keeps_secrets(address: str) -> None:
    async def main() -> None:
        listener = listener_of(StandInPortal(websocket=address))
        with pytest.raises(Exception) as raised:  # noqa: PT011 - any error at all may not leak
            await listener.__aenter__()
        chain: BaseException | None = raised.value
        while chain is not None:
            assert CANARY not in str(chain)
            assert CANARY not in repr(chain)
            assert type(chain).__module__.startswith(("bitrix_pull", "builtins", "asyncio"))
            chain = chain.__cause__ or chain.__context__
        await listener.close()

    virtual_time.run(main)


async def test_loopback_is_not_asked_for_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    async with Emulator() as emu, Listener(emu, start_timeout_s=3) as listener:
        assert listener.state is State.LIVE


# -- secrets ----------------------------------------------------------------------


def test_no_log_holds_a_channel_or_token(caplog: pytest.LogCaptureFixture) -> None:
    """At DEBUG, for every logger of the process, through connects, cuts and publishing."""

    async def main() -> list[str]:
        async with emulator() as emu, running(Listener(emu)) as listener:
            await listener.reached(State.LIVE)
            await listener.publish("x", {"n": 0})
            await listener.publish("x", {"n": 1}, users=[1], route="endpoint")
            await listener.publish("x", {"n": 2}, users=[1], route="socket")
            await listener.received(3)
            await emu.push.disconnect_all()
            await listener.reached(State.LIVE)
            await emu.push.disconnect_all(4010, "4010: Wrong Channel Id.")
            await asyncio.sleep(20)
            config = emu.portal.config("application", 1)
            channels = config["channels"]
            return [
                emu.token,
                *channels["private"]["id"].replace(":", ".").split("."),
                *channels["shared"]["id"].split("."),
                *channels["private"]["public_id"].split("."),
            ]

    caplog.set_level(logging.DEBUG)
    # Whoever hunts a bug may raise each logger by name, whatever level it was given.
    for name in list(logging.root.manager.loggerDict):
        caplog.set_level(logging.DEBUG, logger=name)
    secrets = virtual_time.run(main)
    assert any(record.name.startswith("bitrix_pull") for record in caplog.records)
    for record in caplog.records:
        text = f"{record.getMessage()} {record.__dict__}"
        for secret in secrets:
            assert secret not in text, record.name


def test_an_error_page_that_echoes_the_address_leaks_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        writer.write(http_answer(403, b"blocked: " + request.split()[1]))

    async def main() -> None:
        async with tcp_server(echo) as address, running(listener_on(address)) as listener:
            assert CANARY not in str(await first_failure(listener))
            assert CANARY not in listener.health().last_error

    caplog.set_level(logging.DEBUG)
    virtual_time.run(main)
    assert CANARY not in caplog.text
