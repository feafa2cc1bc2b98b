"""The table of states, and the one setter."""

import asyncio

import pytest

from bitrix_pull.connection.states import TRANSITIONS, Lifecycle
from bitrix_pull.events import State, StateChanged

LEGAL = [(start, end) for start in State for end in State if end in TRANSITIONS[start]]
ILLEGAL = [
    (start, end) for start in State for end in State if end is not start and end not in TRANSITIONS[start]
]


def lifecycle_in(state: State) -> tuple[Lifecycle, list[StateChanged]]:
    """Walk to a state by the shortest way that the table allows."""
    announced: list[StateChanged] = []
    lifecycle = Lifecycle(announced.append)
    ways: list[list[State]] = [[State.IDLE]]
    for way in ways:
        if way[-1] is state:
            for step in way[1:]:
                lifecycle.move(step)
            announced.clear()
            return lifecycle, announced
        ways.extend([*way, step] for step in State if step in TRANSITIONS[way[-1]] and step not in way)
    raise AssertionError(f"{state} cannot be reached")


def test_the_table_is_complete() -> None:
    assert set(TRANSITIONS) == set(State)
    assert all(end in State for ends in TRANSITIONS.values() for end in ends)


def test_the_table_lists_no_state_as_its_own_successor() -> None:
    assert [state for state in State if state in TRANSITIONS[state]] == []


@pytest.mark.parametrize("state", State)
def test_every_state_can_be_reached_and_left(state: State) -> None:
    lifecycle, _ = lifecycle_in(state)
    assert lifecycle.state is state
    assert TRANSITIONS[state]


@pytest.mark.parametrize("state", [item for item in State if item not in (State.CLOSING, State.CLOSED)])
def test_closing_is_possible_at_any_time(state: State) -> None:
    assert State.CLOSING in TRANSITIONS[state]


@pytest.mark.parametrize(("start", "end"), LEGAL)
def test_a_legal_move_is_made_and_announced(start: State, end: State) -> None:
    lifecycle, announced = lifecycle_in(start)
    error = ValueError("why")
    lifecycle.move(end, error=error, retry_in_s=1.5)
    assert lifecycle.state is end
    assert announced == [StateChanged(start, end, error, 1.5)]
    assert lifecycle.last_change is announced[0]


@pytest.mark.parametrize(("start", "end"), ILLEGAL)
def test_an_illegal_move_raises_and_changes_nothing(start: State, end: State) -> None:
    lifecycle, announced = lifecycle_in(start)
    before = lifecycle.last_change
    with pytest.raises(RuntimeError, match=f"illegal move from {start} to {end}"):
        lifecycle.move(end)
    assert lifecycle.state is start
    assert lifecycle.last_change is before
    assert announced == []


@pytest.mark.parametrize("state", State)
def test_staying_is_not_announced(state: State) -> None:
    lifecycle, announced = lifecycle_in(state)
    before = lifecycle.last_change
    lifecycle.move(state, error=ValueError("ignored"))
    assert lifecycle.state is state
    assert lifecycle.last_change is before
    assert announced == []


async def test_everybody_who_waits_hears_of_the_next_change() -> None:
    lifecycle, _ = lifecycle_in(State.IDLE)
    waiters = [asyncio.create_task(lifecycle.changed()) for _ in range(3)]
    await asyncio.sleep(0)
    lifecycle.move(State.IDLE)
    await asyncio.sleep(0)
    assert not any(waiter.done() for waiter in waiters)
    lifecycle.move(State.CONFIGURING)
    lifecycle.move(State.CONNECTING)
    await asyncio.wait_for(asyncio.gather(*waiters), 1)
    late = asyncio.create_task(lifecycle.changed())
    await asyncio.sleep(0)
    assert not late.done()
    lifecycle.move(State.LIVE)
    await asyncio.wait_for(late, 1)
