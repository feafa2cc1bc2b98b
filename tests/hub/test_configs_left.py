"""The configuration of a portal goes with its lease: who takes it over need not ask the portal."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis.asyncio
from cryptography.fernet import Fernet

from bitrix_pull import Hub, LeaseLost, OAuth, Portal, PullEvent, ResumeStoreFailed
from bitrix_pull.connection.stores import ConfigStore
from bitrix_pull.emulator import CloudPortal, EmulatedCloud
from bitrix_pull.hub.ciphers import Cipher
from bitrix_pull.hub.cluster import Lease
from bitrix_pull.hub.fences import under_lease
from bitrix_pull.hub.valkey import (
    FernetCipher,
    ValkeyCluster,
    ValkeyPortals,
    ValkeyResumeStore,
    ValkeyStream,
    ValkeyTokenStore,
)
from bitrix_pull.portal.models import Channel, Channels, PullConfig, ServerConfig
from bitrix_pull.portal.tokens import Tokens
from tests.hub.engine import until

_CONFIG = "pull.application.config.get"


class Workers:
    """Workers that share the portals of a cloud, one after another; their handlers take its events."""

    def __init__(self, url: str, name: str, cloud: EmulatedCloud) -> None:
        self.got: list[tuple[str, int]] = []
        self._url, self._name, self._cloud = url, name, cloud
        self._seen = 0

    @asynccontextmanager
    async def serving(self, *, cipher: Cipher | None = None, logged: bool = False) -> AsyncIterator[Hub]:
        """Serve by one more worker, to the end of the block."""
        hub = Hub(
            ValkeyPortals(self._url, name=self._name, cipher=cipher),
            cluster=ValkeyCluster(self._url, name=self._name, lease_s=2.0, settle_s=0.1),
            stream=ValkeyStream(self._url, name=self._name) if logged else None,
        )

        @hub.on("order")
        async def order(event: PullEvent) -> None:
            self.got.append((event.portal, event.params["n"]))

        async with hub.serving():
            yield hub

    async def begin(self, *, cipher: Cipher | None = None, logged: bool = False) -> None:
        """Let a first worker have the portals, get an event of each, and leave."""
        book = ValkeyPortals(self._url, name=self._name, cipher=cipher)
        for portal in self._cloud.portals:
            await book.put(Portal(portal.member_id, oauth(portal)))
        async with self.serving(cipher=cipher, logged=logged) as hub:
            await self.all_live(hub)
            await self.all_get(1)
        self.asked()

    async def all_live(self, hub: Hub) -> None:
        await until(lambda: hub.health().live == len(self._cloud.portals))

    async def all_get(self, number: int) -> None:
        """Send an event of each portal, and wait until all that were sent were handled once, in order."""
        self.send(number)
        await self.all_got(number)

    def send(self, number: int) -> None:
        for portal in self._cloud.portals:
            portal.send("order", {"n": number})

    async def all_got(self, number: int) -> None:
        expected = {portal.member_id: list(range(1, number + 1)) for portal in self._cloud.portals}
        await until(lambda: {key: [n for of, n in self.got if of == key] for key in expected} == expected)

    def asked(self) -> list[str]:
        """Return what the portals were asked since the last time."""
        entries = self._cloud.journal.entries("rest", after=self._seen)
        self._seen = max((entry.number for entry in entries), default=self._seen)
        return [entry.details["method"] for entry in entries]


def oauth(portal: CloudPortal, tokens: Any = None) -> OAuth:
    return OAuth(
        portal.url,
        client_id=portal.client_id,
        client_secret=portal.client_secret,
        oauth_url=portal.oauth_url,
        tokens=tokens or tokens_of(portal),
    )


def tokens_of(portal: CloudPortal) -> Tokens:
    return Tokens(
        access_token=portal.token,
        refresh_token=portal.refresh_token,
        fields={"member_id": portal.member_id, "user_id": 1},
    )


@pytest.mark.parametrize("logged", [True, False], ids=["with a log", "without"])
async def test_a_planned_hand_over_asks_the_portals_for_nothing(
    valkey_url: str, name: str, logged: bool
) -> None:
    async with EmulatedCloud(3) as cloud:
        workers = Workers(valkey_url, name, cloud)
        await workers.begin(logged=logged)
        workers.send(2)
        async with workers.serving(logged=logged) as hub:
            await workers.all_live(hub)
            await workers.all_get(3)
        assert workers.asked() == []


async def test_nor_does_who_takes_over_from_a_worker_that_was_killed(valkey_url: str, name: str) -> None:
    async with EmulatedCloud(2) as cloud:
        about = [(each.member_id, each.url, each.client_id, each.client_secret) for each in cloud.portals]
        for each in cloud.portals:
            await ValkeyTokenStore(valkey_url, each.member_id, name=name).save(tokens_of(each))

        async def start(worker: str) -> asyncio.subprocess.Process:
            order = {"worker": worker, "portals": about, "url": valkey_url, "name": name}
            return await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "tests.soak.hub_worker", json.dumps({**order, "postgres": "", "lease_s": 1.0})),
                stdout=asyncio.subprocess.DEVNULL,
            )

        def calls() -> int:
            return sum(entry.details["method"] == _CONFIG for entry in cloud.journal.entries("rest"))

        def connected() -> int:
            return len({channel.id for each in cloud.push.connections for channel in each.channels})

        one = await start("one")
        try:
            await until(lambda: len(cloud.push.connections) == 2)
            known = connected()
            assert calls() == 2
        finally:
            one.send_signal(signal.SIGKILL)
            await one.wait()
        await until(lambda: len(cloud.push.connections) == 0)
        two = await start("two")
        try:
            await until(lambda: len(cloud.push.connections) == 2)
            assert (calls(), connected()) == (2, known)
        finally:
            two.send_signal(signal.SIGKILL)
            await two.wait()


async def test_a_configuration_that_the_push_server_refuses_is_asked_for_at_once(
    valkey_url: str, name: str
) -> None:
    async with EmulatedCloud(2) as cloud:
        workers = Workers(valkey_url, name, cloud)
        await workers.begin()
        workers.send(2)
        cloud.push.faults.refuse_channels = True
        async with workers.serving() as hub:
            asked: list[str] = []

            def all_asked() -> bool:
                asked.extend(workers.asked())
                return len(asked) >= 2

            await until(all_asked)
            cloud.push.faults.refuse_channels = False
            await workers.all_live(hub)
            await workers.all_get(3)
        assert set(asked) == {_CONFIG}


async def test_what_was_replaced_while_nobody_had_the_portal_costs_no_event(
    valkey_url: str, name: str
) -> None:
    async with EmulatedCloud(2) as cloud:
        workers = Workers(valkey_url, name, cloud)
        await workers.begin()
        for portal in cloud.portals:
            portal.expire()
        workers.send(2)
        async with workers.serving():
            await workers.all_got(2)
            await workers.all_get(3)
        assert workers.asked().count(_CONFIG) == 2


async def test_channels_that_are_about_to_end_are_not_left(valkey_url: str, name: str) -> None:
    async with EmulatedCloud(1, channel_life_s=110.0) as cloud:
        workers = Workers(valkey_url, name, cloud)
        await workers.begin()
        workers.send(2)
        async with workers.serving():
            await workers.all_get(3)
        assert workers.asked() == [_CONFIG]


async def test_it_is_encrypted_as_the_tokens_are(valkey_url: str, name: str) -> None:
    async with EmulatedCloud(1) as cloud, redis.asyncio.Redis.from_url(valkey_url) as engine:
        (portal,) = cloud.portals

        async def kept() -> bytes:
            (key,) = [each async for each in engine.scan_iter(f"*{name}*:config:{portal.member_id}")]
            content: Any = await engine.hget(key, "content")
            return bytes(content)

        workers = Workers(valkey_url, name, cloud)
        cipher = FernetCipher(Fernet.generate_key())
        await workers.begin(cipher=cipher)
        assert b"channels" not in await kept()
        assert b"channels" in cipher.decrypt(await kept())
        async with workers.serving(cipher=cipher):
            await workers.all_get(2)
        assert workers.asked() == []
        # Whoever cannot read it asks the portal, and leaves one that can be read.
        (key,) = [each async for each in engine.scan_iter(f"*{name}*:config:{portal.member_id}")]
        other = FernetCipher(Fernet.generate_key())
        await engine.hset(key, "content", other.encrypt(cipher.decrypt(await kept())))
        async with workers.serving(cipher=cipher):
            await workers.all_get(3)
        assert workers.asked() == [_CONFIG]
        assert b"channels" in cipher.decrypt(await kept())


# -- the store ----------------------------------------------------------------------

_NOW = datetime(2026, 1, 1, tzinfo=UTC)


def config(channel: str) -> PullConfig:
    return PullConfig(
        server=ServerConfig(version=4, mode="shared", websocket_secure="wss://push.example/subws/"),
        channels=Channels(
            Channel(f"{channel}:public.signature", "public", _NOW, _NOW + timedelta(hours=12), "private"),
            Channel("shared.signature", start=_NOW, end=_NOW + timedelta(hours=11), type="shared"),
        ),
        client_id="of the portal",
        server_time=_NOW,
    )


@asynccontextmanager
async def owner(
    url: str, name: str, epoch: int, *, logged: bool = False, cipher: Cipher | None = None
) -> AsyncIterator[tuple[ConfigStore, Any, Lease]]:
    """Give one owner's store of configurations, and of the resume point, and its lease."""
    lease = Lease("acme", f"worker {epoch}", epoch)
    auth = OAuth(
        "acme.bitrix24.com",
        client_id="app.1",
        client_secret="secret",
        tokens=ValkeyTokenStore(url, "acme", name=name, cipher=cipher),
    )
    writer = ValkeyStream(url, name=name).writer(lease) if logged else None
    store: Any = under_lease(lease, Portal("acme", auth), ValkeyResumeStore(url, name=name), writer)
    await store.open()
    try:
        yield store.configs, store, lease
    finally:
        await store.close()


@pytest.mark.parametrize("logged", [True, False], ids=["with a log", "without"])
async def test_an_owner_of_before_does_not_overwrite_it(valkey_url: str, name: str, logged: bool) -> None:
    async with (
        owner(valkey_url, name, 1, logged=logged) as (old, _, old_lease),
        owner(valkey_url, name, 2, logged=logged) as (new, points, _),
    ):
        await old.save("acme", config("one"), 60.0)
        await new.save("acme", config("two"), 60.0)
        assert old_lease.valid()
        with pytest.raises(LeaseLost):
            await old.save("acme", config("one"), 60.0)
        assert not old_lease.valid()
        found = await new.load("acme")
        assert found is not None
        assert found[0].channels == config("two").channels
    async with owner(valkey_url, name, 1, logged=logged) as (old, _, _):
        # Nor once it is gone, and the new owner has but looked where the portal is.
        await points.open()
        await points.load("key")
        await points.close()
        async with redis.asyncio.Redis.from_url(valkey_url) as engine:
            await engine.delete(*[each async for each in engine.scan_iter(f"*{name}*:config:*")])
        with pytest.raises(LeaseLost):
            await old.save("acme", config("one"), 60.0)


async def test_it_is_told_what_time_it_is_and_for_how_long_it_is_good(valkey_url: str, name: str) -> None:
    async with owner(valkey_url, name, 1) as (configs, _, _):
        await configs.save("acme", config("one"), 60.0)
        found = await configs.load("acme")
        assert found is not None
        told, left_s = found
        assert told.server_time is not None
        assert 0 < left_s <= 60
        # By the engine's clock as much time has passed as it is good for less.
        assert (told.server_time - _NOW).total_seconds() == pytest.approx(60 - left_s, abs=0.002)
        assert replace(told, server_time=_NOW) == config("one")


async def test_what_is_left_for_another_stream_or_too_old_or_damaged_is_not_taken(
    valkey_url: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        owner(valkey_url, name, 1) as (configs, _, lease),
        redis.asyncio.Redis.from_url(valkey_url) as engine,
    ):
        assert await configs.load("acme") is None
        await configs.save("acme", config("one"), 60.0)
        assert await configs.load("another application") is None
        (key,) = [each async for each in engine.scan_iter(f"*{name}*:config:*")]
        for damaged in (b"{", b"{}", b'{"whose": "acme", "config": {}, "good_for_s": 60}', b"\xff"):
            await engine.hset(key, "content", damaged)
            assert await configs.load("acme") is None
            assert "cannot be read" in caplog.text
            caplog.clear()
        await configs.save("acme", config("one"), 0.001)
        async with asyncio.timeout(10):
            while await engine.exists(key):
                await asyncio.sleep(0.01)
        assert await configs.load("acme") is None
        lease.end()
        with pytest.raises(LeaseLost):
            await configs.load("acme")


class Broken:
    """A cipher that fails with a secret in what it raises."""

    def encrypt(self, content: bytes) -> bytes:
        raise RuntimeError(content)

    def decrypt(self, kept: bytes) -> bytes:
        raise RuntimeError(kept)


async def test_a_cipher_that_fails_keeps_nobody_from_serving(valkey_url: str, name: str) -> None:
    async with owner(valkey_url, name, 1, cipher=FernetCipher(Fernet.generate_key())) as (configs, _, _):
        await configs.save("acme", config("one"), 60.0)
    async with owner(valkey_url, name, 1, cipher=Broken()) as (configs, _, _):
        assert await configs.load("acme") is None
        with pytest.raises(ResumeStoreFailed, match="RuntimeError") as raised:
            await configs.save("acme", config("one"), 60.0)
        assert "signature" not in str(raised.value)
