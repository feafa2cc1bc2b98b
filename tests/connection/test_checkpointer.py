"""What the resume store is asked for, and what becomes of its failures."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

import pytest

from bitrix_pull import MemoryStore, PullEvent, ResumePoint, State
from bitrix_pull.connection import checkpointer, cursor
from bitrix_pull.connection.cursors import Cursors
from bitrix_pull.errors import InvalidArgument, ResumeStoreFailed
from tests import virtual_time
from tests.connection.listening import Listener, emulator, running


class Whole:
    """A user's store with the four methods."""

    def __init__(self, points: dict[str, ResumePoint] | None = None) -> None:
        self.points = {} if points is None else points
        self.calls: list[str] = []
        self.fails: dict[str, Exception] = {}

    def _called(self, method: str) -> None:
        self.calls.append(method)
        if method in self.fails:
            raise self.fails[method]

    async def open(self) -> None:
        self._called("open")

    async def load(self, key: str) -> ResumePoint | None:
        self._called("load")
        return self.points.get(key)

    async def save(self, key: str, point: ResumePoint) -> None:
        self._called("save")
        self.points[key] = point

    async def close(self) -> None:
        self._called("close")


class Growing(Whole):
    """One that takes what is new."""

    def __init__(self) -> None:
        super().__init__()
        self.news: list[ResumePoint] = []
        self.saved = 0

    async def save(self, key: str, point: ResumePoint) -> None:
        await super().save(key, point)
        self.news.clear()

    async def advance(self, key: str, news: ResumePoint) -> None:
        self._called("advance")
        self.saved += 1
        self.news.append(news)
        self.points[key] = self.points[key].joined([news])


class Stuck(Listener):
    """Never finishes with "stuck" events."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)

        @self.on("stuck")
        async def wait(event: PullEvent) -> None:
            await asyncio.Event().wait()


def _leaked_nothing(errors: Sequence[str]) -> None:
    assert not any("hunter2" in text for text in errors)


@pytest.mark.parametrize("kind", [Whole, Growing, MemoryStore])
def test_one_event_that_is_not_settled_makes_nothing_else_come_again(
    kind: type[Whole | Growing | MemoryStore],
) -> None:
    async def main() -> None:
        async with emulator() as emu:
            store = kind()
            for run in range(3):
                listener = Stuck(emu, resume=store, known_mids=100)
                async with running(listener):
                    await listener.reached(State.LIVE)
                    if run == 0:
                        emu.portal.send("stuck", {"n": -1})
                    for n in range(1_000 * run, 1_000 * (run + 1)):
                        emu.portal.send("x", {"n": n})
                        if n % 100 == 0:
                            await asyncio.sleep(1)
                    await listener.received(1_001)
                    await asyncio.sleep(10)
                    assert listener.numbers == [-1, *range(1_000 * run, 1_000 * (run + 1))]
                    assert listener.health().store.comes_again == 0

    virtual_time.run(main)


def test_a_store_that_grows_gets_each_settled_message_once() -> None:
    async def main() -> None:
        async with emulator() as emu:
            store = Growing()
            async with running(Stuck(emu, resume=store)) as listener:
                await listener.reached(State.LIVE)
                emu.portal.send("stuck", {"n": -1})
                for n in range(100):
                    emu.portal.send("x", {"n": n})
                    await asyncio.sleep(0.1)
                await listener.received(101)
                await asyncio.sleep(10)
                settled = [mid for news in store.news for mid in news.settled]
                assert len(settled) == len(set(settled)) == 100
                assert store.calls.count("save") == 1
                saves = len(store.calls)
                await asyncio.sleep(100)
                assert len(store.calls) == saves, "there is nothing new to save"

    virtual_time.run(main)


def test_a_store_says_how_long_to_gather_for_it() -> None:
    async def saves(gather_s: float | None) -> tuple[int, float]:
        store = Growing()
        if gather_s is not None:
            store.gather_s = gather_s  # type: ignore[attr-defined]
        async with emulator() as emu:
            listener = Listener(emu, resume=store)
            listener.on("x")(lambda event: None)
            async with running(listener):
                await listener.reached(State.LIVE)
                for number in range(20):
                    emu.portal.send("x", {"n": number})
                    await asyncio.sleep(0.5)
                last = emu.portal.send("x")
                await asyncio.sleep(0.5)
                began = asyncio.get_running_loop().time()
            took = asyncio.get_running_loop().time() - began
            (point,) = store.points.values()
            assert last in point.settled
        return store.saved, took

    async def main() -> None:
        often, _ = await saves(None)
        seldom, took = await saves(2.0)
        assert often >= 20
        assert seldom <= 8
        # Whoever stops does not wait for more.
        assert took < 1

    virtual_time.run(main)


def test_a_large_point_is_not_written_anew_at_each_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpointer, "_WHOLE_AGAIN", 100)

    async def main() -> None:
        async with emulator() as emu:
            store = Growing()
            for run in range(3):
                async with running(Stuck(emu, resume=store)) as listener:
                    await listener.reached(State.LIVE)
                    if run == 0:
                        emu.portal.send("stuck", {"n": -1})
                    for n in range(60 * run, 60 * (run + 1)):
                        emu.portal.send("x", {"n": n})
                    await listener.received(61)
                    await asyncio.sleep(10)
                    assert listener.numbers == [-1, *range(60 * run, 60 * (run + 1))]
            # The first two points were small.
            assert store.calls.count("save") == 2

    virtual_time.run(main)


def test_a_bound_that_makes_something_come_again_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cursor, "_SETTLED_MAX", 1_000)
    monkeypatch.setattr(cursor, "_OVERLAP_MAX", 500)

    async def main() -> None:
        async with emulator() as emu:
            store = Growing()
            async with running(Stuck(emu, resume=store, known_mids=100)) as listener:
                await listener.reached(State.LIVE)
                emu.portal.send("stuck", {"n": -1})
                for n in range(2_500):
                    emu.portal.send("x", {"n": n})
                    if n % 100 == 0:
                        await asyncio.sleep(1)
                await listener.received(2_501)
                await asyncio.sleep(10)
                told = listener.health().store.comes_again
                assert 900 <= told <= 1_100
            async with running(Stuck(emu, resume=store, known_mids=100)) as listener:
                await asyncio.sleep(60)
                # What had been written down before the bound was reached does not.
                assert 1 <= len(listener.numbers) <= told + 1

    virtual_time.run(main)
    assert [record.levelname for record in caplog.records if "handled again" in record.message] == ["WARNING"]


@pytest.mark.parametrize("kind", [Whole, Growing])
def test_a_save_that_fails_is_told_once_and_made_up_for(
    kind: type[Whole | Growing], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def main() -> None:
        async with emulator(version=5) as emu:
            store = kind()
            async with running(Listener(emu, resume=store)) as listener:
                await listener.reached(State.LIVE)
                await asyncio.sleep(1)
                assert listener.health().store.saved_at is not None
                store.fails = {"save": KeyError("hunter2"), "advance": KeyError("hunter2")}
                mid = emu.portal.send("x", {"n": 0})
                await listener.received(1)
                await asyncio.sleep(10)
                error = listener.health().store.error
                assert "raised KeyError (test_checkpointer.py" in error
                _leaked_nothing([error, caplog.text])
                assert mid not in emu.push.acknowledged
                assert listener.state is State.LIVE
                store.fails = {}
                await asyncio.sleep(2)
                assert listener.health().store.error == ""
                assert mid in emu.push.acknowledged
            [point] = store.points.values()
            assert point.mid >= mid or mid in point.settled

    virtual_time.run(main)
    assert caplog.text.count("could not be saved") == 1
    assert caplog.text.count("is saved again") == 1


def test_a_plain_function_in_the_place_of_an_async_one_is_told_as_well() -> None:
    class Plain(Whole):
        def save(self, key: str, point: ResumePoint) -> Any:
            raise KeyError("hunter2")

    async def main() -> None:
        async with emulator() as emu, running(Listener(emu, resume=Plain())) as listener:
            await listener.reached(State.LIVE)
            emu.portal.send("x", {"n": 0})
            await listener.received(1)
            await asyncio.sleep(10)
            assert "save() of Plain raised KeyError" in listener.health().store.error

    virtual_time.run(main)


def test_a_store_that_does_not_return_is_told_and_keeps_nobody_from_closing() -> None:
    class Hanging(Whole):
        async def save(self, key: str, point: ResumePoint) -> None:
            await asyncio.Event().wait()

    async def main() -> float:
        loop = asyncio.get_running_loop()
        async with emulator() as emu:
            async with running(Listener(emu, resume=Hanging())) as listener:
                await listener.reached(State.LIVE)
                await asyncio.sleep(60)
                assert "save() of Hanging has not returned" in listener.health().store.error
                began = loop.time()
            return loop.time() - began

    assert virtual_time.run(main) < 15


def test_a_fault_of_our_own_ends_no_saving(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with emulator() as emu:
            store = Whole()
            async with running(Listener(emu, resume=store)) as listener:
                await listener.reached(State.LIVE)
                await asyncio.sleep(5)
                with monkeypatch.context() as broken:
                    broken.setattr(Cursors, "snapshot", lambda self: 1 / 0)
                    mid = emu.portal.send("x", {"n": 1})
                    await asyncio.sleep(5)
                    assert "a fault of bitrix_pull: ZeroDivisionError" in listener.health().store.error
                await asyncio.sleep(5)
                assert listener.health().store.error == ""
                (point,) = store.points.values()
                assert mid in (point.mid, *point.settled)

    virtual_time.run(main)
    assert "could not be saved: a fault" in caplog.text


def test_a_store_that_cannot_be_opened_is_an_error_before_anything_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        async with emulator() as emu:
            store = Whole()
            store.fails = {"open": ConnectionError("redis://user:hunter2@host")}
            listener = Listener(emu, resume=store)
            with pytest.raises(
                ResumeStoreFailed, match=r"open\(\) of Whole raised ConnectionError"
            ) as caught:
                await listener.run()
            assert listener.states == []
            assert not emu.push.counters.messages
            _leaked_nothing([str(caught.value), caplog.text])

    virtual_time.run(main)


def test_a_store_that_does_not_answer_just_now_is_asked_again() -> None:
    async def main() -> None:
        async with emulator() as emu:
            store = Whole()
            async with running(Listener(emu, resume=store)) as listener:
                await listener.reached(State.LIVE)
                emu.portal.send("x", {"n": 0})
                await listener.received(1)
            emu.portal.send("x", {"n": 1})
            store.fails = {"load": OSError("hunter2")}
            async with running(Listener(emu, resume=store)) as listener:
                await asyncio.sleep(60)
                assert State.LIVE not in listener.states
                assert "load() of Whole raised OSError" in listener.health().last_error
                store.fails = {}
                await listener.received(1)
                assert listener.numbers == [1]

    virtual_time.run(main)


def test_what_is_no_resume_point_is_not_taken_for_one() -> None:
    async def main() -> None:
        async with emulator() as emu:

            class Wrong(Whole):
                async def load(self, key: str) -> Any:
                    return {"mid": "0" * 26}

            listener = Listener(emu, resume=Wrong())
            with pytest.raises(InvalidArgument, match=r"load\(\) of Wrong returned dict, not ResumePoint"):
                await listener.run()
            assert listener.state is State.FAILED

    virtual_time.run(main)


def test_a_store_that_cannot_be_closed_keeps_nobody_from_closing(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with emulator() as emu:
            store = Whole()
            store.fails = {"close": OSError()}
            async with running(Listener(emu, resume=store)) as listener:
                await listener.reached(State.LIVE)
            assert listener.state is State.CLOSED

    virtual_time.run(main)
    assert "the resume store could not be closed" in caplog.text
