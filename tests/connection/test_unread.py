"""What nobody wants is counted, known and settled, and its body is not even looked at."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from bitrix_pull import (
    AccessToken,
    Continuity,
    MessageDropped,
    Notice,
    PullClient,
    PullEvent,
    PullOptions,
    State,
)
from bitrix_pull.emulator import Emulator
from bitrix_pull.events import BACKEND_SENDER
from bitrix_pull.testing import Recorder, Recording
from bitrix_pull.wire.messages import Malformed, Unread, read_message
from tests import virtual_time
from tests.connection.listening import emulator
from tests.connection.test_intake import Taken, mid
from tests.wire.test_skim import portal_body

SPOILT = portal_body("{no JSON", module="application", command="other").encode()
"""It shows at its ends what it is about, and only parsing it would tell that it is spoilt."""


class OfFew(PullClient):
    """A client that wants commands ``x`` alone, and writes down what it hears."""

    def __init__(self, emu: Emulator, **arguments: Any) -> None:
        options = PullOptions(transport=arguments.pop("transport", "auto"))
        super().__init__(AccessToken(emu.portal_url, emu.token), options=options, **arguments)
        self.events: list[PullEvent[Any]] = []
        self.heard: list[Notice] = []
        self.on("x")(self.events.append)

    async def listen(self) -> None:
        async for notice in self.notices():
            self.heard.append(notice)

    @property
    def dropped(self) -> list[MessageDropped]:
        return [notice for notice in self.heard if isinstance(notice, MessageDropped)]


async def learn(emu: Emulator) -> None:
    """Let the client see that nobody wants ``other``."""
    emu.portal.send("other", {"n": 0})
    await asyncio.sleep(2)


def send_spoilt(emu: Emulator, body: bytes = SPOILT) -> str:
    shared: str = emu.portal.config("application", 1)["channels"]["shared"]["id"]
    return emu.push.publish([shared], body, 86_400)


@pytest.mark.parametrize("transport", ["websocket", "long_polling"])
def test_it_is_counted_and_not_parsed(transport: str) -> None:
    async def main() -> None:
        async with emulator() as emu, OfFew(emu, transport=transport) as pull:
            hearing = asyncio.create_task(pull.listen())
            await learn(emu)
            for number in range(30):
                emu.portal.send("other", {"n": number})
                emu.portal.send("x", {"n": number})
                send_spoilt(emu)
            await asyncio.sleep(5)
            assert [event.params["n"] for event in pull.events] == list(range(30))
            health = pull.health()
            assert (health.received, health.unrouted) == (91, {"application.other": 61})
            assert (health.malformed, pull.dropped, health.waiting) == (0, [], 0)
            hearing.cancel()

    virtual_time.run(main)


def test_what_is_wanted_and_spoilt_is_told_as_ever() -> None:
    async def main() -> None:
        async with emulator() as emu, OfFew(emu) as pull:
            hearing = asyncio.create_task(pull.listen())
            await learn(emu)
            lost = send_spoilt(emu, SPOILT.replace(b'"other"', b'"x"'))
            await asyncio.sleep(2)
            (dropped,) = pull.dropped
            assert (dropped.mid, pull.health().malformed) == (lost, 1)
            hearing.cancel()

    virtual_time.run(main)


def test_who_comes_to_want_it_gets_what_comes_from_then_on() -> None:
    async def main() -> None:
        async with emulator() as emu, OfFew(emu) as pull:
            hearing = asyncio.create_task(pull.listen())
            await learn(emu)
            async with pull.subscribe() as everything:
                emu.portal.send("other", {"n": 1})
                assert (await anext(everything)).params == {"n": 1}
                lost = send_spoilt(emu)
                await asyncio.sleep(2)
                assert [notice.mid for notice in pull.dropped] == [lost]
            late: list[PullEvent[Any]] = []
            pull.on("other")(late.append)
            emu.portal.send("other", {"n": 2})
            await asyncio.sleep(2)
            pull.off(late.append)
            emu.portal.send("other", {"n": 3})
            await asyncio.sleep(2)
            assert [event.params for event in late] == [{"n": 2}]
            assert pull.health().unrouted == {"application.other": 2}
            hearing.cancel()

    virtual_time.run(main)


def test_a_recorder_wants_everything(tmp_path: Path) -> None:
    async def main() -> None:
        async with emulator() as emu, OfFew(emu) as pull:
            await learn(emu)
            with Recorder(tmp_path / "events.jsonl", keep_params=True).follow(pull):
                for number in range(3):
                    emu.portal.send("other", {"n": number})
                    await asyncio.sleep(2)
                send_spoilt(emu)
                await asyncio.sleep(2)
                assert pull.health().malformed == 1
            await learn(emu)
            send_spoilt(emu)
            await asyncio.sleep(2)
            assert pull.health().malformed == 1

    virtual_time.run(main)
    events = Recording(tmp_path / "events.jsonl").events()
    assert [event.params for event in events if isinstance(event, PullEvent)] == [{"n": n} for n in range(3)]


def test_a_replay_brings_it_as_the_rest(tmp_path: Path) -> None:
    async def main() -> None:
        async with emulator() as emu, OfFew(emu, resume=str(tmp_path / "point")) as pull:
            hearing = asyncio.create_task(pull.listen())
            await learn(emu)
            emu.portal.send("x", {"n": 0})
            await asyncio.sleep(10)
            await emu.push.disconnect_all()
            for number in range(1, 11):
                emu.portal.send("other", {"n": number})
                emu.portal.send("x", {"n": number})
            while pull.state is not State.LIVE:
                await asyncio.sleep(0.1)
            await asyncio.sleep(30)
            assert [event.params["n"] for event in pull.events] == list(range(11))
            assert [event.replayed for event in pull.events] == [False] + [True] * 10
            (continuity,) = (notice for notice in pull.heard if isinstance(notice, Continuity))
            assert (continuity.recovered, continuity.replayed) == ("yes", 20)
            health = pull.health()
            assert (health.received, health.unrouted, health.gaps) == (22, {"application.other": 11}, 0)
            hearing.cancel()
            await pull.close()
            # All of it is settled: nothing comes again to the next run.
            again = OfFew(emu, resume=str(tmp_path / "point"))
            async with again:
                await asyncio.sleep(10)
                assert again.events == []
                assert again.health().received == 0

    virtual_time.run(main)


# -- what was held back while somebody came to want it ----------------------------------------


class Body:
    """What is around a body in a frame."""

    expiry = 60

    def __init__(self, number: int, body: bytes) -> None:
        self.body = body
        self.unread: Unread = Unread(
            mid(number), ("application", "other"), 1795330800.25, 1_795_330_800, self, self._read
        )

    def _read(self, _: object) -> Any:
        return read_message(self.unread.mid, self.body, BACKEND_SENDER, self.unread.created_unix, self.expiry)


def sound(number: int) -> Body:
    return Body(number, portal_body(module="application", command="other").encode())


async def test_it_is_read_once_somebody_wants_it() -> None:
    taken = Taken()
    taken.unwanted |= {("application", "other")}
    taken.take([sound(1).unread, sound(2).unread])
    assert (taken.events, taken.passed_by, taken.settled) == (
        [],
        [("application", "other")] * 2,
        [mid(1), mid(2)],
    )
    taken.unwanted.clear()
    taken.take([sound(2).unread, sound(3).unread, Body(4, SPOILT).unread])
    assert taken.events == [mid(3)]
    assert [notice.mid for notice in taken.notices if isinstance(notice, MessageDropped)] == [mid(4)]
    assert taken.settled == [mid(1), mid(2), mid(4)]
    assert (taken.intake.received, taken.intake.duplicates, taken.intake.malformed) == (3, 1, 1)


async def test_it_is_known_as_the_same_once_it_is_read() -> None:
    taken = Taken()
    taken.unwanted |= {("application", "other")}
    body = sound(1)
    taken.take([body.unread])
    message = body.unread.read()
    assert not isinstance(message, Malformed)
    taken.take([message])
    assert (taken.events, taken.intake.duplicates, taken.cursor.numbering) == ([], 1, 0)
