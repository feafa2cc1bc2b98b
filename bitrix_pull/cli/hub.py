"""``bitrix-pull hub``: many portals, in one database or at an engine that several machines share."""

import asyncio
import contextlib
import importlib
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson
from rich.table import Table
from rich.text import Text

from bitrix_pull.cli import hub_cluster
from bitrix_pull.cli.account import Account
from bitrix_pull.cli.credentials import credentials_of, options_of
from bitrix_pull.cli.output import Columns, JsonLines, people_console
from bitrix_pull.cli.place import Place, valkey
from bitrix_pull.cli.streams import say, write_line
from bitrix_pull.dispatch.router import Router
from bitrix_pull.errors import InvalidArgument, PullError
from bitrix_pull.events import PortalEvent, PullEvent
from bitrix_pull.exits import Exit
from bitrix_pull.hub.hub import REPORT_EVERY_S, Hub
from bitrix_pull.hub.notices import PortalFailed, PortalUninstalled
from bitrix_pull.hub.portals import Portal, PortalBook
from bitrix_pull.hub.sqlite import SqlitePortals
from bitrix_pull.options import PullOptions
from bitrix_pull.portal.oauth import OAuth
from bitrix_pull.portal.token_stores import member_of

_GONE_AFTER_S = 3 * REPORT_EVERY_S
"""A worker that has not reported for so long was killed."""


@contextlib.asynccontextmanager
async def _opened(place: Place, *, new: bool = False) -> AsyncGenerator[PortalBook]:
    """Open the portals.

    Args:
        place: Where they are kept.
        new: True to make the database, if need be.

    Raises:
        InvalidArgument: There is none, or it cannot be used.
        EngineUnavailable: The engine does not answer.
    """
    place.check()
    book = _source(place) if new or place.portals is None else _database(place)
    await book.open()
    try:
        yield book
    finally:
        await book.close()


def _source(place: Place) -> PortalBook:
    """Return the portals, not open yet."""
    if place.portals is not None:
        return SqlitePortals(place.portals)
    book: PortalBook = valkey().ValkeyPortals(place.engine, name=place.name, cipher=_cipher(place))
    return book


def _cipher(place: Place) -> Any:
    if place.keys is None:
        return None
    try:
        keys = place.keys.read_text("ascii", errors="replace").split()
        return valkey().FernetCipher(*keys)
    except OSError as error:
        raise InvalidArgument(f"the file of --cipher-keys cannot be read: {error.strerror}") from None
    except ImportError:
        raise InvalidArgument(
            "--cipher-keys takes the package cryptography",
            advice="pip install 'bitrix-pull[encryption]'.",
        ) from None


def _database(place: Place) -> SqlitePortals:
    """Return the database, which exists.

    Raises:
        InvalidArgument: It does not.
    """
    assert place.portals is not None
    if not place.portals.exists():
        raise InvalidArgument(f"there is no {place.portals}", advice="`bitrix-pull hub add` makes it.")
    return SqlitePortals(place.portals)


def _sharing(place: Place, *, to_log: bool) -> dict[str, Any]:
    """Return what a hub takes to share the portals with other processes.

    Raises:
        InvalidArgument: What it takes is not installed, or the address is none.
    """
    if place.engine is None:
        if to_log:
            raise InvalidArgument("--log takes a Valkey or Redis to write to", advice="Give --valkey URL.")
        return {}
    package = valkey()
    taken: dict[str, Any] = {"cluster": package.ValkeyCluster(place.engine, name=place.name)}
    if to_log:
        taken["stream"] = package.ValkeyStream(place.engine, name=place.name)
    else:
        taken["resume"] = package.ValkeyResumeStore(place.engine, name=place.name)
    return taken


async def run_hub(
    place: Place,
    *,
    handlers: str | None,
    portal_events: Sequence[str],
    starts_per_s: float,
    to_log: bool,
    worker: str | None,
    as_json: bool,
) -> None:
    """Serve portals until cancelled or drained: by handlers, into a log, or by printing what comes."""
    if handlers is not None and portal_events and not to_log:
        raise InvalidArgument("--portal-events goes without --handlers: these name theirs themselves")
    if as_json and (handlers is not None or to_log):
        raise InvalidArgument("--json goes without --handlers and --log: no events are shown then")
    place.check()
    logged = portal_events if to_log else ()
    hub = Hub(
        _source(place),
        starts_per_s=starts_per_s,
        log_portal_events=logged,
        worker=worker,
        **_sharing(place, to_log=to_log),
    )
    unread: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    if handlers is not None:
        hub.include(_router(handlers))
    elif not to_log:
        _print_events(hub, portal_events, unread, as_json=as_json)
    telling = asyncio.create_task(_tell(hub))
    try:
        async with hub.serving():
            where = place.portals or "Valkey"
            say(f"{hub.health().portals} portals in {where}; Ctrl-C stops, and lets handlers finish")
            await _until_closed(hub, unread)
            say("drained, as it was told to")
    finally:
        telling.cancel()
        await asyncio.wait({telling})


def _router(name: str) -> Router:
    """Return the router that ``MODULE:NAME`` means.

    Raises:
        InvalidArgument: There is none.
    """
    module_name, _, attribute = name.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), attribute)):
        raise InvalidArgument(f"--handlers {name} names no router", advice="Write MODULE:ROUTER.")
    # As for `python -m`: what lies here can be named.
    sys.path.insert(0, os.getcwd())
    try:
        found = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise InvalidArgument(f"--handlers {name}: {error}") from None
    if not isinstance(found, Router):
        raise InvalidArgument(f"--handlers {name} is no Router", advice="Write MODULE:ROUTER.")
    return found


async def _until_closed(hub: Hub, unread: "asyncio.Future[None]") -> None:
    """Wait until a hub was drained.

    Raises:
        BrokenPipeError: Nobody reads what it shows any more.
    """
    closed = asyncio.ensure_future(hub.wait_closed())
    try:
        await asyncio.wait({closed, unread}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        closed.cancel()
    if unread.done():
        # What has come since is not settled by that.
        await hub.close(drain=0)
        unread.result()
    closed.result()


def _print_events(
    hub: Hub, portal_events: Sequence[str], unread: "asyncio.Future[None]", *, as_json: bool
) -> None:
    """Show what comes; ``unread`` fails when nobody reads it any more."""
    lines, columns = JsonLines(), Columns()

    async def show(event: PullEvent[Any] | PortalEvent[Any]) -> None:
        try:
            if as_json:
                lines.show(event, portal=event.portal)
            else:
                columns.show(event, mark=event.portal[:12])
        except BrokenPipeError as error:
            if not unread.done():
                unread.set_exception(error)
            # Until the hub is closed: nobody has seen this event.
            await asyncio.Event().wait()

    hub.on()(show)
    if portal_events:
        hub.on_portal_event(*portal_events)(show)


async def _tell(hub: Hub) -> None:
    """Say what a person must know."""
    async for notice in hub.notices():
        match notice:
            case PortalFailed(portal, error, _, retry_in_s):
                say(f"{portal[:12]}: {str(error).rstrip('.')}. Next attempt in {retry_in_s:.0f} s.")
            case PortalUninstalled(portal):
                say(f"{portal[:12]}: the application is not installed any more: hub remove forgets it")
            case _:
                pass


async def add(account: Account, place: Place, *, key: str | None, connector: str) -> None:
    """Add a portal, or replace its credentials."""
    credentials = credentials_of(account)
    if key is None and isinstance(credentials, OAuth):
        key = member_of(await credentials.store.load())
    if not key:
        raise InvalidArgument(
            "the portal's key is missing", advice="Give KEY: best its member_id, which stays the same."
        )
    options = options_of(account, connector=connector)
    portal = Portal(key, credentials, options=None if options == PullOptions() else options)
    async with _opened(place, new=True) as book:
        known = {each.key: each for each in await book.portals()}
        if key in known:
            portal = replace(portal, paused=known[key].paused)
        await book.put(portal)
    say(f"{'replaced' if key in known else 'added'} portal {key}")


async def remove(place: Place, key: str) -> None:
    """Forget a portal."""
    async with _opened(place) as book:
        await book.remove(key)
    say(f"removed portal {key}")


async def pause(place: Place, key: str, *, paused: bool) -> None:
    """Pause a portal, or go on with it."""
    async with _opened(place) as book:
        await book.pause(key, paused)
    say(f"{'paused' if paused else 'resumed'} portal {key}")


async def status(place: Place, *, every: bool, as_json: bool) -> Exit:
    """Show portals and workers; fail if portals have failed, or nobody serves them."""
    place.check()
    if place.engine is not None:
        return await hub_cluster.status(place, every=every, as_json=as_json)
    if every:
        raise InvalidArgument(
            "--all goes with --valkey: a database tells of those portals alone that have failed"
        )
    book = _database(place)
    portals = await book.portals()
    workers = await _workers(book)
    failed: dict[str, str] = {}
    for worker in workers.values():
        failed |= worker["failed"]
    paused = sum(portal.paused for portal in portals)
    if as_json:
        told = {"portals": len(portals), "paused": paused, "workers": workers, "failed": failed}
        write_line(orjson.dumps(told))
    else:
        _show_status(len(portals), paused, workers, failed)
    served = bool(workers) or len(portals) == paused
    return Exit.DONE if served and not failed else Exit.FAILED


async def _workers(book: SqlitePortals) -> Mapping[str, dict[str, Any]]:
    """Return what those workers have reported that run."""
    now = time.time()
    reports = await book.reports()
    return {
        name: {"reported_ago_s": round(max(now - at, 0.0), 1), **health}
        for name, (at, health) in reports.items()
        if now - at < _GONE_AFTER_S
    }


def _show_status(
    portals: int, paused: int, workers: Mapping[str, dict[str, Any]], failed: Mapping[str, str]
) -> None:
    console = people_console()
    console.print(Text(f"{portals} portals, {paused} of them paused", "bold"))
    if not workers:
        console.print(Text("no hub runs on them: bitrix-pull hub run", "yellow"))
        return
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_row("worker", "portals", "live", "waiting", "reported", style="dim")
    for name, worker in workers.items():
        live, served = worker["live"], worker["served"]
        table.add_row(
            name,
            str(served),
            Text(str(live), "green" if live == served else "yellow"),
            f"{worker['waiting_bytes'] / 1024:.0f} KiB",
            f"{worker['reported_ago_s']:.0f} s ago",
        )
    console.print(table)
    for key, error in failed.items():
        console.print(Text.assemble(("failed  ", "red"), (f"{key}  ", "bold"), error))


async def drain(place: Place, worker: str | None, *, timeout_s: float) -> Exit:
    """Let a hub finish what was received, and end; return when it has."""
    place.check()
    if place.engine is not None and (worker is not None or place.portals is None):
        return await hub_cluster.drain(place, worker, timeout_s=timeout_s)
    if worker is not None:
        raise InvalidArgument(
            "a worker is named with --valkey only", advice="Without it, the hub on this machine is drained."
        )
    return await _drain_here(_database(place), timeout_s)


async def _drain_here(book: SqlitePortals, timeout_s: float) -> Exit:
    host = socket.gethostname()
    asked = set[str]()
    for name, worker in (await _workers(book)).items():
        if worker.get("host") == host:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker["pid"], signal.SIGTERM)
                asked.add(name)
    if not asked:
        say("no hub runs on them on this machine")
        return Exit.DONE
    try:
        async with asyncio.timeout(timeout_s):
            while asked & (await book.reports()).keys():  # noqa: ASYNC110 - of another process
                await asyncio.sleep(0.2)
    except TimeoutError:
        raise PullError(f"the hub has not ended within {timeout_s:g} s") from None
    say("drained")
    return Exit.DONE
