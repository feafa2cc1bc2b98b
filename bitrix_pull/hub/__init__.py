"""Many portals: in one process, or on any number of machines."""

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
