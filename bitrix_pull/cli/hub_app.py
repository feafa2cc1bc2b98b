"""The command line of many portals: the commands of ``bitrix-pull hub``."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bitrix_pull.cli import streams
from bitrix_pull.cli.account import Account, takes_account
from bitrix_pull.cli.options import ConnectorOption, JsonOption, LogFormatOption, VerboseOption, names

if TYPE_CHECKING:
    from bitrix_pull.cli.hub import Place

app: typer.Typer = typer.Typer(
    help="Serve many portals at once, in one process or in many.",
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
)
_PortalsFileOption = Annotated[
    Path | None,
    typer.Option(
        "--portals",
        metavar="FILE",
        help="Database of portals, tokens and resume points. Default: --valkey keeps them.",
    ),
]
_ValkeyOption = Annotated[
    str | None,
    typer.Option(
        "--valkey",
        metavar="URL",
        help="Valkey or Redis, over which hubs on any machines share the portals. Or BITRIX_PULL_VALKEY.",
    ),
]
_NameOption = Annotated[
    str,
    typer.Option("--name", metavar="NAME", help="With --valkey: tells these hubs from others there."),
]
_CipherKeysOption = Annotated[
    Path | None,
    typer.Option(
        "--cipher-keys",
        metavar="FILE",
        help="Fernet keys, by which --valkey keeps portals and tokens encrypted. Or BITRIX_PULL_CIPHER_KEYS.",
    ),
]
_NAME = "bitrix-pull"
_KeyArgument = Annotated[str, typer.Argument(metavar="KEY", help="The portal's key.")]


@app.command("run")
def hub_run(
    portals: _PortalsFileOption = None,
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
    valkey: _ValkeyOption = None,
    name: _NameOption = _NAME,
    cipher_keys: _CipherKeysOption = None,
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
        _place(portals, valkey, name, cipher_keys),
        handlers=handlers,
        portal_events=names(portal_events),
        starts_per_s=rate,
        to_log=to_log,
        worker=worker,
        as_json=as_json,
    )
    return run(work, verbose=verbose, log_format=log_format, serves=True)


@app.command("status")
def hub_status(
    portals: _PortalsFileOption = None,
    valkey: _ValkeyOption = None,
    name: _NameOption = _NAME,
    every: Annotated[
        bool, typer.Option("--all", help="With --valkey: list every portal, however many there are.")
    ] = False,
    as_json: JsonOption = False,
) -> int:
    """Show who serves the portals, and how they do. Exit code 1 if some have failed, or nobody does."""
    from bitrix_pull.cli.running import run

    place = _place(portals, valkey, name)
    if place.valkey is not None:
        from bitrix_pull.cli.hub_cluster import status as status_of_cluster

        return run(status_of_cluster(place, every=every, as_json=as_json), verbose=False)
    from bitrix_pull.cli.hub import status

    return run(status(place, as_json=as_json), verbose=False)


@app.command("add")
@takes_account(without=["ca_file"])
def hub_add(
    portals: _PortalsFileOption = None,
    valkey: _ValkeyOption = None,
    name: _NameOption = _NAME,
    cipher_keys: _CipherKeysOption = None,
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

    return run(
        add(account, _place(portals, valkey, name, cipher_keys), key=key, connector=connector), verbose=False
    )


@app.command("remove")
def hub_remove(
    key: _KeyArgument,
    portals: _PortalsFileOption = None,
    valkey: _ValkeyOption = None,
    name: _NameOption = _NAME,
    cipher_keys: _CipherKeysOption = None,
) -> int:
    """Serve a portal no more, and forget it and its tokens."""
    from bitrix_pull.cli.hub import remove
    from bitrix_pull.cli.running import run

    return run(remove(_place(portals, valkey, name, cipher_keys), key), verbose=False)


@app.command("pause")
def hub_pause(
    key: _KeyArgument,
    portals: _PortalsFileOption = None,
    valkey: _ValkeyOption = None,
    name: _NameOption = _NAME,
    cipher_keys: _CipherKeysOption = None,
) -> int:
    """Stop serving a portal until it is resumed; its events wait at the server for a day."""
    from bitrix_pull.cli.hub import pause
    from bitrix_pull.cli.running import run

    return run(pause(_place(portals, valkey, name, cipher_keys), key, paused=True), verbose=False)


@app.command("resume")
def hub_resume(
    key: _KeyArgument,
    portals: _PortalsFileOption = None,
    valkey: _ValkeyOption = None,
    name: _NameOption = _NAME,
    cipher_keys: _CipherKeysOption = None,
) -> int:
    """Go on with a portal that was paused; try one again that has failed."""
    from bitrix_pull.cli.hub import pause
    from bitrix_pull.cli.running import run

    return run(pause(_place(portals, valkey, name, cipher_keys), key, paused=False), verbose=False)


@app.command("drain")
def hub_drain(
    worker: Annotated[
        str | None, typer.Argument(metavar="WORKER", help="With --valkey: the worker, wherever it is.")
    ] = None,
    portals: _PortalsFileOption = None,
    valkey: _ValkeyOption = None,
    name: _NameOption = _NAME,
    timeout: Annotated[
        float, typer.Option("--timeout", min=0.1, metavar="S", help="Seconds to wait for its end.")
    ] = 60.0,
) -> int:
    """End a hub once handlers have finished; for a rollout. Without --valkey: the one on this machine."""
    from bitrix_pull.cli.running import run

    place = _place(portals, valkey, name)
    if place.valkey is not None and (worker is not None or place.file is None):
        from bitrix_pull.cli.hub_cluster import drain as drain_worker

        return run(drain_worker(place, worker, timeout_s=timeout), verbose=False)
    from bitrix_pull.cli.hub import drain

    return run(drain(place, timeout_s=timeout), verbose=False)


def _place(portals: Path | None, valkey: str | None, name: str, keys: Path | None = None) -> "Place":
    """Return what the options say, or the environment."""
    from bitrix_pull.cli.hub import Place

    named = os.environ.get("BITRIX_PULL_CIPHER_KEYS")
    keys = keys or (Path(named) if named else None)
    return Place(portals, valkey or os.environ.get("BITRIX_PULL_VALKEY") or None, name, keys)
