"""The options about the account and the way to it, which most commands take."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

ACCOUNT = "Account"
CONNECTION = "Connection"
HUB = "Hub"
"""The panels of the help that options stand in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """The options of a command line about the account and the way to it, as they were given.

    Each field is an option; `takes_account` gives them to a command.
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


def takes_account(*, without: Sequence[str] = ()) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Give a command the options of `Account` where its signature has ``account``, which it gets.

    Args:
        without: Fields whose options it does not take.
    """
    options = get_type_hints(Account, include_extras=True)
    account = [
        inspect.Parameter(
            each.name, inspect.Parameter.KEYWORD_ONLY, default=each.default, annotation=options[each.name]
        )
        for each in fields(Account)
        if each.name not in without
    ]

    def decorate(command: Callable[..., int]) -> Callable[..., int]:
        @wraps(command)
        def decorated(**given: Any) -> int:
            named = {each.name: given.pop(each.name) for each in account}
            return command(**given, account=Account(**named))

        parameters: list[inspect.Parameter] = []
        for each in inspect.signature(command).parameters.values():
            own = each.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            parameters += account if each.name == "account" else [own]
        # What typer reads, and help and completion with it.
        decorated.__dict__["__signature__"] = inspect.Signature(parameters, return_annotation=int)
        decorated.__annotations__ = {each.name: each.annotation for each in parameters} | {"return": int}
        return decorated

    return decorate
