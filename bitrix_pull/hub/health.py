"""How a hub is doing."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

PortalState = Literal["live", "starting", "disconnected", "failed", "paused", "elsewhere", "stopping"]


@dataclass(slots=True, frozen=True)
class PortalStatus:
    """How one portal is doing.

    Attributes:
        key: Its key.
        state: "live"; "starting" and not live yet; "disconnected" for now, and trying; "failed",
            and tried again slowly; "paused"; "elsewhere" if another worker has it, or none yet;
            "stopping".
        epoch: The fence of this worker's lease; 0 without one.
        last_error: What is wrong at present, in words; "" if nothing is.
        attempts: How often in a row it has failed.
        retry_in_s: In "failed": seconds until the next attempt; else None.
    """

    key: str
    state: PortalState
    epoch: int = 0
    last_error: str = ""
    attempts: int = 0
    retry_in_s: float | None = None


@dataclass(slots=True, frozen=True)
class HubHealth:
    """How a hub is doing.

    Attributes:
        worker: What this worker is called.
        portals: How many there are.
        served: How many of them this worker has.
        live: How many of those are live.
        states: How many are in each state.
        failed: What is wrong with those that have failed, by key.
        waiting_bytes: Bytes of the events that handlers have not finished with, of all portals.
        alive: False once it runs no more.
        workers: How many workers of the cluster live, as far as this one knows; None before it
            has joined.
        leases: How many portals this worker has the right to serve.
        gained: How often it was given one, since it was made.
        ended: How often it has one no more, by cause. It was given up: "rebalanced" to another
            worker, "unwanted" as it was removed or paused, "leaving" as this worker leaves. Or it
            was lost: "expired", as the lease was not renewed in time; "fenced", as another worker
            has written for the portal with a greater epoch; "forgotten" by the cluster;
            "gone_back" or "damaged", as the engine has lost what it had confirmed, or holds
            something else.
    """

    worker: str
    portals: int
    served: int
    live: int
    states: Mapping[str, int]
    failed: Mapping[str, str]
    waiting_bytes: int
    alive: bool
    workers: int | None = None
    leases: int = 0
    gained: int = 0
    ended: Mapping[str, int] = field(default_factory=dict[str, int])

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)
