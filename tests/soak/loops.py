"""The same on every event loop: asyncio's, the same with eager tasks, and uvloop."""

import asyncio
import math

from bitrix_pull import PullClient, PullEvent, PullOptions
from bitrix_pull.emulator import Emulator
from tests.connection.stand_ins import AlteredPortal
from tests.event_loops import LOOPS
from tests.fault_proxy import FaultProxy
from tests.internet.stand import proving, trusting
from tests.soak.outcome import Outcome


def loops(*, events: int = 20, every_s: float = 1.0) -> Outcome:
    """Events on every event loop, over ws and wss: each <= 1 s late, by 1 connection."""
    outcome = Outcome()
    for name, new_loop in LOOPS.items():
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(_all_ways(name, events, every_s, outcome))
    return outcome


async def _all_ways(loop_name: str, events: int, every_s: float, outcome: Outcome) -> None:
    ways = [(version, scheme) for version in (3, 4, 5) for scheme in ("ws", "wss")]
    heard = await asyncio.gather(*(_listen(*way, events, every_s) for way in ways))
    late_s = [late for each, _ in heard for late in each]
    outcome.exactly(len(ways) * events, **{f"{loop_name}_events": len(late_s)})
    outcome.exactly(len(ways), **{f"{loop_name}_connections": sum(connects for _, connects in heard)})
    outcome.in_time(1.0, **{f"{loop_name}_latest_s": max(late_s, default=math.inf)})


async def _listen(version: int, scheme: str, events: int, every_s: float) -> tuple[list[float], int]:
    """Return how late each event was, and the connections it took."""
    clock = asyncio.get_running_loop().time
    sent_at: list[float] = []
    late_s: list[float] = []
    async with (
        Emulator(version=version) as emu,
        FaultProxy.before(emu.portal.address, proving() if scheme == "wss" else None) as proxy,
    ):
        address = f"{scheme}://{proxy.address}/bitrix/subws/"
        portal = AlteredPortal(emu, websocket=address, websocket_secure=address)
        pull = PullClient(portal, options=PullOptions(ssl=trusting()))

        @pull.on()
        async def handle(event: PullEvent) -> None:
            late_s.append(clock() - sent_at[event.params["n"]])

        async with pull:
            for n in range(events):
                await asyncio.sleep(every_s)
                sent_at.append(clock())
                emu.portal.send("x", {"n": n}, users=[1])
            await asyncio.sleep(1.0)
            return late_s, pull.health().connects
