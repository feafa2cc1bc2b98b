"""Stores of the user's own: locked, timed, and what they raise says no secret."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from bitrix_pull import MemoryTokenStore, Tokens, TokenStore
from bitrix_pull.errors import InvalidArgument, TokenStoreFailed, Unreachable

from .granting import Clients, Grant, stale


class Shelf:
    """A user's store, which other processes can be kept from."""

    def __init__(self, tokens: Tokens | None) -> None:
        self.tokens = tokens
        self.log: list[str] = []
        self.failing = ""

    async def load(self) -> Tokens:
        self._note("load")
        return self.tokens  # type: ignore[return-value]

    async def save(self, tokens: Tokens) -> None:
        self._note("save")
        self.tokens = tokens

    @asynccontextmanager
    async def lock(self) -> AsyncIterator[None]:
        self._note("lock")
        yield
        self._note("unlock")

    def _note(self, what: str) -> None:
        self.log.append(what)
        if self.failing == what:
            raise RuntimeError(f"no connection, tokens {self.tokens and self.tokens.access_token}")


def test_every_store_is_one() -> None:
    tokens = Tokens.read(stale())
    assert isinstance(Shelf(tokens), TokenStore)
    assert isinstance(MemoryTokenStore(tokens), TokenStore)


async def test_a_refresh_happens_under_the_stores_own_lock(grant: Grant, client: Clients) -> None:
    shelf = Shelf(Tokens.read(stale()))
    rest = client(shelf)
    assert await rest.call("app.info") == "access-2"
    assert shelf.log == ["load", "lock", "load", "save", "save", "unlock"]
    assert await rest.call("app.info") == "access-2"
    assert shelf.log[6:] == []


async def test_a_lock_that_is_no_method_is_the_users_own_affair(grant: Grant, client: Clients) -> None:
    shelf = Shelf(Tokens.read(stale()))
    shelf.lock = asyncio.Lock()  # type: ignore[assignment, method-assign]
    assert await client(shelf).call("app.info") == "access-2"


@pytest.mark.parametrize("failing", ["load", "save", "lock"])
async def test_what_a_store_raises_is_told_without_its_text(
    grant: Grant, client: Clients, failing: str
) -> None:
    shelf = Shelf(Tokens.read(stale()))
    shelf.failing = failing
    rest = client(shelf)
    with pytest.raises(TokenStoreFailed, match=rf"{failing}\(\) of Shelf raised RuntimeError") as caught:
        await rest.call("app.info")
    assert "test_token_stores.py:" in str(caught.value)
    assert "access-0" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    assert caught.value.retryable
    assert grant.refreshes == 0
    shelf.failing = ""
    assert await rest.call("app.info") == "access-2"


async def test_a_lock_that_cannot_be_let_go_of_does_no_harm(
    grant: Grant, client: Clients, caplog: pytest.LogCaptureFixture
) -> None:
    shelf = Shelf(Tokens.read(stale()))
    shelf.failing = "unlock"
    assert await client(shelf).call("app.info") == "access-2"
    assert "could not be unlocked" in caplog.text
    assert "access-2" not in caplog.text


async def test_a_store_that_holds_nothing_yet_is_named(grant: Grant, client: Clients) -> None:
    with pytest.raises(InvalidArgument, match=r"load\(\) of Shelf returned NoneType, not Tokens.*Authorise"):
        await client(Shelf(None)).call("app.info")


async def test_new_tokens_are_kept_until_the_store_takes_them(grant: Grant, client: Clients) -> None:
    class Flaky(Shelf):
        async def save(self, tokens: Tokens) -> None:
            if tokens.refresh_token == "refresh-2" and self.log.count("refused") < 2:
                self.log.append("refused")
                raise ConnectionError
            await super().save(tokens)

    told: list[Tokens] = []
    flaky = Flaky(Tokens.read(stale()))
    rest = client(flaky, told.append)
    for _ in range(2):
        with pytest.raises(TokenStoreFailed, match="ConnectionError"):
            await rest.call("app.info")
        assert not told
    assert await rest.call("app.info") == "access-2"
    await rest.close()
    assert flaky.tokens == told[0]
    assert grant.refreshes == 1


@pytest.mark.parametrize("meanwhile", ["nothing", "authorised again"])
async def test_unsaved_tokens_replace_the_spent_ones_and_no_others(
    grant: Grant, client: Clients, meanwhile: str
) -> None:
    shelf = Shelf(Tokens.read(stale()))
    auth = client.auth(shelf)
    rest = client.of(auth)
    await auth.store_unsaved()
    assert shelf.log == []
    grant.gate.clear()
    call = asyncio.create_task(rest.call("app.info"))
    await grant.refreshing.wait()
    shelf.failing = "save"
    grant.gate.set()
    with pytest.raises(TokenStoreFailed):
        await call
    assert auth.unsaved
    with pytest.raises(TokenStoreFailed):
        await auth.store_unsaved()
    shelf.failing = ""
    other = Tokens(access_token="other-access", refresh_token="other-refresh")
    if meanwhile != "nothing":
        shelf.tokens = other
    await auth.store_unsaved()
    assert not auth.unsaved
    assert shelf.tokens is not None
    expected = "refresh-2" if meanwhile == "nothing" else "other-refresh"
    assert (shelf.tokens.refresh_token, grant.refreshes) == (expected, 1)


async def test_a_store_that_never_answers_ends_by_the_deadline(grant: Grant, client: Clients) -> None:
    class Stuck(Shelf):
        async def save(self, tokens: Tokens) -> None:
            if self.failing == "stuck":
                await asyncio.Event().wait()
            await super().save(tokens)

    stuck = Stuck(Tokens.read(stale()))
    stuck.failing = "stuck"
    rest = client(stuck, rest_timeout_s=0.1)
    with pytest.raises(Exception, match=r"within 0\.1 s"):
        await rest.call("app.info")
    stuck.failing = ""
    async with asyncio.timeout(2):
        while (answer := await outcome(rest)) != "access-2":
            assert "0.1 s" in answer


async def outcome(rest: object) -> str:
    try:
        return await rest.call("app.info")  # type: ignore[attr-defined, no-any-return]
    except Exception as error:
        return str(error)


async def test_a_store_that_is_silent_is_not_taken_for_the_portal(grant: Grant, client: Clients) -> None:
    class Silent(Shelf):
        async def load(self) -> Tokens:
            return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]

    with pytest.raises(Unreachable, match="no access token, from its store") as caught:
        await client(Silent(None), rest_timeout_s=0.05).call("app.info")
    assert caught.value.unsent


async def test_a_store_that_cancels_something_of_its_own_cancels_nobody_else(
    grant: Grant, client: Clients
) -> None:
    class Cancelling(Shelf):
        async def load(self) -> Tokens:
            raise asyncio.CancelledError

    with pytest.raises(TokenStoreFailed, match=r"load\(\) of Cancelling raised CancelledError"):
        await client(Cancelling(None)).call("app.info")


async def test_a_call_that_is_cancelled_in_the_store_is_cancelled(grant: Grant, client: Clients) -> None:
    loading = asyncio.Event()

    class Slow(Shelf):
        async def load(self) -> Tokens:
            loading.set()
            return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]

    calling = asyncio.create_task(client(Slow(None)).call("app.info"))
    await loading.wait()
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling


async def test_a_store_that_is_not_async_is_named(grant: Grant, client: Clients) -> None:
    class Sync:
        def load(self) -> Tokens:
            raise KeyError("hushhush")

        def save(self, tokens: Tokens) -> None: ...

    with pytest.raises(TokenStoreFailed, match=r"load\(\) of Sync raised KeyError") as caught:
        await client(Sync()).call("app.info")
    assert "hush" not in str(caught.value)


async def test_an_error_of_the_stores_own_that_is_one_of_ours_passes(grant: Grant, client: Clients) -> None:
    class Refusing(Shelf):
        async def load(self) -> Tokens:
            raise InvalidArgument("no such portal")

    with pytest.raises(InvalidArgument, match="no such portal"):
        await client(Refusing(None)).call("app.info")


def test_threads_with_loops_of_their_own_are_kept_apart() -> None:
    store = MemoryTokenStore(Tokens.read(stale()))
    inside: list[int] = []
    most: list[int] = []

    async def use() -> None:
        for _ in range(5):
            async with store.lock(5.0):
                inside.append(1)
                most.append(len(inside))
                await asyncio.sleep(0.002)
                inside.pop()

    threads = [threading.Thread(target=lambda: asyncio.run(use())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 15
