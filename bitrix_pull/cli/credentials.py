"""From options and environment to what a client is created with."""

import os
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from bitrix_pull.errors import InvalidArgument
from bitrix_pull.options import PullOptions, Transport
from bitrix_pull.portal.auth import AccessToken, Credentials, Webhook

_HOW = (
    "Give --webhook URL, or --portal URL and --token TOKEN, or set BITRIX_PULL_WEBHOOK, "
    "or BITRIX_PULL_PORTAL and BITRIX_PULL_TOKEN"
)


@dataclass(frozen=True, slots=True)
class Account:
    """The options of a command line about the account and the way to it, as they were given."""

    webhook: str | None = field(repr=False)
    portal: str | None
    token: str | None = field(repr=False)
    allow_http: Sequence[str] = ()
    ca_file: Path | None = None
    proxy: str | None = field(default=None, repr=False)
    connector: str = ""

    def options(self, *, transport: Transport = "auto", start_timeout_s: float = 10.0) -> PullOptions:
        """Return what they say for a client.

        Raises:
            InvalidArgument: The file with certificates cannot be used, or the proxy.
        """
        return PullOptions(
            allow_http_hosts=self.allow_http,
            ssl=None if self.ca_file is None else _trusting(self.ca_file),
            proxy=self.proxy,
            transport=transport,
            start_timeout_s=start_timeout_s,
            connector=self.connector,
        )

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


def _trusting(ca_file: Path) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        # What is no PEM file at all has no reason of the operating system's.
        reason = "it holds no certificate in PEM" if isinstance(error, ssl.SSLError) else error.strerror
        raise InvalidArgument(f"the file of --ca-file cannot be used: {reason}") from None


def portal_name(credentials: Credentials) -> str:
    """Return the portal's host, with its port if there is one."""
    return urlsplit(credentials.endpoint).netloc
