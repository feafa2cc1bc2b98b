"""From options and environment to what a client is created with."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from bitrix_pull.errors import InvalidArgument
from bitrix_pull.portal.auth import AccessToken, Credentials, Webhook

_HOW = (
    "Give --webhook URL, or --portal URL and --token TOKEN, or set BITRIX_PULL_WEBHOOK, "
    "or BITRIX_PULL_PORTAL and BITRIX_PULL_TOKEN"
)


@dataclass(frozen=True, slots=True)
class Account:
    """The account options of a command line, as they were given."""

    webhook: str | None = field(repr=False)
    portal: str | None
    token: str | None = field(repr=False)
    allow_http: Sequence[str] = ()

    def credentials(self, environment: Mapping[str, str] = os.environ) -> Credentials:
        """Return the credentials; options go before the environment.

        A portal given as an option can have its token in the environment, and the other
        way round.

        Raises:
            InvalidArgument: None, only half of them, two kinds, or malformed ones.
        """
        webhook = environment.get("BITRIX_PULL_WEBHOOK")
        portal = environment.get("BITRIX_PULL_PORTAL")
        token = environment.get("BITRIX_PULL_TOKEN")
        if self.webhook:
            webhook, portal, token = self.webhook, self.portal, self.token
        elif self.portal or self.token:
            webhook, portal, token = None, self.portal or portal, self.token or token
        if webhook and (portal or token):
            raise InvalidArgument("both a webhook and a portal or token are given", advice="Give one kind.")
        if webhook:
            return Webhook(webhook)
        if portal and token:
            return AccessToken(portal, token)
        if portal or token:
            missing = "the access token" if portal else "the portal's address"
            raise InvalidArgument(f"{missing} is missing", advice=f"{_HOW}.")
        raise InvalidArgument(
            "no credentials", advice=f"{_HOW}. To try it without an account: bitrix-pull demo."
        )


def portal_name(credentials: Credentials) -> str:
    """Return the portal's host, with its port if there is one."""
    return urlsplit(credentials.endpoint).netloc
