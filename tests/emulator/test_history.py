from bisect import bisect_right
from operator import attrgetter

from hypothesis import given
from hypothesis import strategies as st

from bitrix_pull.emulator.history import History, Message
from bitrix_pull.events import BACKEND_SENDER
from bitrix_pull.wire.urls import START_OF_HISTORY
from tests.emulator.conftest import Clock

A, B, C = (bytes([number]) * 16 for number in range(3))


def take(history: History, *channels: bytes, expiry_s: int = 60) -> Message:
    return history.take(channels, b"{}", expiry_s, BACKEND_SENDER)


def started(clock: Clock) -> History:
    history = History(clock)
    history.begin_epoch(keep=True)
    return history


def test_a_mid_is_the_epoch_and_a_counter_of_all_channels(clock: Clock) -> None:
    history = started(clock)
    assert [take(history, channel).mid for channel in (A, B, A)] == [
        f"{int(clock.now)}{number:016}" for number in (1, 2, 3)
    ]


channels = st.sets(st.sampled_from([A, B, C]), min_size=1)


@given(
    taken=st.lists(st.tuples(channels, st.integers(0, 100), st.integers(0, 40)), max_size=30),
    asked=channels,
    after=st.integers(0, 31),
)
def test_replay_is_what_the_channels_keep_after_a_mid_in_order(
    taken: list[tuple[set[bytes], int, int]], asked: set[bytes], after: int
) -> None:
    clock = Clock()
    history = started(clock)
    model: list[tuple[set[bytes], Message]] = []
    for receivers, expiry_s, pause_s in taken:
        model.append((receivers, take(history, *receivers, expiry_s=expiry_s)))
        clock.now += pause_s
    mid = f"{model[0][1].mid[:10] if model else '0' * 10}{after:016}"
    kept = [
        message
        for receivers, message in model
        if receivers & asked and message.created + message.expiry_s > clock.now
    ]
    assert history.since(asked, mid) == kept[bisect_right(kept, mid, key=attrgetter("mid")) :]
    assert history.newest_mid(asked) == (kept[-1].mid if kept else "")


def test_expiry_0_is_never_kept_and_a_day_is_the_most(clock: Clock) -> None:
    history = started(clock)
    take(history, A, expiry_s=0)
    message = take(history, A, expiry_s=1_000_000)
    clock.now += 86_399
    assert history.since([A], START_OF_HISTORY) == [message]
    clock.now += 1
    assert history.since([A], START_OF_HISTORY) == []


def test_an_epoch_is_greater_than_the_last_within_the_same_second(clock: Clock) -> None:
    history = started(clock)
    before = take(history, A)
    history.begin_epoch(keep=True)
    after = take(history, A)
    history.begin_epoch(keep=True)
    assert before.mid < after.mid < take(history, A).mid
    assert after.mid.endswith(f"{1:016}")


def test_what_was_kept_before_an_epoch_is_replayed_if_it_shall_be(clock: Clock) -> None:
    history = started(clock)
    before = take(history, A)
    history.begin_epoch(keep=True)
    after = take(history, A)
    assert history.since([A], START_OF_HISTORY) == [before, after]
    history.begin_epoch(keep=False)
    assert history.since([A], START_OF_HISTORY) == []
    assert history.newest_mid([A]) == ""
