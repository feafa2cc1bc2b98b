"""What every store of tokens promises, and what those promise that workers share."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis.asyncio
from cryptography.fernet import Fernet

from bitrix_pull import (
    FileTokenStore,
    InvalidArgument,
    MemoryTokenStore,
    SqliteTokenStore,
    Tokens,
    TokenStore,
    TokenStoreFailed,
)
from bitrix_pull.hub.cluster import Lease
from bitrix_pull.hub.postgres import PostgresStore
from bitrix_pull.hub.valkey import Cipher, FernetCipher, ValkeyTokenStore
from bitrix_pull.testing import check_token_store
from tests.fault_proxy import FaultProxy, Weather
from tests.hub.engine import running
from tests.portal.conftest import portal  # noqa: F401 - a fixture
from tests.portal.granting import Clients, Grant, client, grant, stale  # noqa: F401 - fixtures

OLD, NEW = (
    Tokens.read(stale()),
    Tokens.read({"access_token": "a-2", "refresh_token": "r-2", "member_id": "m"}),
)

Make = Callable[[], Any]


KINDS = ["memory", "file", "sqlite", "valkey", "valkey, encrypted", "postgres", "postgres, encrypted"]


@pytest.fixture(params=KINDS)
def make(request: pytest.FixtureRequest, tmp_path: Path, name: str) -> Make:
    """Stores that stand for the same place, each as another process would make it."""
    kind, _, encrypted = request.param.partition(", ")
    server = ""
    if kind in ("valkey", "postgres"):
        server = request.getfixturevalue("valkey_url" if kind == "valkey" else "postgres_conninfo")
    memory = MemoryTokenStore()
    cipher = FernetCipher(Fernet.generate_key()) if encrypted else None
    makers: dict[str, Make] = {
        "memory": lambda: memory,
        "file": lambda: FileTokenStore(tmp_path / "tokens.json"),
        "sqlite": lambda: SqliteTokenStore(tmp_path / "tokens.db", "acme"),
        "valkey": lambda: ValkeyTokenStore(server, "acme", name=name, cipher=cipher),
        "postgres": lambda: PostgresStore(server, schema=name, cipher=cipher).tokens("acme"),
    }
    return makers[kind]


async def test_it_keeps_what_a_token_store_promises(make: Make) -> None:
    assert isinstance(make(), TokenStore)
    await check_token_store(make)


async def test_who_holds_no_tokens_says_so(make: Make) -> None:
    with pytest.raises(InvalidArgument, match=r"[Aa]uthorise"):
        await make().load()
    await make().save(OLD)
    await make().delete()
    with pytest.raises(InvalidArgument, match=r"[Aa]uthorise"):
        await make().load()


async def test_one_at_a_time_holds_it_and_others_wait_but_not_for_ever(make: Make) -> None:
    await make().save(OLD)
    async with make().lock(1.0) as held:
        assert await held.load() == OLD
        await held.save(OLD)
        with pytest.raises(TokenStoreFailed, match=r"0\.1 s"):
            async with make().lock(0.1):
                pass
        await held.save(NEW)
    async with make().lock(1.0) as held:
        assert await held.load() == NEW


@pytest.mark.usefixtures("portal")
async def test_who_is_cancelled_while_it_takes_its_turn_holds_nobody_up(make: Make) -> None:
    async def hold() -> None:
        async with make().lock(5):
            await asyncio.Event().wait()

    for step in range(25):
        holding = asyncio.create_task(hold())
        await asyncio.sleep(step * 0.0004)
        holding.cancel()
        await asyncio.wait({holding})
        assert holding.cancelled()
        async with make().lock(5):
            pass


async def test_clients_refresh_once_between_them(make: Make, grant: Grant, client: Clients) -> None:  # noqa: F811
    await make().save(Tokens.read(stale()))
    rests = [client(make()) for _ in range(4)]
    results = await asyncio.gather(*(rest.call("app.info") for rest in rests * 3))
    assert set(results) == {"access-2"}
    assert grant.refreshes == 1
    assert (await make().load()).refresh_token == "refresh-2"


# -- what workers share ----------------------------------------------------------

Shared = Callable[..., Any]


@pytest.fixture(params=["valkey", "postgres"])
def shared(request: pytest.FixtureRequest, name: str) -> Shared:
    """Makes stores for one place that workers share, each with a connection of its own."""
    kind: str = request.param
    server = request.getfixturevalue("valkey_url" if kind == "valkey" else "postgres_conninfo")

    def make(*, port: int | None = None, hold_s: float = 30.0, timeout_s: float = 5.0) -> Any:
        if kind == "valkey":
            parts = urlsplit(server)
            user, at, _ = parts.netloc.rpartition("@")
            through = parts._replace(netloc=f"{user}{at}127.0.0.1:{port}").geturl()
            return ValkeyTokenStore(
                through if port else server, "acme", name=name, hold_s=hold_s, timeout_s=timeout_s
            )
        conninfo = f"{server} port={port}" if port else server
        return PostgresStore(conninfo, schema=name, hold_s=hold_s, timeout_s=timeout_s).tokens("acme")

    return make


@pytest.fixture
def address(request: pytest.FixtureRequest, shared: Shared) -> tuple[str, int]:
    """Where the server of the shared stores listens."""
    if request.node.callspec.params["shared"] == "valkey":
        parts = urlsplit(request.getfixturevalue("valkey_url"))
        return parts.hostname or "localhost", parts.port or 6379
    words = dict(part.split("=") for part in request.getfixturevalue("postgres_conninfo").split())
    return words["host"], int(words["port"])


async def test_a_worker_that_was_stopped_too_long_does_not_spend_the_refresh_token(shared: Shared) -> None:
    await shared().save(OLD)
    async with shared(hold_s=0.1).lock(1.0) as stopped:
        await stopped.load()
        await asyncio.sleep(0.2)
        async with shared().lock(1.0) as other:
            await other.save(OLD)
            with pytest.raises(TokenStoreFailed, match="another worker"):
                await stopped.save(OLD)
            await other.save(NEW)
        # Nor does it put old ones in the place of what the other got.
        with pytest.raises(TokenStoreFailed, match="another worker"):
            await stopped.save(Tokens.read({"access_token": "x", "refresh_token": "y"}))
    assert await shared().load() == NEW


async def test_who_has_spent_the_refresh_token_keeps_what_it_got_however_late(shared: Shared) -> None:
    await shared().save(OLD)
    async with shared(hold_s=0.1).lock(1.0) as stopped:
        await stopped.save(OLD)
        await asyncio.sleep(0.2)
        async with shared().lock(1.0) as other:
            # Whose refresh is refused: the token was spent.
            assert await other.load() == OLD
            await stopped.save(NEW)
            assert await other.load() == NEW


async def test_an_owner_of_before_does_not_refresh_any_more(shared: Shared) -> None:
    old, new = shared(), shared()
    await old.save(OLD)
    old.fence(Lease("acme", "a", 1))
    new.fence(Lease("acme", "b", 2))
    async with old.lock(1.0):
        pass
    async with new.lock(1.0):
        pass
    with pytest.raises(TokenStoreFailed, match="another worker has the portal"):
        async with old.lock(1.0):
            pass
    lost = Lease("acme", "b", 3)
    new.fence(lost)
    lost.end()
    with pytest.raises(TokenStoreFailed, match="does not have the portal"):
        async with new.lock(1.0):
            pass


async def test_what_a_refresh_token_was_spent_for_is_kept_once_the_server_is_back(
    shared: Shared, address: tuple[str, int]
) -> None:
    async with FaultProxy(*address) as proxy:
        cut = shared(port=int(proxy.address.rpartition(":")[2]), timeout_s=0.3)
        await cut.save(OLD)
        async with cut.lock(1.0) as held:
            await held.save(OLD)
            proxy.forecast = Weather.black_hole
            # Not even the answer to what reaches the server comes back.
            for line in proxy.lines:
                line.weather = Weather(to_client_lost=True)
            saving = asyncio.create_task(held.save(NEW))
            await asyncio.sleep(1.0)
            assert not saving.done()
            other = shared()
            with pytest.raises(TokenStoreFailed, match="in refresh elsewhere"):
                async with other.lock(0.1):
                    pass
            proxy.forecast = Weather
            await saving
    assert await other.load() == NEW


async def test_no_refresh_begins_that_the_lease_does_not_cover(shared: Shared) -> None:
    store, lease = shared(), Lease("acme", "a", 1)
    await store.save(OLD)
    store.fence(lease)
    async with store.lock(1.0) as held:
        await held.save(OLD)
        lease.end()
        with pytest.raises(TokenStoreFailed, match="does not have the portal"):
            await held.save(OLD)
        # What was begun under it is kept: it is the only copy.
        await held.save(NEW)
    assert await store.load() == NEW


# -- Valkey's own ----------------------------------------------------------------


async def test_encrypted_tokens_are_unreadable_and_keys_can_be_changed(valkey_url: str, name: str) -> None:
    keys = [Fernet.generate_key() for _ in range(2)]
    plain = ValkeyTokenStore(valkey_url, "acme", name=name)
    await plain.save(OLD)
    first, second, both = (
        ValkeyTokenStore(valkey_url, "acme", name=name, cipher=FernetCipher(*some))
        for some in (keys[:1], keys[1:], keys[::-1])
    )
    assert await first.load() == OLD
    await first.save(NEW)
    async with redis.asyncio.Redis.from_url(valkey_url) as engine:
        kept: Any = await engine.hgetall(f"{name}:tokens:acme")
    assert b"a-2" not in repr(kept).encode()
    assert b"r-2" not in repr(kept).encode()
    with pytest.raises(InvalidArgument, match="cannot be decrypted"):
        await second.load()
    with pytest.raises(InvalidArgument, match="no JSON"):
        await plain.load()
    assert await both.load() == NEW
    await both.save(NEW)
    assert await second.load() == NEW


def test_what_is_no_key_and_no_cipher_is_refused(valkey_url: str) -> None:
    assert isinstance(FernetCipher(Fernet.generate_key()), Cipher)
    for keys in ([], ["short"], [b"x" * 44]):
        with pytest.raises(InvalidArgument, match="Fernet key"):
            FernetCipher(*keys)
    with pytest.raises(InvalidArgument, match="cipher"):
        ValkeyTokenStore(valkey_url, "acme", cipher=object())  # type: ignore[arg-type]


async def test_an_engine_that_is_away_is_a_store_that_failed(name: str) -> None:
    with running() as server:
        store = ValkeyTokenStore(server.url, "acme", name=name, timeout_s=0.3)
        await store.save(OLD)
        server.kill()
        for doing in (store.load(), store.save(NEW), store.delete(), store.lock(1.0).__aenter__()):
            with pytest.raises(TokenStoreFailed, match="does not answer"):
                await doing
        server.start()
