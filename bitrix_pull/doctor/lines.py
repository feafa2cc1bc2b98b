"""Whether there is a way to the push server: a WebSocket, or a poll."""

import asyncio
from collections.abc import Awaitable
from dataclasses import replace
from typing import Literal

from bitrix_pull.connection.disconnects import Ended, Sign
from bitrix_pull.connection.transports import Transports
from bitrix_pull.doctor.findings import Finding, failed
from bitrix_pull.doctor.patient import Patient, Stopwatch
from bitrix_pull.errors import InvalidConfig, PullError
from bitrix_pull.portal.models import PullConfig
from bitrix_pull.wire.close_codes import ClientClose
from bitrix_pull.wire.formats import WireFormat, format_of

Kind = Literal["websocket", "long_polling"]

POLL_S = 1.0
"""How long a poll is waited for: who refuses it does so at once, and who has nothing to tell holds
it for 40 s, which is as good as an answer."""

_NAMES: dict[Kind, str] = {"websocket": "websocket", "long_polling": "polling"}


async def lines(patient: Patient, config: PullConfig) -> list[Finding]:
    """Look by which ways events can come. One that works is enough for a client to be live."""
    websocket = await _try(patient, config, "websocket", config.websocket_url)
    polling = await _try(patient, config, "long_polling", _polling_url(patient, config))
    wanted = patient.options.transport
    if wanted == "auto" and _works(polling) and websocket.level == "fail":
        # Slower, and dearer for the server, but nothing is lost.
        told = f"{websocket.told}; long polling takes over"
        websocket = replace(websocket, level="warn", told=told)
    if wanted != "long_polling" and _works(websocket) and polling.level == "fail":
        polling = replace(polling, level="warn")
    return [
        finding
        for finding, kind in ((websocket, "websocket"), (polling, "long_polling"))
        if wanted in ("auto", kind)
    ]


def _polling_url(patient: Patient, config: PullConfig) -> str | None:
    wire_format = format_of(config.server.version, protobuf=patient.options.protobuf)
    # JSON-RPC is spoken over WebSockets only (protocol §4.3).
    return None if wire_format is WireFormat.JSONRPC else config.polling_url


def _works(finding: Finding) -> bool:
    return finding.level == "ok" and finding.took_s is not None


async def _try(patient: Patient, config: PullConfig, kind: Kind, url: str | None) -> Finding:
    check = _NAMES[kind]
    if url is None:
        return Finding(check, "ok", "the portal does not offer it")
    options = replace(patient.options, transport=kind)
    transports = Transports(patient.rest.http, options)
    way = ""
    try:
        way = patient.way_to(url)
        with Stopwatch() as watch:
            connection = await transports.open(config, None)
            try:
                if kind == "long_polling":
                    told = await _poll(connection.receive())
                else:
                    told = "open"
                    if config.server.version >= 3:
                        # Older ones answer no ping (protocol §4.1).
                        await connection.answered()
                        told = "open, and a ping was answered"
            finally:
                await connection.close(ClientClose.NORMAL)
    except PullError as error:
        return failed(check, error, _advice(error, kind, config.push_server, way))
    return Finding(check, "ok", f"{told}: {config.push_server}{way}", took_s=watch.took_s)


async def _poll(poll: Awaitable[object]) -> str:
    try:
        async with asyncio.timeout(POLL_S):
            await poll
    except TimeoutError:
        return "the server holds polls"
    return "a poll was answered"


def _advice(error: PullError, kind: Kind, server: str, way: str) -> str | None:
    """Say what to do about a line that does not come about."""
    if isinstance(error, InvalidConfig) or not isinstance(error, Ended):
        return None
    what = "WebSockets" if kind == "websocket" else "HTTPS requests"
    let_through = f"Let {what} to {server} through{f' (the way there leads{way})' if way else ''}"
    match error.sign:
        case Sign.CHANNEL_REFUSED:
            return (
                "The portal and its push server disagree: an administrator must see that both have the same"
                " security key, and that the portal names its own push server."
            )
        case Sign.EVICTED:
            return "Over 100 connections are open on the same channel: end some, or wait a minute."
        case Sign.UNANSWERED if "allow_private_hosts" in str(error):
            return "If that is right, allow the host with PullOptions(allow_private_hosts=...)."
        case Sign.UNANSWERED if "certificate" in str(error).lower():
            return "Trust the authority that has signed it with PullOptions(ssl=...)."
        case Sign.UNANSWERED | Sign.SILENT:
            return f"{let_through}: a firewall may drop them, or the push server is down."
        case Sign.BLOCKED | Sign.SERVER_TROUBLE:
            return f"{let_through}: what answers there is a proxy, a firewall, or a push server in trouble."
        case _:
            return None
