"""Where an IP address leads, by a table of our own.

``ipaddress`` has an opinion too, and another one in each version of Python: which connection is
refused must not depend on the interpreter.
"""

from enum import IntEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network


class Zone(IntEnum):
    """How near to this machine an address leads; the greater, the nearer."""

    PUBLIC = 0
    PRIVATE = 1
    """A local network, a VPN or a carrier's network, or one that is nobody's."""
    LOOPBACK = 2
    UNFIT = 3
    """No place for a server of anybody: link-local, multicast, unspecified, cloud metadata."""


_TABLE: dict[Zone, str] = {
    Zone.PUBLIC: "0.0.0.0/0 2000::/3",
    Zone.PRIVATE: (
        "10.0.0.0/8 100.64.0.0/10 172.16.0.0/12 192.168.0.0/16 fc00::/7 fec0::/10 64:ff9b:1::/48"
        # For protocols, benchmarks and documentation.
        " 192.0.0.0/24 198.18.0.0/15 2001::/23"
        " 192.0.2.0/24 198.51.100.0/24 203.0.113.0/24 2001:db8::/32 3fff::/20"
    ),
    Zone.LOOPBACK: "127.0.0.0/8 ::1/128",
    Zone.UNFIT: (
        # What is assigned to nobody, this network, link-local, multicast.
        "::/0 0.0.0.0/8 169.254.0.0/16 224.0.0.0/4 240.0.0.0/4 fe80::/10 ff00::/8"
        # Where cloud machines fetch credentials of their own, beside 169.254.169.254.
        " 168.63.129.16/32 100.100.100.200/32 192.0.0.192/32 fd00:ec2::254/128"
    ),
}
"""Networks and their zones (IANA's registries of special-purpose addresses); the narrowest counts."""

_NETWORKS = sorted(
    ((ip_network(text), zone) for zone, networks in _TABLE.items() for text in networks.split()),
    key=lambda row: row[0].prefixlen,
    reverse=True,
)
_IPV4 = [(network, zone) for network, zone in _NETWORKS if isinstance(network, IPv4Network)]
_IPV6 = [(network, zone) for network, zone in _NETWORKS if isinstance(network, IPv6Network)]

_EMBEDDED = (
    (IPv6Network("::ffff:0:0/96"), 0),
    (IPv6Network("64:ff9b::/96"), 0),
    (IPv6Network("2002::/16"), 80),
)
"""Networks whose addresses carry one of IPv4, and so many bits behind it: mapped, NAT64, 6to4."""


def zone_of(ip: str) -> Zone:
    """Return where an IP address leads.

    Raises:
        ValueError: It is none.
    """
    address = ip_address(ip)
    if isinstance(address, IPv6Address):
        for carrier, behind in _EMBEDDED:
            if address in carrier:
                # It is that one which is reached.
                return _zone_of_ipv4(IPv4Address(int(address) >> behind & 0xFFFF_FFFF))
        return next(zone for network, zone in _IPV6 if address in network)
    return _zone_of_ipv4(address)


def _zone_of_ipv4(address: IPv4Address) -> Zone:
    return next(zone for network, zone in _IPV4 if address in network)


def is_this_machine(ip: str) -> bool:
    """True for a loopback address as it is, not for another one that carries one.

    Raises:
        ValueError: It is no IP address.
    """
    address = ip_address(ip)
    own = "127.0.0.0/8" if address.version == 4 else "::1/128"
    return address in ip_network(own)


def shortest(address: IPv6Address) -> str:
    """Return an IPv6 address in its shortest form, in hex throughout."""
    if address.ipv4_mapped is None:
        return str(address)
    # Some versions of Python write the end of it as IPv4.
    low = int(address) & 0xFFFF_FFFF
    return f"::ffff:{low >> 16:x}:{low & 0xFFFF:x}"
