"""Publishing from code that does not await: threads, forks, and the end of the program."""

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from bitrix_pull import AccessToken, Message
from bitrix_pull.emulator import Emulator
from bitrix_pull.errors import InvalidArgument, TokenExpired
from bitrix_pull.sync import Publisher


@pytest.fixture
def emu() -> Iterator[Emulator]:
    """An emulator in another thread, as these tests block."""
    emulator = Emulator()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    asyncio.run_coroutine_threadsafe(emulator.start(), loop).result()
    yield emulator
    asyncio.run_coroutine_threadsafe(emulator.close(), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def publisher_of(emu: Emulator) -> Publisher:
    return Publisher(AccessToken(emu.portal_url, emu.token))


def calls(emu: Emulator) -> int:
    return emu.portal.calls["pull.application.event.add"]


def test_it_publishes_notifies_and_calls(emu: Emulator) -> None:
    with publisher_of(emu) as publisher:
        assert publisher.publish("order_update", {"id": 7}, users=[1]).confirmed
        receipt = publisher.publish_many(
            (Message("order_update", {"id": n}, users=[1]) for n in range(3)), route="endpoint"
        )
        publisher.notify([1], "Order 7 is paid")
        deal = publisher.call("crm.deal.add", {"fields": {"TITLE": "One"}})
        assert publisher.call("crm.deal.get", {"id": deal})["TITLE"] == "One"

    assert receipt.messages == 3
    assert calls(emu) == 1
    assert [item.text for item in emu.portal.notifications] == ["Order 7 is paid"]


def test_errors_are_raised_where_the_call_is(emu: Emulator) -> None:
    with publisher_of(emu) as publisher:
        with pytest.raises(InvalidArgument):
            publisher.publish("a command with spaces")
        emu.portal.expire_token(emu.token)
        with pytest.raises(TokenExpired):
            publisher.publish("x")


def test_many_threads_share_it(emu: Emulator) -> None:
    with publisher_of(emu) as publisher, ThreadPoolExecutor(8) as pool:
        receipts = list(pool.map(lambda n: publisher.publish("x", {"n": n}), range(24)))

    assert all(receipt.confirmed for receipt in receipts)
    assert calls(emu) == 24
    names = [thread.name for thread in threading.enumerate() if thread.name.startswith("bitrix_pull")]
    assert len(names) == 1


def test_it_may_be_used_again_after_its_close(emu: Emulator) -> None:
    publisher = publisher_of(emu)
    for _ in range(3):
        publisher.publish("x")
        publisher.close()
        publisher.close()
    assert calls(emu) == 3


async def test_it_refuses_to_block_an_event_loop() -> None:
    publisher = Publisher(AccessToken("acme.bitrix24.com", "token"))
    with pytest.raises(RuntimeError, match="PullClient"):
        publisher.publish("x")


PROGRAM = """
import os, sys, warnings
from bitrix_pull import AccessToken
from bitrix_pull.sync import Publisher

warnings.simplefilter("error")
publisher = Publisher(AccessToken(os.environ["PORTAL"], os.environ["TOKEN"]))
publisher.publish("parent")
{then}
"""

FORKS = """
for n in range(3):
    if os.fork() == 0:
        publisher.publish("child")
        publisher.publish("child")
        sys.exit(0)
    assert os.wait()[1] == 0
publisher.publish("parent")
"""


def end_of(then: str, emu: Emulator) -> subprocess.CompletedProcess[str]:
    outcome = subprocess.run(
        [sys.executable, "-X", "dev", "-c", PROGRAM.format(then=then)],
        env={**os.environ, "PORTAL": emu.portal_url, "TOKEN": emu.token},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    # The development mode also tells what took long, as anything may beside a busy core.
    told = [line for line in outcome.stderr.splitlines() if not line.startswith("Executing <")]
    outcome.stderr = "\n".join(told)
    return outcome


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_children_of_a_fork_publish_and_leave_the_parents_connections_alone(emu: Emulator) -> None:
    outcome = end_of(FORKS, emu)

    assert (outcome.returncode, outcome.stderr) == (0, "")
    assert calls(emu) == 8


def test_a_program_ends_without_a_word_about_what_it_left_open(emu: Emulator) -> None:
    outcome = end_of("", emu)

    assert (outcome.returncode, outcome.stderr) == (0, "")
