"""A client that is closed or killed, and started again: at least once, and once where it can be."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from bitrix_pull import PullEvent, SqliteStore, State
from bitrix_pull.errors import InvalidArgument
from tests import virtual_time
from tests.connection.listening import Listener, emulator, running


@pytest.mark.parametrize("store", ["memory", "file", "sqlite"])
def test_nothing_is_missed_or_repeated_by_a_restart(store: str, tmp_path: Path) -> None:
    resume = {
        "memory": None,
        "file": str(tmp_path / "resume.json"),
        "sqlite": SqliteStore(tmp_path / "resume.db"),
    }[store]

    async def main() -> None:
        async with emulator() as emu:
            listener = Listener(emu, resume=resume)
            for start in range(0, 50, 10):
                async with running(listener):
                    await listener.reached(State.LIVE)
                    for n in range(start, start + 5):
                        emu.portal.send("x", {"n": n})
                    await listener.received(start + 5)
                assert listener.state is State.CLOSED
                for n in range(start + 5, start + 10):
                    emu.portal.send("x", {"n": n})
                await asyncio.sleep(100)
            async with running(listener):
                await listener.received(50)
                await asyncio.sleep(10)
            assert listener.numbers == list(range(50))

    virtual_time.run(main)


def test_what_was_not_handled_yet_comes_again() -> None:
    async def main() -> None:
        async with emulator() as emu:
            listener = Listener(emu)
            begun: list[int] = []

            @listener.on("slow")
            async def slow(event: PullEvent[Any]) -> None:
                begun.append(event.params["n"])
                await asyncio.sleep(3600 if len(begun) == 3 else 0)

            async with running(listener):
                await listener.reached(State.LIVE)
                for n in range(5):
                    emu.portal.send("slow", {"n": n})
                await asyncio.sleep(10)
            assert begun == [0, 1, 2]
            async with running(listener):
                await asyncio.sleep(10)
            assert begun == [0, 1, 2, 2, 3, 4]

    virtual_time.run(main)


def test_start_latest_and_earliest(tmp_path: Path) -> None:
    async def main() -> None:
        async with emulator() as emu:
            store = str(tmp_path / "resume.json")
            first = Listener(emu, resume=store)
            async with running(first):
                await first.reached(State.LIVE)
                emu.portal.send("x", {"n": 0})
                await first.received(1)
            emu.portal.send("x", {"n": 1})
            await asyncio.sleep(60)

            latest = Listener(emu, resume=store, start="latest")
            async with running(latest):
                await latest.reached(State.LIVE)
                emu.portal.send("x", {"n": 2})
                await latest.received(1)
                # An outage right away asks for all of the history, and drops what is too old.
                await emu.push.disconnect_all()
                await asyncio.sleep(60)
                assert latest.numbers == [2]

            earliest = Listener(emu, start="earliest")
            async with running(earliest):
                await earliest.received(3)
                assert earliest.numbers == [0, 1, 2]

    virtual_time.run(main)


def test_a_store_in_use_is_an_error_that_says_so(tmp_path: Path) -> None:
    async def main() -> None:
        async with emulator() as emu:
            store = str(tmp_path / "resume.json")
            async with Listener(emu, resume=store):
                second = Listener(emu, resume=store)
                with pytest.raises(InvalidArgument, match="in use by another client"):
                    async with second:
                        pass
                assert second.state is State.CLOSED

    virtual_time.run(main)


def test_stores_hold_no_secret(tmp_path: Path) -> None:
    async def main() -> None:
        async with emulator() as emu:
            store = tmp_path / "resume.json"
            async with Listener(emu, resume=str(store)) as listener:
                emu.portal.send("x", {"n": 1}, users=[1])
                await listener.received(1)
            text = store.read_text()
            assert emu.portal.address in text
            config = emu.portal.config("application", 1)
            for channel in config["channels"].values():
                assert channel["id"][:32] not in text
            assert emu.token not in text

    virtual_time.run(main)
