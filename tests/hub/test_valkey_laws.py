"""The log under any order of what owners, lines and engines do: a machine over a real server."""

import asyncio
import json
import secrets
from typing import Any

import pytest
import redis
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from bitrix_pull import LeaseLost, ResumePoint
from bitrix_pull.hub.cluster import Lease
from bitrix_pull.hub.valkey import ValkeyStream
from tests.hub.events import message, mid
from tests.laws import examples

MESSAGES = 12
POINT = ResumePoint(mid(0))


class _Owner:
    """What one owner of the portal knows: it gives what is not settled to the log, in order."""

    def __init__(self, writer: Any, point: ResumePoint | None) -> None:
        self.writer = writer
        self.has_point = point is not None
        self.settled = {mid(0)} if point is None else {*point.settled, *_up_to(point.mid)}
        self.untold = set[str]()

    @property
    def low(self) -> int:
        """Up to which message all are settled."""
        return next((n - 1 for n in range(1, MESSAGES + 1) if mid(n) not in self.settled), MESSAGES)


def _up_to(point: str) -> set[str]:
    return {mid(n) for n in range(MESSAGES + 1) if mid(n) <= point}


class LogMachine(RuleBasedStateMachine):
    """Owners of one portal, of whom the newest that has loaded is the right one."""

    url: str

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.log = ValkeyStream(self.url, name=f"laws-{secrets.token_hex(6)}")
        self.client: Any = redis.Redis.from_url(self.url)
        self._run(self.log.open())
        self.epoch = 0
        self.owners: list[_Owner] = []
        self.kept: list[tuple[bytes, bytes]] | None = None
        self.went_back = False

    def _run(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    def teardown(self) -> None:
        self._run(self.log.close())
        self.loop.close()
        self.client.close()

    def _keys(self) -> list[bytes]:
        return list(self.client.keys(f"{self.log.streams[0][:-7]}*"))

    @rule()
    def another_owner_begins(self) -> None:
        self.epoch += 1
        writer = self.log.writer(Lease("acme", "a worker", self.epoch))
        self.owners.append(_Owner(writer, self._run(writer.resume.load("key"))))
        self.went_back = False

    @precondition(lambda self: self.owners)
    @rule(
        which=st.integers(0, 3),
        numbers=st.lists(st.integers(1, MESSAGES), min_size=1, max_size=4),
    )
    def an_owner_appends(self, which: int, numbers: list[int]) -> None:
        owner = self.owners[-1 - which % len(self.owners)]
        for number in numbers:
            if mid(number) in owner.settled:
                continue
            try:
                self._run(owner.writer.append(message(number)))
            except LeaseLost:
                assert owner is not self.owners[-1] or self.went_back
                return
            assert owner is self.owners[-1] or self.went_back
            owner.settled.add(mid(number))
            owner.untold.add(mid(number))

    @precondition(lambda self: self.owners)
    @rule(number=st.integers(1, MESSAGES))
    def an_answer_is_lost_and_the_same_is_sent_again(self, number: int) -> None:
        owner = self.owners[-1]
        if mid(number) in owner.settled or self.went_back:
            return
        for _ in range(2):
            self._run(owner.writer.append(message(number)))
        owner.settled.add(mid(number))
        owner.untold.add(mid(number))

    @precondition(lambda self: self.owners)
    @rule(which=st.integers(0, 3), whole=st.booleans())
    def an_owner_writes_down_how_far_it_is(self, which: int, whole: bool) -> None:
        owner = self.owners[-1 - which % len(self.owners)]
        low = mid(owner.low)
        try:
            if whole or not owner.has_point:
                beyond = tuple(sorted(each for each in owner.settled if each > low))
                self._run(owner.writer.resume.save("key", ResumePoint(low, beyond)))
            else:
                news = tuple(sorted(each for each in owner.untold if each > low))
                self._run(owner.writer.resume.advance("key", ResumePoint(low, news)))
        except LeaseLost:
            assert owner is not self.owners[-1] or self.went_back
        else:
            assert owner is self.owners[-1] or self.went_back
            owner.untold.clear()
            owner.has_point = True

    @rule()
    def a_replica_has_come_up_to_here(self) -> None:
        self.kept = [(key, self.client.dump(key)) for key in self._keys()]

    @precondition(lambda self: self.kept is not None)
    @rule()
    def the_engine_fails_over_to_it(self) -> None:
        before = self._state()
        for key in self._keys():
            self.client.delete(key)
        for key, dump in self.kept or ():
            self.client.restore(key, 0, dump)
        self.went_back = self.went_back or self._state() != before

    def _state(self) -> list[bytes]:
        return sorted(self.client.dump(key) for key in self._keys())

    @invariant()
    def each_is_in_the_log_once(self) -> None:
        assert len(self._written()) == len(set(self._written()))

    @invariant()
    def what_is_settled_is_in_the_log_and_what_is_in_the_log_is_settled(self) -> None:
        probe = self.log.writer(Lease("acme", "a probe", 10**9))
        # Not by load, which would shut the owners out.
        seen = {text.decode().partition(" ")[0] for text in self.client.zrange(probe.keys[1], 0, -1)}
        low = (self.client.hget(probe.keys[0], "mid") or mid(0).encode()).decode()
        settled = {each for each in seen | _up_to(low) if each > mid(0)}
        assert settled == set(self._written())

    def _written(self) -> list[str]:
        rows = self.client.xrange(self.log.streams[0])
        return [json.loads(fields[b"event"])["mid"] for _, fields in rows]


def test_whatever_happens_in_whatever_order_log_and_resume_point_agree(valkey_url: str) -> None:
    machine = type("Machine", (LogMachine,), {"url": valkey_url})
    run_state_machine_as_test(machine, settings=settings(max_examples=examples(10), stateful_step_count=30))


@pytest.fixture(autouse=True)
def _no_current_loop() -> None:
    asyncio.set_event_loop(None)
