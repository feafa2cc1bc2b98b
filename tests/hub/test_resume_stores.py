"""What every store of resume points promises."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from bitrix_pull import FileStore, MemoryStore, ResumePoint, ResumeStore, SqliteStore
from bitrix_pull.hub.cluster import Lease
from bitrix_pull.hub.postgres import PostgresStore
from bitrix_pull.hub.valkey import ValkeyResumeStore
from bitrix_pull.testing import check_resume_store
from tests.connection.test_stores import KEY, STEPS, _told
from tests.laws import examples

Make = Callable[[str], Any]
LEASE = Lease("acme", "a", 7)
KINDS = ["file", "sqlite", "valkey", "valkey, under a lease", "postgres", "postgres, under a lease"]


def maker(kind: str, folder: Path, request: pytest.FixtureRequest) -> Make:
    """Return what makes stores; of one name, they stand for the same place."""
    server: str = ""
    if kind.startswith(("valkey", "postgres")):
        server = request.getfixturevalue("valkey_url" if kind.startswith("valkey") else "postgres_conninfo")
    makers: dict[str, Make] = {
        "file": lambda name: FileStore(folder / f"{name}.json"),
        "sqlite": lambda name: SqliteStore(folder / f"{name}.db"),
        "valkey": lambda name: ValkeyResumeStore(server, name=name),
        "valkey, under a lease": lambda name: ValkeyResumeStore(server, name=name).under(LEASE),
        "postgres": lambda name: PostgresStore(server, schema=name),
        "postgres, under a lease": lambda name: PostgresStore(server, schema=name).under(LEASE),
    }
    return makers[kind]


@pytest.fixture(params=KINDS)
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    return maker(request.param, tmp_path, request)


async def test_it_keeps_what_a_resume_store_promises(make: Make, name: str) -> None:
    assert isinstance(make(name), ResumeStore)
    await check_resume_store(lambda: make(name))


@pytest.mark.parametrize("kind", KINDS)
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    max_examples=examples(8),
    deadline=None,
)
@given(steps=STEPS)
async def test_what_advanced_adds_to_what_was_saved(
    kind: str,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
    steps: list[tuple[str, str, ResumePoint]],
) -> None:
    folder = tmp_path_factory.mktemp("law")
    make = maker(kind, folder, request)
    saved: ResumePoint | None = None
    news: list[ResumePoint] = []
    store = make(folder.name)
    await store.open()
    for step, _, point in steps:
        if step == "restart":
            await store.close()
            store = make(folder.name)
            await store.open()
            # A client loads first; a store under a lease must.
            await store.load(KEY)
        elif step == "save" or saved is None:
            await store.save(KEY, point)
            saved, news = point, []
        elif point.mid >= max(saved.mid, *(each.mid for each in news), ""):
            part = ResumePoint(point.mid, point.settled, stamps=point.stamps, kept=point.kept)
            await store.advance(KEY, part)
            news.append(part)
    if saved is not None:
        assert _told(await store.load(KEY)) == _told(saved.joined(news))
    await store.close()


class Forgetful(MemoryStore):
    """Breaks promises of a resume store, as it is told."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self._fault = fault

    async def save(self, key: str, point: ResumePoint) -> None:
        """Save, or not quite."""
        match self._fault:
            case "keeps the first":
                if await self.load(key) is None:
                    await super().save(key, point)
            case "one key":
                await super().save("key of a check", point)
            case "stamps":
                await super().save(key, replace(point, stamps=()))
            case _:
                await super().save(key, point)

    async def close(self) -> None:
        """Close, or lose everything."""
        if self._fault == "ends at once":
            self._points.clear()


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ("keeps the first", "saved last"),
        ("one key", "saved last under its key"),
        ("stamps", "what was saved"),
        ("ends at once", "the first close"),
    ],
)
async def test_a_store_that_breaks_a_promise_is_told_which(fault: str, text: str) -> None:
    store = Forgetful(fault)
    with pytest.raises(AssertionError, match=text):
        await check_resume_store(lambda: store)
