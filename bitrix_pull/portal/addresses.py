"""Addresses that credentials go to: read from what the user gave, and kept to TLS."""

import ipaddress
import re
from collections.abc import Collection
from urllib.parse import SplitResult, urlsplit

from bitrix_pull.errors import InvalidArgument

_HOST = re.compile(r"[\w.-]+|\[[0-9A-Fa-f:.]+\]")
_WEBHOOK_PATH = re.compile(r"/rest/(\d+)/([A-Za-z0-9_-]+)(?:/(?:[A-Za-z0-9_.]+)?)?")


def rest_endpoint(portal: str) -> str:
    """Return the endpoint for calls with an access token: ``https://acme.bitrix24.com/rest/``.

    Args:
        portal: A domain, which means https, or an address without path.

    Raises:
        InvalidArgument: It is neither.
    """
    if not portal:
        raise InvalidArgument("the portal is missing or empty")
    parts = _split("the portal's address", portal if "://" in portal else f"https://{portal}")
    if parts.path not in ("", "/"):
        raise InvalidArgument(
            "the portal's address holds a path", advice='Give the domain alone, as in "acme.bitrix24.com".'
        )
    return f"{_origin(parts)}/rest/"


def webhook_endpoint(url: str) -> tuple[str, str]:
    """Return an inbound webhook's endpoint and the secret code in it.

    The final slash may be missing, and a method that the portal shows behind it, such as
    ``profile.json``, is cut off.

    Raises:
        InvalidArgument: The address is not ``https://PORTAL/rest/USER/CODE/``.
    """
    parts = _split("the webhook's address", url)
    match = _WEBHOOK_PATH.fullmatch(parts.path)
    if match is None:
        raise InvalidArgument(
            "the webhook's address lacks /rest/USER/CODE/",
            advice="Copy it from the portal: Developer resources, Inbound webhook.",
        )
    user, code = match.groups()
    return f"{_origin(parts)}/rest/{user}/{code}/", code


def oauth_address(url: str) -> str:
    """Return the address of an OAuth server's token endpoint.

    Raises:
        InvalidArgument: It is no plain http(s) address.
    """
    parts = _split("oauth_url", url)
    return f"{_origin(parts)}{parts.path or '/'}"


def require_tls(url: str, allow_http_hosts: Collection[str]) -> None:
    """Refuse an address to which credentials would travel in the clear (design, invariant 6).

    Args:
        url: An http, https, ws or wss address.
        allow_http_hosts: Hosts that may be reached without TLS, beside loopback addresses.

    Raises:
        InvalidArgument: The scheme is not encrypted and the host not exempt, or there is no host.
    """
    try:
        parts = urlsplit(url)
        scheme, host = parts.scheme, parts.hostname
    except ValueError:
        scheme, host = "", None
    if not host:
        raise InvalidArgument("an address that credentials would go to names no host")
    if scheme in ("https", "wss") or is_loopback(host):
        return
    if host not in {allowed.lower() for allowed in allow_http_hosts}:
        raise InvalidArgument(
            f"credentials would travel unencrypted to {host}",
            advice="Use its https:// address, or allow the host with PullOptions(allow_http_hosts=...).",
        )


def is_loopback(host: str) -> bool:
    """True if a host, as ``urlsplit(...).hostname`` gives it, is this machine."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _split(what: str, url: str) -> SplitResult:
    """Split an address that must be http(s)://HOST[:PORT][/PATH]. No error text repeats it."""
    if not url:
        raise InvalidArgument(f"{what} is missing or empty")
    if not url.isprintable() or " " in url:
        raise InvalidArgument(f"{what} holds spaces or control characters")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
        host.encode("idna")
    except ValueError:
        raise InvalidArgument(f"{what} holds no valid host and port") from None
    if parts.scheme not in ("https", "http"):
        raise InvalidArgument(f"{what} must begin with https://")
    if "@" in parts.netloc:
        raise InvalidArgument(f"{what} holds a user name or password")
    if "?" in url or "#" in url:
        raise InvalidArgument(f"{what} holds a query or fragment")
    if _HOST.fullmatch(f"[{host}]" if ":" in host else host) is None:
        raise InvalidArgument(f"{what} holds no host name")
    return parts


def _origin(parts: SplitResult) -> str:
    return f"{parts.scheme}://{parts.netloc.lower()}"
