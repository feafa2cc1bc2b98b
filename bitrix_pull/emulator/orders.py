"""What can be ordered of an emulator in JSON: by its control API, and by files on the command line."""

import random
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from bitrix_pull.emulator.channels import Audience, Owner
from bitrix_pull.emulator.faults import ConnectionFaults, End, seeded
from bitrix_pull.emulator.faults.portal import ChannelKind, Maintenance
from bitrix_pull.emulator.history import MAX_EXPIRY_S
from bitrix_pull.emulator.push_faults import ClosedAtOnce
from bitrix_pull.emulator.server import Emulator

Part = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]
Status = Annotated[int, Field(ge=200, le=599)]
UserId = Annotated[int, Field(gt=0)]


class Order(BaseModel):
    """Something that is ordered; unknown names are refused, so that none is misspelt unnoticed."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True)

    @property
    def named(self) -> Mapping[str, Any]:
        """What was named: the rest stays as it is."""
        return {name: getattr(self, name) for name in self.model_fields_set}


# -- events and records ---------------------------------------------------------------------


class Event(Order):
    """An event that the portal's backend sends."""

    command: str = Field(description="The kind of event within its module.")
    params: Any = Field(None, description="Any JSON.")
    module: str = "application"
    users: list[UserId] | None = Field(None, description="To these users; null: on the shared channel.")
    audience: Audience = Field(
        "application", description="Whose channels: the application's, or user mode's."
    )
    expiry_s: int = Field(MAX_EXPIRY_S, ge=0, description="How long it is kept for replay.")


class Change(Order):
    """Something that happened on the portal, for the offline handlers of the application."""

    name: str = Field(description='Such as "ONTASKUPDATE"; in any case.')
    data: Any = Field(False, description='Such as {"FIELDS": {"ID": "7"}}.')
    user_id: int | None = Field(1, description="Who did it; null: nobody.")


class Deal(Order):
    """Fields of a deal."""

    fields: dict[str, Any] = Field(default_factory=dict[str, Any])


# -- access -----------------------------------------------------------------------------------


class TokenWanted(Order):
    """A new access token of the application."""

    user_id: UserId = 1
    expires_in_s: float | None = Field(None, description="null: it does not expire by itself.")


class TokenExpired(Order):
    """A token that shall be expired."""

    token: str | None = Field(
        None, description="Access or refresh token; null: the access token told at first."
    )


# -- channels and connections -----------------------------------------------------------------


class Whose(Order):
    """Whose channel."""

    audience: Audience = "application"
    user_id: int | None = Field(None, description="null: the shared one.")


class Channels(Order):
    """Which channels."""

    owners: list[Whose] | None = Field(None, description="null: all that have been asked for.")

    @property
    def chosen(self) -> list[Owner]:
        """Their owners; none for all."""
        return [Owner(whose.audience, whose.user_id) for whose in self.owners or ()]


class Ending(Order):
    """How connections end, or stand still."""

    how: Literal["close", "fin", "reset", "silence", "stall"] = Field(
        "reset",
        description="By a close code, FIN or RST; half-open, without a sign; or a pause that loses nothing.",
    )
    code: Annotated[int, Field(ge=1000, le=4999)] = 1012
    reason: str = ""
    stall_s: Seconds = 10.0
    connections: list[int] | None = Field(None, description="Their numbers; null: all.")


# -- the server's memory and time -----------------------------------------------------------------


class Forgetting(Order):
    """What the push server forgets."""

    until: str | None = Field(None, description="Up to and with this mid; null: all.")


class Restart(Order):
    """A restart of portal and push server."""

    keep_history: bool = Field(True, description="False: the push server's Redis is lost with it.")


class Move(Order):
    """A move to another push server."""

    epoch: int | None = Field(None, ge=0, lt=10**10, description="The first 10 digits of its mids.")


class Advance(Order):
    """How far the clock of portal and push server is put forward."""

    seconds: Seconds


# -- faults ---------------------------------------------------------------------------------


class RestFailures(Order):
    """How the next REST calls fail."""

    times: Count = 1
    status: Status = 502
    body: str = "<html><body>Bad Gateway</body></html>"
    content_type: str = "text/html"
    applied: bool = Field(False, description="What is asked is done all the same.")


class Closed(Order):
    """101, and then this close frame."""

    code: Annotated[int, Field(ge=1000, le=4999)] = 1008
    reason: str = ""


class ConnectionOrder(Order):
    """What befalls connections that are opened from now on. Parts are probabilities."""

    overtaken: Part = 0.0
    duplicated: Part = 0.0
    garbled: Part = 0.0
    fragment_bytes: Annotated[int, Field(gt=0)] | None = None
    gather_s: Seconds | None = None
    close_after_frames: Count | None = None
    close_code: Annotated[int, Field(ge=1000, le=4999)] = 1012
    cut_after_bytes: Count | None = None
    end: End = "fin"
    bytes_per_s: Annotated[float, Field(gt=0)] | None = None
    stall_after_bytes: Count | None = None
    stall_s: Seconds = 0.0
    deaf: bool = False
    mute: bool = False

    @property
    def script(self) -> Callable[[int], ConnectionFaults]:
        """What befalls each connection, by its number."""
        return lambda number: ConnectionFaults(**self.named, dice=random.Random(f"{self}/{number}"))


class Faults(Order):
    """How portal and push server misbehave from now on. What is not named stays as it is."""

    websocket_refusal: Status | Closed | Literal["reset", "black_hole"] | None = None
    poll_refusal: Status | Literal["reset", "black_hole"] | None = None
    refuse_channels: bool = False
    ignore_token_ends: bool = False
    keeps_nothing: bool = Field(False, description="The history keeps nothing of what is published.")
    maintenance: Maintenance | None = None
    delay_s: Seconds = Field(0.0, description="How long every REST call waits before it is served.")
    lose_announcements: bool = False
    locked_channels: list[ChannelKind] = Field(default_factory=list[ChannelKind])
    connections: ConnectionOrder | None = Field(None, description="Of WebSockets.")
    polls: ConnectionOrder | None = None
    seed: int | None = Field(None, description="Some fault for each WebSocket, by chance but repeatable.")

    def apply(self, emulator: Emulator) -> None:
        """Let an emulator misbehave so."""
        push, portal = emulator.push.faults, emulator.portal.faults
        for name, value in self.named.items():
            match name:
                case "websocket_refusal":
                    is_close = isinstance(value, Closed)
                    push.websocket_refusal = ClosedAtOnce(value.code, value.reason) if is_close else value
                case "locked_channels":
                    portal.locked_channels = frozenset(value)
                case "connections":
                    push.script = None if value is None else value.script
                case "polls":
                    push.poll_script = None if value is None else value.script
                case "seed":
                    push.script = None if value is None else seeded(value)
                case "poll_refusal" | "refuse_channels" | "ignore_token_ends" | "keeps_nothing":
                    setattr(push, name, value)
                case _:
                    setattr(portal, name, value)


class Settings(Order):
    """Settings of portal and push server. What is not named stays as it is."""

    gather_s: Seconds = Field(0.4, description="How long messages are gathered after one has gone out.")
    poll_timeout_s: Seconds = 40.0
    ping_interval_s: Annotated[float, Field(gt=0)] = 120.0
    max_connections_per_channel: Annotated[int, Field(gt=0)] = 100
    channel_life_s: Annotated[float, Field(gt=0)] = 43_205.0
    token_life_s: Annotated[float, Field(gt=0)] = 3_600.0
    rest_burst: Annotated[int, Field(gt=0)] | None = Field(
        None, description="REST calls at once; the cloud: 50."
    )
    rest_per_s: Annotated[float, Field(gt=0)] = Field(2.0, description="REST calls a second after that.")
    application_scope: list[str] = Field(default_factory=list[str])
    webhook_scope: list[str] = Field(default_factory=list[str])
    features: dict[str, Literal["Y", "N"]] = Field(default_factory=dict[str, Literal["Y", "N"]])
    static: dict[str, Any] = Field(
        default_factory=dict[str, Any], description="Results of REST methods that the emulator does not know."
    )

    def apply(self, emulator: Emulator) -> None:
        """Set them."""
        push, portal = emulator.push, emulator.portal
        for name, value in self.named.items():
            match name:
                case "channel_life_s":
                    portal.channels.life_s = value
                case "rest_burst":
                    portal.limits.burst = value
                case "rest_per_s":
                    portal.limits.per_s = value
                case "application_scope" | "webhook_scope":
                    setattr(portal, name, set(value))
                case "features":
                    portal.features |= value
                case "static":
                    portal.static |= {method.lower(): result for method, result in value.items()}
                case "token_life_s":
                    portal.token_life_s = value
                case _:
                    setattr(push, name, value)


class User(Order):
    """A user of the portal."""

    id: UserId
    admin: bool = False
    active: bool = True

    def apply(self, emulator: Emulator) -> None:
        """Let the user be so."""
        portal = emulator.portal
        (portal.admins.add if self.admin else portal.admins.discard)(self.id)
        (portal.inactive.discard if self.active else portal.inactive.add)(self.id)


# -- what it answers --------------------------------------------------------------------------


def described(emulator: Emulator) -> dict[str, str]:
    """Return all that a client needs to know of an emulator, in whatever language it is written."""
    portal = emulator.portal
    return {
        "portal": emulator.portal_url,
        "webhook": emulator.webhook_url,
        "token": emulator.token,
        "refresh_token": emulator.refresh_token,
        "client_id": portal.client_id,
        "client_secret": portal.client_secret,
        "oauth": emulator.oauth_url,
        "member_id": portal.member_id,
        "sub": emulator.sub_url,
        "subws": emulator.subws_url,
        "pub": emulator.pub_url,
        "rest": emulator.rest_url,
        "stat": emulator.stat_url,
    }


def connections(emulator: Emulator) -> list[dict[str, Any]]:
    """Return who is connected."""
    return [
        {
            "number": subscriber.number,
            "transport": subscriber.transport,
            "format": subscriber.wire_format.name.lower(),
            "channels": [channel.id.hex() for channel in subscriber.channels],
        }
        for subscriber in emulator.push.connections
    ]


async def end(emulator: Emulator, ending: Ending) -> int:
    """End connections, and return how many."""
    chosen = [
        subscriber
        for subscriber in emulator.push.connections
        if ending.connections is None or subscriber.number in ending.connections
    ]
    for subscriber in chosen:
        match ending.how:
            case "close":
                await subscriber.close(ending.code, ending.reason)
            case "stall":
                faults = subscriber.line.faults
                faults.stall_after_bytes, faults.stall_s = 0, ending.stall_s
            case how:
                subscriber.line.end(how)
    return len(chosen)


def journal(emulator: Emulator, kinds: list[str], after: int) -> list[dict[str, Any]]:
    """Return what clients did."""
    return [
        asdict(entry) for entry in emulator.journal.entries(after=after) if not kinds or entry.kind in kinds
    ]
