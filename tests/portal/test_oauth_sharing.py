"""One refresh for all who share tokens, whoever is cancelled, closed or in another event loop."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest

from bitrix_pull.errors import (
    NotRunning,
    TokenStoreFailed,
    Unreachable,
)
from bitrix_pull.options import PullOptions
from bitrix_pull.portal.http import HttpAnswer, HttpSession
from bitrix_pull.portal.oauth import OAuth
from bitrix_pull.portal.token_files import FileTokenStore
from bitrix_pull.portal.token_stores import MemoryTokenStore
from bitrix_pull.portal.tokens import Tokens

from .granting import Clients, Grant, read, stale, write


async def test_clients_that_share_a_file_refresh_once(
    grant: Grant, client: Clients, token_file: Path, tmp_path: Path
) -> None:
    link = tmp_path / "link.json"
    link.symlink_to(token_file)
    rests = [client(path) for path in (token_file, str(token_file), link, token_file)]
    results = await asyncio.gather(*(rest.call("app.info") for rest in rests * 5))
    assert set(results) == {"access-2"}
    assert grant.refreshes == 1


@pytest.mark.parametrize("kind", [MemoryTokenStore, "users", "users, by a clock"])
async def test_clients_that_share_a_store_refresh_once(grant: Grant, client: Clients, kind: Any) -> None:
    tokens = Tokens.read(stale(expires=1) if "clock" in str(kind) else stale())
    store = Drawer(tokens) if isinstance(kind, str) else kind(tokens)
    rests = [client(store) for _ in range(4)]
    results = await asyncio.gather(*(rest.call("app.info") for rest in rests * 5))
    assert set(results) == {"access-2"}
    assert grant.refreshes == 1
    assert (await store.load()).refresh_token == "refresh-2"


@dataclass
class Drawer:
    """A user's store, which cannot be hashed."""

    tokens: Tokens

    async def load(self) -> Tokens:
        await asyncio.sleep(0)
        return self.tokens

    async def save(self, tokens: Tokens) -> None:
        await asyncio.sleep(0)
        self.tokens = tokens


async def test_a_call_waits_for_somebody_elses_refresh_but_not_for_ever(
    grant: Grant, client: Clients, token_file: Path
) -> None:
    async with FileTokenStore(token_file).lock(1.0):
        with pytest.raises((TokenStoreFailed, Unreachable), match=r"0\.1 s"):
            await client(token_file, rest_timeout_s=0.1).call("app.info")
    assert grant.refreshes == 0
    assert await client(token_file).call("app.info") == "access-2"


async def test_what_others_have_stored_is_refreshed_if_it_has_expired_too(
    grant: Grant, client: Clients, token_file: Path
) -> None:
    write(token_file, grant.tokens())
    rest = client(token_file)
    assert await rest.call("app.info") == "access-1"
    grant.number = 2
    write(token_file, stale(access_token="access-old", refresh_token="refresh-2", expires=1))
    assert await rest.call("app.info") == "access-3"


# -- closing, cancelling, loops and clocks ----------------------------------------------


async def test_close_does_not_wait_for_a_lock_that_somebody_else_holds(
    grant: Grant, client: Clients, token_file: Path
) -> None:
    rest = client(token_file)
    async with FileTokenStore(token_file).lock(1.0):
        call = asyncio.create_task(rest.call("app.info"))
        await grant.refused_once.wait()
        while not a_refresh_has_begun():
            await asyncio.sleep(0.01)
        async with asyncio.timeout(1):
            await rest.close()
        with pytest.raises(NotRunning):
            await call
    assert grant.refreshes == 0


def a_refresh_has_begun() -> bool:
    return any("_renew" in repr(task) for task in asyncio.all_tasks())


async def test_closing_twice_waits_for_the_same_refresh(
    grant: Grant, client: Clients, token_file: Path
) -> None:
    grant.gate.clear()
    rest = client(token_file)
    call = asyncio.create_task(rest.call("app.info"))
    await grant.refreshing.wait()
    asyncio.get_running_loop().call_later(0.05, grant.gate.set)
    first = asyncio.create_task(rest.close())
    await asyncio.sleep(0.01)
    await rest.close()
    await first
    assert read(token_file)["refresh_token"] == "refresh-2"
    with pytest.raises((NotRunning, Unreachable)):
        await call


def test_another_event_loop_goes_on_where_one_was_ended_in_mid_refresh(token_file: Path) -> None:
    requests = 0

    class Offline(HttpSession):
        async def request(self, *_: Any, **__: Any) -> HttpAnswer:
            nonlocal requests
            requests += 1
            if requests == 1:
                await asyncio.Event().wait()
            return HttpAnswer(200, {}, orjson.dumps(stale(access_token="access-2")))

    options = PullOptions()
    auth = OAuth("acme.bitrix24.com", client_id="app.1", client_secret="client-secret", tokens=token_file)

    async def begin() -> None:
        call = asyncio.create_task(auth.renew("access-0", Offline(options), options))
        while not requests:
            await asyncio.sleep(0.01)
        assert not call.done()

    asyncio.run(begin())

    async def go_on() -> str:
        return await auth.renew("access-0", Offline(options), options)

    assert asyncio.run(go_on()) == "access-2"
    assert requests == 2


def test_an_event_loop_in_another_thread_refreshes_nothing_twice() -> None:
    begun, answered = threading.Event(), threading.Event()
    options = PullOptions()
    requests: list[str] = []

    class Slow(HttpSession):
        async def request(self, verb: str, *_: Any, **__: Any) -> HttpAnswer:
            requests.append(verb)
            begun.set()
            await asyncio.to_thread(answered.wait, 5)
            return HttpAnswer(200, {}, orjson.dumps(stale(access_token="access-2")))

    async def renew() -> str:
        return await auth.renew("access-0", Slow(options), options)

    auth = OAuth("acme.bitrix24.com", client_id="app.1", client_secret="client-secret", tokens=stale())
    with ThreadPoolExecutor() as pool:
        first = pool.submit(asyncio.run, renew())
        assert begun.wait(5)
        second = pool.submit(asyncio.run, renew())
        pool.submit(time.sleep, 0.05).result()
        answered.set()
        assert (first.result(5), second.result(5)) == ("access-2", "access-2")
    assert requests == ["GET"]


async def test_a_clock_that_jumps_costs_one_refresh_at_most(
    grant: Grant, client: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    rest = client(grant.tokens() | {"expires": now + 3600})
    monkeypatch.setattr(time, "time", lambda: now + 86_400)
    assert [await rest.call("app.info") for _ in range(3)] == ["access-2"] * 3
    monkeypatch.setattr(time, "time", lambda: now - 86_400)
    assert [await rest.call("app.info") for _ in range(3)] == ["access-2"] * 3
    assert grant.refreshes == 1
