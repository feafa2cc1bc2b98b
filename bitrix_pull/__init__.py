"""Asyncio realtime client for Bitrix24 Push & Pull.

``PullClient`` is the way in; see the README for a first program.

An event walks through the house from the bottom of this list upwards; imports go downward only.

    cli/            the command line
    inspector/      web pages over what a client tells, or the hubs at an engine
    testing/        TestClient and its clock, recording and replaying, the pytest plugin
    otel/           metrics and traces by OpenTelemetry
    hub/            many portals: Hub; in valkey/ and postgres/ what several machines share
    program.py      bitrix_pull.run: a log, signals, an exit code
    sync.py         publishing from code that does not await
    client.py       PullClient: what users call
    emulator/       a portal and a push server; knows wire/ and nothing of the client
    runs.py         what a client consists of, and its runs one after another
    doctor/         why a client gets no events: pull.diagnose()
    running.py      a run: all that one use of a client is made of
    reception.py    where events arrive: inboxes and dispatchers; knows no network
    shared.py       what the clients of many portals have together
    portal_events/  the portal's own events: bound, taken from its queue, confirmed
    connection/     one live stream: channels, transports, cursor, backoff, the supervisor
    dispatch/       routing, the bounded inbox, the workers of the handlers
    presence/       who is online; watches that are kept alive
    publish/        what is checked, how it is packed, and the ways it can go
    portal/         REST: credentials, calls, the configuration
    wire/           bytes to values and back; no I/O, no clock
    catalogue/      models of what portals send
    options.py  health.py  events.py  errors.py
    telemetry.py    the names of what is told: metrics, and the fields of log records
    redaction.py    what may be shown of secrets, and of what servers write
"""

import importlib
from typing import TYPE_CHECKING

from bitrix_pull import errors
from bitrix_pull.errors import *  # noqa: F403 - each is named in errors.__all__

if TYPE_CHECKING:
    from bitrix_pull.client import PullClient
    from bitrix_pull.connection.file_store import FileStore
    from bitrix_pull.connection.resume_point import ResumePoint
    from bitrix_pull.connection.sqlite_store import SqliteStore
    from bitrix_pull.connection.stores import GrowingStore, MemoryStore, ResumeStore
    from bitrix_pull.dispatch.once import Entry, Ledger, Once, SqlLedger
    from bitrix_pull.dispatch.registry import CallNext, Context
    from bitrix_pull.dispatch.router import Router
    from bitrix_pull.dispatch.subscription import Subscription
    from bitrix_pull.doctor.findings import Diagnosis, Finding
    from bitrix_pull.events import (
        Continuity,
        Event,
        EventsDropped,
        Gap,
        HandlerFailed,
        InboxFull,
        MessageDropped,
        Notice,
        PortalEvent,
        PortalTrouble,
        PullEvent,
        Sender,
        SenderType,
        State,
        StateChanged,
    )
    from bitrix_pull.health import Health, OldestEvent, StoreHealth
    from bitrix_pull.hub.hub import Hub
    from bitrix_pull.hub.notices import PortalFailed, PortalUninstalled
    from bitrix_pull.hub.portals import Portal
    from bitrix_pull.hub.sqlite import SqlitePortals
    from bitrix_pull.options import PullOptions, RateLimit
    from bitrix_pull.portal.auth import AccessToken, Webhook
    from bitrix_pull.portal.oauth import OAuth
    from bitrix_pull.portal.token_database import SqliteTokenStore
    from bitrix_pull.portal.token_files import FileTokenStore
    from bitrix_pull.portal.token_stores import MemoryTokenStore, TokenStore
    from bitrix_pull.portal.tokens import Tokens
    from bitrix_pull.portal_events.feed import PortalEvents
    from bitrix_pull.presence.status import Presence, PresenceChanged
    from bitrix_pull.presence.watch import PresenceWatch
    from bitrix_pull.program import run
    from bitrix_pull.publish.batch import Batch
    from bitrix_pull.publish.message import Message
    from bitrix_pull.publish.receipt import Fate, Receipt
    from bitrix_pull.wire.channel_ids import PublicChannel

__all__ = [
    "AccessToken",
    "Batch",
    "CallNext",
    "Context",
    "Continuity",
    "Diagnosis",
    "Entry",
    "Event",
    "EventsDropped",
    "Fate",
    "FileStore",
    "FileTokenStore",
    "Finding",
    "Gap",
    "GrowingStore",
    "HandlerFailed",
    "Health",
    "Hub",
    "InboxFull",
    "Ledger",
    "MemoryStore",
    "MemoryTokenStore",
    "Message",
    "MessageDropped",
    "Notice",
    "OAuth",
    "OldestEvent",
    "Once",
    "Portal",
    "PortalEvent",
    "PortalEvents",
    "PortalFailed",
    "PortalTrouble",
    "PortalUninstalled",
    "Presence",
    "PresenceChanged",
    "PresenceWatch",
    "PublicChannel",
    "PullClient",
    "PullEvent",
    "PullOptions",
    "RateLimit",
    "Receipt",
    "ResumePoint",
    "ResumeStore",
    "Router",
    "Sender",
    "SenderType",
    "SqlLedger",
    "SqlitePortals",
    "SqliteStore",
    "SqliteTokenStore",
    "State",
    "StateChanged",
    "StoreHealth",
    "Subscription",
    "TokenStore",
    "Tokens",
    "Webhook",
    "errors",
    "run",
]
__all__ += errors.__all__

_HOMES = {
    "AccessToken": "portal.auth",
    "Batch": "publish.batch",
    "CallNext": "dispatch.registry",
    "Context": "dispatch.registry",
    "Continuity": "events",
    "Diagnosis": "doctor.findings",
    "Entry": "dispatch.once",
    "Event": "events",
    "EventsDropped": "events",
    "Fate": "publish.receipt",
    "FileStore": "connection.file_store",
    "FileTokenStore": "portal.token_files",
    "Finding": "doctor.findings",
    "Gap": "events",
    "GrowingStore": "connection.stores",
    "HandlerFailed": "events",
    "Health": "health",
    "Hub": "hub.hub",
    "InboxFull": "events",
    "Ledger": "dispatch.once",
    "MemoryStore": "connection.stores",
    "MemoryTokenStore": "portal.token_stores",
    "Message": "publish.message",
    "MessageDropped": "events",
    "Notice": "events",
    "OAuth": "portal.oauth",
    "OldestEvent": "health",
    "Once": "dispatch.once",
    "Portal": "hub.portals",
    "PortalEvent": "events",
    "PortalEvents": "portal_events.feed",
    "PortalFailed": "hub.notices",
    "PortalTrouble": "events",
    "PortalUninstalled": "hub.notices",
    "PublicChannel": "wire.channel_ids",
    "Presence": "presence.status",
    "PresenceChanged": "presence.status",
    "PresenceWatch": "presence.watch",
    "PullClient": "client",
    "PullEvent": "events",
    "PullOptions": "options",
    "RateLimit": "options",
    "Receipt": "publish.receipt",
    "ResumePoint": "connection.resume_point",
    "ResumeStore": "connection.stores",
    "Router": "dispatch.router",
    "Sender": "events",
    "SenderType": "events",
    "SqlLedger": "dispatch.once",
    "SqlitePortals": "hub.sqlite",
    "SqliteStore": "connection.sqlite_store",
    "SqliteTokenStore": "portal.token_database",
    "State": "events",
    "StateChanged": "events",
    "StoreHealth": "health",
    "Subscription": "dispatch.subscription",
    "TokenStore": "portal.token_stores",
    "Tokens": "portal.tokens",
    "Webhook": "portal.auth",
    "run": "program",
}

if not TYPE_CHECKING:
    # A name's import is paid for when it is first used: who needs one room only, such as
    # `bitrix-pull --help`, does not wait for aiohttp, websockets, pydantic and protobuf.

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(importlib.import_module(f"bitrix_pull.{_HOMES[name]}"), name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
