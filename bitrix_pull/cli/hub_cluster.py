"""``bitrix-pull hub status|drain --valkey``: hubs on any machines, as their engine knows them."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from typing import Any

import orjson
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bitrix_pull.cli.output import people_console
from bitrix_pull.cli.place import Place, valkey
from bitrix_pull.cli.streams import say, write_line
from bitrix_pull.errors import InvalidArgument, PullError
from bitrix_pull.exits import Exit
from bitrix_pull.redaction import printable

_LISTED = 20
"""Portals that people are shown without asking for more."""

_LOOK_EVERY_S = 0.5


async def status(place: Place, *, every: bool, as_json: bool) -> Exit:
    """Show workers, portals and the log; fail if portals have failed, or nobody serves them."""
    told = await _asked(place)
    if as_json:
        write_line(orjson.dumps(told))
    else:
        _show(told, every=every)
    served = bool(told["workers"]) and not told["unserved"]
    return Exit.DONE if served and not told["failed"] else Exit.FAILED


async def _asked(place: Place) -> dict[str, Any]:
    """Return all that the engine knows, as JSON values."""
    package = valkey()
    engine = package.Engine(place.engine)
    await engine.open()
    try:
        cluster = await package.ValkeyCluster(engine, name=place.name).status()
        streams = {stream for worker in cluster.workers for stream in worker.health.get("streams", ())}
        log: list[dict[str, Any]] = []
        requests = 0
        if streams:
            stream = package.ValkeyStream(engine, name=place.name, shards=len(streams))
            log = [
                {
                    "group": lag.group,
                    "stream": lag.stream,
                    "behind": lag.behind,
                    "kept": lag.length,
                    "lost": lag.lost,
                }
                for lag in await stream.lag()
            ]
            requests = await stream.requests_waiting()
    finally:
        await engine.close()
    names = Counter(worker.name for worker in cluster.workers)
    workers, failed = dict[str, dict[str, Any]](), dict[str, str]()
    portals = paused = 0
    for worker in cluster.workers:
        health = worker.health
        shown = worker.name if names[worker.name] == 1 else worker.session
        workers[shown] = {
            **health,
            "portals": worker.portals,
            "leaving": worker.leaving,
            "expires_in_s": round(worker.expires_in_s, 1),
        }
        # Each tells of all portals, and whoever heard of a new one last knows best.
        portals = max(portals, int(health.get("portals", 0)))
        paused = max(paused, int(health.get("states", {}).get("paused", 0)))
        failed |= health.get("failed", {})
    owners: Mapping[str, str] = cluster.owners
    return {
        "portals": portals,
        "paused": paused,
        "unserved": max(portals - paused - len(owners), 0),
        "workers": workers,
        "failed": failed,
        "owners": {
            key: {"worker": owner, "epoch": cluster.epochs.get(key, 0)}
            for key, owner in sorted(owners.items())
        },
        "log": log,
        "requests_waiting": requests,
    }


def _show(told: Mapping[str, Any], *, every: bool) -> None:
    console = people_console()
    head = Text(f"{told['portals']:,} portals, {told['paused']:,} of them paused", "bold")
    if told["unserved"]:
        head.append(f", {told['unserved']:,} without a worker", "bold red")
    if told["requests_waiting"]:
        head.append(f", {told['requests_waiting']:,} requests to publish wait", "yellow")
    console.print(head)
    if not told["workers"]:
        console.print(Text("no hub runs on them: bitrix-pull hub run --valkey …", "yellow"))
        return
    _show_workers(console, told["workers"])
    owners, failed = told["owners"], told["failed"]
    for key, error in failed.items():
        where = owners.get(key, {}).get("worker", "nobody")
        line = (("failed  ", "red"), (printable(key), "bold"), (f" at {printable(where)}  ", "dim"))
        console.print(Text.assemble(*line, printable(str(error))))
    _show_log(console, told["log"])
    if every or len(owners) <= _LISTED:
        _show_portals(console, owners, failed)


def _table(*columns: str, numbers: int = 0) -> Table:
    """Return a table whose last columns hold numbers, but for one without a name."""
    named = sum(bool(column) for column in columns)
    table = Table.grid(padding=(0, 2, 0, 0))
    for place in range(len(columns)):
        table.add_column(justify="right" if named - numbers <= place < named else "left")
    table.add_row(*columns, style="dim")
    return table


def _show_workers(console: Console, workers: Mapping[str, Mapping[str, Any]]) -> None:
    table = _table("worker", "portals", "live", "failed", "waiting", "lease ends in", "", numbers=5)
    for name, worker in workers.items():
        live, served, failed = worker.get("live", 0), worker["portals"], len(worker.get("failed", {}))
        table.add_row(
            printable(name),
            f"{served:,}",
            Text(f"{live:,}", "green" if live == served else "yellow"),
            Text(f"{failed:,}", "red" if failed else "dim"),
            f"{worker.get('waiting_bytes', 0) / 1024:,.0f} KiB",
            f"{worker['expires_in_s']:.1f} s",
            Text("leaving", "yellow") if worker["leaving"] else "",
        )
    console.print(table)


def _show_log(console: Console, log: list[dict[str, Any]]) -> None:
    if not log:
        return
    console.print()
    table = _table("group", "stream", "behind", "kept", "", numbers=2)
    for lag in log:
        lost = Text("has lost entries", "red") if lag["lost"] else ""
        table.add_row(
            printable(lag["group"]), printable(lag["stream"]), f"{lag['behind']:,}", f"{lag['kept']:,}", lost
        )
    console.print(table)


def _show_portals(
    console: Console, owners: Mapping[str, Mapping[str, Any]], failed: Mapping[str, str]
) -> None:
    if not owners:
        return
    console.print()
    table = _table("portal", "worker", "epoch", numbers=1)
    for key, owner in owners.items():
        shown = Text(printable(key), "red" if key in failed else "")
        table.add_row(shown, printable(str(owner["worker"])), str(owner["epoch"]))
    console.print(table)


async def drain(place: Place, worker: str | None, *, timeout_s: float) -> Exit:
    """Let a worker, wherever it is, hand its portals over and end; return when it has."""
    cluster = valkey().ValkeyCluster(place.engine, name=place.name)
    present = (await cluster.status()).workers
    sessions = {each.session for each in present if each.name == worker}
    if not sessions:
        there = ", ".join(sorted({each.name for each in present})) or "none"
        wanted = "which worker is to end must be named" if worker is None else f"there is no worker {worker}"
        raise InvalidArgument(wanted, advice=f"Those that run: {there}.")
    await cluster.drain(worker)
    told = -1
    try:
        async with asyncio.timeout(timeout_s):
            while left := [each for each in (await cluster.status()).workers if each.session in sessions]:
                portals = sum(each.portals for each in left)
                if portals != told:
                    say(f"{portals} portals are still to be handed over")
                told = portals
                await asyncio.sleep(_LOOK_EVERY_S)
    except TimeoutError:
        raise PullError(f"worker {worker} has not ended within {timeout_s:g} s; it goes on to") from None
    say("drained")
    return Exit.DONE
