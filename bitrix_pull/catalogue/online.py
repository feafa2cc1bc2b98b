"""Presence (module ``online``)."""

from bitrix_pull.catalogue.base import Date, Map, Number, PortalModel, Text, Tolerant


class UserStatus(Tolerant):
    """The status of one user."""

    id: Number = None
    status: Text = None
    last_activity_date: Date = None
    mobile_last_date: Date = None
    desktop_last_date: Date = None


class StatusChanged(PortalModel, module="online", commands=("userStatus",)):
    """The user's own status has changed. The push server keeps it for 1 s.

    Provisional, from the portal's code of 2025-06 to 2026-05.
    """

    users: Map[UserStatus] = {}
