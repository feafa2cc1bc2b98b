"""Credentials: what a call to the portal is made with, and how it is renewed."""

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from os import PathLike
from typing import Any, ClassVar, Literal, Protocol
from urllib.parse import urlsplit

from bitrix_pull.errors import InvalidArgument
from bitrix_pull.options import PullOptions
from bitrix_pull.portal.addresses import oauth_address, require_tls, rest_endpoint, webhook_endpoint
from bitrix_pull.portal.answers import read_token_answer
from bitrix_pull.portal.http import HttpSession
from bitrix_pull.portal.tokens import GivenTokens, TokenFile, Tokens, TokenStore, require_token

_log = logging.getLogger("bitrix_pull.portal")

Mode = Literal["application", "user"]

OAUTH_URL = "https://oauth.bitrix.info/oauth/token/"
"""Where tokens of cloud and on-premise applications are refreshed (protocol §2)."""


class Caller(Protocol):
    """Any REST client of the user's own.

    It brings its own credentials and renews them itself. It may raise a ``PullError``;
    anything else that it raises counts as a passing failure.
    """

    async def call(self, method: str, params: Mapping[str, Any], /) -> Any:
        """Call a REST method and return what stands under ``result``."""
        ...


class Credentials(ABC):
    """What ``RestClient`` makes calls with: ``OAuth``, ``AccessToken`` or ``Webhook``.

    Attributes:
        endpoint: The address that methods are appended to.
        mode: Whose channels these credentials reach.
    """

    mode: ClassVar[Mode] = "application"
    endpoint: str

    @property
    def identity(self) -> str:
        """Names portal and application for a person to read; holds no secret."""
        return urlsplit(self.endpoint).netloc

    @property
    def addresses(self) -> tuple[str, ...]:
        """All addresses that secrets are sent to."""
        return (self.endpoint,)

    @property
    @abstractmethod
    def secrets(self) -> Iterable[str]:
        """Texts that must not show in errors, should a server echo them."""

    async def token(self, http: HttpSession, options: PullOptions) -> str | None:
        """Return the access token for the next call; None if the address is the secret."""
        return None

    async def renew(self, refused: str, http: HttpSession, options: PullOptions) -> str | None:
        """Return another token than the one that the portal refused; None if there is none."""
        return None

    async def close(self) -> None:  # noqa: B027 - most have nothing to finish
        """Finish what must not be cut off."""


class Webhook(Credentials):
    """An inbound webhook: the user's own channels.

    Args:
        url: The webhook's address, ``https://acme.bitrix24.com/rest/1/CODE/``.

    Raises:
        InvalidArgument: The address is no webhook's. The text never repeats it.
    """

    mode = "user"

    def __init__(self, url: str) -> None:
        self.endpoint, self._code = webhook_endpoint(url)

    @property
    def secrets(self) -> Iterable[str]:
        """The code in the address."""
        return (self._code,)

    def __repr__(self) -> str:
        return f"Webhook({self.endpoint.removesuffix(f'{self._code}/')}***/)"


class AccessToken(Credentials):
    """The access token of an installed application. It is not refreshed.

    Args:
        portal: The portal's domain, or its address.
        token: The access token.

    Raises:
        InvalidArgument: The portal or token cannot be one.
    """

    def __init__(self, portal: str, token: str) -> None:
        self.endpoint = rest_endpoint(portal)
        self._token = require_token("the access token", token)

    @property
    def secrets(self) -> Iterable[str]:
        """The token."""
        return (self._token,)

    async def token(self, http: HttpSession, options: PullOptions) -> str:
        """Return the token."""
        return self._token

    def __repr__(self) -> str:
        return f"AccessToken({self.endpoint})"


class OAuth(Credentials):
    """An installed application's tokens, which are refreshed when they have expired.

    Every refresh replaces the refresh token, and two at once lose the grant (protocol §2).
    So there is never more than one at a time in this process, it is not cut off when its
    caller is cancelled, and new tokens are stored before they are used.

    Args:
        portal: The portal's domain, or its address.
        client_id: The application's id.
        client_secret: The application's secret key.
        tokens: The tokens, or a JSON file that holds them as the OAuth server writes them
            (``access_token``, ``refresh_token``, ``expires``). The file is read when first
            needed and rewritten by every refresh; tokens given as values are renewed in
            memory only.
        oauth_url: The OAuth server's token endpoint.

    Raises:
        InvalidArgument: One of them cannot work.
    """

    def __init__(
        self,
        portal: str,
        *,
        client_id: str,
        client_secret: str,
        tokens: str | PathLike[str] | Tokens | Mapping[str, Any],
        oauth_url: str = OAUTH_URL,
    ) -> None:
        self.endpoint = rest_endpoint(portal)
        self._client_id = require_token("client_id", client_id)
        self._client_secret = require_token("client_secret", client_secret)
        self._oauth_url = oauth_address(oauth_url)
        self._store: TokenStore
        match tokens:
            case Tokens():
                self._store = GivenTokens(tokens)
            case Mapping():
                self._store = GivenTokens(Tokens.read(tokens, "the tokens"))
            case str() | PathLike():
                self._store = TokenFile(tokens)
            case _:
                raise InvalidArgument("the tokens are no path, Tokens or mapping")
        self._tokens: Tokens | None = None
        self._unsaved: Tokens | None = None
        self._renewal: asyncio.Task[Tokens] | None = None

    @property
    def identity(self) -> str:
        """The portal's domain and the application's id."""
        return f"{super().identity} {self._client_id}"

    @property
    def addresses(self) -> tuple[str, ...]:
        """The portal and the OAuth server."""
        return (self.endpoint, self._oauth_url)

    @property
    def secrets(self) -> Iterable[str]:
        """The application's secret and the tokens."""
        yield self._client_secret
        for tokens in (self._tokens, self._unsaved):
            if tokens is not None:
                yield from (tokens.access_token, tokens.refresh_token)

    async def token(self, http: HttpSession, options: PullOptions) -> str:
        """Return an access token that has not expired, by this machine's clock."""
        if self._tokens is None:
            self._tokens = await self._store.load()
        if self._tokens.expired(time.time()):
            return await self.renew(self._tokens.access_token, http, options)
        return self._tokens.access_token

    async def renew(self, refused: str, http: HttpSession, options: PullOptions) -> str:
        """Return an access token other than the refused one, refreshing it if need be.

        Raises:
            InvalidArgument: The token file cannot be read or written.
            PortalError: The OAuth server refused; GrantRefused if for good.
            Unreachable: The OAuth server did not answer.
        """
        if self._tokens is not None and self._tokens.access_token != refused:
            return self._tokens.access_token
        if self._renewal is None or self._renewal.done():
            self._renewal = asyncio.create_task(self._renew(refused, http, options))
            # Whoever waited may be gone by then; the next call refreshes again.
            self._renewal.add_done_callback(lambda task: task.cancelled() or task.exception())
        renewed = await asyncio.shield(self._renewal)
        return renewed.access_token

    async def _renew(self, refused: str, http: HttpSession, options: PullOptions) -> Tokens:
        if self._unsaved is None:
            stored = await self._store.load()
            if stored.access_token != refused and not stored.expired(time.time()):
                # Somebody else has renewed what is in the file.
                self._tokens = stored
                return stored
            # Shows that tokens can be stored, before the one refresh token is spent.
            await self._store.save(stored)
            self._tokens = stored
            self._unsaved = await self._refresh(stored, http, options)
        await self._store.save(self._unsaved)
        self._tokens, self._unsaved = self._unsaved, None
        return self._tokens

    async def _refresh(self, tokens: Tokens, http: HttpSession, options: PullOptions) -> Tokens:
        answer = await http.request(
            "GET",
            self._oauth_url,
            query={
                "grant_type": "refresh_token",
                "client_id": self._client_id,
                "client_secret": self._client_secret,
                "refresh_token": tokens.refresh_token,
            },
            timeout_s=options.rest_timeout_s,
            max_bytes=options.max_rest_bytes,
        )
        _log.debug("OAuth refresh: HTTP %d", answer.status, extra={"status": answer.status})
        return tokens.renewed(read_token_answer(answer, self.secrets), time.time())

    async def close(self) -> None:
        """Wait for a refresh under way: its answer is the only copy of the new tokens."""
        if self._renewal is not None and not self._renewal.done():
            await asyncio.wait({self._renewal})

    def __repr__(self) -> str:
        return f"OAuth({self.endpoint})"


def check_credentials(credentials: Credentials, options: PullOptions) -> None:
    """Refuse credentials that would travel unencrypted.

    Raises:
        InvalidArgument: One of their addresses is plain http and not exempt.
    """
    for address in credentials.addresses:
        require_tls(address, options.allow_http_hosts)
