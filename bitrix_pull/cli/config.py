"""``bitrix-pull config``: what the portal says about its push server, without the secrets."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import orjson
from rich.table import Table
from rich.text import Text

from bitrix_pull.cli.account import Account
from bitrix_pull.cli.credentials import credentials_of, options_of, portal_name
from bitrix_pull.cli.output import people_console
from bitrix_pull.cli.streams import write_line
from bitrix_pull.portal.config import ConfigFetcher
from bitrix_pull.portal.models import Channel, PullConfig
from bitrix_pull.portal.rest import RestClient
from bitrix_pull.redaction import HIDDEN, one_line


async def config(account: Account, *, as_json: bool) -> None:
    """Print the configuration."""
    credentials = credentials_of(account)
    rest = RestClient(credentials, options=options_of(account))
    try:
        fetched = await ConfigFetcher(rest, credentials.mode).fetch()
    finally:
        await rest.close()
    summary = {"portal": portal_name(credentials), "mode": credentials.mode, **summarize(fetched)}
    if as_json:
        write_line(orjson.dumps(summary))
    else:
        people_console().print(_table(summary))


def summarize(config: PullConfig) -> dict[str, Any]:
    """Return what may be shown of a configuration: ids, signatures and the JWT are hidden."""
    server = config.server
    now = config.server_time or datetime.now(UTC)
    channels = {"private": config.channels.private, "shared": config.channels.shared}
    return {
        "server": {
            "version": server.version,
            "mode": server.mode,
            "websocket": _bare(config.websocket_url),
            "long_polling": _bare(config.polling_url),
            "publish": _bare(config.publish_url),
        },
        "channels": {
            name: _channel(channel, now) for name, channel in channels.items() if channel is not None
        },
        "users": sorted(config.public_channels),
        "client_id": HIDDEN if config.client_id else None,
        "jwt": HIDDEN if config.jwt else None,
        "exp": config.exp,
        "revision": {"web": config.api.revision_web, "mobile": config.api.revision_mobile},
        "server_time": config.server_time,
    }


def _bare(url: str | None) -> str | None:
    """Return an address without what could be a secret in it."""
    if url is None:
        return None
    try:
        parts = urlsplit(url)
    except ValueError:
        return "(no address)"
    return one_line(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}")


def _channel(channel: Channel, now: datetime) -> Mapping[str, Any]:
    return {
        "id": HIDDEN,
        "public_id": HIDDEN if channel.public_id else None,
        "start": channel.start,
        "end": channel.end,
        "remaining_s": None if channel.end is None else round((channel.end - now).total_seconds()),
    }


def _table(summary: Mapping[str, Any]) -> Table:
    server = summary["server"]
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    rows = {
        "portal": f"{summary['portal']}, {summary['mode']} mode",
        "push server": f"version {server['version'] or 'unknown'}, {server['mode'] or 'unknown'} mode",
        "WebSocket": server["websocket"],
        "long polling": server["long_polling"],
        "publish endpoint": server["publish"],
        **{f"{name} channel": _life(channel) for name, channel in summary["channels"].items()},
        "public channels": ", ".join(f"user {user}" for user in summary["users"]) or None,
        "JWT": summary["jwt"],
    }
    for name, value in rows.items():
        table.add_row(name, _cell(value))
    return table


def _cell(value: str | Text | None) -> Text:
    """Return what the portal said as text that is neither markup nor anything else to a terminal."""
    if value is None:
        return Text("none", "dim")
    return value if isinstance(value, Text) else Text(one_line(value))


def _life(channel: Mapping[str, Any]) -> Text:
    end, remaining_s = channel["end"], channel["remaining_s"]
    if end is None:
        return Text("no end given")
    if remaining_s <= 0:
        return Text(f"ended {end:%Y-%m-%d %H:%M:%S %Z}", "red")
    left = timedelta(seconds=remaining_s)
    return Text(f"ends {end:%Y-%m-%d %H:%M:%S %Z}, in {left}")
