"""Whether there is a way to the push server: a WebSocket, or a poll."""

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from bitrix_pull.connection.connector import Connection
from bitrix_pull.connection.disconnects import Ended, Sign
from bitrix_pull.connection.transports import Transports
from bitrix_pull.doctor.findings import Finding, failed
from bitrix_pull.doctor.patient import Patient, Stopwatch
from bitrix_pull.doctor.way import Way, WayKey
from bitrix_pull.errors import InvalidConfig, PullError
from bitrix_pull.portal.models import PullConfig
from bitrix_pull.wire.close_codes import ClientClose
from bitrix_pull.wire.formats import WireFormat, format_of

Kind = Literal["websocket", "long_polling"]

POLL_S = 1.0
"""How long a poll is waited for: who refuses it does so at once, and who has nothing to tell holds
it for 40 s, which is as good as an answer."""

_NAMES: dict[Kind, str] = {"websocket": "websocket", "long_polling": "polling"}


@dataclass(slots=True, frozen=True)
class Lines:
    """By which ways events can come.

    Attributes:
        findings: Of each way, layer by layer.
        is_one_open: True if events come by at least one.
    """

    findings: Sequence[Finding]
    is_one_open: bool


async def lines(patient: Patient, config: PullConfig) -> Lines:
    """Look by which ways events can come. One that works is enough for a client to be live."""
    wanted, walked = patient.options.transport, set[WayKey]()
    websocket: list[Finding] = []
    polling: list[Finding] = []
    if wanted != "long_polling":
        websocket = await _try(patient, config, "websocket", walked)
    if wanted != "websocket":
        polling = await _try(patient, config, "long_polling", walked)
    if _works(polling) and not _works(websocket) and websocket and websocket[-1].level == "fail":
        # Slower, and dearer for the server, but nothing is lost.
        told = f"{websocket[-1].told}; long polling takes over"
        websocket[-1] = replace(websocket[-1], level="warn", told=told)
    if _works(websocket) and polling and polling[-1].level == "fail":
        polling[-1] = replace(polling[-1], level="warn")
    return Lines([*websocket, *polling], _works(websocket) or _works(polling))


def _works(line: Sequence[Finding]) -> bool:
    return bool(line) and line[-1].level == "ok" and line[-1].took_s is not None


async def _try(patient: Patient, config: PullConfig, kind: Kind, walked: set[WayKey]) -> list[Finding]:
    """Go by one way, layer by layer and then in earnest; the last finding says whether events can come."""
    check, http = _NAMES[kind], patient.rest.http
    if not _is_offered(patient, config, kind):
        return [Finding(check, "ok", "the portal does not offer it")]
    findings: list[Finding] = []
    passed = ""
    try:
        url = http.destinations.admit(config.server, kind)
        passed = patient.way_to(url)
        way = Way(patient, check, url)
        # A session of the user's may poll by a way that only it knows.
        if way.key not in walked and not (kind == "long_polling" and http.is_given):
            walked.add(way.key)
            async for finding in way.findings():
                findings.append(finding)
                if finding.level == "fail":
                    return findings
        transports = Transports(http, replace(patient.options, transport=kind))
        where = f"{config.push_server}{passed}"
        return [*findings, await _open(transports, config, kind, where)]
    except PullError as error:
        return [*findings, failed(check, error, _advice(error, kind, config.push_server, passed))]


def _is_offered(patient: Patient, config: PullConfig, kind: Kind) -> bool:
    if kind == "websocket":
        return config.websocket_url is not None
    wire_format = format_of(config.server.version, protobuf=patient.options.protobuf)
    # JSON-RPC is spoken over WebSockets only (protocol §4.3).
    return config.polling_url is not None and wire_format is not WireFormat.JSONRPC


async def _open(transports: Transports, config: PullConfig, kind: Kind, where: str) -> Finding:
    """Open a stream as a client does, and see that it lives. What takes time is to open it, TCP and TLS too.

    Raises:
        PullError: It does not come about, or is dead.
    """
    with Stopwatch() as watch:
        connection = await transports.open(config, None)
    try:
        if kind == "long_polling":
            told = await _poll(connection.receive())
        elif config.server.version >= 3:
            told = f"open, and a ping was answered in {await _ping(connection) * 1000:,.0f} ms"
        else:
            told = "open"  # Older ones answer no ping (protocol §4.1).
    finally:
        await connection.close(ClientClose.NORMAL)
    return Finding(_NAMES[kind], "ok", f"{told}: {where}", took_s=watch.took_s)


async def _ping(connection: Connection) -> float:
    """Return the seconds until a ping was answered.

    Raises:
        Ended: It was not.
    """
    asked_at = asyncio.get_running_loop().time()
    with Stopwatch() as watch:
        await connection.answered()
    if connection.heard_at < asked_at:
        raise Ended(Sign.SILENT, "the WebSocket opened, and then a ping was not answered: the link is dead")
    return watch.took_s


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
        case Sign.UNANSWERED | Sign.SILENT:
            return f"{let_through}: a firewall may drop them, or the push server is down."
        case Sign.BLOCKED | Sign.SERVER_TROUBLE:
            return f"{let_through}: what answers there is a proxy, a firewall, or a push server in trouble."
        case _:
            return None
