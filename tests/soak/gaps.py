"""A Gap where the server's history is gone, and never a claim that was not seen."""

import asyncio
import random
from typing import Any

from bitrix_pull import Continuity, Gap, PullEvent, State
from tests import virtual_time
from tests.connection.listening import Listener, emulator, running
from tests.soak.outcome import Outcome

_KEEP, _DROP, _DROP_SOME, _RESTART = range(4)


def history_dropped(*, seed: int = 1, times: int = 400, version: int = 4) -> Outcome:
    """The history is dropped, whole or in part, or kept: a Gap before the next event, or none.

    Half of the times it is kept. Never is "yes" said when a message was lost.
    """
    outcome, rng = Outcome(), random.Random(seed)
    dropped = gaps = kept = false_gaps = false_yes = late = silent = 0

    async def main() -> None:
        nonlocal dropped, gaps, kept, false_gaps, false_yes, late, silent
        log: list[Continuity | PullEvent[Any]] = []

        async def write_down(listener: Listener) -> None:
            async for notice in listener.notices():
                if isinstance(notice, Continuity):
                    log.append(notice)

        async with emulator(version=version) as emu, running(Listener(emu)) as listener:
            listener.on()(log.append)
            writing = asyncio.create_task(write_down(listener))
            await listener.reached(State.LIVE)
            n = 0

            def publish(count: int) -> list[str]:
                nonlocal n
                mids: list[str] = []
                for _ in range(count):
                    mids.append(emu.portal.send("x", {"n": n}, users=rng.choice([None, [1]])))
                    n += 1
                return mids

            for _ in range(times):
                known = publish(rng.randrange(1, 5))
                await asyncio.sleep(rng.choice([1.0, 40.0]))
                log.clear()
                what = rng.choice([_KEEP, _KEEP, _KEEP, _DROP, _DROP_SOME, _RESTART])
                first = n
                if what == _RESTART:
                    await emu.stop()
                    missed = publish(rng.randrange(0, 4))
                    await emu.start(keep_history=False)
                else:
                    await emu.push.disconnect_all()
                    missed = publish(rng.randrange(0, 4))
                if what == _DROP:
                    emu.push.drop_history()
                elif what == _DROP_SOME:
                    # With the newest that is known, so that a client can see it.
                    emu.push.drop_history(rng.choice([*missed, known[-1]]))
                await asyncio.sleep(rng.choice([0.5, 10.0, 60.0]))
                publish(1)
                await asyncio.sleep(60)
                said = [entry for entry in log if isinstance(entry, Continuity)]
                lost = set(range(first, n)) - set(listener.numbers)
                if what == _KEEP:
                    kept += 1
                    false_gaps += any(isinstance(entry, Gap) for entry in said)
                    late += bool(lost)
                else:
                    dropped += 1
                    gaps += any(isinstance(entry, Gap) for entry in said)
                silent += len(said) != 1
                late += not isinstance(log[0], Continuity)
                false_yes += bool(lost) and any(entry.recovered == "yes" for entry in said)
            writing.cancel()

    virtual_time.run(main)
    outcome.note(dropped=dropped, kept=kept)
    outcome.exactly(dropped, gaps=gaps)
    outcome.exactly(0, false_gaps=false_gaps, false_yes=false_yes, after_an_event=late, not_said_once=silent)
    return outcome
