"""Notifications on mobile phones (protocol §2, ``pull.application.push.add``)."""

from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from bitrix_pull.errors import InvalidArgument, RouteUnavailable
from bitrix_pull.portal.auth import Mode
from bitrix_pull.portal.rest import RestClient
from bitrix_pull.portal.user_ids import check_user_ids

_METHOD = "pull.application.push.add"


async def notify(
    rest: RestClient, mode: Mode, users: int | Iterable[int], text: str, avatar: str | None
) -> None:
    """Send a notification; see ``PullClient.notify``."""
    if mode == "user":
        raise RouteUnavailable(
            f"a webhook has no application that could notify ({_METHOD})",
            advice="Use the access token of an installed application: OAuth(…) or AccessToken(…).",
        )
    ids = check_user_ids(users)
    if not isinstance(text, str) or not text.strip():
        raise InvalidArgument("the text of a notification must not be empty (TEXT_ERROR)")
    # As with events, a single id goes as text (protocol §2).
    params: dict[str, Any] = {"USER_ID": str(ids[0]) if len(ids) == 1 else list(ids), "TEXT": text}
    if avatar is not None:
        params["AVATAR"] = _web_address(avatar)
    await rest.call(_METHOD, params)


def _web_address(url: str) -> str:
    """Return the address of a picture, if phones could fetch it."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and url.isprintable()
    except (ValueError, AttributeError):
        usable = False
    if not usable or " " in url:
        raise InvalidArgument("avatar must be the http(s) address of a picture")
    return url
