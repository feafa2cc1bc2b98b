"""All scenarios by the names that the command knows."""

from collections.abc import Callable

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
from tests.soak.servers import counter_goes_back, server_moves
from tests.soak.sizes import large_live, large_replay
from tests.soak.sleeping import asleep
from tests.soak.stores import damaged_stores, store_key, stuck_event
from tests.soak.token_refreshes import token_race, token_sigkill

SCENARIOS: dict[str, Callable[..., Outcome]] = {
    "cuts": cuts,
    "short-cuts": short_cuts,
    "replay-race": replay_race,
    "overtaking": overtaking,
    "history-dropped": history_dropped,
    "counter-goes-back": counter_goes_back,
    "server-moves": server_moves,
    "slow-audit": slow_audit,
    "polls-blocked": polls_blocked,
    "large-replay": large_replay,
    "large-live": large_live,
    "poison": poison,
    "sigkill": sigkill,
    "record": record,
    "closing": closing,
    "overload": overload,
    "growth": growth,
    "inspector": inspector,
    "hub-inspector": hub_inspector,
    "half-open": half_open,
    "busy-loop": busy_loop,
    "paused": paused,
    "first-outage": first_outage,
    "server-gone": server_gone,
    "hour-of-502": hour_of_502,
    "live-again": live_again,
    "blocked-websocket": blocked_websocket,
    "asleep": asleep,
    "loops": loops,
    "portal-events": portal_events,
    "portal-events-latency": latency,
    "portal-events-lost": lost_announcements,
    "portal-events-two": two,
    "portal-events-sigkill": killed,
    "portal-events-poison": poisoned,
    "publishing": publishing,
    "store-key": store_key,
    "stuck-event": stuck_event,
    "damaged-stores": damaged_stores,
    "token-race": token_race,
    "token-sigkill": token_sigkill,
    "hub-embedded": hub_embedded,
    "hub-kill": hub_kill,
    "hub-pause": hub_pause,
    "hub-cut": hub_cut,
    "hub-stale": hub_stale,
    "hub-valkey-restart": hub_valkey_restart,
    "hub-failover": hub_failover,
    "hub-clocks": hub_clocks,
    "hub-rolling": hub_rolling,
    "hub-publish": hub_publish,
    "hub-leases": hub_leases,
    "hub-stream": hub_stream,
}
