"""From options and environment to what a client is created with."""

import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from bitrix_pull.cli.account import Account
from bitrix_pull.errors import InvalidArgument
from bitrix_pull.options import PullOptions, Transport
from bitrix_pull.portal.auth import AccessToken, Credentials, Webhook
from bitrix_pull.portal.oauth import OAuth
from bitrix_pull.portal.token_files import read_tokens

_HOW = (
    "Give --webhook URL, or --portal URL and --token TOKEN, or --tokens FILE with --client-id ID and "
    "--client-secret-file FILE, or set BITRIX_PULL_WEBHOOK, or BITRIX_PULL_PORTAL and BITRIX_PULL_TOKEN"
)
_READ_MAX_BYTES = 1_000_000


def options_of(
    account: Account, *, transport: Transport = "auto", start_timeout_s: float = 10.0, connector: str = ""
) -> PullOptions:
    """Return what the options of a command line say for a client.

    Raises:
        InvalidArgument: The file with certificates cannot be used, or the proxy.
    """
    return PullOptions(
        allow_http_hosts=account.allow_http or (),
        ssl=None if account.ca_file is None else _trusting(account.ca_file),
        proxy=account.proxy,
        transport=transport,
        start_timeout_s=start_timeout_s,
        connector=connector,
    )


def credentials_of(account: Account, environment: Mapping[str, str] = os.environ) -> Credentials:
    """Return the credentials; options go before the environment.

    A portal given as an option can have its token in the environment, and the other
    way round.

    Raises:
        InvalidArgument: None, only half of them, two kinds, or malformed ones.
    """
    webhook, token, tokens, portal = account.webhook, account.token, account.tokens, account.portal
    if not webhook:
        portal = portal or environment.get("BITRIX_PULL_PORTAL")
        if not token and not tokens:
            token = environment.get("BITRIX_PULL_TOKEN")
            tokens = _path(environment.get("BITRIX_PULL_TOKENS"))
            if not account.portal:
                webhook = environment.get("BITRIX_PULL_WEBHOOK")
    _check_kinds(webhook, portal, token, tokens)
    if tokens:
        return _refreshing(account, tokens, portal, environment)
    if account.client_id or account.client_secret_file or account.oauth_url:
        raise InvalidArgument(
            "--client-id, --client-secret-file and --oauth-url refresh --tokens, which are missing",
            advice="Give --tokens FILE too, or leave them out.",
        )
    if webhook:
        return Webhook(webhook)
    if portal and token:
        return AccessToken(portal, token)
    if portal or token:
        missing = "the access token" if portal else "the portal's address"
        raise InvalidArgument(f"{missing} is missing", advice=f"{_HOW}.")
    raise InvalidArgument("no credentials", advice=f"{_HOW}. To try it without an account: bitrix-pull demo.")


def _check_kinds(webhook: str | None, portal: str | None, token: str | None, tokens: Path | None) -> None:
    if webhook and (portal or token or tokens):
        raise InvalidArgument("both a webhook and a portal or token are given", advice="Give one kind.")
    if token and tokens:
        raise InvalidArgument("both an access token and a file of tokens are given", advice="Give one.")


def _refreshing(account: Account, tokens: Path, portal: str | None, environment: Mapping[str, str]) -> OAuth:
    client_id = account.client_id or environment.get("BITRIX_PULL_CLIENT_ID")
    secret_file = account.client_secret_file or _path(environment.get("BITRIX_PULL_CLIENT_SECRET_FILE"))
    if not client_id or not secret_file:
        missing = "the file with the client secret" if client_id else "the client id"
        raise InvalidArgument(
            f"{missing} is missing",
            advice="Tokens are refreshed with --client-id ID and --client-secret-file FILE.",
        )
    return OAuth(
        portal or _portal_of(tokens),
        client_id=client_id,
        client_secret=_secret(secret_file),
        tokens=tokens,
        oauth_url=account.oauth_url,
    )


def _secret(file: Path) -> str:
    name = "the file of --client-secret-file"
    try:
        return _read(file, name).decode().strip()
    except UnicodeDecodeError:
        raise InvalidArgument(f"{name} holds no text in UTF-8") from None


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None


def _portal_of(tokens: Path) -> str:
    """Return the portal that a file of tokens names."""
    name = f"the token file {tokens}"
    fields = read_tokens(_read(tokens, name), name).fields
    for named in (fields.get("client_endpoint"), fields.get("domain")):
        if isinstance(named, str) and named:
            return named
    raise InvalidArgument(f"{name} does not name its portal", advice="Give --portal URL.")


def _read(path: Path, name: str) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_READ_MAX_BYTES)
    except OSError as error:
        raise InvalidArgument(f"{name} cannot be read: {error.strerror}") from None


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
