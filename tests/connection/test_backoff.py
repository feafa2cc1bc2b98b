"""The ladder of delays (protocol §8), rung by rung."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitrix_pull.connection.backoff import Backoff

RUNGS = {
    1: 0.1,
    2: 15.0,
    3: 45.0,
    4: 45.0,
    5: 45.0,
    6: 600.0,
    7: 600.0,
    8: 600.0,
    9: 600.0,
    10: 600.0,
    11: 3600.0,
    12: 3600.0,
    50: 3600.0,
}


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


@pytest.mark.parametrize(("failure", "delay_s"), RUNGS.items())
def test_each_rung_with_its_jitter(failure: int, delay_s: float) -> None:
    assert delay_of(failure, Extreme(0.0), answered=True) == pytest.approx(delay_s)
    assert delay_of(failure, Extreme(1.0), answered=True) == pytest.approx(delay_s * 1.2)


@pytest.mark.parametrize(("failure", "delay_s"), RUNGS.items())
def test_where_nothing_answered_the_wait_is_30_s_at_most(failure: int, delay_s: float) -> None:
    least = delay_of(failure, Extreme(0.0), answered=False)
    most = delay_of(failure, Extreme(1.0), answered=False)
    assert least == pytest.approx(min(delay_s, 25.0))
    # Also at the limit the waits differ, or every client would come back at once.
    assert most == pytest.approx(least * 1.2)
    assert most <= 30.0


@given(seed=st.integers(), failures=st.lists(st.booleans(), max_size=30))
def test_every_delay_lies_within_its_bounds(seed: int, failures: list[bool]) -> None:
    backoff = Backoff(random.Random(seed))
    count = {True: 0, False: 0}
    for answered in failures:
        delay = backoff.next_delay_s(answered=answered)
        count[answered] += 1
        rung = RUNGS.get(count[answered], 3600.0)
        if answered:
            assert rung <= delay <= rung * 1.2 + 1e-6
        else:
            assert min(rung, 25.0) <= delay <= 30.0


def test_an_outage_without_any_answer_does_not_make_the_first_answer_cost_an_hour() -> None:
    backoff = Backoff(Extreme(0.0))
    for _ in range(1000):
        backoff.next_delay_s(answered=False)
    assert backoff.next_delay_s(answered=True) == pytest.approx(0.1)


def test_a_reset_leads_back_to_the_foot() -> None:
    backoff = Backoff(Extreme(0.0))
    for answered in (True, True, False, False):
        backoff.next_delay_s(answered=answered)
    backoff.reset()
    assert backoff.next_delay_s(answered=True) == pytest.approx(0.1)
    assert backoff.next_delay_s(answered=False) == pytest.approx(0.1)


def test_clients_do_not_wait_alike() -> None:
    assert len({delay_of(2, random.Random(seed), answered=True) for seed in range(20)}) == 20
    first, second = Backoff(), Backoff()
    assert first.next_delay_s(answered=True) != second.next_delay_s(answered=True)
