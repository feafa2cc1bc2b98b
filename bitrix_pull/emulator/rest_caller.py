"""Who calls a REST method, and what a method needs (protocol §2)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from bitrix_pull.emulator import rest_errors
from bitrix_pull.emulator.portal import Portal
from bitrix_pull.emulator.rest_errors import RestError

Credentials = Literal["application", "webhook"]


@dataclass(slots=True, frozen=True)
class Caller:
    """Who calls a method: a user, through the application or through an inbound webhook.

    Attributes:
        connector: The application's exchange channel that it names (``auth_connector``).
    """

    user_id: int
    credentials: Credentials
    connector: str = ""

    @property
    def own_connector(self) -> str | None:
        """The channel of the application through which it acts; None if it is not the application."""
        return self.connector if self.credentials == "application" else None


@dataclass(slots=True, frozen=True)
class Method:
    """What a REST method needs, and what it does.

    Attributes:
        scope: The permission that it needs, or None.
        only: The one kind of credentials that it takes, or None for any.
    """

    call: Callable[[Portal, Caller, Mapping[str, Any]], Any]
    scope: str | None = None
    only: Credentials | None = None

    def check(self, portal: Portal, caller: Caller) -> None:
        """Refuse who may not call it.

        Raises:
            RestError: The scope does not suffice, or these are the wrong credentials.
        """
        is_application = caller.credentials == "application"
        scope = portal.application_scope if is_application else portal.webhook_scope
        if self.scope is not None and self.scope not in scope:
            raise RestError(*rest_errors.INSUFFICIENT_SCOPE)
        if self.only is not None and self.only != caller.credentials:
            raise RestError(*(rest_errors.USER_ONLY if is_application else rest_errors.APPLICATION_ONLY))
