"""Where a client's secrets may go (design, invariant 6).

Credentials go to the portal and its OAuth server, which the user names; channel ids and
what is published go to the push server, which the portal names. A portal may be hostile
or broken into, so its word is not taken for everything: over TLS only, and never nearer
to this machine than the portal itself is. A public portal that names a private address
wants something of the network behind this client, not of a push server.
"""

import socket
from collections.abc import Iterable
from functools import lru_cache
from typing import Literal
from urllib.parse import urlsplit

from aiohappyeyeballs import start_connection  # pyright: ignore[reportUnknownVariableType]

from bitrix_pull.errors import InvalidConfig
from bitrix_pull.options import PullOptions
from bitrix_pull.portal.addresses import (
    TLS_ADVICE,
    is_loopback,
    may_lack_tls,
    read_address,
    read_hosts,
)
from bitrix_pull.portal.models import ServerConfig
from bitrix_pull.portal.names import AddressInfo, Names
from bitrix_pull.portal.zones import Zone, zone_of

Purpose = Literal["websocket", "long_polling", "publish"]

_SCHEMES: dict[Purpose, tuple[str, ...]] = {
    "websocket": ("wss", "ws"),
    "long_polling": ("https", "http"),
    "publish": ("https", "http"),
}
PRIVATE_ADVICE = "If that is right, allow the host with PullOptions(allow_private_hosts=...)."

_HAPPY_EYEBALLS_S = 0.25
"""How long to try one address before the next one is tried beside it (RFC 8305)."""


class AddressRefused(PermissionError):  # noqa: N818 - reads as what happened
    """A name leads to where the portal may not send this client."""

    def __init__(self, text: str) -> None:
        super().__init__(None, text)
        self.text = text


class Destinations:
    """Says where secrets may go, and turns names into addresses that were checked.

    Args:
        options: ``allow_http_hosts`` and ``allow_private_hosts``.
        portal: The portal's address as the user gave it. None if it is not known, as with
            a REST client of the user's own: then it is taken to be on this machine, and
            only what is ``Zone.UNFIT`` is refused. A name counts as public until it was
            resolved here, which does not happen behind a proxy.
        named: Further addresses that the user gave.

    Attributes:
        names: Resolves names. What they lead to is judged each time, whoever has asked before.

    Raises:
        InvalidArgument: A list in the options holds what is no host.
    """

    def __init__(self, options: PullOptions, *, portal: str | None = None, named: Iterable[str] = ()) -> None:
        self.names: Names = Names()
        self._http_hosts = read_hosts(options.allow_http_hosts, "allow_http_hosts")
        private_hosts = read_hosts(options.allow_private_hosts, "allow_private_hosts")
        self._portal = None if portal is None else urlsplit(portal).hostname
        given = {urlsplit(address).hostname for address in named} | {self._portal}
        # What the user named may be anywhere: he knows his network, the portal does not.
        self._given = {*self._http_hosts, *private_hosts, *(host for host in given if host)}
        self._proxies: set[tuple[str, int]] = set()
        self._portal_zone = Zone.LOOPBACK if self._portal is None else _zone_of_name(self._portal)

    def trust_proxy(self, url: str) -> None:
        """Let connections go to a proxy that the user named."""
        self._proxies.add(_host_and_port(url))

    def admit(self, server: ServerConfig, purpose: Purpose) -> str:
        """Return the address that a configuration names for a purpose, over TLS if there is one.

        Where it holds a name, ``resolve`` judges what that leads to, unless a proxy is asked.

        Raises:
            InvalidConfig: There is none, it is malformed, or nothing may go there. The text
                names the field and does not repeat the address.
        """
        field = f"{purpose}_secure"
        url = getattr(server, field)
        if not url:
            field = purpose
            url = getattr(server, field)
        try:
            address = read_address(url, _SCHEMES[purpose])
        except ValueError as error:
            raise InvalidConfig(f"server.{field} {error}") from None
        zone = _zone_of_name(address.host)
        if zone is not None and not self._may_be_in(zone, address.host):
            raise InvalidConfig(f"server.{field} names {self._conflict(zone)}", advice=PRIVATE_ADVICE)
        if not may_lack_tls(address, self._http_hosts):
            raise InvalidConfig(
                f"server.{field} lacks TLS: channel ids would travel unencrypted to {address.host}",
                advice=TLS_ADVICE,
            )
        return str(address)

    async def resolve(
        self, host: str, port: int, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[AddressInfo]:
        """Return the addresses of a host, in the order in which to try them.

        Raises:
            AddressRefused: One of them is where the portal may not send this client.
            OSError: The name cannot be resolved.
        """
        found = await self.names.look_up(host, port, family)
        zones = [zone_of(str(info[4][0])) for info in found]
        if host == self._portal:
            self._learn(zones)
        elif (host, port) not in self._proxies and not self._may_be_in(max(zones), host):
            raise AddressRefused(f"its name leads to {self._conflict(max(zones))}. {PRIVATE_ADVICE}")
        return found

    async def resolve_url(self, url: str) -> list[AddressInfo]:
        """Do as ``resolve`` does for the host of an address."""
        return await self.resolve(*_host_and_port(url))

    async def connect(self, url: str) -> socket.socket:
        """Open a TCP connection to where an address leads, if anything may go there.

        Raises:
            OSError: It cannot be opened; see ``resolve``.
        """
        found = await self.resolve_url(url)
        return await start_connection(found, happy_eyeballs_delay=_HAPPY_EYEBALLS_S)

    def _may_be_in(self, zone: Zone, host: str) -> bool:
        if host in self._given or zone is Zone.PUBLIC:
            return True
        return zone is not Zone.UNFIT and zone <= self._portal_zone_seen

    def _conflict(self, zone: Zone) -> str:
        if zone is Zone.UNFIT:
            return "an address that is no server's: link-local, multicast, cloud metadata or the like"
        portal = self._portal_zone_seen.name.lower()
        return f"a {zone.name.lower()} address, and the portal is at a {portal} one"

    @property
    def _portal_zone_seen(self) -> Zone:
        """Where the portal is; where a proxy alone knows that, it counts as public."""
        return Zone.PUBLIC if self._portal_zone is None else self._portal_zone

    def _learn(self, zones: Iterable[Zone]) -> None:
        """Note the farthest zone in which the portal was ever seen.

        Whoever runs a portal decides what its name leads to: it must not become private
        for the moment in which it names a private address.
        """
        seen = min(zones)
        self._portal_zone = seen if self._portal_zone is None else min(seen, self._portal_zone)


def named_server(url: str) -> str:
    """Return host and port of an address, for error texts: who runs a firewall must know both."""
    host, port = _host_and_port(url)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _host_and_port(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or (443 if parts.scheme in ("https", "wss") else 80)


@lru_cache(maxsize=256)
def _zone_of_name(host: str) -> Zone | None:
    """Return where a host is as far as its name tells; None if it has to be resolved."""
    if is_loopback(host):
        return Zone.LOOPBACK
    try:
        return zone_of(host)
    except ValueError:
        return None
