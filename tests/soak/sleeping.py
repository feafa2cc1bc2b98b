"""A machine that sleeps for days, while the portal and its push server go on."""

import asyncio
from collections.abc import Callable

from bitrix_pull import Gap, State
from bitrix_pull.emulator import Owner
from tests import virtual_time
from tests.connection.listening import emulator
from tests.soak.outcome import Outcome
from tests.soak.stand import Stand, stand

VERSIONS = (3, 4, 5)
KEPT_H = 24
"""For how long the push server keeps a message."""

PER_HOUR = 6

OWNERS = (Owner("application", 1), Owner("application"))


def asleep(*, hours: int = 60) -> Outcome:
    """60 h asleep, versions 3 to 5: asks within 5 s of waking, brings what is kept, says a Gap.

    And 20 h, in which nothing is forgotten; a container that was frozen, for which all clocks leap;
    and a machine both of whose clocks stood still, which only an answer can tell: the first one
    after the dead link was noticed. The server
    takes channels that ended long ago, and so must not help the client to look alive.
    """
    outcome = Outcome()
    for version in VERSIONS:
        for slept_h, falls_asleep, asks_within_s in (
            (hours, virtual_time.fall_asleep, 5.0),
            (20, virtual_time.fall_asleep, 5.0),
            (hours, virtual_time.stop_the_process, 5.0),
            (hours, virtual_time.stop_the_clocks, 25.0),
        ):

            async def main(
                version: int = version,
                slept_h: int = slept_h,
                falls_asleep: Callable[[float], None] = falls_asleep,
                asks_within_s: float = asks_within_s,
            ) -> None:
                async with stand(emulator(version=version)) as here:
                    here.emu.push.faults.ignore_token_ends = True
                    await _sleep(outcome, here, slept_h, falls_asleep, asks_within_s)

            virtual_time.run(main, naps=True)
    return outcome


async def _sleep(
    outcome: Outcome, here: Stand, hours: int, falls_asleep: Callable[[float], None], asks_within_s: float
) -> None:
    emu, listener, loop = here.emu, here.listener, asyncio.get_running_loop()
    await listener.reached(State.LIVE)
    emu.portal.send("x", {"n": 0})
    await listener.received(1)
    await asyncio.sleep(100)
    for line in here.proxy.lines:
        line.cut("silence")
    # Which channels it had, and by which each message went: the portal tells the present ones only.
    within_reach = {emu.portal.channels.current(owner).id for owner in OWNERS}
    went_by: list[str] = [""]
    for sent in range(1, hours * PER_HOUR + 1):
        falls_asleep(3_600 / PER_HOUR)
        emu.portal.send("x", {"n": sent}, users=None if sent % 2 else [1])
        went_by.append(emu.portal.channels.current(OWNERS[sent % 2]).id)
    if emu.push.version >= 5:
        # A token stands for its channels; that of before has ended, and its shared one with it.
        within_reach = {emu.portal.channels.current(OWNERS[0]).id}
    within_reach |= {emu.portal.channels.current(owner).id for owner in OWNERS}
    woke_at, asked = loop.time(), emu.portal.calls.total()
    while emu.portal.calls.total() == asked:
        await asyncio.sleep(0.1)
    name = "asked_after_s" if asks_within_s <= 5 else "asked_by_an_answer_after_s"
    outcome.at_most(asks_within_s, **{name: max(outcome.figures.get(name, 0.0), loop.time() - woke_at)})
    await asyncio.sleep(60)
    outcome.promise("live again within a minute", listener.state is State.LIVE)
    kept = range(max(1, hours * PER_HOUR - KEPT_H * PER_HOUR + 2), hours * PER_HOUR + 1)
    arrived = listener.numbers
    lost = {n for n in kept if went_by[n] in within_reach} - set(arrived)
    outcome.exactly(0, lost=outcome.figures.get("lost", 0) + len(lost))
    outcome.exactly(0, doubled=outcome.figures.get("doubled", 0) + len(arrived) - len(set(arrived)))
    gaps = sum(isinstance(notice, Gap) for notice in listener.heard)
    is_whole = hours <= KEPT_H and emu.push.version < 5
    outcome.promise("a Gap where something is out of reach, and none elsewhere", (gaps == 0) == is_whole)
    outcome.note(
        delivered=outcome.figures.get("delivered", 0) + len(arrived),
        gaps=outcome.figures.get("gaps", 0) + gaps,
    )
