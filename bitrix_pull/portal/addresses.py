"""Addresses: one grammar for what the user gives and what the portal names.

Programs disagree about what an odd address means, and what is checked by one of them must
not be used by another: everything is taken apart here, and put together again from parts
that leave no room for opinions.
"""

import ipaddress
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache

from bitrix_pull.errors import InvalidArgument
from bitrix_pull.portal.zones import is_this_machine, shortest

_NETLOC = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:]*)(?::([0-9]{1,5}))?")
_TARGET = re.compile(r"(?:[/?][!-~]*)?")
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_MAX_NAME = 253
TLS_ADVICE = "Use its https:// address, or allow the host with PullOptions(allow_http_hosts=...)."
_OAUTH_DOMAINS = (".bitrix.info", ".bitrix24.tech")
_WEBHOOK_PATH = re.compile(r"/rest/(\d+)/([A-Za-z0-9_-]+)(?:/(?:[A-Za-z0-9_.]+)?)?")


@dataclass(slots=True, frozen=True)
class Address:
    """An absolute address, taken apart.

    Attributes:
        scheme: In lower case.
        host: A name in lower case and in ASCII, or an IP address in its shortest form
            (IPv6 without brackets).
        port: 1 to 65535; None where the scheme's own is meant.
        target: Path and query as they came; may be empty.
    """

    scheme: str
    host: str
    port: int | None
    target: str

    @property
    def origin(self) -> str:
        """Scheme, host and port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}" if self.port is None else f"{self.scheme}://{host}:{self.port}"

    def __str__(self) -> str:
        return self.origin + self.target


def read_address(url: str, schemes: Sequence[str]) -> Address:
    """Take an address apart.

    Args:
        url: As it came from a user or a portal.
        schemes: Those that are accepted.

    Raises:
        ValueError: It is none, or one that could be read in several ways. The text, such as
            "holds a fragment", says what is wrong and repeats nothing.
    """
    if not url:
        raise ValueError("is missing or empty")
    if not url.isprintable() or " " in url:
        raise ValueError("holds spaces or control characters")
    scheme, separator, rest = url.partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in schemes:
        raise ValueError(f"must begin with {schemes[0]}://")
    if "#" in rest:
        raise ValueError("holds a fragment")
    end = min((at for at in (rest.find("/"), rest.find("?")) if at >= 0), default=len(rest))
    netloc, target = rest[:end], rest[end:]
    if "@" in netloc:
        raise ValueError("holds a user name or password")
    match = _NETLOC.fullmatch(netloc)
    port = int(match[2] or 80) if match else 0
    if match is None or not 0 < port < 65_536:
        raise ValueError("holds no valid host and port")
    if "\\" in target or _TARGET.fullmatch(target) is None:
        raise ValueError("holds characters that no address may hold")
    return Address(scheme, read_host(match[1]), port if match[2] else None, target)


def read_host(text: str) -> str:
    """Return a host as ``Address.host`` has it. An IPv6 address may stand in brackets.

    Raises:
        ValueError: It is none, or a number that only some programs take for an IP address.
    """
    host = text.lower()
    if host.startswith("[") or ":" in host:
        try:
            return shortest(ipaddress.IPv6Address(host.removeprefix("[").removesuffix("]")))
        except ValueError:
            raise ValueError("holds no valid host and port") from None
    name = host if host.isascii() else _punycode(host)
    if len(name) > _MAX_NAME or _NAME.fullmatch(name) is None:
        raise ValueError("holds no valid host and port")
    if _NUMBER.fullmatch(name.rpartition(".")[2]) is not None:
        try:
            return str(ipaddress.IPv4Address(name))
        except ValueError:
            raise ValueError("holds an IP address in an unusual form") from None
    return name


def read_hosts(names: Collection[str], option: str) -> frozenset[str]:
    """Return the hosts of a list in the options.

    Raises:
        InvalidArgument: It holds what is none.
    """
    try:
        return frozenset(map(read_host, names))
    except ValueError:
        raise InvalidArgument(
            f"{option} holds what is no host",
            advice="Give names or IP addresses alone, without scheme, port and path.",
        ) from None


def _punycode(name: str) -> str:
    """Return a name in ASCII, if it is the only one that stands for it."""
    try:
        encoded = name.encode("idna")
        # Letters that standards translate in different ways do not survive the return trip.
        if encoded.decode("idna") == name:
            return encoded.decode("ascii")
    except UnicodeError:
        pass
    raise ValueError("holds no valid host and port")


def rest_endpoint(portal: str) -> str:
    """Return the endpoint for calls with an access token: ``https://acme.bitrix24.com/rest/``.

    Args:
        portal: A domain, which means https, or an address without path, or with the one that
            a portal gives as ``client_endpoint``: ``https://acme.bitrix24.com/rest/``.

    Raises:
        InvalidArgument: It is neither.
    """
    if not isinstance(portal, str) or not portal:
        raise InvalidArgument("the portal is missing or empty")
    address = _given("the portal's address", portal if "://" in portal else f"https://{portal}")
    if "://" not in portal and not {".", ":"} & set(portal) and not is_loopback(address.host):
        # It may be a token that was put into the wrong place, and names go out to be resolved.
        raise InvalidArgument(
            "the portal is no domain",
            advice='Give it as "acme.bitrix24.com", or with https:// if it is a single word.',
        )
    if address.target not in ("", "/", "/rest", "/rest/"):
        raise InvalidArgument(
            "the portal's address holds a path",
            advice='Give the domain alone, as in "acme.bitrix24.com", or its client_endpoint.',
        )
    return f"{address.origin}/rest/"


def portal_origin(portal: str) -> str:
    """Return where a portal is, as ``https://acme.bitrix24.com``, for a REST client of the user's own.

    Args:
        portal: A domain or an address; a path is left out.

    Raises:
        InvalidArgument: It is neither.
    """
    url = portal if "://" in portal else f"https://{portal}"
    return _given("what your REST client has as its portal", url).origin


def webhook_endpoint(url: str) -> tuple[str, str]:
    """Return an inbound webhook's endpoint and the secret code in it.

    The final slash may be missing, and a method that the portal shows behind it, such as
    ``profile.json``, is cut off.

    Raises:
        InvalidArgument: The address is not ``https://PORTAL/rest/USER/CODE/``.
    """
    address = _given("the webhook's address", url)
    match = _WEBHOOK_PATH.fullmatch(address.target)
    if match is None:
        raise InvalidArgument(
            "the webhook's address lacks /rest/USER/CODE/",
            advice="Copy it from the portal: Developer resources, Inbound webhook.",
        )
    user, code = match.groups()
    return f"{address.origin}/rest/{user}/{code}/", code


def oauth_address(url: str) -> str:
    """Return the address of an OAuth server's token endpoint.

    Raises:
        InvalidArgument: It is no plain http(s) address.
    """
    address = _given("oauth_url", url)
    return f"{address.origin}{address.target or '/'}"


def named_oauth_address(server_endpoint: str) -> str:
    """Return the token endpoint at the OAuth server that tokens name.

    Only the host is taken from there, and only one of Bitrix24's own (protocol §2).

    Raises:
        ValueError: It is none. The text, such as "names no OAuth server of Bitrix24", does
            not repeat it.
    """
    address = read_address(server_endpoint, ("https",))
    if address.port not in (None, 443):
        raise ValueError("names an unusual port")
    if not address.host.endswith(_OAUTH_DOMAINS):
        raise ValueError("names no OAuth server of Bitrix24")
    return f"https://{address.host}/oauth/token/"


def require_tls(url: str, allow_http_hosts: Collection[str]) -> None:
    """Refuse an address to which credentials would travel in the clear (design, invariant 6).

    Args:
        url: An http, https, ws or wss address.
        allow_http_hosts: Hosts that may be reached without TLS, beside loopback addresses.

    Raises:
        InvalidArgument: The scheme is not encrypted and the host not exempt, or it is no address.
    """
    try:
        address = read_address(url, ("https", "http", "wss", "ws"))
    except ValueError as error:
        raise InvalidArgument(f"an address that credentials would go to {error}") from None
    if not may_lack_tls(address, read_hosts(allow_http_hosts, "allow_http_hosts")):
        raise InvalidArgument(f"credentials would travel unencrypted to {address.host}", advice=TLS_ADVICE)


def may_lack_tls(address: Address, http_hosts: Collection[str]) -> bool:
    """True if an address has TLS, or its host is this machine or one of ``http_hosts``."""
    return address.scheme in ("https", "wss") or is_loopback(address.host) or address.host in http_hosts


@lru_cache(maxsize=256)
def is_loopback(host: str) -> bool:
    """True if a host, as ``Address.host`` has it, is this machine by its name alone."""
    try:
        return host == "localhost" or host.endswith(".localhost") or is_this_machine(host)
    except ValueError:
        return False


def _given(what: str, url: str) -> Address:
    """Read an address that the user gave and that must be http(s)://HOST[:PORT][/PATH]."""
    if not isinstance(url, str):
        raise InvalidArgument(f"{what} must be text")
    try:
        address = read_address(url, ("https", "http"))
        if "?" in url:
            raise ValueError("holds a query")
    except ValueError as error:
        raise InvalidArgument(f"{what} {error}") from None
    return address
