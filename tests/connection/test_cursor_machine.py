"""The cursors as a state machine: servers that lose their counter or give way to another one, outages,
crashes, and handlers that lag."""

from dataclasses import dataclass, field, replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from bitrix_pull.connection.continuity import Opening, Tally
from bitrix_pull.connection.cursors import Cursors
from bitrix_pull.connection.resume_point import Beginning, ResumePoint
from bitrix_pull.connection.stamps import stamp_of
from bitrix_pull.events import BACKEND_SENDER, PullEvent
from bitrix_pull.wire.urls import START_OF_HISTORY
from tests.laws import examples

BEGAN_UNIX = 1_800_000_000.0
EPOCH = 1_795_313_001
CHANNELS = "these"
KEPT_S = 86_400
LOSSES = st.sampled_from(["flush", "restart", "copy"])


@dataclass
class Server:
    """A push server's Redis, and the epoch that its processes have read from it."""

    address: str
    epoch: int = EPOCH
    counter: int = 40
    history: list[PullEvent] = field(default_factory=list)

    def copied(self) -> "Server":
        return replace(self, history=list(self.history))


class Machine(RuleBasedStateMachine):
    """What is published is handled: once in a process, and never lost over its crashes.

    Each message has a number of its own in ``params``; mids are handed out again.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.published = 0
        self.server = Server("a:1")
        self.moves = 0
        self.copy = self.server.copied()
        self.in_hand: dict[int, PullEvent] = {}
        self.handled_here: set[int] = set()
        self.handled: set[int] = set()
        self.gaps = 0
        self.begin_process(None)
        self.connect()
        self.save()

    def begin_process(self, resume: ResumePoint | None) -> None:
        self.cursors = Cursors(known_mids=5, resume=resume, unsettled=self.unsettled)
        self.online = False
        self.left = self.cursors.current

    def unsettled(self) -> set[str]:
        return {event.mid for event in self.in_hand.values()}

    # -- the client -------------------------------------------------------------------------------

    def connect(self) -> None:
        """Resume, judge what comes of it, and ask from the start of history where that is called for."""
        cursor = self.cursors.at(self.server.address)
        point, newest = cursor.resume_point, cursor.newest
        moment = Beginning(self.unix, self.unix)
        cursor.connected(moment)
        cursor.listens_on(CHANNELS)
        self.online = True
        left, self.left = self.left, cursor
        if point is None:
            return
        kept = cursor.kept(self.unix) if left is cursor else None
        from_start = point == START_OF_HISTORY
        opening = Opening(cursor, left, kept, from_start, moment, newest, cursor.numbering)
        tally = Tally(opening, from_start=from_start)
        wanted, _ = tally.look([event for event in self.server.history if event.mid > point])
        verdict = tally.recovered(ended=True)
        numbering = cursor.numbering
        if verdict == "no":
            self.gaps += 1
            if not opening.moved:
                cursor.begin_anew()
        for event in wanted:
            assert isinstance(event, PullEvent)
            self.receive(event)
        if cursor.numbering != numbering:
            self.ask_from_start()

    def receive(self, event: PullEvent) -> None:
        cursor = self.cursors.current
        stamp = stamp_of(event)
        if cursor.admit(event.mid, self.now, stamp):
            number = event.params["n"]
            assert number not in self.handled_here, "twice in one process"
            assert number not in self.in_hand, "twice in one process"
            self.in_hand[number] = event
            cursor.keep(event.mid, stamp, (event.created_unix or 0) + KEPT_S)

    def receive_live(self, event: PullEvent) -> None:
        cursor = self.cursors.current
        numbering = cursor.numbering
        self.receive(event)
        cursor.is_wanted(event.mid)
        if cursor.numbering != numbering:
            self.gaps += 1
            self.ask_from_start()

    def ask_from_start(self) -> None:
        cursor = self.cursors.current
        for event in self.server.history:
            sent = event.extra["server_time_unix"]
            if not cursor.too_old(event.mid, event.created_unix, sent):
                self.receive(event)

    # -- the server -------------------------------------------------------------------------------

    @property
    def unix(self) -> float:
        return BEGAN_UNIX + self.now

    def publish(self) -> PullEvent:
        server = self.server
        server.counter += 1
        self.published += 1
        # No two are sent at the same moment.
        sent = self.unix + self.published / 1_000
        event: PullEvent = PullEvent(
            f"{server.epoch:010}{server.counter:016}",
            *("application", "x", {"n": self.published}, {"server_time_unix": sent}),
            *(BACKEND_SENDER, "server", int(sent), KEPT_S),
        )
        server.history.append(event)
        return event

    @rule(wait_s=st.sampled_from([0.0, 0.1, 1.0, 10.0]))
    def time_passes(self, wait_s: float) -> None:
        self.now += wait_s

    @rule(messages=st.sampled_from([3, 20]), hole=st.integers(0, 3))
    def a_stream_goes_on(self, messages: int, hole: int) -> None:
        """For so long that the resume point moves; in between come messages for others."""
        for _ in range(messages):
            self.now += 1.0
            self.server.counter += hole
            event = self.publish()
            if self.online:
                self.receive_live(event)

    @rule(late=st.booleans())
    def publish_two(self, late: bool) -> None:
        """Two messages within the overlap, which may overtake each other."""
        first, second = self.publish(), self.publish()
        if self.online:
            for event in (second, first) if late else (first, second):
                self.receive_live(event)

    @precondition(lambda self: self.online)
    @rule()
    def overtake_and_cut(self) -> None:
        """The second of two messages comes first, and the cut right after it."""
        _, second = self.publish(), self.publish()
        self.receive_live(second)
        self.online = False

    @rule()
    def redis_is_copied(self) -> None:
        self.copy = self.server.copied()

    @rule(loss=LOSSES)
    def server_loses(self, loss: str) -> None:
        match loss:
            case "flush":
                self.go_back_to(Server(self.server.address, self.server.epoch, 0))
            case "restart":
                self.server.epoch += 1
                self.go_back_to(Server(self.server.address, self.server.epoch, 0))
                self.online = False
            case _:
                if (self.copy.address, self.copy.epoch) == (self.server.address, self.server.epoch):
                    self.go_back_to(self.copy)

    def go_back_to(self, state: Server) -> None:
        self.server.counter, self.server.history = state.counter, list(state.history)
        # A copy of what it has lost is none of its past.
        self.copy = self.server.copied()

    @rule(difference=st.sampled_from([-1_000, 0, 1_000]))
    def portal_moves(self, difference: int) -> None:
        self.server = Server(f"b:{self.moves}", self.server.epoch + difference)
        self.moves += 1
        self.copy = self.server.copied()
        self.online = False

    @rule(loss=LOSSES, before=st.integers(0, 2), after=st.integers(0, 5), wait_s=st.sampled_from([0.0, 20.0]))
    def something_is_lost_in_an_outage(self, loss: str, before: int, after: int, wait_s: float) -> None:
        self.online = False
        for _ in range(before):
            self.publish()
        self.server_loses(loss)
        self.now += wait_s
        for _ in range(after):
            self.publish()
        self.reconnect()

    # -- handlers, cuts, crashes --------------------------------------------------------------------

    @precondition(lambda self: self.in_hand)
    @rule(data=st.data())
    def handle_one(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.in_hand)))
        del self.in_hand[number]
        self.handled_here.add(number)
        self.handled.add(number)

    @rule()
    def save(self) -> None:
        point = self.cursors.snapshot()
        beyond = self.cursors.settled_beyond(point.mid)
        self.saved = replace(point, settled=tuple(beyond), stamps=tuple(beyond.values()))

    @precondition(lambda self: self.online)
    @rule()
    def cut(self) -> None:
        self.online = False

    @rule()
    def crash(self) -> None:
        """Everything in memory goes; another process takes up what was saved."""
        self.in_hand.clear()
        self.handled_here.clear()
        self.begin_process(self.saved)

    @precondition(lambda self: not self.online)
    @rule()
    def reconnect(self) -> None:
        moved = self.left.server not in ("", self.server.address)
        gaps = self.gaps
        self.connect()
        assert self.gaps > gaps or not moved, "a move that nobody was told of"

    @invariant()
    def nothing_is_lost(self) -> None:
        """All that the server holds has come, or will when it is replayed."""
        if self.online:
            held = {event.params["n"] for event in self.server.history}
            assert held <= self.handled | set(self.in_hand)


Machine.TestCase.settings = settings(max_examples=examples(60), stateful_step_count=40, deadline=None)
test_the_cursors = Machine.TestCase


def test_what_is_in_hand_when_the_counter_goes_back_comes_again_after_a_crash() -> None:
    state = Machine()
    state.something_is_lost_in_an_outage(loss="flush", before=0, after=0, wait_s=0.0)
    state.a_stream_goes_on(messages=20, hole=0)
    state.redis_is_copied()
    state.overtake_and_cut()
    state.server_loses(loss="copy")
    state.reconnect()
    state.save()
    state.crash()
    state.reconnect()
    state.nothing_is_lost()


def test_what_came_after_a_counter_had_gone_back_and_before_that_was_seen_comes_again_after_a_crash() -> None:
    state = Machine()
    state.a_stream_goes_on(messages=3, hole=0)
    state.server_loses(loss="flush")
    state.a_stream_goes_on(messages=20, hole=0)
    state.save()
    state.crash()
    state.reconnect()
    state.nothing_is_lost()
