"""The command line of many portals: the commands of ``bitrix-pull hub``."""

from typing import Annotated

import typer

from bitrix_pull.cli import streams
from bitrix_pull.cli.account import Account
from bitrix_pull.cli.option_groups import takes
from bitrix_pull.cli.options import ConnectorOption, JsonOption, LogFormatOption, VerboseOption, names
from bitrix_pull.cli.place import Place

ABOUT = "Serve many portals at once, in one process or in many."

app: typer.Typer = typer.Typer(
    help=ABOUT,
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
)
_KeyArgument = Annotated[str, typer.Argument(metavar="KEY", help="The portal's key.")]


@app.command("run")
@takes(Place)
def hub_run(
    *,
    place: Place,
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
    worker: Annotated[
        str | None,
        typer.Option(
            "--worker", metavar="NAME", help="This worker's name, which it keeps. Default: host and process."
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
    """Serve all portals, until stopped or drained; then handlers may finish."""
    from bitrix_pull.cli.hub import run_hub
    from bitrix_pull.cli.running import run

    work = run_hub(
        place,
        handlers=handlers,
        portal_events=names(portal_events, "--portal-events"),
        starts_per_s=rate,
        to_log=to_log,
        worker=worker,
        as_json=as_json,
    )
    return run(work, verbose=verbose, log_format=log_format, serves=True)


@app.command("status")
@takes(Place, without=["cipher_keys"])
def hub_status(
    place: Place,
    every: Annotated[
        bool, typer.Option("--all", help="With --valkey: list every portal, however many there are.")
    ] = False,
    as_json: JsonOption = False,
) -> int:
    """Show who serves the portals, and how they do. Exit code 1 if some have failed, or nobody does."""
    from bitrix_pull.cli.hub import status
    from bitrix_pull.cli.running import run

    return run(status(place, every=every, as_json=as_json), verbose=False)


@app.command("add")
@takes(Place)
@takes(Account, without=["ca_file"])
def hub_add(
    key: Annotated[
        str | None,
        typer.Argument(metavar="KEY", help="Tells the portal. Default: the member_id of --tokens."),
    ] = None,
    *,
    place: Place,
    account: Account,
    connector: ConnectorOption = "",
) -> int:
    """Add a portal, or replace its credentials; a hub that runs sees it within a second."""
    from bitrix_pull.cli.hub import add
    from bitrix_pull.cli.running import run

    return run(add(account, place, key=key, connector=connector), verbose=False)


@app.command("remove")
@takes(Place)
def hub_remove(key: _KeyArgument, place: Place) -> int:
    """Serve a portal no more, and forget it and its tokens."""
    from bitrix_pull.cli.hub import remove
    from bitrix_pull.cli.running import run

    return run(remove(place, key), verbose=False)


@app.command("pause")
@takes(Place)
def hub_pause(key: _KeyArgument, place: Place) -> int:
    """Stop serving a portal until it is resumed; its events wait at the server for a day."""
    from bitrix_pull.cli.hub import pause
    from bitrix_pull.cli.running import run

    return run(pause(place, key, paused=True), verbose=False)


@app.command("resume")
@takes(Place)
def hub_resume(key: _KeyArgument, place: Place) -> int:
    """Go on with a portal that was paused; try one again that has failed."""
    from bitrix_pull.cli.hub import pause
    from bitrix_pull.cli.running import run

    return run(pause(place, key, paused=False), verbose=False)


@app.command("drain")
@takes(Place, without=["cipher_keys"])
def hub_drain(
    worker: Annotated[
        str | None, typer.Argument(metavar="WORKER", help="With --valkey: the worker, wherever it is.")
    ] = None,
    *,
    place: Place,
    timeout: Annotated[
        float, typer.Option("--timeout", min=0.1, metavar="S", help="Seconds to wait for its end.")
    ] = 60.0,
) -> int:
    """End a hub once handlers have finished; for a rollout. Without --valkey: the one on this machine."""
    from bitrix_pull.cli.hub import drain
    from bitrix_pull.cli.running import run

    return run(drain(place, worker, timeout_s=timeout), verbose=False)
