"""What every store promises: ours are held to it, and so can be one of your own.

async def test_my_store() -> None:
await check_resume_store(lambda: MyStore("…"))
"""

import asyncio
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeVar

from bitrix_pull.connection.resume_point import Beginning, Kept, ResumePoint
from bitrix_pull.connection.stores import ResumeStore
from bitrix_pull.errors import LeaseLost, TokenStoreFailed
from bitrix_pull.hub.cluster import Lease
from bitrix_pull.hub.fences import FencedStore, FencedTokenStore
from bitrix_pull.portal.token_stores import TokenStore
from bitrix_pull.portal.tokens import Tokens

T = TypeVar("T")
MakeResumeStore = Callable[[], ResumeStore]
MakeTokenStore = Callable[[], TokenStore]

_WAITS_S = 0.2
"""For how long somebody is watched who has to wait."""

_PORTAL = "portal of a check"
_OLD = Tokens(access_token="access-1", refresh_token="refresh-1", fields={"member_id": "m1"})
_NEW = Tokens(access_token="access-2", refresh_token="refresh-2", expires=2_000_000_000.0)


def _mid(number: int) -> str:
    return f"1795313001{number:016}"


_POINT = ResumePoint(
    _mid(1), (_mid(3), _mid(5)), Beginning(1_795_313_000.5, None), "push.example:443", (3.0, 0.5)
)
_LATER = ResumePoint(_mid(2), (_mid(5),), kept=Kept(_mid(5), 1.5, 1_795_399_400.0), stamps=(0.5,))


async def check_resume_store(make: MakeResumeStore) -> None:
    """Hold a store of resume points to what ``ResumeStore`` promises.

    A method ``advance`` is held to ``GrowingStore``, and a method ``under`` to what a hub's
    workers need that share the store.

    Args:
        make: Returns a store, as another start of the program would make it; all for one place,
            in which there is nothing yet. One is closed before the next is made.

    Raises:
        AssertionError: It breaks a promise; the text says which.
    """
    kept = await _check_points(make, "key of a check")
    if hasattr(make(), "advance"):
        kept = await _check_advances(make, "key of a check")
    store = make()
    async with _opened(store):
        _expect(kept, await store.load("key of a check"), "what was kept is lost without a save")
        if isinstance(store, FencedStore):
            await _check_fence(store)


async def _check_points(make: MakeResumeStore, key: str) -> ResumePoint:
    store = make()
    async with _opened(store):
        _expect(None, await store.load(key), "there is something under a key that nothing was saved under")
        await store.save(key, _POINT)
        _expect(_POINT, await store.load(key), "load() does not return what was saved")
        await store.save(key, _LATER)
        await store.save("another key of a check", _POINT)
        async with _opened(store):
            _expect(_LATER, await store.load(key), "load() does not return what was saved last under its key")
        _expect(_LATER, await store.load(key), "the first close() of two opens ends it")
    store = make()
    async with _opened(store):
        _expect(_LATER, await store.load(key), "what was saved is gone after close()")
    return _LATER


async def _check_advances(make: MakeResumeStore, key: str) -> ResumePoint:
    news = [
        ResumePoint(_mid(2), (_mid(7), _mid(9)), stamps=(7.5, 9.5)),
        ResumePoint(_mid(6), (_mid(8),), stamps=(8.5,), kept=Kept(_mid(8), 8.5, 1_795_399_500.0)),
    ]
    expected = _POINT.joined(news)
    for reopened in (False, True):
        store: Any = make()
        async with _opened(store):
            await store.load(key)
            await store.save(key, _POINT)
            await store.advance(key, news[0])
            if not reopened:
                await store.advance(key, news[1])
                _expect(expected, await store.load(key), "advance() does not add to what was saved")
        if reopened:
            store = make()
            async with _opened(store):
                await store.load(key)
                await store.advance(key, news[1])
                _expect(expected, await store.load(key), "advance() adds nothing after a load()")
    return expected


async def _check_fence(store: FencedStore) -> None:
    old, new = (store.under(Lease(_PORTAL, f"worker {epoch}", epoch)) for epoch in (1, 2))
    async with _opened(old), _opened(new):
        await old.load("key")
        await old.save("key", _POINT)
        _expect(_POINT, await new.load("key"), "a new owner does not get what the one before has saved")
        await _refused(LeaseLost, old.save("key", _LATER), "an owner of before can save")
        await _refused(LeaseLost, old.load("key"), "an owner of before can load")
        _expect(_POINT, await new.load("key"), "what an owner of before saves replaces what there is")
        await new.save("key", _LATER)
        _expect(_LATER, await new.load("key"), "the owner cannot save")
    ended = Lease(_PORTAL, "worker 3", 3)
    late = store.under(ended)
    async with _opened(late):
        await late.load("key")
        ended.end()
        await _refused(LeaseLost, late.save("key", _POINT), "who has no valid lease can save")


async def check_token_store(make: MakeTokenStore) -> None:
    """Hold a store of tokens to what ``TokenStore`` promises.

    A method ``lock`` is held to letting one at a time refresh, and a method ``fence`` to what a
    hub's workers need that share the store.

    Args:
        make: Returns a store, as another process would make it; all for the same tokens, of which
            there are none yet.

    Raises:
        AssertionError: It breaks a promise; the text says which.
    """
    await make().save(_OLD)
    _expect(_OLD, await make().load(), "load() does not return what was saved")
    await make().save(_NEW)
    _expect(_NEW, await make().load(), "load() does not return what was saved last")
    store = make()
    await store.save(_OLD)
    _expect(_OLD, await store.load(), "load() does not return what the same store saved last")
    if hasattr(store, "lock"):
        await _check_lock(make)
        await _check_refreshes(make)
    if isinstance(store, FencedTokenStore):
        await _check_token_fence(make)


async def _check_lock(make: MakeTokenStore) -> None:
    async def wait_for_it() -> Tokens:
        async with _locked(make()) as held:
            return await held.load()

    async with _locked(make()) as held:
        await held.save(await held.load())
        waiting = asyncio.create_task(wait_for_it())
        await asyncio.wait({waiting}, timeout=_WAITS_S)
        if waiting.done():
            await waiting
            raise AssertionError("two hold the lock at once")
        await held.save(_NEW)
        _expect(_NEW, await make().load(), "what is saved under the lock is not seen by others at once")
    _expect(_NEW, await waiting, "who waits for the lock does not get what was saved under it")


async def _check_refreshes(make: MakeTokenStore) -> None:
    await make().save(_OLD)
    spent = 0

    async def refresh() -> None:
        nonlocal spent
        async with _locked(make()) as held:
            tokens = await held.load()
            if tokens == _OLD:
                # As a client does: the store is shown to work, and then the refresh token is spent.
                await held.save(tokens)
                spent += 1
                await asyncio.sleep(0)
                await held.save(_NEW)

    await asyncio.gather(*(refresh() for _ in range(4)))
    _expect(1, spent, "a refresh token is spent more than once")


async def _check_token_fence(make: MakeTokenStore) -> None:
    await make().save(_OLD)
    old, new, ended = Lease(_PORTAL, "a", 1), Lease(_PORTAL, "b", 2), Lease(_PORTAL, "c", 3)
    await _refresh_under(make, old)
    await _refresh_under(make, new)
    await _refused(TokenStoreFailed, _refresh_under(make, old), "an owner of before can refresh")
    ended.end()
    await _refused(TokenStoreFailed, _refresh_under(make, ended), "who has no valid lease can refresh")
    await _refresh_under(make, None)
    await _refresh_under(make, new)


async def _refresh_under(make: MakeTokenStore, lease: Lease | None) -> None:
    store = make()
    if lease is not None and isinstance(store, FencedTokenStore):
        store.fence(lease)
    async with _locked(store) as held:
        await held.save(await held.load())


@asynccontextmanager
async def _opened(store: ResumeStore) -> AsyncGenerator[None]:
    await store.open()
    try:
        yield
    finally:
        await store.close()


def _locked(store: Any) -> AbstractAsyncContextManager[TokenStore]:
    """Hold a store's lock; what it takes, and what it gives to load and save with, is the store's affair."""
    takes = inspect.signature(store.lock).parameters

    @asynccontextmanager
    async def hold() -> AsyncGenerator[TokenStore]:
        async with store.lock(10.0) if takes else store.lock() as held:
            yield held if isinstance(held, TokenStore) else store

    return hold()


def _expect(expected: T, found: T, text: str) -> None:
    if _plain(expected) != _plain(found):
        raise AssertionError(text)


def _plain(value: object) -> object:
    """Return what a point says: stamps of 0 are as good as none, and what is settled has no order."""
    if not isinstance(value, ResumePoint):
        return value
    stamps = value.stamps or (0.0,) * len(value.settled)
    settled = dict(zip(value.settled, stamps, strict=True))
    return value.mid, settled, value.began, value.server, value.kept, value.stamp


async def _refused(error: type[Exception], doing: Awaitable[object], text: str) -> None:
    try:
        await doing
    except error:
        return
    raise AssertionError(text)
