"""Credentials: what a call to the portal is made with, and how it is renewed."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Literal, Protocol
from urllib.parse import urlsplit

from bitrix_pull.options import PullOptions
from bitrix_pull.portal.addresses import require_tls, rest_endpoint, webhook_endpoint
from bitrix_pull.portal.http import HttpSession
from bitrix_pull.portal.tokens import require_token

Mode = Literal["application", "user"]


class Caller(Protocol):
    """Any REST client of the user's own.

    It brings its own credentials and renews them itself. It may raise a ``PullError``;
    anything else that it raises counts as a passing failure.

    It may say where its portal is by an attribute ``portal``, as "acme.bitrix24.com". A
    public portal is then kept from sending this client to private addresses; without it
    the portal could be anywhere, this machine included.
    """

    async def call(self, method: str, params: Mapping[str, Any], /) -> Any:
        """Call a REST method and return what stands under ``result``."""
        ...


@dataclass(slots=True, frozen=True)
class Owner:
    """Whose stream it is, as far as credentials tell without asking the portal.

    Attributes:
        host: Where the portal is, which may change.
        member_id: What the portal is called for good (protocol §2), or "".
        application: The id of the application, or "".
        user_id: The user behind the credentials, or None.
    """

    host: str
    member_id: str = ""
    application: str = ""
    user_id: int | None = None


class Credentials(ABC):
    """What ``RestClient`` makes calls with: ``OAuth``, ``AccessToken`` or ``Webhook``.

    Attributes:
        endpoint: The address that methods are appended to.
        mode: Whose channels these credentials reach.
    """

    mode: ClassVar[Mode] = "application"
    endpoint: str
    refreshes: int = 0
    """How often the access token was refreshed."""
    failed_refreshes: Mapping[str, int] = MappingProxyType({})
    """How often it could not be, by the class of the error."""

    @property
    def identity(self) -> str:
        """Names portal and application for a person to read; holds no secret."""
        return urlsplit(self.endpoint).netloc

    async def owner(self) -> Owner:
        """Return whose stream they bring."""
        return Owner(urlsplit(self.endpoint).netloc)

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

    async def expires_unix(self) -> float | None:
        """Return when the access token expires, by the portal's clock; None where that is not known."""
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

    mode: ClassVar[Mode] = "user"

    def __init__(self, url: str) -> None:
        self.endpoint: str
        self.endpoint, self._code = webhook_endpoint(url)

    async def owner(self) -> Owner:
        """Return portal and user, both of which the address names."""
        address = urlsplit(self.endpoint)
        return Owner(address.netloc, user_id=int(address.path.split("/")[-3]))

    @property
    def secrets(self) -> Iterable[str]:
        """The code in the address."""
        return (self._code,)

    def __repr__(self) -> str:
        return f"Webhook({self.endpoint.removesuffix(f'{self._code}/')}***/)"


class AccessToken(Credentials):
    """The access token of an installed application. It is not refreshed.

    Args:
        portal: The portal's domain, its address, or what it gives as ``client_endpoint``.
        token: The access token.

    Raises:
        InvalidArgument: The portal or token cannot be one.
    """

    def __init__(self, portal: str, token: str) -> None:
        self.endpoint: str = rest_endpoint(portal)
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


def check_credentials(credentials: Credentials, options: PullOptions) -> None:
    """Refuse credentials that would travel unencrypted.

    Raises:
        InvalidArgument: One of their addresses is plain http and not exempt.
    """
    for address in credentials.addresses:
        require_tls(address, options.allow_http_hosts)
