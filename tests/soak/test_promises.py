"""Each promise of ``python -m tests.soak --list``, in small."""

import sys
from collections.abc import Callable
from typing import Any

import pytest

from tests.soak.audits import polls_blocked, slow_audit
from tests.soak.blocked import blocked_websocket
from tests.soak.closing import closing
from tests.soak.clusters import hub_clocks, hub_cut, hub_kill, hub_pause, hub_rolling, hub_valkey_restart
from tests.soak.crashes import sigkill
from tests.soak.cuts import cuts, short_cuts
from tests.soak.failover import hub_failover
from tests.soak.gaps import history_dropped
from tests.soak.handlers import poison
from tests.soak.hub_engine import hub_leases, hub_stream
from tests.soak.hub_handlers import hub_stale
from tests.soak.hub_publishing import hub_publish
from tests.soak.hubs import hub_embedded
from tests.soak.inspecting import hub_inspector, inspector
from tests.soak.liveness import busy_loop, half_open, paused
from tests.soak.load import growth, overload
from tests.soak.loops import loops
from tests.soak.outages import first_outage, hour_of_502, live_again, server_gone
from tests.soak.outcome import Outcome
from tests.soak.portal_events import killed, latency, lost_announcements, poisoned, portal_events, two
from tests.soak.publishing import publishing
from tests.soak.races import overtaking, replay_race
from tests.soak.recording import record
from tests.soak.scenarios import SCENARIOS
from tests.soak.servers import counter_goes_back, server_moves
from tests.soak.sizes import Way, large_live, large_replay
from tests.soak.sleeping import asleep
from tests.soak.stores import damaged_stores, store_key, stuck_event
from tests.soak.token_refreshes import token_race, token_sigkill

SOME_WAYS: list[Way] = [(4, True, "websocket"), (4, True, "long_polling")]
# So large that a tape without bound would grow by more than is promised.
_LARGE: dict[str, Any] = {"text_bytes": 2_000, "without_page": True}
_STALE: dict[str, Any] = {"away_s": 3.5, "portals": 6, "rate": 10.0, "lease_s": 1.5}
_FEW: dict[str, Any] = {"portals": 8, "rate": 24.0, "lease_s": 1.5}

SHORT: list[tuple[Callable[..., Outcome], dict[str, Any]]] = [
    (cuts, {"seeds": 1, "messages": 800, "cuts": 30}),
    (replay_race, {"times": 12}),
    (replay_race, {"times": 6, "version": 5}),
    (replay_race, {"times": 5, "polling": True}),
    (replay_race, {"times": 8, "refused_audits": True}),
    (overtaking, {"times": 20}),
    (first_outage, {"times": 10}),
    (server_gone, {"gone_s": (1.0, 30.0, 600.0, 3_600.0)}),
    (short_cuts, {"seconds": 10.0, "rate": 100}),
    (hour_of_502, {"times": 2}),
    (blocked_websocket, {"events": 2}),
    (asleep, {"hours": 30}),
    (live_again, {"cuts": 20, "virtual": True}),
    (live_again, {"cuts": 20, "virtual": True, "quiet": True}),
    (live_again, {"cuts": 5, "live_s": 0.2}),
    (poison, {"messages": 500}),
    (sigkill, {"kills": 1}),
    (inspector, {"seconds": 3.0, "rate": 4_000, **_LARGE}),
    (hub_inspector, {"seconds": 3.0, "rate": 4_000, **_LARGE}),
    (history_dropped, {"times": 25}),
    (counter_goes_back, {"times": 4}),
    (counter_goes_back, {"times": 4, "silent": True}),
    (counter_goes_back, {"times": 2, "polling": True}),
    (counter_goes_back, {"times": 2, "version": 5}),
    (server_moves, {"times": 4}),
    (slow_audit, {"times": 8}),
    (slow_audit, {"times": 6, "polling": True}),
    (polls_blocked, {"times": 10}),
    (polls_blocked, {"times": 10, "no_second": True}),
    (
        large_replay,
        {"replays": ((8, 900_000),), "bytes_per_s": 20_000_000, "ways": SOME_WAYS},
    ),
    (large_live, {"seconds": 1.0, "bursts": 1, "ways": SOME_WAYS[:1]}),
    (half_open, {"times": 20}),
    (half_open, {"times": 15, "version": 5}),
    (paused, {"events": 700, "versions": (4,), "ends": ("reset", "silence")}),
    (busy_loop, {}),
    (busy_loop, {"version": 5}),
    (overload, {"seconds": 1.5}),
    (overload, {"seconds": 1.5, "overflow": "drop_oldest"}),
    # How soon a busy machine lets a thread write is nothing to promise here.
    (record, {"seconds": 2.0, "rate": 1_000, "lost_within_s": 2.0}),
    (record, {"seconds": 2.0, "rate": 500, "lost_within_s": 2.0, "by_network": True}),
    (closing, {"moments": 15}),
    (loops, {"events": 4, "every_s": 0.3}),
    (portal_events, {"changes": 600, "records": 400, "cuts": 9}),
    (latency, {"changes": 3}),
    (lost_announcements, {"changes": 4}),
    (two, {"changes": 50, "cuts": 2}),
    (killed, {"kills": 1}),
    (poisoned, {"changes": 150, "records": 60}),
    (publishing, {"seeds": 1, "publishes": 60}),
    (store_key, {}),
    (stuck_event, {"events": 1_000, "kills": 1}),
    (damaged_stores, {"every": 4}),
    (token_race, {"rounds": 1, "processes": 3}),
    (token_sigkill, {"kills": 1}),
    (hub_embedded, {"portals": 60, "rate": 40.0, "idle_s": 2.0, "kib": 150.0, "cpu_percent": 25.0}),
    (hub_kill, {"times": 1, **_FEW}),
    (hub_pause, {"times": 1, "pause_s": 3.0, **_FEW}),
    (hub_cut, {"times": 1, "cut_s": 4.0, **_FEW}),
    (hub_stale, {"times": 2, **_STALE}),
    (hub_stale, {"times": 2, "in_postgres": True, **_STALE}),
    (hub_valkey_restart, {"times": 2, **_FEW}),
    (hub_failover, {"times": 1, **_FEW}),
    # That no lease is lost is promised here: a busy machine may keep a worker from renewing a short one.
    (hub_clocks, {"seconds": 2.0, **_FEW, "lease_s": 6.0}),
    (hub_rolling, {"times": 1, "workers": 3, **_FEW}),
    (hub_publish, {"times": 1, **_FEW}),
    (hub_leases, {"seconds": 3.0, "leases": 200, "workers": 2}),
    (hub_stream, {"events": 4_000, "at_least": 100.0}),
    # Who keeps so few messages takes 0.4 MiB, and 0.1 those whose ids are remembered on purpose.
    (growth, {"messages": 400, "reconnects": 5, "warm_up": 2, "mib": 0.25}),
]


def _named(case: object) -> str:
    if isinstance(case, dict):
        return ",".join(f"{name}={value}" for name, value in case.items())
    return getattr(case, "__name__", "")


@pytest.mark.parametrize(("scenario", "size"), SHORT, ids=_named)
def test_promise(scenario: Callable[..., Outcome], size: dict[str, Any]) -> None:
    outcome = scenario(**size)
    assert outcome.figures
    # What real seconds promise, the command holds; here it would be a matter of the machine.
    assert not outcome.broken, str(outcome)


def test_every_scenario_is_run_here() -> None:
    assert {scenario for scenario, _ in SHORT} == set(SCENARIOS.values())


def test_the_command_exits_non_zero_for_a_broken_promise(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.soak import __main__ as command

    outcome = Outcome()
    outcome.exactly(0, lost=3)
    monkeypatch.setitem(SCENARIOS, "cuts", lambda: outcome)
    monkeypatch.setattr(sys, "argv", ["soak", "cuts"])
    assert command.main() == 1
    assert "lost=3" in capsys.readouterr().out
    assert "BROKEN" in str(outcome)


def test_the_command_also_holds_what_real_seconds_promise(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.soak import __main__ as command

    for took_s, code in ((1.0, 0), (1.1, 1)):
        outcome = Outcome()
        outcome.in_time(1.0, slowest_s=took_s)
        assert not outcome.broken
        monkeypatch.setitem(SCENARIOS, "closing", lambda outcome=outcome: outcome)
        monkeypatch.setattr(sys, "argv", ["soak", "closing"])
        assert command.main() == code
        assert ("BROKEN: slowest_s <= 1" in capsys.readouterr().out) is bool(code)


def test_the_command_lists_what_it_knows(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.soak import __main__ as command

    monkeypatch.setattr(sys, "argv", ["soak", "--list"])
    assert command.main() == 0
    listed = capsys.readouterr().out
    assert [line.split()[0] for line in listed.splitlines()] == list(SCENARIOS)
