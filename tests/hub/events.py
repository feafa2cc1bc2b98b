"""Events made by hand."""

from datetime import UTC, datetime
from typing import Any

from bitrix_pull.events import BACKEND_SENDER, PortalEvent, PullEvent


def mid(number: int, epoch: int = 1_700_000_000) -> str:
    return f"{epoch}{number:016}"


def message(number: int, created_unix: int = 1_700_000_100, **params: Any) -> PullEvent[Any]:
    return PullEvent(
        mid(number),
        "application",
        "order",
        {"n": number, **params},
        {"server_time_unix": created_unix + 0.25},
        BACKEND_SENDER,
        "server",
        created_unix=created_unix,
    )


def change(record_id: int, at: int = 1_700_000_100) -> PortalEvent[Any]:
    fields = {"ID": "7"}
    return PortalEvent(
        "ONCRMDEALUPDATE",
        {"FIELDS": fields},
        fields,
        7,
        1,
        datetime.fromtimestamp(at, UTC),
        "0123456789abcdef0123456789abcdef",
        record_id=record_id,
    )
