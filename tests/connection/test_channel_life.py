"""The life of channels and of the configuration: what portals say of it, leave out, and change."""

import asyncio
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from bitrix_pull import PortalTrouble, State, StateChanged, Webhook
from bitrix_pull.emulator import Emulator, Owner
from bitrix_pull.emulator.push_server import PushServer
from bitrix_pull.errors import IncompleteConfig, PortalDeleted, PortalUnavailable
from tests import virtual_time
from tests.connection.listening import Listener, emulator, running

CONFIG = "pull.application.config.get"
CASES = json.loads((Path(__file__).parents[1] / "reference/channel_expire.json").read_text())["cases"]

PRIVATE, SHARED = Owner("application", 1), Owner("application")


def now() -> float:
    return asyncio.get_running_loop().time()


def troubles(listener: Listener) -> list[type[Exception]]:
    """Return the kinds of trouble that were told."""
    return [type(notice.error) for notice in listener.heard if isinstance(notice, PortalTrouble)]


def listened(emu: Emulator) -> list[str]:
    """Return the channels that are listened on."""
    return [channel.id.hex() for subscriber in emu.push.connections for channel in subscriber.channels]


def current(emu: Emulator, *owners: Owner) -> list[str]:
    """Return the present channels of owners."""
    return [emu.portal.channels.current(owner).id for owner in owners]


# -- what channel_expire says (protocol §3) -------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=[case["when"] for case in CASES])
@pytest.mark.parametrize("mode", ["application", "user"])
def test_only_the_shared_channel_of_user_mode_is_swapped(case: dict[str, Any], mode: str) -> None:
    """A recorded message, about a channel of ours: it brings another id, but never by itself."""

    async def main() -> None:
        async with emulator() as emu:
            auth = Webhook(emu.webhook_url) if mode == "user" else None
            method = "pull.config.get" if mode == "user" else CONFIG
            private, shared = Owner(mode, 1), Owner(mode)  # type: ignore[arg-type]
            async with running(Listener(emu, auth=auth)) as listener:
                await listener.reached(State.LIVE)
                is_private = ":" in case["message"]["params"]["channel"]["id"]
                owner = private if is_private else shared
                params = json.loads(json.dumps(case["message"]["params"]))
                ours = emu.portal.channels.current(owner)
                params["channel"]["id"] = emu.push.signer.sign(ours.subscribed)
                strange = "5" * 32
                if "new_channel" in params:
                    params["new_channel"]["id"] = emu.push.signer.sign(strange)
                    params["new_channel"]["end"] = "2030-01-01T00:00:00+00:00"
                calls = emu.portal.calls[method]
                emu.portal.send(
                    "channel_expire",
                    params,
                    module="pull",
                    users=[1] if is_private else None,
                    audience=mode,  # type: ignore[arg-type]
                )
                await asyncio.sleep(10)
                swaps = mode == "user" and params.get("new_channel", {}).get("type") == "shared"
                swaps = swaps and not is_private
                assert (strange in listened(emu)) == swaps
                assert emu.portal.calls[method] == calls + (0 if swaps else 1)
                assert ours.id in listened(emu) or swaps
                assert listener.state is State.LIVE

    virtual_time.run(main)


@pytest.mark.parametrize("older", [False, True])
def test_channels_that_were_replaced_or_removed_are_followed(older: bool) -> None:
    async def main() -> None:
        async with emulator() as emu, running(Listener(emu)) as listener:
            emu.portal.is_older = older
            await listener.reached(State.LIVE)
            for n, owner in enumerate([PRIVATE, SHARED] * 4):
                if n % 4 < 2:
                    emu.portal.rotate(owner)
                else:
                    emu.portal.remove(owner)
                emu.portal.send("x", {"n": n}, users=[1] if owner is PRIVATE else None)
                await listener.received(n + 1)
                await asyncio.sleep(100)
                assert set(listened(emu)) == set(current(emu, PRIVATE, SHARED))
                assert listener.state is State.LIVE
            assert listener.numbers == list(range(8))
            assert State.BACKOFF not in listener.states

    virtual_time.run(main)


# -- the end ----------------------------------------------------------------------------------


@pytest.mark.parametrize("channel", ["private", "shared"])
def test_an_outage_across_the_end_of_the_channels_loses_nothing(channel: str) -> None:
    """What was sent to the old channels after the cut is in their history, not in that of the new ones."""

    async def main() -> None:
        async with emulator() as emu, running(Listener(emu)) as listener:
            users = [1] if channel == "private" else None
            await listener.reached(State.LIVE)
            emu.portal.send("x", {"n": 0}, users=users)
            await listener.received(1)
            await asyncio.sleep(100)
            emu.push.faults.websocket_refusal = "reset"
            emu.push.faults.poll_refusal = "reset"
            await emu.push.disconnect_all()
            for n in range(1, 11):
                if n == 6:
                    emu.portal.expire()
                emu.portal.send("x", {"n": n}, users=users)
                await asyncio.sleep(5)
            emu.push.faults.websocket_refusal = emu.push.faults.poll_refusal = None
            await listener.received(11)
            await asyncio.sleep(10)
            assert listener.numbers == list(range(11))

    virtual_time.run(main)


@pytest.mark.parametrize("failures", [1, 3])
def test_where_the_renewal_fails_the_state_says_so_and_the_ladder_is_short(failures: int) -> None:
    async def main() -> None:
        async with emulator(channel_life_s=600) as emu, running(Listener(emu)) as listener:
            await listener.reached(State.LIVE)
            end = now() + 600
            await asyncio.sleep(599)
            emu.portal.faults.fail_rest(failures, 503)
            await asyncio.sleep(end + 0.5 - now())
            emu.portal.send("x", {"n": 0}, users=[1])
            assert listener.state.value == "renewing"
            await listener.reached(State.LIVE)
            # After one failure half a second, after the second and third five more each.
            assert now() - end <= 4 + (1 if failures == 1 else 14)
            await listener.received(1)
            assert PortalUnavailable in troubles(listener)
            ended = [n for n in listener.heard if isinstance(n, StateChanged) and n.state is State.BACKOFF]
            assert isinstance(ended[0].error, PortalUnavailable)
            assert ended[0].retry_in_s is not None
            assert ended[0].retry_in_s <= 0.7

    virtual_time.run(main)


def test_past_their_end_no_channels_count_as_live_however_long_the_portal_takes() -> None:
    async def main() -> None:
        async with emulator(channel_life_s=600) as emu, running(Listener(emu)) as listener:
            await listener.reached(State.LIVE)
            end = now() + 600
            await asyncio.sleep(590)
            emu.portal.faults.delay_s = 25.0
            await asyncio.sleep(end + 20 - now())
            assert listener.state.value == "configuring"
            assert not listener.health().live
            # The old stream is still there, for what the portal might send by it.
            assert emu.push.connections
            await asyncio.sleep(20)
            assert listener.state is State.LIVE

    virtual_time.run(main)


@pytest.mark.parametrize("version", [3, 4, 5])
def test_an_ill_portal_is_asked_by_the_ladder_for_as_long_as_it_takes(version: int) -> None:
    async def main() -> None:
        async with emulator(version=version, channel_life_s=600) as emu, running(Listener(emu)) as listener:
            await listener.reached(State.LIVE)
            end = now() + 600
            emu.portal.faults.fail_rest(10_000, 503)
            await asyncio.sleep(600 + 3_600)
            assert listener.state is State.BACKOFF
            # The first attempts come soon, the later ones once a minute.
            assert 50 <= emu.portal.calls[CONFIG] <= 75
            emu.portal.send("x", {"n": 0}, users=[1])
            emu.portal.faults._failures.clear()
            healed_at = now()
            await listener.reached(State.LIVE)
            assert now() - healed_at <= 75
            await listener.received(1)
            live = [n for n in listener.heard if isinstance(n, StateChanged) and n.state is State.LIVE]
            assert len(live) == 2
            assert now() > end

    virtual_time.run(main)


# -- what is left out (protocol §2) --------------------------------------------------------------


@pytest.mark.parametrize("left_out", ["private", "shared"])
def test_a_start_with_a_channel_left_out_is_live_with_the_other_and_completed_soon(left_out: Any) -> None:
    async def main() -> None:
        async with emulator() as emu:
            emu.portal.faults.fail_locks(3, left_out)
            listener = Listener(emu)
            async with running(listener):
                await listener.wait_live(1)
                assert len(listened(emu)) == 1
                await asyncio.sleep(0.3)
                for n in range(40):
                    emu.portal.send("x", {"n": n}, users=[1] if n % 2 else None)
                    await asyncio.sleep(2)
                await listener.received(40)
                # What was sent to the other one meanwhile has waited in its history.
                assert sorted(listener.numbers) == list(range(40))
                assert set(listened(emu)) == set(current(emu, PRIVATE, SHARED))
                assert troubles(listener) == [IncompleteConfig]
                assert State.FAILED not in listener.states

    virtual_time.run(main)


def test_a_start_without_any_channel_is_repeated() -> None:
    async def main() -> None:
        async with emulator() as emu:
            emu.portal.faults.fail_locks(2)
            async with Listener(emu) as listener:
                assert now() <= 10
                assert emu.portal.calls[CONFIG] == 3
                assert listener.state is State.LIVE

    virtual_time.run(main)


@pytest.mark.parametrize("left_out", [["private"], ["shared"], []])
def test_at_a_renewal_what_is_left_out_replaces_nothing_that_is_good(left_out: list[Any]) -> None:
    async def main() -> None:
        async with emulator() as emu, running(Listener(emu)) as listener:
            await listener.reached(State.LIVE)
            emu.portal.faults.fail_locks(2, *left_out)
            # For an hourly look, and what follows it.
            for n in range(120):
                emu.portal.send("x", {"n": n}, users=[1] if n % 2 else None)
                await asyncio.sleep(37)
            await listener.received(120)
            assert listener.numbers == list(range(120))
            assert listener.states.count(State.LIVE) == 1
            assert troubles(listener) == [IncompleteConfig]
            assert emu.push.counters.websockets == 1

    virtual_time.run(main)


def test_after_the_end_what_is_left_out_comes_later_and_nothing_is_lost() -> None:
    async def main() -> None:
        async with emulator(channel_life_s=600) as emu, running(Listener(emu)) as listener:
            await listener.reached(State.LIVE)
            await asyncio.sleep(590)
            emu.portal.faults.fail_locks(3, "private")
            for n in range(60):
                emu.portal.send("x", {"n": n}, users=[1] if n % 2 else None)
                await asyncio.sleep(1)
            await listener.received(60)
            assert sorted(listener.numbers) == list(range(60))
            assert set(listened(emu)) == set(current(emu, PRIVATE, SHARED))

    virtual_time.run(main)


# -- maintenance (protocol §2) --------------------------------------------------------------------


@pytest.mark.parametrize("code", ["PORTAL_DELETED", "PAYMENT_REQUIRED", "SERVER_ERROR"])
def test_maintenance_is_waited_out_with_a_request_in_10_to_15_minutes(code: Any) -> None:
    async def main() -> None:
        async with emulator() as emu, running(Listener(emu)) as listener:
            await listener.reached(State.LIVE)
            await asyncio.sleep(100)
            emu.portal.faults.maintenance = code
            asked_at: list[float] = []
            calls = emu.portal.calls[CONFIG]
            await emu.push.disconnect_all(4010, "4010: Wrong Channel Id.")
            until = now() + 2 * 3_600
            while now() < until:
                await asyncio.sleep(5)
                if emu.portal.calls[CONFIG] > calls:
                    calls = emu.portal.calls[CONFIG]
                    asked_at.append(now())
            assert listener.state.value == "backoff"
            assert 8 <= len(asked_at) <= 13
            assert all(595 <= later - earlier <= 905 for earlier, later in pairwise(asked_at))
            waits = [n for n in listener.heard if isinstance(n, StateChanged) and n.state is State.BACKOFF]
            assert waits[0].error is not None
            emu.portal.faults.maintenance = None
            emu.portal.send("x", {"n": 0}, users=[1])
            over_at = now()
            await listener.reached(State.LIVE)
            assert now() - over_at <= 901
            await listener.received(1)

    virtual_time.run(main)


def test_maintenance_does_no_harm_to_channels_that_are_good_and_counts_from_their_end() -> None:
    async def main() -> None:
        async with emulator(channel_life_s=7_200) as emu, running(Listener(emu)) as listener:
            await listener.reached(State.LIVE)
            emu.portal.faults.maintenance = "PORTAL_DELETED"
            await asyncio.sleep(7_100)
            assert listener.state.value == "live"
            assert troubles(listener) == [PortalDeleted]
            await asyncio.sleep(200)
            assert listener.state.value == "backoff"
            emu.portal.faults.maintenance = None
            await asyncio.sleep(901)
            assert listener.state is State.LIVE

    virtual_time.run(main)


@pytest.mark.parametrize("code", ["PORTAL_DELETED", "PAYMENT_REQUIRED", "SERVER_ERROR"])
def test_at_the_first_start_it_is_final(code: Any) -> None:
    async def main() -> None:
        async with emulator() as emu:
            emu.portal.faults.maintenance = code
            async with running(Listener(emu)) as listener:
                await listener.reached(State.FAILED)
                await asyncio.sleep(3_600)
                assert emu.portal.calls[CONFIG] == 1

    virtual_time.run(main)


# -- settings ----------------------------------------------------------------------------------------


def test_what_an_administrator_changes_is_noticed_within_about_an_hour_without_a_gap() -> None:
    async def main() -> None:
        async with emulator() as emu, running(Listener(emu)) as listener:
            await listener.reached(State.LIVE)
            await asyncio.sleep(100)
            emu.portal.change_settings()
            changed_at = now()
            n = 0
            while emu.push.counters.websockets == 1:
                emu.portal.send("x", {"n": n}, users=[1] if n % 2 else None)
                n += 1
                await asyncio.sleep(20)
                assert emu.push.connections, "made before it was broken"
            assert now() - changed_at <= 3_930
            await listener.received(n)
            assert listener.numbers == list(range(n))
            assert State.BACKOFF not in listener.states

    virtual_time.run(main)


def test_a_portal_that_moves_to_another_push_server_is_followed() -> None:
    async def main() -> None:
        async with emulator() as emu, emulator() as other, running(Listener(emu)) as listener:
            await listener.reached(State.LIVE)
            emu.portal.change_settings(other.push, other.portal.address)
            await asyncio.sleep(3_930)
            assert listener.state is State.LIVE
            assert isinstance(other.push, PushServer)
            assert len(other.push.connections) == 1
            emu.portal.send("x", {"n": 0}, users=[1])
            await listener.received(1)

    virtual_time.run(main)


def test_looks_are_spread_and_change_nothing_where_nothing_has_changed() -> None:
    async def main() -> None:
        async with emulator(version=5) as emu, running(Listener(emu)) as listener:
            await listener.reached(State.LIVE)
            asked_at = [now()]
            while now() < 10 * 3_600:
                await asyncio.sleep(10)
                if emu.portal.calls[CONFIG] > len(asked_at):
                    asked_at.append(now())
            gaps = [later - earlier for earlier, later in pairwise(asked_at)]
            assert len(gaps) >= 8
            assert all(3_290 <= gap <= 3_920 for gap in gaps)
            assert max(gaps) - min(gaps) > 100
            assert emu.push.counters.websockets == 1

    virtual_time.run(main)


# -- version 2 (protocol §4.1) ------------------------------------------------------------------------


def test_version_2_is_judged_by_its_own_pings() -> None:
    async def main() -> None:
        async with emulator(version=2) as emu, running(Listener(emu)) as listener:
            await listener.reached(State.LIVE)
            await asyncio.sleep(3_000)
            assert emu.push.counters.websockets == 1, "it answers no ping, and lives"
            assert listener.health().malformed == 0
            for subscriber in emu.push.connections:
                subscriber.line.end("silence")
            silent_at = now()
            while emu.push.counters.websockets == 1:
                await asyncio.sleep(1)
            assert now() - silent_at <= 105
            emu.portal.send("x", {"n": 0})
            await listener.received(1)

    virtual_time.run(main)


def test_version_2_says_by_1008_that_a_channel_is_unknown() -> None:
    async def main() -> None:
        async with emulator(version=2) as emu, running(Listener(emu)) as listener:
            await listener.reached(State.LIVE)
            await asyncio.sleep(100)
            calls = emu.portal.calls[CONFIG]
            emu.push.faults.refuse_channels = True
            await emu.push.disconnect_all()
            await asyncio.sleep(0.3)
            assert emu.portal.calls[CONFIG] == calls + 1
            emu.push.faults.refuse_channels = False
            await listener.reached(State.LIVE)

    virtual_time.run(main)


@pytest.mark.parametrize("failures", [1, 2])
@pytest.mark.parametrize("attempt", range(8))
def test_a_failure_ahead_of_the_end_puts_off_nothing_that_is_due_at_the_end(
    failures: int, attempt: int
) -> None:
    async def main() -> None:
        async with emulator(channel_life_s=1_800) as emu, running(Listener(emu)) as listener:
            await listener.reached(State.LIVE)
            end = now() + 1_800
            await asyncio.sleep(1_600)
            emu.portal.faults.fail_rest(failures, 503)
            await asyncio.sleep(end + 5 - now())
            assert listener.state is State.LIVE
            assert State.BACKOFF not in listener.states

    virtual_time.run(main)
