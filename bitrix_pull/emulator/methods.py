"""The REST methods of the portal (protocol §2)."""

import re
from collections.abc import Mapping
from typing import Any, cast

import orjson

from bitrix_pull.emulator import json_values, rest_errors
from bitrix_pull.emulator.channels import Audience
from bitrix_pull.emulator.deal_methods import DEAL_METHODS
from bitrix_pull.emulator.event_methods import EVENT_METHODS
from bitrix_pull.emulator.php import as_php_writes
from bitrix_pull.emulator.portal import Notification, Portal
from bitrix_pull.emulator.rest_caller import Caller, Method
from bitrix_pull.emulator.rest_errors import RestError

_COMMAND = re.compile(r"[A-Za-z0-9_:|.-]+")
_USER_ID = re.compile(r"[0-9]{1,18}")
_MODULE_ID = re.compile(r"[a-z0-9._]+")


def _application_config(portal: Portal, caller: Caller, params: Mapping[str, Any]) -> Any:
    return _config(portal, "application", caller)


def _user_config(portal: Portal, caller: Caller, params: Mapping[str, Any]) -> Any:
    return _config(portal, "user", caller)


def _config(portal: Portal, audience: Audience, caller: Caller) -> Any:
    if not portal.push_configured:
        raise RestError(*rest_errors.NOT_CONFIGURED)
    return portal.config(audience, caller.user_id)


def _add_event(portal: Portal, caller: Caller, params: Mapping[str, Any]) -> Any:
    command = params.get("COMMAND")
    if not isinstance(command, str) or not _COMMAND.fullmatch(command):
        raise RestError(*rest_errors.COMMAND_FORMAT)
    module_id = params.get("MODULE_ID", "application")
    if not isinstance(module_id, str) or not _MODULE_ID.fullmatch(module_id):
        raise RestError(*rest_errors.MODULE_ID_FORMAT)
    content = params.get("PARAMS", {})
    if isinstance(content, str):
        try:
            content = json_values.loads(content)
        except orjson.JSONDecodeError:
            raise RestError(*rest_errors.PARAMS_FORMAT) from None
    if not isinstance(content, dict | list):
        raise RestError(*rest_errors.PARAMS_FORMAT)
    users = _receivers(portal, caller, params.get("USER_ID"))
    portal.send(command, content, module=module_id, users=users)
    return True


def _receivers(portal: Portal, caller: Caller, user_id: Any) -> list[int] | None:
    """Return whose private channels get an event, or None for the shared channel."""
    if user_id is None:
        return None
    if caller.user_id not in portal.admins:
        # The portal compares with ===: itself is "5" where one id is given, and [5] in a list.
        is_own_list = user_id == [caller.user_id] and type(user_id[0]) is int
        if user_id != str(caller.user_id) and not is_own_list:
            raise RestError(*rest_errors.FOREIGN_CHANNELS)
    return _user_ids(user_id)


def _add_notification(portal: Portal, caller: Caller, params: Mapping[str, Any]) -> Any:
    if caller.user_id not in portal.admins:
        raise RestError(*rest_errors.NOTIFICATION_ACCESS)
    users = _user_ids(params.get("USER_ID"))
    if not users:
        raise RestError(*rest_errors.NOTIFICATION_USERS)
    text = params.get("TEXT")
    if not isinstance(text, str) or not text.strip():
        raise RestError(*rest_errors.NOTIFICATION_TEXT)
    if not portal.application_name:
        raise RestError(*rest_errors.APPLICATION_NAME)
    portal.notifications.append(Notification(users, text, str(params.get("AVATAR", ""))))
    return True


def _public_channel(portal: Portal, caller: Caller, params: Mapping[str, Any]) -> Any:
    users = _user_ids(params.get("USER_ID"))
    if len(users) != 1:
        raise RestError(*rest_errors.INVALID_FORMAT)
    return _public_channels(portal, params, users).get(str(users[0]), [])


def _list_public_channels(portal: Portal, caller: Caller, params: Mapping[str, Any]) -> Any:
    users = params.get("USERS")
    if not isinstance(users, list):
        raise RestError(*rest_errors.INVALID_FORMAT)
    return as_php_writes(_public_channels(portal, params, _user_ids(users)))


def _public_channels(portal: Portal, params: Mapping[str, Any], users: list[int]) -> dict[str, Any]:
    if not portal.push_configured:
        raise RestError(*rest_errors.NOT_CONFIGURED)
    return portal.public_channels("application" if params.get("APPLICATION") == "Y" else "user", users)


def _extend_watch(portal: Portal, caller: Caller, params: Mapping[str, Any]) -> Any:
    tags = params.get("TAGS")
    if not isinstance(tags, list):
        raise RestError(*rest_errors.INVALID_FORMAT)
    return as_php_writes({str(tag): True for tag in cast("list[object]", tags)})


def _last_seen(portal: Portal, caller: Caller, params: Mapping[str, Any]) -> Any:
    users = params.get("userIds")
    if not isinstance(users, list):
        raise RestError(*rest_errors.INVALID_FORMAT)
    # "sendToQueueSever", spelt like this, lets the portal tell the push server too.
    seen = portal.last_seen_s(_user_ids(users), tell_push_server=bool(params.get("sendToQueueSever")))
    return as_php_writes({str(user_id): seconds for user_id, seconds in seen.items()})


def _server_time(portal: Portal, caller: Caller, params: Mapping[str, Any]) -> Any:
    return portal.atom(portal.now())


def _profile(portal: Portal, caller: Caller, params: Mapping[str, Any]) -> Any:
    """Tell who calls; needs no scope, unlike ``user.current``."""
    return {"ID": str(caller.user_id), "ADMIN": caller.user_id in portal.admins}


def _scope(portal: Portal, caller: Caller, params: Mapping[str, Any]) -> Any:
    """Tell what the application, or the webhook, may do; needs no scope."""
    return sorted(portal.application_scope if caller.credentials == "application" else portal.webhook_scope)


def _current_user(portal: Portal, caller: Caller, params: Mapping[str, Any]) -> Any:
    return {"ID": str(caller.user_id), "ACTIVE": True}


def _user_ids(value: Any) -> list[int]:
    """Read one id or a list of them as PHP's ``intval`` does; what is no id is left out."""
    values = cast("list[object]", value) if isinstance(value, list) else [value]
    ids = (int(text) for item in values if _USER_ID.fullmatch(text := str(item)))
    return [user_id for user_id in dict.fromkeys(ids) if user_id > 0]


METHODS: Mapping[str, Method] = {
    "pull.application.config.get": Method(_application_config, "pull", "application"),
    "pull.application.event.add": Method(_add_event, "pull", "application"),
    "pull.application.push.add": Method(_add_notification, "pull", "application"),
    "pull.watch.extend": Method(_extend_watch, "pull"),
    "pull.api.user.getlastseen": Method(_last_seen, "pull"),
    "pull.config.get": Method(_user_config, "pull_channel", "webhook"),
    "pull.channel.public.get": Method(_public_channel, "pull_channel"),
    "pull.channel.public.list": Method(_list_public_channels, "pull_channel"),
    "profile": Method(_profile),
    "scope": Method(_scope),
    "user.current": Method(_current_user, "user"),
    "server.time": Method(_server_time),
    **EVENT_METHODS,
    **DEAL_METHODS,
}
