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
    return History(clock)


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


def restart(history: History, *, empty: bool) -> None:
    if empty:
        history.flush()
    history.begin_process()


def test_an_epoch_is_greater_than_the_last_within_the_same_second(clock: Clock) -> None:
    history = started(clock)
    before = take(history, A)
    restart(history, empty=True)
    after = take(history, A)
    restart(history, empty=True)
    assert before.mid < after.mid < take(history, A).mid
    assert after.mid.endswith(f"{1:016}")


def test_an_ordinary_restart_changes_neither_epoch_nor_counter(clock: Clock) -> None:
    history = started(clock)
    before = take(history, A)
    clock.now += 1_000
    restart(history, empty=False)
    after = take(history, A)
    assert int(after.mid) == int(before.mid) + 1
    assert history.since([A], before.mid) == [after]


def test_an_empty_redis_at_a_start_keeps_nothing(clock: Clock) -> None:
    history = started(clock)
    take(history, A)
    restart(history, empty=True)
    assert history.since([A], START_OF_HISTORY) == []
    assert history.newest_mid([A]) == ""


def test_a_flush_gives_mids_out_again_until_the_process_ends(clock: Clock) -> None:
    history = started(clock)
    first, second = take(history, A), take(history, A)
    history.flush()
    assert history.since([A], START_OF_HISTORY) == []
    clock.now += 10
    again = take(history, A)
    assert again.mid == first.mid
    assert again.created == first.created + 10
    restart(history, empty=False)
    later = take(history, A)
    # The epoch is that of the first message after the flush; the counter goes on.
    assert later.mid == f"{int(clock.now):010}{2:016}"
    assert later.mid > second.mid
    assert history.since([A], START_OF_HISTORY) == [again, later]


def test_an_older_snapshot_brings_back_counter_and_messages(clock: Clock) -> None:
    history = started(clock)
    first = take(history, A)
    snapshot = history.snapshot()
    lost = take(history, A)
    history.restore(snapshot)
    assert history.since([A], START_OF_HISTORY) == [first]
    again = take(history, A)
    assert again.mid == lost.mid
    history.restore(snapshot)
    assert history.since([A], START_OF_HISTORY) == [first], "a snapshot is not touched by what comes after"
    restart(history, empty=False)
    assert take(history, A).mid[:10] == first.mid[:10], "the snapshot holds the epoch"


def test_the_first_epoch_can_be_chosen(clock: Clock) -> None:
    history = History(clock, epoch=1_234)
    assert take(history, A).mid == f"{1_234:010}{1:016}"
    restart(history, empty=True)
    assert take(history, A).mid == f"{int(clock.now):010}{1:016}"
