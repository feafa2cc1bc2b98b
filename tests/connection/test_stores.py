"""Resume stores: durable, whole at any moment, one writer, free of secrets."""

import contextlib
import errno
import fcntl
import json
import multiprocessing
import os
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bitrix_pull import FileStore, GrowingStore, MemoryStore, ResumePoint, ResumeStore, SqliteStore
from bitrix_pull.connection.resume_point import Beginning, Kept
from bitrix_pull.connection.stores import as_store
from bitrix_pull.errors import InvalidArgument, ResumeStoreFailed
from tests.laws import examples

MakeStore = Callable[[], ResumeStore]
DiskStores = type[FileStore] | type[SqliteStore]

POINT = ResumePoint("0" * 26, ("1" * 26, "2" * 26), Beginning(1000.5, None), "push.acme:443", (3.0, 0.5))
LATER = ResumePoint("1" * 26, ("2" * 26, "3" * 26), None, kept=Kept("2" * 26, 1.5, 2000.0))
KEY = "acme.bitrix24.com application user 1"

both = pytest.mark.parametrize("kind", [FileStore, SqliteStore])


@pytest.fixture(params=["memory", "file", "sqlite"])
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> MakeStore:
    """Stores that stand for the same place."""
    memory = MemoryStore()
    makers: dict[str, MakeStore] = {
        "memory": lambda: memory,
        "file": lambda: FileStore(tmp_path / "resume.json"),
        "sqlite": lambda: SqliteStore(tmp_path / "resume.db"),
    }
    return makers[request.param]


async def test_what_was_saved_is_there_after_a_restart(make_store: MakeStore) -> None:
    store = make_store()
    await store.open()
    assert await store.load("a") is None
    await store.save("a", POINT)
    await store.save("b", POINT)
    await store.save("a", LATER)
    await store.close()

    store = make_store()
    await store.open()
    assert await store.load("a") == LATER
    assert await store.load("b") == POINT
    await store.close()


# -- what is new ----------------------------------------------------------------------


def mid(number: int) -> str:
    return f"1795313001{number:016}"


POINTS = st.builds(
    lambda number, settled, began, server, kept: ResumePoint(
        mid(number),
        tuple(mid(one) for one in settled if one > number),
        began,
        server,
        tuple(float(one % 3) for one in settled if one > number),
        kept,
    ),
    st.integers(0, 20),
    st.lists(st.integers(1, 40), unique=True),
    st.none() | st.builds(Beginning, st.none() | st.floats(0, 1e10), st.none() | st.integers(0, 10**10)),
    st.sampled_from(["", "push.acme.com:443"]),
    st.none() | st.builds(Kept, st.integers(1, 40).map(mid), st.just(1.5), st.floats(0, 1e10)),
)
STEPS = st.lists(st.tuples(st.sampled_from(["save", "advance", "restart"]), st.sampled_from("ab"), POINTS))


@both
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=examples(10))
@given(steps=STEPS)
async def test_what_advanced_adds_to_what_was_saved(
    kind: DiskStores, tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, str, ResumePoint]]
) -> None:
    path = tmp_path_factory.mktemp("law") / "resume"
    store: GrowingStore = kind(path)
    await store.open()
    saved: dict[str, ResumePoint] = {}
    news: dict[str, list[ResumePoint]] = {}
    for step, key, point in steps:
        if step == "restart":
            await store.close()
            store = kind(path)
            await store.open()
        elif step == "save" or key not in saved:
            await store.save(key, point)
            saved[key], news[key] = point, []
        else:
            part = ResumePoint(point.mid, point.settled, stamps=point.stamps, kept=point.kept)
            await store.advance(key, part)
            news[key].append(part)
    for key, point in saved.items():
        assert _told(await store.load(key)) == _told(point.joined(news[key]))
    await store.close()


def _told(point: ResumePoint | None) -> object:
    """What a point says; stamps that are all 0 are as good as none."""
    assert point is not None
    stamps = point.stamps or (0.0,) * len(point.settled)
    settled = dict(zip(point.settled, stamps, strict=True))
    return point.mid, settled, point.began, point.server, point.kept


@both
async def test_an_advance_costs_what_is_new(kind: DiskStores, tmp_path: Path) -> None:
    store = kind(tmp_path / "resume")
    await store.open()
    await store.save(KEY, ResumePoint(mid(0), tuple(map(mid, range(2, 30_000)))))
    before = _written()
    await store.advance(KEY, ResumePoint(mid(0), tuple(map(mid, range(30_000, 30_100)))))
    assert _written() - before < 20_000
    await store.close()


def _written() -> int:
    """Bytes that this process has written to files."""
    with open("/proc/self/io") as figures:
        return int(next(line for line in figures if line.startswith("wchar")).split()[1])


@both
async def test_a_restart_goes_on_adding(kind: DiskStores, tmp_path: Path) -> None:
    store = kind(tmp_path / "resume")
    await store.open()
    await store.save(KEY, ResumePoint(mid(0), tuple(map(mid, range(2, 30_000)))))
    await store.close()
    before = _written()
    await store.open()
    await store.advance(KEY, ResumePoint(mid(0), (mid(30_000),)))
    await store.close()
    assert _written() - before < 20_000
    await store.open()
    loaded = await store.load(KEY)
    assert loaded is not None
    assert loaded.settled == tuple(map(mid, range(2, 30_001)))
    await store.close()


@both
async def test_what_is_lost_while_it_is_in_use_is_not_added_to(kind: DiskStores, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    store = kind(folder / "resume")
    await store.open()
    with pytest.raises(ResumeStoreFailed, match="has lost"):
        await store.advance(KEY, LATER)
    await store.save(KEY, POINT)
    for left in list(folder.iterdir()):
        left.unlink()
    folder.rmdir()
    with pytest.raises((ResumeStoreFailed, OSError)):
        await store.advance(KEY, LATER)
    folder.mkdir()
    await store.save(KEY, LATER)
    await store.close()

    store = kind(folder / "resume")
    await store.open()
    assert await store.load(KEY) == LATER
    await store.close()


# -- killed and damaged ----------------------------------------------------------------


async def test_half_a_line_at_the_end_counts_for_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "resume.json"
    store = FileStore(path)
    await store.open()
    await store.save(KEY, POINT)
    await store.advance(KEY, ResumePoint("0" * 26, ("3" * 26,)))
    whole = path.read_bytes()
    await store.close()
    line = whole.splitlines(keepends=True)[-1]
    for length in range(1, len(line)):
        path.write_bytes(whole[:-length])
        await store.open()
        assert await store.load(KEY) == POINT
        assert "ends in half a record" in caplog.text
        caplog.clear()
        await store.save(KEY, LATER)
        await store.advance(KEY, ResumePoint("2" * 26))
        await store.close()
        await store.open()
        loaded = await store.load(KEY)
        assert loaded is not None
        assert loaded.settled == ("3" * 26,)
        await store.close()


@pytest.mark.parametrize("name", [".resume.json.new", ".resume.json.x_4fz9qk"])
async def test_what_a_killed_save_left_is_removed(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("half")
    (tmp_path / ".resume.json.other").write_text("not ours")
    store = FileStore(tmp_path / "resume.json")
    await store.open()
    await store.save(KEY, POINT)
    await store.close()
    assert sorted(item.name for item in tmp_path.iterdir()) == [  # noqa: ASYNC240
        ".resume.json.other",
        "resume.json",
        "resume.json.lock",
    ]


async def test_a_save_that_fails_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FileStore(tmp_path / "resume.json")
    await store.open()
    await store.save(KEY, POINT)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        for save in (store.save(KEY, LATER), store.advance(KEY, LATER)):
            with pytest.raises(OSError, match="No space left"):
                await save
    await store.close()
    await store.open()
    assert await store.load(KEY) == POINT
    await store.close()


@both
async def test_garbage_is_not_taken_for_a_store(kind: DiskStores, tmp_path: Path) -> None:
    path = tmp_path / "resume"
    path.write_bytes(b"neither JSON nor a database" * 100)
    store = kind(path)
    for _ in range(2):
        with pytest.raises(InvalidArgument, match="Delete it to start anew"):
            await store.open()


@both
async def test_a_directory_that_is_not_there(kind: DiskStores, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="cannot be used"):
        await kind(tmp_path / "nowhere" / "resume").open()


@both
def test_what_cannot_be_a_path(kind: DiskStores) -> None:
    with pytest.raises(InvalidArgument, match="the path of the resume store is none"):
        kind("a\0b")


# -- what the first release wrote --------------------------------------------------------


async def test_the_first_file_format_is_read(tmp_path: Path) -> None:
    path = tmp_path / "resume.json"
    point = {"mid": LATER.mid, "settled": list(LATER.settled), "began": [1000.5, None]}
    path.write_text(json.dumps({"points": {KEY: point}}, indent=2))
    store = FileStore(path)
    await store.open()
    expected = ResumePoint(LATER.mid, LATER.settled, Beginning(1000.5, None))
    assert _told(await store.load(KEY)) == _told(expected)
    await store.close()


async def test_the_first_database_schema_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "resume.db"
    with sqlite3.connect(path) as database:
        database.executescript(
            f"""
            CREATE TABLE point (
                key TEXT PRIMARY KEY, mid TEXT NOT NULL,
                began INTEGER NOT NULL, server_unix REAL, portal_unix REAL
            );
            CREATE TABLE settled (key TEXT NOT NULL, mid TEXT NOT NULL, PRIMARY KEY (key, mid)) WITHOUT ROWID;
            INSERT INTO point VALUES ('{KEY}', '{LATER.mid}', 1, 1000.5, NULL);
            INSERT INTO point VALUES ('b', '{LATER.mid}', 0, NULL, NULL);
            INSERT INTO settled VALUES ('{KEY}', '{"3" * 26}'), ('{KEY}', '{"2" * 26}');
            """
        )
    database.close()
    for _ in range(2):
        store = SqliteStore(path)
        await store.open()
        expected = ResumePoint(LATER.mid, LATER.settled, Beginning(1000.5, None))
        assert _told(await store.load(KEY)) == _told(expected)
        assert _told(await store.load("b")) == _told(ResumePoint(LATER.mid))
        await store.close()


# -- who uses it ------------------------------------------------------------------------


async def test_one_sqlite_store_serves_many_clients(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "resume.db")
    await store.open()
    await store.open()
    await store.save("a", POINT)
    await store.close()
    await store.save("b", POINT)
    await store.close()
    await store.open()
    assert await store.load("b") == POINT
    await store.close()


async def test_a_database_may_be_that_of_the_tokens_too(tmp_path: Path) -> None:
    from bitrix_pull import SqliteTokenStore, Tokens

    path = tmp_path / "all.db"
    tokens = SqliteTokenStore(path, "member 1")
    store = SqliteStore(path)
    await tokens.save(Tokens(access_token="first", refresh_token="again"))
    await store.open()
    await store.save(KEY, POINT)
    await tokens.save(Tokens(access_token="second", refresh_token="third"))
    await store.close()
    await store.open()
    assert await store.load(KEY) == POINT
    await store.close()
    assert (await tokens.load()).access_token == "second"


@both
async def test_a_second_writer_gets_a_clear_error(kind: DiskStores, tmp_path: Path) -> None:
    store, second = kind(tmp_path / "resume"), kind(tmp_path / "resume")
    await store.open()
    with pytest.raises(InvalidArgument, match="in use by another client"):
        await second.open()
    await store.close()
    await second.open()
    await second.close()


def _open_elsewhere(path: str, answers: "multiprocessing.Queue[str]") -> None:
    import asyncio

    for kind in (FileStore, SqliteStore):
        try:
            asyncio.run(kind(f"{path}.{kind.__name__}").open())
        except InvalidArgument as error:
            answers.put(str(error))
        else:
            answers.put("opened")


async def test_a_second_process_gets_it_too(tmp_path: Path) -> None:
    path = str(tmp_path / "resume")
    stores = [kind(f"{path}.{kind.__name__}") for kind in (FileStore, SqliteStore)]
    for store in stores:
        await store.open()
    context = multiprocessing.get_context("spawn")
    answers: multiprocessing.Queue[str] = context.Queue()
    process = context.Process(target=_open_elsewhere, args=(path, answers))
    process.start()
    try:
        of_file, of_database = answers.get(timeout=60), answers.get(timeout=60)
    finally:
        process.join()
        answers.close()
        answers.join_thread()
    assert "in use by another client. Give each client a file of its own" in of_file
    assert "in use by another client. Give each process a database of its own" in of_database
    for store in stores:
        await store.close()


@both
@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
async def test_a_mount_without_locks_is_told(
    kind: DiskStores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def without_locks(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", without_locks)
    with pytest.raises(InvalidArgument, match=r"cannot be locked .* put it on a disk of this machine"):
        await kind(tmp_path / "resume").open()


@both
async def test_only_its_owner_can_read_it(kind: DiskStores, tmp_path: Path) -> None:
    store = kind(tmp_path / "resume")
    await store.open()
    await store.save(KEY, POINT)
    await store.advance(KEY, LATER)
    for file in tmp_path.iterdir():  # noqa: ASYNC240
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    await store.close()


async def test_a_link_stays_a_link(tmp_path: Path) -> None:
    target = tmp_path / "there" / "resume.json"
    target.parent.mkdir()
    link = tmp_path / "resume.json"
    link.symlink_to(target)
    store = FileStore(link)
    await store.open()
    await store.save(KEY, POINT)
    assert link.is_symlink()
    assert KEY in target.read_text()
    await store.close()


async def test_a_person_can_read_the_file(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "resume.json")
    await store.open()
    await store.save(KEY, POINT)
    await store.close()
    _, record = (tmp_path / "resume.json").read_text().splitlines()
    assert json.loads(record)["key"] == KEY
    assert json.loads(record)["mid"] == POINT.mid


def test_what_a_user_may_pass(tmp_path: Path) -> None:
    assert isinstance(as_store(str(tmp_path / "x")), FileStore)
    assert isinstance(as_store(tmp_path / "x"), FileStore)
    store = SqliteStore(tmp_path / "x")
    assert as_store(store) is store
    with pytest.raises(InvalidArgument, match="a path or a ResumeStore"):
        as_store(3)  # type: ignore[arg-type]


# -- a point as JSON -------------------------------------------------------------------


@given(point=POINTS)
def test_a_point_is_read_as_it_was_written(point: ResumePoint) -> None:
    assert _told(ResumePoint.read(json.loads(json.dumps(point.write())))) == _told(point)


@given(
    content=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30) | st.just("1" * 26),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["mid", "settled", "began", "server", "kept", "stamps", "x"]), inner
            )
        ),
    )
)
def test_what_is_no_point_is_a_value_error(content: object) -> None:
    point = None
    with contextlib.suppress(ValueError):
        point = ResumePoint.read(content)
    assert point is None or _told(ResumePoint.read(point.write())) == _told(point)
