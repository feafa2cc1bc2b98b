"""What a hub is told of its portals, whatever the cluster is made of."""

import asyncio

import pytest

from bitrix_pull import InvalidArgument, LeaseLost
from bitrix_pull.hub.cluster import Acquired, Cluster, Lease, Lost, Recalled, SingleWorker, Term


def test_a_lease_ends_with_its_term_and_stays_ended() -> None:
    now = 10.0
    term = Term(15.0, clock=lambda: now)
    lease, other = (Lease(key, "a", 7, term) for key in ("acme", "beta"))
    assert lease.valid()
    now = 14.9
    term.renew(20.0)
    term.renew(17.0)  # An answer that was overtaken takes nothing back.
    now = 19.9
    assert lease.valid()
    lease.end()
    assert not lease.valid()
    assert other.valid()
    now = 20.0
    assert not other.valid()
    term.renew(100.0)
    assert not other.valid()
    with pytest.raises(LeaseLost, match="acme"):
        lease.require()


def test_a_term_that_nobody_asked_about_in_time_cannot_be_renewed() -> None:
    now = 10.0
    term = Term(15.0, clock=lambda: now)
    now = 16.0
    term.renew(21.0)
    assert not Lease("acme", "a", 7, term).valid()


async def test_one_worker_gets_every_portal_and_gives_up_what_is_not_wanted() -> None:
    cluster = SingleWorker()
    assert isinstance(cluster, Cluster)
    async with cluster.join("a") as membership:
        membership.want(["acme", "beta"])
        changes = membership.changes()
        leases = {}
        for _ in range(2):
            change = await anext(changes)
            assert isinstance(change, Acquired)
            leases[change.lease.key] = change.lease
        assert leases.keys() == {"acme", "beta"}
        assert all(lease.valid() and lease.owner == "a" for lease in leases.values())

        waiting = asyncio.ensure_future(anext(changes))
        await asyncio.sleep(0)
        assert not waiting.done()
        membership.want(["beta"])
        assert await waiting == Recalled(leases["acme"])
        assert leases["acme"].valid()
        await membership.release(leases["acme"])
        assert not leases["acme"].valid()

        membership.want(["acme", "beta"])
        again = await anext(changes)
        assert isinstance(again, Acquired)
        assert again.lease.epoch > leases["acme"].epoch

        again.lease.end()
        assert await anext(changes) == Lost(again.lease)
        once_more = await anext(changes)
        assert isinstance(once_more, Acquired)
        assert once_more.lease.epoch > again.lease.epoch

        membership.leave()
        async for change in changes:
            assert isinstance(change, Recalled)
            await membership.release(change.lease)
        assert not once_more.lease.valid()


async def test_one_process_after_the_other_has_greater_epochs() -> None:
    epochs = []
    for _ in range(2):
        async with SingleWorker().join() as membership:
            membership.want(["acme"])
            change = await anext(membership.changes())
            epochs.append(change.lease.epoch)
        await asyncio.sleep(0.01)
    assert epochs[0] < epochs[1]


@pytest.mark.parametrize("keys", [[""], ["a\nb"], ["x" * 201], ["acme", "acme"], [7]])
async def test_keys_that_are_none_or_alike_are_refused(keys: list[str]) -> None:
    async with SingleWorker().join() as membership:
        with pytest.raises(InvalidArgument, match=r"key"):
            membership.want(keys)
