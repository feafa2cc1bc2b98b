"""Asyncio realtime client for Bitrix24 Push & Pull.

``PullClient`` is the way in; see the README for a first program.
"""

import importlib
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bitrix_pull import errors
    from bitrix_pull.client import Health, PullClient
    from bitrix_pull.connection.stores import FileStore, MemoryStore, ResumeStore, SqliteStore
    from bitrix_pull.dispatch.router import Router
    from bitrix_pull.dispatch.subscription import Subscription
    from bitrix_pull.errors import PullError
    from bitrix_pull.events import (
        Continuity,
        EventsDropped,
        Gap,
        HandlerFailed,
        MessageDropped,
        Notice,
        PullEvent,
        Sender,
        SenderType,
        State,
        StateChanged,
    )
    from bitrix_pull.options import PullOptions
    from bitrix_pull.portal.auth import AccessToken, OAuth, Webhook
    from bitrix_pull.publish.publisher import Receipt

__all__ = [
    "AccessToken",
    "Continuity",
    "EventsDropped",
    "FileStore",
    "Gap",
    "HandlerFailed",
    "Health",
    "MemoryStore",
    "MessageDropped",
    "Notice",
    "OAuth",
    "PullClient",
    "PullError",
    "PullEvent",
    "PullOptions",
    "Receipt",
    "ResumeStore",
    "Router",
    "Sender",
    "SenderType",
    "SqliteStore",
    "State",
    "StateChanged",
    "Subscription",
    "Webhook",
    "errors",
]

logging.getLogger("bitrix_pull").addHandler(logging.NullHandler())

_HOMES = {
    "AccessToken": "portal.auth",
    "Continuity": "events",
    "EventsDropped": "events",
    "FileStore": "connection.stores",
    "Gap": "events",
    "HandlerFailed": "events",
    "Health": "client",
    "MemoryStore": "connection.stores",
    "MessageDropped": "events",
    "Notice": "events",
    "OAuth": "portal.auth",
    "PullClient": "client",
    "PullError": "errors",
    "PullEvent": "events",
    "PullOptions": "options",
    "Receipt": "publish.publisher",
    "ResumeStore": "connection.stores",
    "Router": "dispatch.router",
    "Sender": "events",
    "SenderType": "events",
    "SqliteStore": "connection.stores",
    "State": "events",
    "StateChanged": "events",
    "Subscription": "dispatch.subscription",
    "Webhook": "portal.auth",
}

if not TYPE_CHECKING:
    # A name's import is paid for when it is first used: who needs one room only, such as
    # `bitrix-pull --help`, does not wait for aiohttp, websockets, pydantic and protobuf.

    def __getattr__(name: str) -> object:
        if name == "errors":
            return importlib.import_module("bitrix_pull.errors")
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(importlib.import_module(f"bitrix_pull.{_HOMES[name]}"), name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
