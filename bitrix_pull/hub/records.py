"""Portals as JSON, to be kept anywhere. Records hold secrets: keep them as you keep tokens."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from bitrix_pull.errors import InvalidArgument
from bitrix_pull.hub.portals import Portal
from bitrix_pull.options import PullOptions, RateLimit
from bitrix_pull.portal.auth import AccessToken, Credentials, Webhook
from bitrix_pull.portal.oauth import OAuth
from bitrix_pull.portal.token_stores import TokenStore

_DEFAULTS = PullOptions()


def write_portal(portal: Portal) -> dict[str, Any]:
    """Return a portal as JSON values, without its key, its tokens and whether it is paused.

    Raises:
        InvalidArgument: It holds what no record can: a client of one's own, a function.
    """
    record: dict[str, Any] = {"credentials": _write_credentials(portal)}
    if portal.mode is not None:
        record["mode"] = portal.mode
    if portal.options is not None:
        record["options"] = _write_options(portal)
    return record


def read_portal(key: str, record: Mapping[str, Any], tokens: TokenStore, *, paused: bool = False) -> Portal:
    """Return the portal that ``write_portal`` has written.

    Args:
        key: The portal's key.
        record: What was written.
        tokens: Where its OAuth tokens are, if it has any.
        paused: Whether it is paused.

    Raises:
        InvalidArgument: The record is damaged, or of a newer version.
    """
    try:
        options = record.get("options")
        return Portal(
            key,
            _read_credentials(record["credentials"], tokens),
            mode=record.get("mode"),
            options=None if options is None else _read_options(options),
            paused=paused,
        )
    except (LookupError, TypeError, AttributeError, InvalidArgument) as error:
        raise InvalidArgument(
            f"the record of portal {key!r:.60} cannot be read: {type(error).__name__}",
            advice="Add the portal again.",
        ) from None


def _write_credentials(portal: Portal) -> dict[str, Any]:
    credentials = portal.credentials
    match credentials:
        case OAuth():
            return {"kind": "oauth", **credentials.record()}
        case AccessToken() | Webhook():
            (secret,) = credentials.secrets
            if isinstance(credentials, Webhook):
                return {"kind": "webhook", "url": credentials.endpoint}
            return {"kind": "token", "portal": credentials.endpoint, "token": secret}
        case _:
            raise InvalidArgument(
                f"portal {portal.key!r:.60} has a {type(credentials).__name__}, which cannot be written down",
                advice="Use OAuth, AccessToken or Webhook, or a PortalSource of your own.",
            )


def _read_credentials(record: Mapping[str, Any], tokens: TokenStore) -> Credentials:
    match record["kind"]:
        case "oauth":
            return OAuth(
                record["portal"],
                client_id=record["client_id"],
                client_secret=record["client_secret"],
                oauth_url=record.get("oauth_url"),
                tokens=tokens,
            )
        case "token":
            return AccessToken(record["portal"], record["token"])
        case "webhook":
            return Webhook(record["url"])
        case _:
            raise LookupError("kind")


def _write_options(portal: Portal) -> dict[str, Any]:
    record: dict[str, Any] = {}
    for item in fields(PullOptions):
        value = getattr(portal.options, item.name)
        if value == getattr(_DEFAULTS, item.name):
            continue
        if item.name == "ssl":
            raise InvalidArgument(
                f"options.ssl of portal {portal.key!r:.60} cannot be written down",
                advice="Give it in the hub's own options.",
            )
        if isinstance(value, RateLimit):
            value = [value.burst, value.per_s]
        elif not isinstance(value, str | int | float | bool | None):
            value = sorted(value)
        record[item.name] = value
    return record


def _read_options(record: Mapping[str, Any]) -> PullOptions:
    given = dict(record)
    if isinstance(given.get("rest_limit"), list):
        given["rest_limit"] = RateLimit(*given["rest_limit"])
    return PullOptions(**given)
