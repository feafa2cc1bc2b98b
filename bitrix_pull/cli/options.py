"""Options that several commands share, and the values of some."""

from enum import StrEnum
from typing import Annotated

import typer

from bitrix_pull.cli import streams
from bitrix_pull.cli.account import CONNECTION

ConnectorOption = Annotated[
    str,
    typer.Option(
        "--connector", metavar="NAME", help="The application's exchange channel for the portal's events."
    ),
]
EventsOption = Annotated[
    int | None, typer.Option("--events", min=1, metavar="N", help="End after so many events.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="JSON lines on stdout, for programs.")]
VerboseOption = Annotated[bool, typer.Option("--verbose", "-v", help="Show the library's log on stderr.")]
LogFormatOption = Annotated[
    streams.LogFormat, typer.Option("--log-format", help="Of all on stderr; json shows the log too.")
]


class TransportName(StrEnum):
    """The values of ``--transport``."""

    AUTO = "auto"
    WEBSOCKET = "websocket"
    LONG_POLLING = "long_polling"


class ChannelMode(StrEnum):
    """The values of ``--mode`` of the doctor."""

    APPLICATION = "application"
    USER = "user"


TransportOption = Annotated[
    TransportName,
    typer.Option("--transport", help="How events come.", rich_help_panel=CONNECTION),
]


class RouteName(StrEnum):
    """The values of ``--route``."""

    AUTO = "auto"
    REST = "rest"
    ENDPOINT = "endpoint"
    SOCKET = "socket"


def names(listed: str | None, option: str) -> list[str]:
    """Return names that are separated by commas; none where the option is not given.

    Raises:
        typer.BadParameter: It is given, and holds none.
    """
    found = [name for item in (listed or "").split(",") if (name := item.strip())]
    if listed is not None and not found:
        raise typer.BadParameter(f"{option} names nothing")
    return found
