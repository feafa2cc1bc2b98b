"""The options of ``bitrix-pull emulator``."""

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class PushMode(StrEnum):
    """The values of ``--mode``."""

    PERSONAL = "personal"
    SHARED = "shared"


class Licence(StrEnum):
    """The values of ``--licence``."""

    FULL = "full"
    BASIC = "basic"


@dataclass(frozen=True, slots=True, kw_only=True)
class EmulatorOptions:
    """The options of the command, as they were given.

    Each field is an option; see ``option_groups.takes``.
    """

    host: Annotated[
        str, typer.Option("--host", metavar="HOST", help="Name or IPv4 address to listen at.")
    ] = "127.0.0.1"
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, metavar="N", help="0 takes a free one.")
    ] = 0
    security_key: Annotated[
        str | None,
        typer.Option(
            "--security-key",
            metavar="KEY",
            help="Token, webhook and channels follow from it. Default: a random one.",
        ),
    ] = field(default=None, repr=False)
    push_version: Annotated[
        int, typer.Option("--push-version", min=2, max=5, metavar="N", help="Of the push server.")
    ] = 4
    mode: Annotated[
        PushMode, typer.Option("--mode", help="The portal's own push server, or one shared in the cloud.")
    ] = PushMode.PERSONAL
    portals: Annotated[
        int, typer.Option("--portals", min=1, max=1000, metavar="N", help="Each at a port of its own.")
    ] = 1
    users: Annotated[
        Path | None,
        typer.Option("--users", metavar="FILE", help='JSON: [{"id": 2, "admin": true, "active": true}, …].'),
    ] = None
    channel_life: Annotated[
        float, typer.Option("--channel-life", min=1, metavar="S", help="Seconds until channels end.")
    ] = 43_205.0
    licence: Annotated[
        Licence, typer.Option("--licence", help="Of the portal: basic refuses what small plans refuse.")
    ] = Licence.FULL
    faults: Annotated[
        Path | None,
        typer.Option("--faults", metavar="FILE", help="JSON: how it misbehaves (as PATCH /faults takes it)."),
    ] = None
    seed: Annotated[
        int | None, typer.Option("--seed", metavar="N", help="Some fault for each WebSocket, repeatable.")
    ] = None
    static: Annotated[
        list[str] | None,
        typer.Option(
            "--static", metavar="METHOD=JSON", help="Result of a REST method that it does not know."
        ),
    ] = None
    gather: Annotated[
        float, typer.Option("--gather", min=0, metavar="S", help="How long messages are gathered; 0: not.")
    ] = 0.4
    latency: Annotated[
        float,
        typer.Option("--latency", min=0, metavar="S", help="How long all that it writes is on its way."),
    ] = 0.0
    rest_limit: Annotated[
        str | None,
        typer.Option("--rest-limit", metavar="BURST/PER_S", help="REST calls it takes; the cloud: 50/2."),
    ] = None
    tls: Annotated[
        bool, typer.Option("--tls", help="https and wss, by a certificate authority to throw away.")
    ] = False
    control: Annotated[
        int | None,
        typer.Option(
            "--control", min=0, max=65535, metavar="N", help="Port of the control API; 0: a free one."
        ),
    ] = None
