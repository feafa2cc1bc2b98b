"""What every store of resume points promises."""

from collections.abc import Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from bitrix_pull import FileStore, LeaseLost, ResumePoint, ResumeStore, SqliteStore
from bitrix_pull.hub.cluster import Lease
from bitrix_pull.hub.valkey import ValkeyResumeStore
from tests.connection.test_stores import KEY, LATER, POINT, STEPS, _told

Make = Callable[[str], Any]
KINDS = ["file", "sqlite", "valkey", "valkey, under a lease"]


def maker(kind: str, folder: Path, url: str) -> Make:
    """Return what makes stores; of one name, they stand for the same place."""
    makers: dict[str, Make] = {
        "file": lambda name: FileStore(folder / f"{name}.json"),
        "sqlite": lambda name: SqliteStore(folder / f"{name}.db"),
        "valkey": lambda name: ValkeyResumeStore(url, name=name),
        "valkey, under a lease": lambda name: ValkeyResumeStore(url, name=name).under(Lease("acme", "a", 7)),
    }
    return makers[kind]


@pytest.fixture(params=KINDS)
def make(request: pytest.FixtureRequest, tmp_path: Path, valkey_url: str) -> Make:
    return maker(request.param, tmp_path, valkey_url)


@asynccontextmanager
async def opened(store: Any) -> Any:
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def test_what_was_saved_last_is_there(make: Make, name: str) -> None:
    assert isinstance(make(name), ResumeStore)
    async with opened(make(name)) as store:
        assert await store.load(KEY) is None
        await store.save(KEY, POINT)
        await store.save(KEY, LATER)
    async with opened(make(name)) as store:
        assert _told(await store.load(KEY)) == _told(LATER)


@pytest.mark.parametrize("kind", KINDS)
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    max_examples=15,
    deadline=None,
)
@given(steps=STEPS)
async def test_what_advanced_adds_to_what_was_saved(
    kind: str,
    tmp_path_factory: pytest.TempPathFactory,
    valkey_url: str,
    steps: list[tuple[str, str, ResumePoint]],
) -> None:
    folder = tmp_path_factory.mktemp("law")
    make = maker(kind, folder, valkey_url)
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


async def test_an_owner_of_before_writes_nothing(valkey_url: str, name: str) -> None:
    async with opened(ValkeyResumeStore(valkey_url, name=name)) as store:
        old, new = (store.under(Lease("acme", "a", epoch)) for epoch in (1, 2))
        await old.load(KEY)
        await old.save(KEY, POINT)
        assert _told(await new.load(KEY)) == _told(POINT)
        for doing in (old.save(KEY, LATER), old.advance(KEY, LATER), old.load(KEY)):
            with pytest.raises(LeaseLost):
                await doing
        assert _told(await new.load(KEY)) == _told(POINT)
