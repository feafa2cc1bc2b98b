"""The ladders of delays (protocol §8), rung by rung."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitrix_pull.connection.backoff import Backoff

ANSWERED = {
    **{1: 0.5, 2: 5.0, 3: 5.0, 4: 25.0, 5: 25.0},
    **{6: 45.0, 7: 45.0, 8: 45.0, 9: 45.0, 10: 45.0},
    **{11: 60.0, 12: 60.0, 50: 60.0},
}
UNANSWERED = {1: 0.1, 2: 0.5, 3: 1.0, 4: 2.0, 5: 4.0, 6: 8.0, 7: 16.0, 8: 25.0, 9: 25.0, 50: 25.0}

RUNGS = [
    *((failure, delay_s, True) for failure, delay_s in ANSWERED.items()),
    *((failure, delay_s, False) for failure, delay_s in UNANSWERED.items()),
]


class Extreme(random.Random):
    """A source that always gives the lower or the upper bound."""

    def __init__(self, share: float) -> None:
        super().__init__(0)
        self._share = share

    def random(self) -> float:
        return self._share


def delay_of(failure: int, random_source: random.Random, *, answered: bool) -> float:
    backoff = Backoff(random_source)
    for _ in range(failure - 1):
        backoff.next_delay_s(answered=answered)
    return backoff.next_delay_s(answered=answered)


@pytest.mark.parametrize(("failure", "delay_s", "answered"), RUNGS)
def test_each_rung_with_its_jitter(failure: int, delay_s: float, answered: bool) -> None:
    assert delay_of(failure, Extreme(0.0), answered=answered) == pytest.approx(delay_s)
    # Also at the last rung the waits differ, or every client would come back at once.
    assert delay_of(failure, Extreme(1.0), answered=answered) == pytest.approx(delay_s * 1.2)


@given(seed=st.integers(), failures=st.lists(st.booleans(), max_size=30))
def test_every_delay_lies_within_its_bounds(seed: int, failures: list[bool]) -> None:
    backoff = Backoff(random.Random(seed))
    count = {True: 0, False: 0}
    for answered in failures:
        delay = backoff.next_delay_s(answered=answered)
        count[answered] += 1
        rung = ANSWERED.get(count[answered], 60.0) if answered else UNANSWERED.get(count[answered], 25.0)
        assert rung <= delay <= rung * 1.2 + 1e-6


def test_an_outage_without_any_answer_does_not_make_the_first_answer_cost_a_minute() -> None:
    backoff = Backoff(Extreme(0.0))
    for _ in range(1000):
        backoff.next_delay_s(answered=False)
    assert backoff.next_delay_s(answered=True) == pytest.approx(0.5)


def test_a_reset_leads_back_to_the_foot() -> None:
    backoff = Backoff(Extreme(0.0))
    for answered in (True, True, False, False):
        backoff.next_delay_s(answered=answered)
    backoff.reset()
    assert backoff.next_delay_s(answered=True) == pytest.approx(0.5)
    assert backoff.next_delay_s(answered=False) == pytest.approx(0.1)


@pytest.mark.parametrize(("brought", "after_a_cut_s"), [(False, 1.0), (True, 0.1)])
def test_an_opened_stream_leads_back_to_the_foot_of_one_ladder_or_both(
    brought: bool, after_a_cut_s: float
) -> None:
    backoff = Backoff(Extreme(0.0))
    for answered in (True, True, False, False):
        backoff.next_delay_s(answered=answered)
    backoff.opened(brought=brought)
    assert backoff.next_delay_s(answered=True) == pytest.approx(0.5)
    assert backoff.next_delay_s(answered=False) == pytest.approx(after_a_cut_s)


def test_clients_do_not_wait_alike() -> None:
    assert len({delay_of(2, random.Random(seed), answered=True) for seed in range(20)}) == 20
    first, second = Backoff(), Backoff()
    assert first.next_delay_s(answered=True) != second.next_delay_s(answered=True)
