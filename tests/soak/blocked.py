"""WebSockets that something on the way does not let through, while polling works."""

import asyncio
from typing import Any

from bitrix_pull import PullEvent
from bitrix_pull.emulator.push_faults import ClosedAtOnce, WebSocketRefusal
from tests import virtual_time
from tests.connection.listening import Listener, emulator
from tests.soak.outcome import Outcome

REFUSALS: tuple[WebSocketRefusal, ...] = (
    *(200, 302, 401, 403, 404, 405, 407, 410, 426, 502),
    *(ClosedAtOnce(1008), "reset", "black_hole"),
)
"""Ten answers that are not 101; a 101 that is taken back; and none."""


def blocked_websocket(*, events: int = 50) -> Outcome:
    """10 handshake answers that are not 101, and worse: `async with` live by polling in 10 s, and back."""
    outcome = Outcome()
    live: list[float] = []
    again: list[float] = []

    async def blocked(refusal: WebSocketRefusal) -> None:
        clock = asyncio.get_running_loop().time
        async with emulator() as emu:
            faults = emu.push.faults
            faults.websocket_refusal = refusal
            began = clock()
            # With the default options.
            async with Listener(emu) as listener:
                live.append(clock() - began)
                await asyncio.sleep(1)
                for n in range(events):
                    emu.portal.send("x", {"n": n}, users=[1] if n % 2 else None)
                    await asyncio.sleep(5)
                await listener.received(events)
                outcome.promise("by polling", emu.push.counters.websockets == 0)
                faults.websocket_refusal = None
                while not emu.push.counters.websockets:
                    await asyncio.sleep(5)
                again.append(clock() - began)
                _compare(outcome, listener.events, events)

    for refusal in REFUSALS:
        virtual_time.run(lambda refusal=refusal: blocked(refusal))  # type: ignore[misc]
    outcome.note(refusals=len(REFUSALS))
    outcome.at_most(10, live_after_s=max(live))
    # Tried again 10 to 30 minutes after each attempt.
    outcome.at_most(1_830, websocket_again_after_s=max(again))
    return outcome


def _compare(outcome: Outcome, events: list[PullEvent[Any]], sent: int) -> None:
    numbers = [event.params["n"] for event in events]
    lost = sent - len(set(numbers))
    outcome.exactly(0, lost=outcome.figures.get("lost", 0) + lost)
    outcome.exactly(0, doubled=outcome.figures.get("doubled", 0) + len(numbers) - len(set(numbers)))
