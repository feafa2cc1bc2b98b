"""Asyncio realtime client for Bitrix24 Push & Pull.

``PullClient`` is the way in; see the README for a first program.
"""

import logging

from bitrix_pull import errors
from bitrix_pull.client import Health, PullClient
from bitrix_pull.dispatch.router import Router
from bitrix_pull.dispatch.subscription import Subscription
from bitrix_pull.errors import PullError
from bitrix_pull.events import (
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
    "HandlerFailed",
    "Health",
    "MessageDropped",
    "Notice",
    "OAuth",
    "PullClient",
    "PullError",
    "PullEvent",
    "PullOptions",
    "Receipt",
    "Router",
    "Sender",
    "SenderType",
    "State",
    "StateChanged",
    "Subscription",
    "Webhook",
    "errors",
]

logging.getLogger("bitrix_pull").addHandler(logging.NullHandler())
