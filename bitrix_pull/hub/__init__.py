"""Many portals: in one process, or on any number of machines.

                      one process: Hub
    portals.db --> +---------------------------------------------------+
    keys, tokens,  | acme   client -> inbox -> +                       |--> acme.bitrix24.com
    resume points  | beta   client -> inbox -> + your handlers         |--> beta.bitrix24.com
    ^              | gamma  client -> inbox -> + event.portal, .client |--> ...
    |              | one HTTP session, names, room for events, pace    |--> the push server they share
    hub add, pause +---------------------------------------------------+

``bitrix_pull.hub.valkey`` is for several machines.
"""

from bitrix_pull.hub.health import HubHealth, PortalStatus
from bitrix_pull.hub.hub import Hub
from bitrix_pull.hub.notices import HubNotice, PortalFailed, PortalUninstalled
from bitrix_pull.hub.portals import (
    Portal,
    PortalBook,
    PortalChange,
    PortalList,
    PortalPut,
    PortalRemoved,
    PortalSource,
)
from bitrix_pull.hub.sqlite import SqlitePortals

__all__ = [
    "Hub",
    "HubHealth",
    "HubNotice",
    "Portal",
    "PortalBook",
    "PortalChange",
    "PortalFailed",
    "PortalList",
    "PortalPut",
    "PortalRemoved",
    "PortalSource",
    "PortalStatus",
    "PortalUninstalled",
    "SqlitePortals",
]
