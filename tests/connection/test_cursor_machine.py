"""The cursor as a state machine: a server with history, outages, crashes, and handlers that lag."""

from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from bitrix_pull.connection.cursor import Cursor
from bitrix_pull.connection.resume_point import Beginning, ResumePoint
from bitrix_pull.wire.urls import START_OF_HISTORY

OVERLAP_S = 5.0


def mid(epoch: int, number: int) -> str:
    return f"{1_795_313_001 + epoch}{number:016}"


class Machine(RuleBasedStateMachine):
    """What is published is handled: once in a process, and never lost over its crashes."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.epoch = 0
        self.counter = 0
        self.history: list[str] = []
        self.cursor = Cursor(overlap_s=OVERLAP_S, known_mids=5, unsettled=lambda: self.in_hand)
        self.cursor.connected(Beginning(0.0, None))
        self.online = True
        self.in_hand: set[str] = set()
        self.handled_here: set[str] = set()
        self.handled: set[str] = set()
        self.written: set[str] = set()
        self.saved = self.cursor.snapshot(())

    def receive(self, message: str) -> None:
        if self.cursor.admit(message, self.now):
            assert message not in self.handled_here, "twice in one process"
            assert message not in self.in_hand, "twice in one process"
            assert message not in self.written, "handled, written down, and handled again"
            self.in_hand.add(message)

    @rule(wait_s=st.sampled_from([0.0, 0.1, 1.0, 10.0]))
    def time_passes(self, wait_s: float) -> None:
        self.now += wait_s

    @rule(late=st.booleans())
    def publish_two(self, late: bool) -> None:
        """Two messages within the overlap, which may overtake each other."""
        first, second = (mid(self.epoch, self.counter + step) for step in (1, 2))
        self.counter += 2
        self.history += [first, second]
        if self.online:
            for message in (second, first) if late else (first, second):
                self.receive(message)

    @precondition(lambda self: self.online)
    @rule()
    def overtake_and_cut(self) -> None:
        """The second of two messages comes first, and the cut right after it."""
        first, second = (mid(self.epoch, self.counter + step) for step in (1, 2))
        self.counter += 2
        self.history += [first, second]
        self.receive(second)
        self.online = False

    @precondition(lambda self: self.in_hand)
    @rule(data=st.data())
    def handle_one(self, data: st.DataObject) -> None:
        message = data.draw(st.sampled_from(sorted(self.in_hand)))
        self.in_hand.remove(message)
        self.handled_here.add(message)
        self.handled.add(message)

    @rule()
    def save(self) -> None:
        point = self.cursor.snapshot(self.in_hand)
        settled = self.cursor.settled_beyond(point.mid, self.in_hand)
        self.saved = replace(point, settled=tuple(settled), stamps=tuple(settled.values()))
        self.written = set(self.handled)

    @precondition(lambda self: self.online)
    @rule()
    def cut(self) -> None:
        self.online = False

    @rule()
    def server_restarts(self) -> None:
        self.epoch += 1
        self.counter = 0
        self.online = False

    @rule()
    def crash(self) -> None:
        """Everything in memory goes; another process takes up what was saved."""
        self.cursor = Cursor(
            overlap_s=OVERLAP_S, known_mids=5, resume=self.saved, unsettled=lambda: self.in_hand
        )
        assert isinstance(self.saved, ResumePoint)
        self.in_hand.clear()
        self.handled_here.clear()
        self.online = False

    @precondition(lambda self: not self.online)
    @rule()
    def reconnect(self) -> None:
        self.online = True
        point = self.cursor.resume_point or START_OF_HISTORY
        for message in [item for item in self.history if item > point]:
            self.receive(message)

    @invariant()
    def nothing_is_lost(self) -> None:
        if self.online:
            assert set(self.history) <= self.handled | self.in_hand

    @invariant()
    def a_crash_now_would_lose_nothing(self) -> None:
        again = Cursor(resume=self.saved)
        point = again.resume_point or START_OF_HISTORY
        replayed = {item for item in self.history if item > point and not again.knows(item)}
        assert set(self.history) <= self.handled | replayed


Machine.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
test_the_cursor = Machine.TestCase
