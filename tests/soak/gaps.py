"""A Gap where the server's history is gone, and never a claim that was not seen."""

import asyncio
import random
from typing import Any, Literal

from bitrix_pull import Continuity, Gap, PullEvent, State
from bitrix_pull.emulator import Emulator
from tests import virtual_time
from tests.connection.listening import Listener, emulator, running
from tests.soak.outcome import Outcome

What = Literal["keep", "drop", "drop some", "restart"]


def history_dropped(*, seed: int = 1, times: int = 400, version: int = 4) -> Outcome:
    """The history is dropped, whole or in part, or kept: a Gap before the next event, or none.

    Half of the times it is kept. Never is "yes" said when a message was lost. Version 5
    does not say how long messages are kept, so there "unknown" is all that can be said.
    """
    outcome, rng = Outcome(), random.Random(seed)
    outcome.note(dropped=0, kept=0, gaps=0)
    outcome.exactly(0, false_gaps=0, false_yes=0, after_an_event=0, not_said_once=0, lost_though_kept=0)

    async def main() -> None:
        async with emulator(version=version) as emu, running(Listener(emu)) as listener:
            await listener.reached(State.LIVE)
            log = _Log(listener)
            for _ in range(times):
                await _Round(emu, listener, log, rng).run(outcome)
            log.close()

    virtual_time.run(main)
    expected = outcome.figures["dropped"] if version == 4 else 0
    outcome.exactly(expected, gaps=outcome.figures["gaps"])
    return outcome


class _Log:
    """Events and verdicts in the order in which they came."""

    def __init__(self, listener: Listener) -> None:
        self.entries: list[Continuity | PullEvent[Any]] = []
        listener.on()(self.entries.append)
        self._writing = asyncio.create_task(self._write_down(listener))

    async def _write_down(self, listener: Listener) -> None:
        async for notice in listener.notices():
            if isinstance(notice, Continuity):
                self.entries.append(notice)

    def close(self) -> None:
        self._writing.cancel()


class _Round:
    """One outage: some messages before it, some in it, one after it."""

    def __init__(self, emu: Emulator, listener: Listener, log: _Log, rng: random.Random) -> None:
        self._emu = emu
        self._listener = listener
        self._log = log
        self._rng = rng
        self._published: list[int] = []

    async def run(self, outcome: Outcome) -> None:
        rng, listener = self._rng, self._listener
        known = self._publish(rng.randrange(1, 5))
        await asyncio.sleep(rng.choice([1.0, 40.0]))
        self._log.entries.clear()
        self._published.clear()
        what: What = rng.choice(["keep", "keep", "keep", "drop", "drop some", "restart"])
        await self._outage(what, known[-1])
        await asyncio.sleep(rng.choice([0.5, 10.0, 60.0]))
        self._publish(1)
        await asyncio.sleep(60)

        entries = self._log.entries
        verdicts = [entry for entry in entries if isinstance(entry, Continuity)]
        told_gap = any(isinstance(verdict, Gap) for verdict in verdicts)
        lost = bool(set(self._published) - set(listener.numbers))
        _count(
            outcome,
            kept=what == "keep",
            dropped=what != "keep",
            gaps=what != "keep" and told_gap,
            false_gaps=what == "keep" and told_gap,
            false_yes=lost and any(verdict.recovered == "yes" for verdict in verdicts),
            after_an_event=not isinstance(entries[0], Continuity),
            not_said_once=len(verdicts) != 1,
            lost_though_kept=lost and what == "keep",
        )

    async def _outage(self, what: What, known: str) -> None:
        emu, rng = self._emu, self._rng
        if what == "restart":
            await emu.stop()
            self._publish(rng.randrange(4))
            await emu.start(keep_history=False)
            return
        await emu.push.disconnect_all()
        missed = self._publish(rng.randrange(4))
        if what == "drop":
            emu.push.drop_history()
        elif what == "drop some":
            # The oldest, with all that are known: else nobody could see it.
            emu.push.drop_history(rng.choice([known, *missed]))

    def _publish(self, count: int) -> list[str]:
        mids: list[str] = []
        for _ in range(count):
            n = self._emu.push.counters.messages
            self._published.append(n)
            mids.append(self._emu.portal.send("x", {"n": n}, users=self._rng.choice([None, [1]])))
        return mids


def _count(outcome: Outcome, **happened: bool) -> None:
    for name, did in happened.items():
        total = outcome.figures[name] + did
        if name in ("kept", "dropped", "gaps"):
            outcome.note(**{name: total})
        else:
            outcome.exactly(0, **{name: total})
