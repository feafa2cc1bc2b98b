"""The command line of many portals: the commands of ``bitrix-pull hub``."""

from pathlib import Path
from typing import Annotated

import typer

from bitrix_pull.cli import streams
from bitrix_pull.cli.account import Account, takes_account
from bitrix_pull.cli.options import ConnectorOption, JsonOption, LogFormatOption, VerboseOption, names

app: typer.Typer = typer.Typer(
    help="Serve many portals at once, in one process.",
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
)
_PortalsFileOption = Annotated[
    Path,
    typer.Option("--portals", metavar="FILE", help="Database of portals, tokens and resume points."),
]
_KeyArgument = Annotated[str, typer.Argument(metavar="KEY", help="The portal's key.")]


@app.command("run")
def hub_run(
    portals: _PortalsFileOption,
    handlers: Annotated[
        str | None,
        typer.Option("--handlers", metavar="MODULE:ROUTER", help="Your handlers. Default: events are shown."),
    ] = None,
    portal_events: Annotated[
        str | None,
        typer.Option(
            "--portal-events",
            metavar="NAMES",
            help="Without --handlers: show these events of the portals too, such as ONCRMDEALUPDATE.",
        ),
    ] = None,
    valkey: Annotated[
        str | None,
        typer.Option(
            "--valkey", metavar="URL", help="Share the portals with other processes over Valkey or Redis."
        ),
    ] = None,
    to_log: Annotated[
        bool, typer.Option("--log", help="With --valkey: write events to its stream, beside --handlers.")
    ] = False,
    rate: Annotated[
        float, typer.Option("--rate", min=0.1, metavar="N", help="Portals started in a second.")
    ] = 60.0,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
    log_format: LogFormatOption = streams.LogFormat.TEXT,
) -> int:
    """Serve all portals of the database, until stopped; then handlers may finish."""
    from bitrix_pull.cli.hub import run_hub
    from bitrix_pull.cli.running import run

    work = run_hub(
        portals,
        handlers=handlers,
        portal_events=names(portal_events),
        starts_per_s=rate,
        valkey=valkey,
        to_log=to_log,
        as_json=as_json,
    )
    return run(work, verbose=verbose, log_format=log_format, serves=True)


@app.command("status")
def hub_status(portals: _PortalsFileOption, as_json: JsonOption = False) -> int:
    """Show who serves the portals, and how they do. Exit code 1 if some have failed, or nobody does."""
    from bitrix_pull.cli.hub import status
    from bitrix_pull.cli.running import run

    return run(status(portals, as_json=as_json), verbose=False)


@app.command("add")
@takes_account(without=["ca_file"])
def hub_add(
    portals: _PortalsFileOption,
    *,
    key: Annotated[
        str | None,
        typer.Option("--key", metavar="KEY", help="Tells the portal. Default: the tokens' member_id."),
    ] = None,
    account: Account,
    connector: ConnectorOption = "",
) -> int:
    """Add a portal, or replace its credentials; a hub that runs sees it within a second."""
    from bitrix_pull.cli.hub import add
    from bitrix_pull.cli.running import run

    return run(add(account, portals, key=key, connector=connector), verbose=False)


@app.command("remove")
def hub_remove(key: _KeyArgument, portals: _PortalsFileOption) -> int:
    """Serve a portal no more, and forget it and its tokens."""
    from bitrix_pull.cli.hub import remove
    from bitrix_pull.cli.running import run

    return run(remove(portals, key), verbose=False)


@app.command("pause")
def hub_pause(key: _KeyArgument, portals: _PortalsFileOption) -> int:
    """Stop serving a portal until it is resumed; its events wait at the server for a day."""
    from bitrix_pull.cli.hub import pause
    from bitrix_pull.cli.running import run

    return run(pause(portals, key, paused=True), verbose=False)


@app.command("resume")
def hub_resume(key: _KeyArgument, portals: _PortalsFileOption) -> int:
    """Go on with a portal that was paused; try one again that has failed."""
    from bitrix_pull.cli.hub import pause
    from bitrix_pull.cli.running import run

    return run(pause(portals, key, paused=False), verbose=False)


@app.command("drain")
def hub_drain(
    portals: _PortalsFileOption,
    timeout: Annotated[
        float, typer.Option("--timeout", min=0.1, metavar="S", help="Seconds to wait for its end.")
    ] = 60.0,
) -> int:
    """End the hub that runs on this machine once handlers have finished; for a rollout."""
    from bitrix_pull.cli.hub import drain
    from bitrix_pull.cli.running import run

    return run(drain(portals, timeout_s=timeout), verbose=False)
