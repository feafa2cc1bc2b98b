"""The command line itself: commands, their options and their help.

The commands live in modules of their own, which are imported when they run: help must
not wait for aiohttp and the rest.
"""

import contextlib
import platform
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from enum import EnumType, StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, cast, get_args, get_origin, get_type_hints

import typer
from typer.models import OptionInfo

from bitrix_pull.cli import hub_app, streams
from bitrix_pull.cli.account import ACCOUNT, HUB, Account
from bitrix_pull.cli.completion import Command, Shell, script
from bitrix_pull.cli.emulator_options import EmulatorOptions
from bitrix_pull.cli.option_groups import takes
from bitrix_pull.cli.options import (
    ChannelMode,
    ConnectorOption,
    EventsOption,
    JsonOption,
    LogFormatOption,
    RouteName,
    TransportName,
    TransportOption,
    VerboseOption,
    names,
)
from bitrix_pull.cli.place import NAME
from bitrix_pull.exits import Exit
from bitrix_pull.redaction import HIDDEN

app: typer.Typer = typer.Typer(
    name="bitrix-pull",
    help="The realtime stream of Bitrix24: listen to it, publish to it, try it without an account.",
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
app.add_typer(hub_app.app, name="hub")

# Typer once depended on click and carries a copy of it today; this is UsageError in both.
_UsageError = cast("type[Exception]", typer.BadParameter.__base__)

_DEPENDENCIES = (
    *("aiohttp", "aiohappyeyeballs", "websockets", "orjson", "pydantic", "pydantic-core", "protobuf"),
    *("typing-extensions", "typer", "rich", "redis", "opentelemetry-api", "uvloop", "pytest"),
)
"""Whose versions a report of a bug should name, as far as they are installed."""

_PLAIN_WORD = re.compile(r"(?!--(?:token|webhook|security-key|client-secret)[a-z])-{0,2}[a-z][a-z-]{0,14}")
_SHORT = 5


def run_command_line() -> int:
    """Run the command that ``sys.argv`` names and return the exit code."""
    streams.prepare()
    if (twice := _given_twice(sys.argv[1:])) is not None:
        streams.complain(f"{twice} is given twice, and takes one value. See bitrix-pull --help.")
        return Exit.USAGE
    try:
        # Without a command: help, and no complaint.
        outcome = app(sys.argv[1:] or ["--help"], prog_name="bitrix-pull", standalone_mode=False)
    except _UsageError as error:
        told = _complaint(error, sys.argv[1:])
        streams.complain(f"{told}{'' if told.endswith('?') else '.'} See bitrix-pull --help.")
        return Exit.USAGE
    except (KeyboardInterrupt, typer.Abort):
        return Exit.INTERRUPTED
    return int(outcome or 0)


def _given_twice(typed: Sequence[str]) -> str | None:
    """Return an option with one value that was given more often: the last would win without a word."""
    commands: dict[str, Any] = getattr(typer.main.get_command(app), "commands", {})
    command = commands.get(typed[0]) if typed else None
    if command is not None and len(typed) > 1:
        # A group, as hub is, has commands of its own.
        command = getattr(command, "commands", {}).get(typed[1], command)
    options = [] if command is None else [item for item in command.params if item.param_type_name == "option"]
    single = {name for item in options if not (item.is_flag or item.multiple) for name in item.opts}
    valued = {name for item in options if not item.is_flag for name in item.opts}
    seen = set[str]()
    words = iter(typed[1:])
    for word in words:
        if word == "--":
            break
        name, is_glued, _ = word.partition("=")
        if name in valued and not is_glued:
            next(words, None)
        if name in single and name in seen:
            return name
        seen.add(name)
    return None


def _complaint(error: Exception, typed: Sequence[str]) -> str:
    """Say what is wrong with the arguments. What was typed is repeated only where it is a plain word."""
    told = str(cast("typer.BadParameter", error).format_message()).rstrip(".")
    # What typer's own validation of values puts before each of its sentences.
    told = told.replace(": Value error, ", ": ")
    for argument in sorted({*typed, *(item.partition("=")[2] for item in typed)}, key=len, reverse=True):
        # Anything else may be a secret whose option was forgotten, mistyped or glued to it.
        if len(argument) > _SHORT and _PLAIN_WORD.fullmatch(argument) is None:
            for form in (argument, repr(argument)[1:-1]):
                told = told.replace(form, HIDDEN)
    return told


def _print_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write("".join(f"{name} {number}\n" for name, number in _versions()))
        raise typer.Exit


def _versions() -> Iterator[tuple[str, str]]:
    """Yield what a report of a bug should name, and its version."""
    yield "bitrix-pull", version("bitrix-pull")
    yield platform.python_implementation(), platform.python_version()
    yield platform.system() or "system", f"{platform.release()} {platform.machine()}"
    for name in _DEPENDENCIES:
        with contextlib.suppress(PackageNotFoundError):
            yield name, version(name)


@app.callback()
def _options(
    _version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print_version,
            is_eager=True,
            help="Show all versions.",
        ),
    ] = False,
) -> None:
    pass


@app.command()
def demo(
    events: EventsOption = None,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
    log_format: LogFormatOption = streams.LogFormat.TEXT,
) -> int:
    """Watch events being published and received, with no account: on an emulated portal."""
    from bitrix_pull.cli.demo import demo
    from bitrix_pull.cli.running import run

    return run(demo(events, as_json=as_json), verbose=verbose, log_format=log_format, serves=True)


@app.command()
@takes(Account)
def listen(
    account: Account,
    transport: TransportOption = TransportName.AUTO,
    events: EventsOption = None,
    command: Annotated[
        str | None, typer.Option("--command", metavar="NAME", help="Only this command.")
    ] = None,
    module: Annotated[
        str | None,
        typer.Option("--module", metavar="NAME", help="Only this module; with --command: application."),
    ] = None,
    portal_events: Annotated[
        str | None,
        typer.Option(
            "--portal-events",
            metavar="NAMES",
            help="Instead: what happens on the portal, such as ONCRMDEALUPDATE,ONCRMDEALADD. "
            "What is shown is taken out of the application's queue.",
        ),
    ] = None,
    connector: ConnectorOption = "",
    timeout: Annotated[
        float, typer.Option("--timeout", min=0.1, metavar="S", help="Seconds to become live in.")
    ] = 10.0,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
    log_format: LogFormatOption = streams.LogFormat.TEXT,
) -> int:
    """Show the events of your portal as they come, through every outage."""
    from bitrix_pull.cli.listen import listen
    from bitrix_pull.cli.running import run

    work = listen(
        account,
        events=events,
        command=command,
        module=module,
        portal_events=names(portal_events, "--portal-events"),
        transport=transport.value,
        connector=connector,
        timeout_s=timeout,
        as_json=as_json,
    )
    return run(work, verbose=verbose, log_format=log_format, serves=True)


@app.command()
@takes(Account)
def publish(
    *,
    command: Annotated[str, typer.Argument(metavar="COMMAND", help="Letters, digits and _ : | . -")],
    params: Annotated[
        str,
        typer.Option("--params", metavar="JSON", help="The payload, a JSON object; - reads it from stdin."),
    ] = "{}",
    user: Annotated[
        list[int] | None,
        typer.Option("--user", metavar="ID", help="To this user only. May be repeated. Default: everybody."),
    ] = None,
    channel: Annotated[
        list[str] | None,
        typer.Option("--channel", metavar="PUB.SIG", help="To this public channel. May be repeated."),
    ] = None,
    to_self: Annotated[bool, typer.Option("--to-self", help="To the user behind the credentials.")] = False,
    module: Annotated[
        str, typer.Option("--module", metavar="NAME", help="The module it comes from.")
    ] = "application",
    route: Annotated[RouteName, typer.Option("--route", help="The way that it goes.")] = RouteName.AUTO,
    account: Account,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
    log_format: LogFormatOption = streams.LogFormat.TEXT,
) -> int:
    """Publish one event."""
    from bitrix_pull.cli.publish import publish
    from bitrix_pull.cli.running import run

    work = publish(
        account,
        command,
        params,
        users=user,
        channels=channel,
        to_self=to_self,
        module=module,
        route=route.value,
        as_json=as_json,
    )
    return run(work, verbose=verbose, log_format=log_format)


@app.command()
@takes(Account)
def config(
    account: Account,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
    log_format: LogFormatOption = streams.LogFormat.TEXT,
) -> int:
    """Show the portal's Push & Pull configuration, without its secrets."""
    from bitrix_pull.cli.config import config
    from bitrix_pull.cli.running import run

    return run(config(account, as_json=as_json), verbose=verbose, log_format=log_format)


@app.command()
@takes(Account)
def inspect(
    *,
    demo: Annotated[
        bool, typer.Option("--demo", help="On an emulated portal, with no account.", rich_help_panel=ACCOUNT)
    ] = False,
    account: Account,
    transport: TransportOption = TransportName.AUTO,
    connector: ConnectorOption = "",
    valkey: Annotated[
        str | None,
        typer.Option(
            "--valkey",
            metavar="URL",
            help="Instead: all portals of the hubs that share this Valkey or Redis.",
            rich_help_panel=HUB,
        ),
    ] = None,
    name: Annotated[
        str,
        typer.Option("--name", metavar="NAME", help="Of the hubs and their log there.", rich_help_panel=HUB),
    ] = NAME,
    shards: Annotated[
        int,
        typer.Option("--shards", min=1, metavar="N", help="How many the log has.", rich_help_panel=HUB),
    ] = 1,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, metavar="N", help="Of the page; 0 takes a free one.")
    ] = 0,
    open_browser: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
    log_format: LogFormatOption = streams.LogFormat.TEXT,
) -> int:
    """Serve a web page that shows what comes, how the connection is doing, and publishes: on loopback."""
    from bitrix_pull.cli.inspect import Beside, inspect
    from bitrix_pull.cli.running import run

    work = inspect(
        account,
        demo=demo,
        beside=Beside(valkey, name, shards),
        port=port,
        transport=transport.value,
        connector=connector,
        open_browser=open_browser,
        as_json=as_json,
    )
    return run(work, verbose=verbose, log_format=log_format, serves=True)


@app.command()
@takes(Account)
def events(
    account: Account,
    connector: ConnectorOption = "",
    unbind: Annotated[
        str | None,
        typer.Option("--unbind", metavar="NAMES", help="Let the portal queue these no more; all: every one."),
    ] = None,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
    log_format: LogFormatOption = streams.LogFormat.TEXT,
) -> int:
    """Show which of the portal's own events the application may bind, and which it has bound."""
    from bitrix_pull.cli.events import events
    from bitrix_pull.cli.running import run

    work = events(account, connector=connector, unbind=names(unbind, "--unbind"), as_json=as_json)
    return run(work, verbose=verbose, log_format=log_format)


@app.command()
@takes(Account)
def doctor(
    account: Account,
    transport: TransportOption = TransportName.AUTO,
    connector: ConnectorOption = "",
    mode: Annotated[
        ChannelMode | None,
        typer.Option("--mode", help="Whose channels; default: what the credentials are for."),
    ] = None,
    publish: Annotated[
        bool,
        typer.Option("--publish", help="Publish to yourself by each way too, and look into the history."),
    ] = False,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
    log_format: LogFormatOption = streams.LogFormat.TEXT,
) -> int:
    """Find out why no events come: the first line names the cause, and what to do about it."""
    from bitrix_pull.cli.doctor import doctor
    from bitrix_pull.cli.running import run

    work = doctor(
        account,
        mode=None if mode is None else mode.value,
        transport=transport.value,
        connector=connector,
        publish=publish,
        as_json=as_json,
    )
    return run(work, verbose=verbose, log_format=log_format)


@app.command()
@takes(Account)
def record(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="JSON lines; compressed if its name ends in .gz.")
    ],
    *,
    keep_params: Annotated[
        bool, typer.Option("--keep-params", help="Write what events carry too: your customers' data.")
    ] = False,
    events: EventsOption = None,
    account: Account,
    transport: TransportOption = TransportName.AUTO,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
    log_format: LogFormatOption = streams.LogFormat.TEXT,
) -> int:
    """Write down the events of your portal as they come, until stopped."""
    from bitrix_pull.cli.record import record
    from bitrix_pull.cli.running import run

    work = record(
        account,
        file,
        keep_params=keep_params,
        events=events,
        transport=transport.value,
        as_json=as_json,
    )
    return run(work, verbose=verbose, log_format=log_format, serves=True)


@app.command()
def replay(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `bitrix-pull record` has written.")],
    speed: Annotated[
        float, typer.Option("--speed", min=0.001, metavar="N", help="How many times as fast as it was.")
    ] = 1.0,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, metavar="N", help="0 takes a free one.")
    ] = 0,
    push_version: Annotated[
        int, typer.Option("--push-version", min=2, max=5, metavar="N", help="Of the push server.")
    ] = 4,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
    log_format: LogFormatOption = streams.LogFormat.TEXT,
) -> int:
    """Serve a recording through the emulator to any client, from when the first one is connected."""
    from bitrix_pull.cli.replay import replay
    from bitrix_pull.cli.running import run

    work = replay(file, speed=speed, port=port, push_version=push_version, as_json=as_json)
    return run(work, verbose=verbose, log_format=log_format, serves=True)


@app.command()
def completion(
    shell: Annotated[Shell, typer.Argument(metavar="SHELL", help="bash, zsh or fish.")],
) -> int:
    """Print what a shell must read to complete this command: source <(bitrix-pull completion bash)."""
    groups = {
        "hub": Command(hub_app.ABOUT, {"--help": ()}, _commands(hub_app.app)),
    }
    sys.stdout.write(script(shell, _commands(app) | groups))
    return Exit.DONE


def _commands(group: typer.Typer) -> dict[str, Command]:
    return {
        info.name or info.callback.__name__: _completed(info.callback)
        for info in group.registered_commands
        if info.callback is not None
    }


def _completed(command: Callable[..., Any]) -> Command:
    """Return what can follow a command, by its signature: typer keeps that elsewhere in each version."""
    options: dict[str, Sequence[str]] = {"--help": ()}
    for hint in get_type_hints(command, include_extras=True).values():
        kind, *notes = get_args(hint) if get_origin(hint) is Annotated else (hint,)
        kinds = (kind, *get_args(kind))
        enums = cast("list[type[StrEnum]]", [each for each in kinds if isinstance(each, EnumType)])
        choices = [str(value) for enum in enums for value in enum]
        for note in notes:
            if isinstance(note, OptionInfo):
                # In an annotation, the first name stands where a default would.
                names = (str(note.default), *(note.param_decls or ()))
                options |= {name: choices for name in names if name.startswith("-")}
    return Command((command.__doc__ or "").partition("\n")[0], options)


@app.command()
@takes(EmulatorOptions)
def emulator(
    options: EmulatorOptions,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON line on stdout when it is ready.")
    ] = False,
    verbose: VerboseOption = False,
    log_format: LogFormatOption = streams.LogFormat.TEXT,
) -> int:
    """Serve a portal and its push server on this machine, until stopped."""
    from bitrix_pull.cli.emulator import emulator
    from bitrix_pull.cli.running import run

    work = emulator(options, as_json=as_json)
    return run(work, verbose=verbose, log_format=log_format, serves=True)
