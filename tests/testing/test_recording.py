"""What came is written down, hidden unless asked for, and read again by every later version."""

import asyncio
import contextlib
import gzip
import logging
import os
import resource
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitrix_pull import AccessToken, InvalidArgument, PortalEvent, PullClient, PullEvent, Router, State
from bitrix_pull.emulator import Emulator
from bitrix_pull.testing import Recorder, Recording, Replay
from bitrix_pull.testing.recording import event_line, hidden
from tests.dispatch.rig import event

KEPT = Path(__file__).parent / "recordings" / "version_1.jsonl"
"""Written by the first version, but for a field and a line that it does not know."""

CANARY = "canary-of-a-customer"


async def record(path: Path, messages: Sequence[tuple[str, Any]], **settings: Any) -> Recorder:
    """Record some messages of an emulated portal."""
    recorder = Recorder(path, **settings)
    async with Emulator() as emu:
        pull = PullClient(AccessToken(emu.portal_url, emu.token), name="acme")
        came: list[PullEvent[Any]] = []
        pull.on()(came.append)
        with recorder.follow(pull) as same:
            assert same is recorder
            async with pull:
                for command, params in messages:
                    emu.portal.send(command, params)
                async with asyncio.timeout(30):
                    while len(came) < len(messages):
                        await asyncio.sleep(0.02)
    return recorder


@pytest.mark.parametrize("name", ["events.jsonl", "events.jsonl.gz"])
async def test_what_came_is_read_again(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    messages = [
        ("a", {"n": 1, "text": "Юрий"}),
        ("b", {"list": [1, 2.5, None, {"x": True}]}),
        ("a", {"n": 2**70}),
    ]
    recorder = await record(path, messages, keep_params=True)
    recording = Recording(path)
    assert (recording.header.portal, recording.header.mode) == ("acme", "application")
    assert recording.header.keeps_params
    events = list(recording.events())
    assert [(each.command, each.params) for each in events if isinstance(each, PullEvent)] == messages
    assert len({each.mid for each in events if isinstance(each, PullEvent)}) == 3
    states = [entry.notice["state"] for entry in recording if entry.notice is not None]
    assert states[-3:] == ["live", "closing", "closed"]
    assert (recorder.recorded, recorder.dropped) == (len(list(recording)), 0)
    times = [entry.at_unix for entry in recording]
    assert times == sorted(times)
    if os.name == "posix":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_it_hides_what_events_carry(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl.gz"
    params = {
        "name": CANARY,
        "sum": 4711,
        "is_paid": True,
        "users": {"5": CANARY, CANARY: 1},
        "list": [CANARY],
    }
    await record(path, [("order", params)])
    text = gzip.decompress(path.read_bytes()).decode()
    assert CANARY not in text
    assert "4711" not in text
    (event,) = Recording(path).events()
    assert isinstance(event, PullEvent)
    assert event.params == {
        "name": "***",
        "sum": 0,
        "is_paid": True,
        "users": {"***0": "***", "***1": 0},
        "list": ["***"],
    }
    assert set(event.extra) == {"server_time", "server_time_unix"}
    assert not Recording(path).header.keeps_params


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
)


@given(JSON)
def test_hiding_keeps_the_form_and_nothing_else(value: Any) -> None:
    def form(item: Any) -> Any:
        match item:
            case bool() | None:
                return item
            case dict():
                return [form(each) for each in item.values()]
            case list():
                return [form(each) for each in item]
            case int() | float():
                return 0
            case _:
                return "***" if item else ""

    assert form(hidden(value)) == form(value)
    assert hidden(hidden(value)) is not None or value is None


@given(JSON.filter(lambda value: value is not None))
def test_any_json_survives(value: Any) -> None:
    line = event_line(event(1, params={"value": value}), 1.0, keep_params=True)
    assert b"\n" not in line


async def test_large_files_are_rotated_and_the_oldest_go(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl.gz"
    recorder = Recorder(path, keep_params=True, rotate_bytes=1, keep_files=3)
    async with Emulator() as emu:
        emu.push.gather_s = 0.0
        async with PullClient(AccessToken(emu.portal_url, emu.token)) as pull:
            with recorder.follow(pull):
                for n in range(8):
                    emu.portal.send("x", {"n": n})
                    await asyncio.sleep(0.15)
    names = sorted(os.listdir(tmp_path))
    assert names == ["events.1.jsonl.gz", "events.2.jsonl.gz", "events.3.jsonl.gz", "events.jsonl.gz"]
    numbers = [each.params["n"] for each in Recording(path).events() if isinstance(each, PullEvent)]
    assert numbers == list(range(8 - len(numbers), 8))
    assert 3 <= len(numbers) <= 4


async def test_an_earlier_recording_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    await record(path, [("a", {"n": 1})], keep_params=True)
    before = path.read_bytes()
    await record(path, [("b", {"n": 2})], keep_params=True)
    assert (tmp_path / "events.1.jsonl").read_bytes() == before
    assert [each.command for each in Recording(path).events() if isinstance(each, PullEvent)] == ["a", "b"]


@pytest.mark.parametrize("name", ["events.jsonl", "events.jsonl.gz"])
async def test_a_cut_off_file_is_read_as_far_as_it_goes(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    await record(path, [("x", {"n": n}) for n in range(50)], keep_params=True)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    numbers = [each.params["n"] for each in Recording(path).events() if isinstance(each, PullEvent)]
    assert numbers == list(range(len(numbers)))


@pytest.mark.parametrize("name", ["events.jsonl", "events.jsonl.gz"])
async def test_what_a_full_disk_did_not_take_spoils_nothing_else(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    recorder = Recorder(path, keep_params=True)
    async with Emulator() as emu, PullClient(AccessToken(emu.portal_url, emu.token)) as pull:

        async def send(number: int, until: Callable[[], object]) -> None:
            # What no compression makes small.
            emu.portal.send("x", {"n": number, "text": os.urandom(100_000).hex()})
            async with asyncio.timeout(20):
                while not until():
                    await asyncio.sleep(0.01)

        with recorder.follow(pull):
            await send(1, lambda: path.stat().st_size > 100_000)
            with full_disk(path.stat().st_size + 1_000):
                await send(2, lambda: recorder.dropped)
            await send(3, lambda: pull.health().received == 3)
    assert [each.params["n"] for each in Recording(path).events() if isinstance(each, PullEvent)] == [1, 3]


@contextlib.contextmanager
def full_disk(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond a size."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_a_disk_that_fails_is_told_and_the_client_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    recorder = Recorder(folder / "events.jsonl", rotate_bytes=1)
    async with Emulator() as emu, PullClient(AccessToken(emu.portal_url, emu.token), name="acme") as pull:
        with recorder.follow(pull):
            (folder / "events.jsonl").unlink()
            folder.rmdir()
            for _ in range(3):
                emu.portal.send("x")
                await asyncio.sleep(0.6)
            assert pull.state is State.LIVE
            folder.mkdir()
            emu.portal.send("y")
            await asyncio.sleep(0.6)
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [record.getMessage() for record in errors] == [
        "acme: events cannot be recorded for now: No such file or directory"
    ]
    assert recorder.dropped == 3
    assert [
        each.command for each in Recording(folder / "events.jsonl").events() if isinstance(each, PullEvent)
    ] == ["y"]


@pytest.mark.parametrize("path", [".", "missing/events.jsonl", os.devnull])
async def test_a_file_that_cannot_be_written_is_an_error_at_once(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pull = PullClient(AccessToken("acme.bitrix24.com", "a-token-of-nobody"))
    with pytest.raises(InvalidArgument), Recorder(path).follow(pull):
        pytest.fail("the block was entered")


# -- reading -------------------------------------------------------------------------------


def test_a_recording_of_the_first_version_is_read() -> None:
    recording = Recording(KEPT)
    assert (recording.header.version, recording.header.portal, recording.header.mode) == (
        1,
        "acme",
        "application",
    )
    first, second, third, announcement, deal = recording.events()
    assert isinstance(first, PullEvent)
    assert first.params == {"id": 7, "status": "paid", "big": 2**70, "none": None}
    assert (first.mid, first.module_id, first.command) == (
        "17957638700000000000000001",
        "application",
        "order_update",
    )
    assert first.created is not None
    assert first.expiry == 86_400
    assert isinstance(second, PullEvent)
    assert (second.module_id, second.params["users"]) == ("im", {"5": "Юрий"})
    assert isinstance(third, PullEvent)
    assert (third.kind, third.sender.type.name) == ("client", "CLIENT")
    assert isinstance(announcement, PullEvent)
    assert announcement.params == [{"connector_id": "", "count": 1}]
    assert isinstance(deal, PortalEvent)
    assert (deal.name, deal.id, deal.user_id) == ("ONCRMDEALUPDATE", 7, 5)
    assert [entry.notice["state"] for entry in recording if entry.notice is not None][2] == "live"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no recording"),
        (b"\x00\x01\x02", "no recording"),
        (b'{"some": "json"}\n', "no recording"),
        (
            b'{"bitrix_pull_recording": 99, "portal": "", "mode": "", "began": 0, "keeps_params": 1}\n',
            "version 99",
        ),
        (b"\x1f\x8bbroken", "no recording"),
    ],
)
def test_what_is_none_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(InvalidArgument, match=words):
        Recording(path)
    with pytest.raises(InvalidArgument, match="cannot be read"):
        Recording(tmp_path / "missing")


# -- replaying -------------------------------------------------------------------------------


async def test_it_feeds_handlers_without_a_network() -> None:
    router, seen = Router(), list[Any]()

    @router.on("order_update")
    async def order(event: PullEvent, db: str) -> None:
        seen.append((event.params["id"], db, event.portal))

    @router.on("message", module="im")
    def message(event: PullEvent) -> None:
        raise LookupError("nobody")

    @router.on_portal_event("ONCRMDEALUPDATE")
    def deal(event: PortalEvent) -> None:
        seen.append(event.id)

    replayed = await Replay(KEPT).feed(router, context={"db": "a database"})
    assert seen == [(7, "a database", "acme"), 7]
    assert replayed.events == 5
    assert [type(failure.error) for failure in replayed.failures] == [LookupError]
    assert replayed.unrouted == {"application.by_client": 1, "rest.event_offline": 1}


async def test_it_feeds_a_client_that_is_not_started() -> None:
    pull = PullClient(AccessToken("acme.bitrix24.com", "a-token-of-nobody"), context={"db": 1})
    clients: list[object] = []

    @pull.on("order_update")
    async def order(event: PullEvent, db: int, client: PullClient) -> None:
        clients.extend([event.client, client, db])

    await Replay(KEPT).feed(pull)
    assert clients == [pull, pull, 1]
    assert pull.state is State.IDLE


async def test_its_pace_can_be_that_of_life() -> None:
    loop = asyncio.get_running_loop()
    came: list[float] = []
    router = Router()
    router.on()(lambda event: came.append(loop.time()))
    began_at = loop.time()
    await Replay(KEPT).feed(router, speed=1.0)
    # The first one may come late, where the machine is busy.
    assert 0.4 <= came[1] - began_at <= 20
    began_at = loop.time()
    await Replay(KEPT).feed(router, speed=1_000.0)
    assert loop.time() - began_at < 10


def test_a_recorder_takes_one_client(tmp_path: Path) -> None:
    one, other = (PullClient(AccessToken(f"{name}.bitrix24.com", "token")) for name in ("acme", "beta"))
    recorder = Recorder(tmp_path / "events.jsonl")
    with (
        recorder.follow(one),
        pytest.raises(RuntimeError, match="a client already"),
        recorder.follow(other),
    ):
        pytest.fail("it was followed")
    # One after the other is fine.
    with recorder.follow(other):
        pass


async def test_bad_use_is_an_error() -> None:
    with pytest.raises(InvalidArgument, match="Router"):
        await Replay(KEPT).feed(object())  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="speed"):
        await Replay(KEPT).feed(Router(), speed=0)
    router = Router()

    @router.on("x")
    def wants(event: PullEvent, db: object) -> None: ...

    with pytest.raises(InvalidArgument, match="db"):
        await Replay(KEPT).feed(router)


def test_lines_are_json() -> None:
    assert all(orjson.loads(line) for line in KEPT.read_bytes().splitlines() if b"big" not in line)
