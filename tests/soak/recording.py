"""The process that records is killed, and its recording is read."""

import asyncio
import mmap
import struct
import tempfile
import time
from pathlib import Path

from bitrix_pull import PullEvent
from bitrix_pull.emulator import Emulator
from bitrix_pull.testing import Recording
from tests.forked import Process
from tests.soak.crashes import ended, until
from tests.soak.outcome import Outcome

SLOT = struct.Struct("d")
"""When the event of that number arrived, as the process that is killed has seen it."""

EVERY_S = 0.01
TEXT = "as long as events are" * 10


def record(
    *, seconds: float = 20.0, rate: int = 5_000, lost_within_s: float = 0.1, by_network: bool = False
) -> Outcome:
    """SIGKILL a recorder at 5,000 events/s: nothing is lost but what came in the last 100 ms.

    Events are put where a connection's reader would put them, as the emulator does not send
    so many on two shared cores; or come from it, as many as it sends.
    """
    outcome = Outcome()
    asyncio.run(_record(outcome, seconds, rate, lost_within_s, by_network))
    return outcome


async def _record(
    outcome: Outcome, seconds: float, rate: int, lost_within_s: float, by_network: bool
) -> None:
    count = int(seconds * rate)
    with tempfile.TemporaryDirectory() as directory:
        recording, arrivals = Path(directory) / "events.jsonl.gz", Path(directory) / "arrivals"
        arrivals.write_bytes(bytes(SLOT.size * count))
        async with Emulator() as emu:
            process = await Process.start(
                "tests.soak.recording_victim",
                *(emu.portal_url, emu.token, str(recording), str(arrivals)),
                str(0 if by_network else rate),
            )
            try:
                if not by_network:
                    await until(
                        lambda: arrived_in(arrivals) >= 0.8 * count or ended(process),
                        every_s=0.5,
                        within_s=120,
                    )
                    count = 0
                await until(lambda: bool(not count or emu.push.connections) or ended(process), within_s=60)
                began_at, sent = time.monotonic(), 0
                while sent < count and not ended(process):
                    due = min(int((time.monotonic() - began_at) * rate) + 1, count)
                    for n in range(sent, due):
                        emu.portal.send("x", {"n": n, "text": TEXT})
                    sent = due
                    await asyncio.sleep(EVERY_S)
                outcome.promise("the recorder runs until it is killed", not ended(process))
            finally:
                killed_at = time.time()
                if not ended(process):
                    process.kill()
                await process.wait()
        _judge(outcome, recording, arrivals, killed_at, lost_within_s)


def arrived_in(arrivals: Path) -> int:
    """Return how many events have arrived by now."""
    return sum(1 for (at,) in SLOT.iter_unpack(arrivals.read_bytes()) if at)


def _judge(outcome: Outcome, recording: Path, arrivals: Path, killed_at: float, lost_within_s: float) -> None:
    arrived = {n: at for n, (at,) in enumerate(SLOT.iter_unpack(arrivals.read_bytes())) if at}
    events = [event for event in Recording(recording).events() if isinstance(event, PullEvent)]
    recorded = [event.params["n"] for event in events]
    lost = arrived.keys() - set(recorded)
    outcome.note(arrived=len(arrived), recorded=len(recorded), lost=len(lost))
    outcome.note(arrived_a_second=len(arrived) / max(max(arrived.values()) - min(arrived.values()), 0.001))
    outcome.exactly(True, in_order=recorded == sorted(set(recorded)))
    outcome.at_most(lost_within_s, oldest_lost_s=max((killed_at - arrived[n] for n in lost), default=0.0))


def mapped(path: str) -> mmap.mmap:
    """Return a file as memory that outlives the process."""
    with open(path, "r+b") as file:
        return mmap.mmap(file.fileno(), 0)
