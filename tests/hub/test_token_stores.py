"""What every store of tokens promises, and what Valkey's promises to workers that share it."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
from bitrix_pull.hub.valkey import Cipher, FernetCipher, ValkeyTokenStore
from tests.fault_proxy import FaultProxy, Weather
from tests.hub.engine import running
from tests.portal.conftest import portal  # noqa: F401 - a fixture
from tests.portal.granting import Clients, Grant, client, grant, stale  # noqa: F401 - fixtures

OLD, NEW = (
    Tokens.read(stale()),
    Tokens.read({"access_token": "a-2", "refresh_token": "r-2", "member_id": "m"}),
)

Make = Callable[[], Any]


@pytest.fixture(params=["memory", "file", "sqlite", "valkey", "valkey, encrypted"])
def make(request: pytest.FixtureRequest, tmp_path: Path, valkey_url: str, name: str) -> Make:
    """Stores that stand for the same place, each as another process would make it."""
    memory = MemoryTokenStore()
    key = Fernet.generate_key()
    makers: dict[str, Make] = {
        "memory": lambda: memory,
        "file": lambda: FileTokenStore(tmp_path / "tokens.json"),
        "sqlite": lambda: SqliteTokenStore(tmp_path / "tokens.db", "acme"),
        "valkey": lambda: ValkeyTokenStore(valkey_url, "acme", name=name),
        "valkey, encrypted": lambda: ValkeyTokenStore(
            valkey_url, "acme", name=name, cipher=FernetCipher(key)
        ),
    }
    return makers[request.param]


async def test_what_was_saved_last_is_there(make: Make) -> None:
    assert isinstance(make(), TokenStore)
    with pytest.raises(InvalidArgument, match=r"[Aa]uthorise"):
        await make().load()
    await make().save(OLD)
    await make().save(NEW)
    assert await make().load() == NEW
    await make().delete()
    with pytest.raises(InvalidArgument):
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
async def test_clients_refresh_once_between_them(make: Make, grant: Grant, client: Clients) -> None:  # noqa: F811
    await make().save(Tokens.read(stale()))
    rests = [client(make()) for _ in range(4)]
    results = await asyncio.gather(*(rest.call("app.info") for rest in rests * 3))
    assert set(results) == {"access-2"}
    assert grant.refreshes == 1
    assert (await make().load()).refresh_token == "refresh-2"


# -- Valkey's own ----------------------------------------------------------------


async def test_a_worker_that_was_stopped_too_long_does_not_spend_the_refresh_token(
    valkey_url: str, name: str
) -> None:
    def make() -> ValkeyTokenStore:
        return ValkeyTokenStore(valkey_url, "acme", name=name, hold_s=0.1)

    await make().save(OLD)
    async with make().lock(1.0) as stopped:
        await stopped.load()
        await asyncio.sleep(0.15)
        async with make().lock(1.0) as other:
            await other.save(OLD)
            with pytest.raises(TokenStoreFailed, match="another worker"):
                await stopped.save(OLD)
            await other.save(NEW)
        # Nor does it put old ones in the place of what the other got.
        with pytest.raises(TokenStoreFailed, match="another worker"):
            await stopped.save(Tokens.read({"access_token": "x", "refresh_token": "y"}))
    assert await make().load() == NEW


async def test_who_has_spent_the_refresh_token_keeps_what_it_got_however_late(
    valkey_url: str, name: str
) -> None:
    def make() -> ValkeyTokenStore:
        return ValkeyTokenStore(valkey_url, "acme", name=name, hold_s=0.1)

    await make().save(OLD)
    async with make().lock(1.0) as stopped:
        await stopped.save(OLD)
        await asyncio.sleep(0.15)
        async with make().lock(1.0) as other:
            # Whose refresh is refused: the token was spent.
            assert await other.load() == OLD
            await stopped.save(NEW)
            assert await other.load() == NEW


async def test_an_owner_of_before_does_not_refresh_any_more(valkey_url: str, name: str) -> None:
    old, new = (ValkeyTokenStore(valkey_url, "acme", name=name) for _ in range(2))
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


async def test_what_a_refresh_token_was_spent_for_is_kept_once_the_engine_is_back(
    valkey_url: str, name: str
) -> None:
    host, _, port = valkey_url.rpartition("/")[2].partition(":")
    async with FaultProxy(host, int(port)) as proxy:
        cut = ValkeyTokenStore(f"redis://{proxy.address}", "acme", name=name, timeout_s=0.2)
        await cut.save(OLD)
        async with cut.lock(1.0) as held:
            await held.save(OLD)
            proxy.forecast = Weather.black_hole
            # Not even the answer to what reaches the engine comes back.
            for line in proxy.lines:
                line.weather = Weather(to_client_lost=True)
            saving = asyncio.create_task(held.save(NEW))
            other = ValkeyTokenStore(valkey_url, "acme", name=name)
            while await other.load() != NEW:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.5)
            assert not saving.done()
            with pytest.raises(TokenStoreFailed, match="in refresh elsewhere"):
                async with other.lock(0.1):
                    pass
            proxy.forecast = Weather
            await saving
    assert await other.load() == NEW


async def test_no_refresh_begins_that_the_lease_does_not_cover(valkey_url: str, name: str) -> None:
    store, lease = ValkeyTokenStore(valkey_url, "acme", name=name), Lease("acme", "a", 1)
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
