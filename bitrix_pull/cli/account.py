"""The options about the account and the way to it, which most commands take."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

ACCOUNT = "Account"
CONNECTION = "Connection"
HUB = "Hub"
"""The panels of the help that options stand in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """The options of a command line about the account and the way to it, as they were given.

    Each field is an option; see ``option_groups.takes``.
    """

    webhook: Annotated[
        str | None,
        typer.Option(
            "--webhook",
            metavar="URL",
            help="Inbound webhook: your user's own channels. Or BITRIX_PULL_WEBHOOK.",
            rich_help_panel=ACCOUNT,
        ),
    ] = field(default=None, repr=False)
    portal: Annotated[
        str | None,
        typer.Option(
            "--portal",
            metavar="URL",
            help="The portal of an installed application. Or BITRIX_PULL_PORTAL.",
            rich_help_panel=ACCOUNT,
        ),
    ] = None
    token: Annotated[
        str | None,
        typer.Option(
            "--token",
            metavar="TOKEN",
            help="The application's access token on it. Or BITRIX_PULL_TOKEN.",
            rich_help_panel=ACCOUNT,
        ),
    ] = field(default=None, repr=False)
    tokens: Annotated[
        Path | None,
        typer.Option(
            "--tokens",
            metavar="FILE",
            help="The application's tokens, refreshed there when they expire. Or BITRIX_PULL_TOKENS.",
            rich_help_panel=ACCOUNT,
        ),
    ] = None
    client_id: Annotated[
        str | None,
        typer.Option(
            "--client-id",
            metavar="ID",
            help="The application's id, to refresh --tokens. Or BITRIX_PULL_CLIENT_ID.",
            rich_help_panel=ACCOUNT,
        ),
    ] = None
    client_secret_file: Annotated[
        Path | None,
        typer.Option(
            "--client-secret-file",
            metavar="FILE",
            help="Holds the application's secret key. Or BITRIX_PULL_CLIENT_SECRET_FILE.",
            rich_help_panel=ACCOUNT,
        ),
    ] = None
    oauth_url: Annotated[
        str | None,
        typer.Option(
            "--oauth-url",
            metavar="URL",
            help="Where to refresh, if not at Bitrix24's own server.",
            rich_help_panel=ACCOUNT,
        ),
    ] = None
    allow_http: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-http",
            metavar="HOST",
            help="Send credentials to this host over plain http too. May be repeated.",
            rich_help_panel=ACCOUNT,
        ),
    ] = None
    ca_file: Annotated[
        Path | None,
        typer.Option(
            "--ca-file",
            metavar="FILE",
            help="Trust the certificate authorities in this PEM file, and no others.",
            rich_help_panel=CONNECTION,
        ),
    ] = None
    proxy: Annotated[
        str | None,
        typer.Option(
            "--proxy",
            metavar="URL",
            help="HTTP proxy. Default: what HTTPS_PROXY, ALL_PROXY and NO_PROXY say.",
            rich_help_panel=CONNECTION,
        ),
    ] = field(default=None, repr=False)
