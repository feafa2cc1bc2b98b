"""Resume stores: durable, whole at any moment, one writer, free of secrets."""

import json
import multiprocessing
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from bitrix_pull.connection.cursor import Beginning, ResumePoint
from bitrix_pull.connection.stores import FileStore, MemoryStore, ResumeStore, SqliteStore, as_store
from bitrix_pull.errors import InvalidArgument

MakeStore = Callable[[], ResumeStore]

POINT = ResumePoint("0" * 26, ("1" * 26, "2" * 26), Beginning(1000.5, None))
LATER = ResumePoint("1" * 26, ("2" * 26, "3" * 26), None)


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


@pytest.mark.parametrize("kind", [FileStore, SqliteStore])
async def test_a_second_writer_gets_a_clear_error(
    kind: type[FileStore | SqliteStore], tmp_path: Path
) -> None:
    store, second = kind(tmp_path / "resume"), kind(tmp_path / "resume")
    await store.open()
    with pytest.raises(InvalidArgument, match="in use by another client"):
        await second.open()
    await store.close()
    await second.open()
    await second.close()


def _open_elsewhere(path: str, answers: "multiprocessing.Queue[str]") -> None:
    import asyncio

    try:
        asyncio.run(FileStore(path).open())
    except InvalidArgument as error:
        answers.put(str(error))
    else:
        answers.put("opened")


async def test_a_second_process_gets_it_too(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "resume.json")
    await store.open()
    context = multiprocessing.get_context("spawn")
    answers: multiprocessing.Queue[str] = context.Queue()
    process = context.Process(target=_open_elsewhere, args=(str(tmp_path / "resume.json"), answers))
    process.start()
    try:
        assert "in use by another client" in answers.get(timeout=30)
    finally:
        process.join()
        answers.close()
        answers.join_thread()
    await store.close()


@pytest.mark.parametrize("kind", [FileStore, SqliteStore])
async def test_garbage_is_not_taken_for_a_store(kind: type[FileStore | SqliteStore], tmp_path: Path) -> None:
    path = tmp_path / "resume"
    path.write_bytes(b"neither JSON nor a database" * 100)
    store = kind(path)
    for _ in range(2):
        with pytest.raises(InvalidArgument, match="Delete it to start anew"):
            await store.open()


@pytest.mark.parametrize("kind", [FileStore, SqliteStore])
async def test_a_directory_that_is_not_there(kind: type[FileStore | SqliteStore], tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="cannot be used"):
        await kind(tmp_path / "nowhere" / "resume").open()


@pytest.mark.parametrize("kind", [FileStore, SqliteStore])
async def test_only_its_owner_can_read_it(kind: type[FileStore | SqliteStore], tmp_path: Path) -> None:
    store = kind(tmp_path / "resume")
    await store.open()
    await store.save("a", POINT)
    assert stat.S_IMODE((tmp_path / "resume").stat().st_mode) == 0o600
    await store.close()


async def test_a_person_can_read_the_file(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "resume.json")
    await store.open()
    await store.save("acme.bitrix24.com user 1", POINT)
    await store.close()
    points = json.loads((tmp_path / "resume.json").read_text())["points"]
    assert points["acme.bitrix24.com user 1"]["mid"] == POINT.mid
    names = sorted(item.name for item in tmp_path.iterdir())  # noqa: ASYNC240
    assert names == ["resume.json", "resume.json.lock"]


def test_what_a_user_may_pass(tmp_path: Path) -> None:
    assert isinstance(as_store(None), MemoryStore)
    assert isinstance(as_store(str(tmp_path / "x")), FileStore)
    assert isinstance(as_store(tmp_path / "x"), FileStore)
    store = SqliteStore(tmp_path / "x")
    assert as_store(store) is store
    with pytest.raises(InvalidArgument, match="a path or a ResumeStore"):
        as_store(3)  # type: ignore[arg-type]
