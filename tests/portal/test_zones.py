"""Where addresses lead: our own opinion, the same in every version of Python."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitrix_pull.portal.addresses import is_loopback, read_host
from bitrix_pull.portal.zones import Zone, zone_of


@pytest.mark.parametrize(
    ("zone", "addresses"),
    [
        (Zone.PUBLIC, "8.8.8.8 20.30.40.50 2606:4700::1111 ::ffff:8.8.8.8 64:ff9b::808:808 2002:808:808::1"),
        (
            Zone.PRIVATE,
            "10.0.0.1 172.16.0.1 172.31.255.255 192.168.1.1 100.64.0.1 198.18.0.1 fc00::1 fd12:3456::1"
            " ::ffff:10.0.0.1 64:ff9b::a00:1 2002:a00:1::1 64:ff9b:1::1 fec0::1",
        ),
        (Zone.LOOPBACK, "127.0.0.1 127.255.255.254 ::1 ::ffff:127.0.0.1 64:ff9b::7f00:1"),
        (
            Zone.UNFIT,
            "0.0.0.0 0.1.2.3 169.254.169.254 224.0.0.1 240.0.0.1 255.255.255.255 168.63.129.16"
            " 100.100.100.200 192.0.0.192 :: fe80::1 fe80::1%eth0 ff02::1 fd00:ec2::254"
            " ::127.0.0.1 ::ffff:169.254.169.254 64:ff9b::a9fe:a9fe 2002:a9fe:a9fe::1",
        ),
    ],
)
def test_how_near_an_address_is(zone: Zone, addresses: str) -> None:
    assert {address: zone_of(address) for address in addresses.split()} == dict.fromkeys(
        addresses.split(), zone
    )


# The first and the last address of each network, and what is just outside.
EDGES = [
    ("0.0.0.0/8", Zone.UNFIT, (None, Zone.PUBLIC)),
    ("10.0.0.0/8", Zone.PRIVATE, (Zone.PUBLIC, Zone.PUBLIC)),
    ("100.64.0.0/10", Zone.PRIVATE, (Zone.PUBLIC, Zone.PUBLIC)),
    ("127.0.0.0/8", Zone.LOOPBACK, (Zone.PUBLIC, Zone.PUBLIC)),
    ("169.254.0.0/16", Zone.UNFIT, (Zone.PUBLIC, Zone.PUBLIC)),
    ("172.16.0.0/12", Zone.PRIVATE, (Zone.PUBLIC, Zone.PUBLIC)),
    ("192.0.0.0/24", Zone.PRIVATE, (Zone.PUBLIC, Zone.PUBLIC)),
    ("192.0.2.0/24", Zone.PRIVATE, (Zone.PUBLIC, Zone.PUBLIC)),
    ("192.168.0.0/16", Zone.PRIVATE, (Zone.PUBLIC, Zone.PUBLIC)),
    ("198.18.0.0/15", Zone.PRIVATE, (Zone.PUBLIC, Zone.PUBLIC)),
    ("198.51.100.0/24", Zone.PRIVATE, (Zone.PUBLIC, Zone.PUBLIC)),
    ("203.0.113.0/24", Zone.PRIVATE, (Zone.PUBLIC, Zone.PUBLIC)),
    ("224.0.0.0/3", Zone.UNFIT, (Zone.PUBLIC, None)),
    ("::1/128", Zone.LOOPBACK, (Zone.UNFIT, Zone.UNFIT)),
    ("2001::/23", Zone.PRIVATE, (Zone.PUBLIC, Zone.PUBLIC)),
    ("2001:db8::/32", Zone.PRIVATE, (Zone.PUBLIC, Zone.PUBLIC)),
    ("3fff::/20", Zone.PRIVATE, (Zone.PUBLIC, Zone.PUBLIC)),
    ("64:ff9b:1::/48", Zone.PRIVATE, (Zone.UNFIT, Zone.UNFIT)),
    ("fc00::/7", Zone.PRIVATE, (Zone.UNFIT, Zone.UNFIT)),
    ("fe80::/10", Zone.UNFIT, (Zone.UNFIT, Zone.PRIVATE)),
    ("fec0::/10", Zone.PRIVATE, (Zone.UNFIT, Zone.UNFIT)),
    ("ff00::/8", Zone.UNFIT, (Zone.PRIVATE, None)),
    ("2003::/16", Zone.PUBLIC, (Zone.UNFIT, Zone.PUBLIC)),
]


@pytest.mark.parametrize(("network", "zone", "beside"), EDGES)
def test_a_network_ends_where_it_ends(
    network: str, zone: Zone, beside: tuple[Zone | None, Zone | None]
) -> None:
    within = ipaddress.ip_network(network)
    first, last = within.network_address, within.broadcast_address
    assert (zone_of(str(first)), zone_of(str(last))) == (zone, zone)
    if beside[0] is not None:
        assert zone_of(str(first - 1)) is beside[0]
    if beside[1] is not None:
        assert zone_of(str(last + 1)) is beside[1]


@given(st.ip_addresses())
def test_every_address_has_a_zone(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    assert zone_of(str(address)) in Zone


@given(st.ip_addresses(v=4), st.integers(0, 2**80 - 1))
def test_an_address_that_carries_one_of_ipv4_leads_there(address: ipaddress.IPv4Address, rest: int) -> None:
    number = int(address)
    for carrier in (0xFFFF << 32 | number, 0x64FF9B << 96 | number, 0x2002 << 112 | number << 80 | rest):
        assert zone_of(str(ipaddress.IPv6Address(carrier))) is zone_of(str(address))


@pytest.mark.parametrize(
    ("host", "this_machine"),
    [
        ("127.0.0.1", True),
        ("127.255.255.255", True),
        ("::1", True),
        ("localhost", True),
        ("a.localhost", True),
        ("128.0.0.0", False),
        # What is exempt from TLS is a loopback address, not one that carries one.
        ("::ffff:7f00:1", False),
        ("2002:7f00:1::", False),
        ("localhost.example", False),
    ],
)
def test_what_is_this_machine(host: str, this_machine: bool) -> None:
    assert is_loopback(host) is this_machine


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("[::ffff:127.0.0.1]", "::ffff:7f00:1"),
        ("[::FFFF:7F00:0001]", "::ffff:7f00:1"),
        ("[::ffff:0.0.0.10]", "::ffff:0:a"),
        ("[2002:100::]", "2002:100::"),
        ("[0:0::0:1]", "::1"),
    ],
)
def test_an_address_is_written_in_one_way(written: str, read: str) -> None:
    assert read_host(written) == read
