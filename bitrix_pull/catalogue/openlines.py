"""Open lines (module ``imopenlines``): they reach their operators."""

from typing import Any

from bitrix_pull.catalogue.base import Map, Number, PortalModel, Text


class SessionUpdated(PortalModel, module="imopenlines", commands=("updateSessionStatus",)):
    """A session has another status.

    Provisional, from the portal's code of 2025-06 to 2026-05.
    """

    chat_id: Number = None
    status: Text = None
    session: Map[Any] = {}


class SessionAnswered(PortalModel, module="imopenlines", commands=("linesAnswer",)):
    """An operator has taken a session.

    Provisional, from the portal's code of 2025-06 to 2026-05.
    """

    chat_id: Number = None
    status: Text = None
    session: Map[Any] = {}
