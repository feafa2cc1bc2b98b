"""JSON-RPC: a message is acknowledged when it is safe with us, and not before (protocol §4.3)."""

import asyncio
import sys
from pathlib import Path
from typing import Any

from bitrix_pull import PullEvent, State
from bitrix_pull.emulator import Emulator
from tests import virtual_time
from tests.connection.listening import Listener, emulator, running


def test_a_message_is_acknowledged_when_its_handlers_have_returned() -> None:
    async def main() -> None:
        async with emulator(version=5) as emu:
            listener = Listener(emu)
            release = asyncio.Event()

            @listener.on("slow")
            async def slow(event: PullEvent[Any]) -> None:
                await release.wait()

            async with running(listener):
                await listener.reached(State.LIVE)
                quick = emu.portal.send("x", {"n": 0})
                held = emu.portal.send("slow", {"n": 1})
                await listener.received(2)
                await asyncio.sleep(10)
                assert quick in emu.push.acknowledged
                assert held not in emu.push.acknowledged
                release.set()
                await asyncio.sleep(1)
                assert held in emu.push.acknowledged

    virtual_time.run(main)


def test_with_a_store_it_is_acknowledged_when_it_was_saved(tmp_path: Path) -> None:
    store = tmp_path / "resume.json"

    async def main() -> None:
        async with emulator(version=5) as emu, running(Listener(emu, resume=str(store))) as listener:
            await listener.reached(State.LIVE)
            mid = emu.portal.send("x", {"n": 0})
            while mid not in emu.push.acknowledged:
                await asyncio.sleep(0.1)
            assert mid in store.read_text()

    virtual_time.run(main)


CRASHES = """
import asyncio, sys
from bitrix_pull import AccessToken, PullClient

async def main(portal, token, store):
    pull = PullClient(AccessToken(portal, token), resume=store)

    @pull.on("x")
    async def handle(event):
        print("handling", event.params["n"], flush=True)
        if event.params["n"] == 1:
            await asyncio.Event().wait()

    async with pull:
        print("live", flush=True)
        await asyncio.Event().wait()

asyncio.run(main(*sys.argv[1:]))
"""


async def test_a_crash_between_receipt_and_handling_brings_the_event_again(tmp_path: Path) -> None:
    store = str(tmp_path / "resume.json")
    async with Emulator(version=5) as emu:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", CRASHES, emu.portal_url, emu.token, store, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        async with asyncio.timeout(30):
            assert await process.stdout.readline() == b"live\n"
            handled = emu.portal.send("x", {"n": 0})
            while handled not in emu.push.acknowledged:
                await asyncio.sleep(0.01)
            withheld = emu.portal.send("x", {"n": 1})
            while await process.stdout.readline() != b"handling 1\n":
                pass
        process.kill()
        await process.wait()
        assert withheld not in emu.push.acknowledged

        async with Listener(emu, resume=store) as listener:
            async with asyncio.timeout(10):
                while not listener.events:
                    await asyncio.sleep(0.01)
                assert listener.numbers == [1]
                while withheld not in emu.push.acknowledged:
                    await asyncio.sleep(0.01)
