"""A portal's stores under its lease: with a log and without, what knows of leases and what does not."""

from pathlib import Path

import pytest

from bitrix_pull import (
    AccessToken,
    FileTokenStore,
    Hub,
    LeaseLost,
    MemoryStore,
    OAuth,
    Portal,
    PullError,
    ResumePoint,
    ResumeStore,
    SqliteStore,
    Tokens,
    TokenStore,
)
from bitrix_pull.hub.cluster import Lease
from bitrix_pull.hub.fences import under_lease
from bitrix_pull.hub.valkey import ValkeyCluster, ValkeyResumeStore, ValkeyStream, ValkeyTokenStore
from bitrix_pull.portal.rest import RestClient
from tests.portal.conftest import StubPortal, portal  # noqa: F401 - a fixture
from tests.portal.granting import Grant, client, grant, stale  # noqa: F401 - fixtures

POINT, LATER = ResumePoint("0" * 25 + "1"), ResumePoint("0" * 25 + "2")


class Worker:
    """One worker's own objects for the same portal."""

    def __init__(self, url: str, name: str, stub: StubPortal, epoch: int, *, logged: bool) -> None:
        self.tokens = ValkeyTokenStore(url, "acme", name=name)
        self.portal = Portal("acme", oauth(stub, self.tokens))
        self.lease = Lease("acme", f"worker {epoch}", epoch)
        self.log = ValkeyStream(url, name=name)
        writer = self.log.writer(self.lease) if logged else None
        self.resume: ResumeStore = under_lease(
            self.lease, self.portal, ValkeyResumeStore(url, name=name), writer
        )

    async def call(self) -> object:
        rest = RestClient(self.portal.credentials)
        try:
            return await rest.call("app.info")
        finally:
            await rest.close()


def oauth(stub: StubPortal, tokens: TokenStore) -> OAuth:
    return OAuth(
        stub.url,
        client_id="app.1",
        client_secret="client-secret",
        oauth_url=f"{stub.url}/oauth/token/",
        tokens=tokens,
    )


@pytest.mark.parametrize("logged", [True, False], ids=["with a log", "without"])
async def test_neither_resume_point_nor_tokens_are_written_by_the_owner_before(
    valkey_url: str,
    name: str,
    portal: StubPortal,  # noqa: F811
    grant: Grant,  # noqa: F811
    logged: bool,
) -> None:
    old, new = (Worker(valkey_url, name, portal, epoch, logged=logged) for epoch in (1, 2))
    await old.tokens.save(Tokens.read(stale()))
    for worker in (old, new):
        await worker.resume.open()
    await old.resume.load("key")
    await old.resume.save("key", POINT)
    assert await new.resume.load("key") == POINT
    assert await new.call() == "access-2"
    # By its own clock the lease of the first one is good.
    assert old.lease.valid()
    with pytest.raises(LeaseLost):
        await old.resume.save("key", LATER)
    grant.number = 3
    with pytest.raises(PullError, match=r"does not have the portal|another worker has the portal"):
        await old.call()
    assert (grant.refreshes, await new.resume.load("key")) == (1, POINT)
    for worker in (old, new):
        await worker.resume.close()


@pytest.mark.parametrize("logged", [True, False], ids=["with a log", "without"])
async def test_nothing_is_written_once_the_lease_can_have_ended(
    valkey_url: str,
    name: str,
    portal: StubPortal,  # noqa: F811
    grant: Grant,  # noqa: F811
    logged: bool,
) -> None:
    worker = Worker(valkey_url, name, portal, 1, logged=logged)
    await worker.tokens.save(Tokens.read(stale()))
    await worker.resume.open()
    await worker.resume.load("key")
    worker.lease.end()
    with pytest.raises(LeaseLost):
        await worker.resume.save("key", POINT)
    with pytest.raises(PullError, match="does not have the portal"):
        await worker.call()
    assert grant.refreshes == 0
    await worker.resume.close()


def test_what_knows_of_no_leases_is_left_as_it_is(tmp_path: Path) -> None:
    lease = Lease("acme", "a", 1)
    auth = OAuth(
        "acme.bitrix24.com",
        client_id="app.1",
        client_secret="secret",
        tokens=FileTokenStore(tmp_path / "tokens.json"),
    )
    for credentials in (auth, AccessToken("acme.bitrix24.com", "token")):
        for store in (MemoryStore(), SqliteStore(tmp_path / "resume.db")):
            assert under_lease(lease, Portal("acme", credentials), store) is store


@pytest.mark.parametrize("shared", [True, False])
async def test_a_hub_says_where_workers_share_no_resume_points(
    valkey_url: str, name: str, shared: bool, caplog: pytest.LogCaptureFixture
) -> None:
    resume = ValkeyResumeStore(valkey_url, name=name) if shared else None
    async with Hub([], cluster=ValkeyCluster(valkey_url, name=name), resume=resume).serving():
        assert ("knows of no leases" in caplog.text) is not shared
