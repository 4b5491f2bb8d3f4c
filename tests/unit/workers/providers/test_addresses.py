"""Which addresses a fetch may connect to: IANA's special-purpose ranges, and this machine's own."""

from __future__ import annotations

import ipaddress
import socket
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.providers.http import addresses
from workers.providers.http.addresses import is_global, is_public, network_of

# https://www.iana.org/assignments/iana-ipv4-special-registry, every entry
IPV4_REGISTRY = [
    "0.0.0.0/8",
    "0.0.0.0/32",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.0.0/29",
    "192.0.0.8/32",
    "192.0.0.9/32",
    "192.0.0.10/32",
    "192.0.0.170/32",
    "192.0.0.171/32",
    "192.0.2.0/24",
    "192.31.196.0/24",
    "192.52.193.0/24",
    "192.88.99.0/24",
    "192.88.99.2/32",
    "192.168.0.0/16",
    "192.175.48.0/24",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "240.0.0.0/4",
    "255.255.255.255/32",
]
# https://www.iana.org/assignments/iana-ipv6-special-registry, every entry but those that embed IPv4
# addresses (::ffff:0:0/96, 64:ff9b::/96, 2001::/32, 2002::/16): they are as good as what they embed.
IPV6_REGISTRY = [
    "::1/128",
    "::/128",
    "64:ff9b:1::/48",
    "100::/64",
    "100:0:0:1::/64",
    "2001:1::1/128",
    "2001:1::2/128",
    "2001:1::3/128",
    "2001:2::/48",
    "2001:3::/32",
    "2001:4:112::/48",
    "2001:10::/28",
    "2001:20::/28",
    "2001:30::/28",
    "2001:db8::/32",
    "2620:4f:8000::/48",
    "3fff::/20",
    "5f00::/16",
    "fc00::/7",
    "fe80::/10",
]
OTHER = [
    "224.0.0.0/4",  # multicast
    "ff00::/8",
    "fec0::/10",  # site-local, deprecated and still routed inside
    "::/96",  # IPv4-compatible, deprecated
    "4000::/3",  # not allocated
    "e000::/4",
]
METADATA = [
    "169.254.169.254",  # most clouds
    "169.254.170.2",  # tasks of ECS
    "fd00:ec2::254",
    "fd20:ce::254",
    "100.100.100.200",  # Alibaba
    "168.63.129.16",  # Azure's host agent
    "192.0.0.192",  # Oracle
    "161.26.0.10",  # IBM
]
GLOBAL = [
    "1.1.1.1",
    "8.8.8.8",
    "100.63.255.255",
    "100.128.0.0",
    "151.101.1.69",
    "172.15.255.255",
    "172.32.0.0",
    "192.0.1.0",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "2001:200::1",
    "2606:4700::1111",
    "2a00:1450:4001:801::200e",
    "3fff:1000::1",
    "::ffff:1.1.1.1",
    "64:ff9b::1.1.1.1",
    "2002:101:101::1",
]


@pytest.mark.parametrize("block", [*IPV4_REGISTRY, *IPV6_REGISTRY, *OTHER])
def test_no_address_of_a_special_range_is_public(block: str) -> None:
    network = ipaddress.ip_network(block)
    last, middle = int(network.broadcast_address), (int(network[0]) + int(network[-1])) // 2
    for number in {int(network.network_address), middle, last}:
        assert not is_public(str(type(network.network_address)(number)))


@pytest.mark.parametrize("address", METADATA)
def test_no_metadata_service_is_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", GLOBAL)
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "1.1.1", "1.1.1.1.", "1.1.1.1/32", "01.1.1.1", "16843009", "0x01010101", "1.1.1.1 "),
        *("2606:4700::1111%eth0", "[2606:4700::1111]", "example.org", "１.1.1.1"),
    ],
)
def test_other_notations_are_not_public(text: str) -> None:
    assert not is_public(text)


def embeddings(inner: ipaddress.IPv4Address) -> list[ipaddress.IPv6Address]:
    """All IPv6 addresses that embed an IPv4 address; Teredo embeds two, of server and client."""
    number, one = int(inner), int(ipaddress.IPv4Address("1.1.1.1"))
    teredo = 0x20010000 << 96
    return [
        ipaddress.IPv6Address(value)
        for value in (
            0xFFFF << 32 | number,
            0x64FF9B << 96 | number,
            0x2002 << 112 | number << 80 | 1,
            teredo | number << 64 | (one ^ 0xFFFFFFFF),
            teredo | one << 64 | (number ^ 0xFFFFFFFF),
            0x26064700 << 96 | 0x5EFE << 32 | number,
            0x26064700 << 96 | 0x0200_5EFE << 32 | number,
        )
    ]


@given(st.ip_addresses(v=4))
def test_an_ipv6_form_is_judged_by_the_ipv4_address_in_it(inner: ipaddress.IPv4Address) -> None:
    assert {is_global(outer) for outer in embeddings(inner)} == {is_global(inner)}


@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)))
def test_every_address_that_python_calls_private_is_refused(
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    if ip.is_private or ip.is_multicast or ip.is_link_local or ip.is_loopback or ip.is_unspecified:
        assert not is_global(ip) or addresses.embedded(ip)


def interface(address: str, netmask: str | None = None) -> SimpleNamespace:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return SimpleNamespace(family=family, address=address, netmask=netmask)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[SimpleNamespace]]:
    """A machine in the public Internet: its interfaces, which a test may change."""
    found = {
        "eth0": [
            interface("8.34.16.5", "255.255.255.0"),
            interface("2a00:1450:1::5%eth0", "ffff:ffff:ffff:ffff::"),
        ],
        "tun0": [interface("8.35.0.1", "0.0.0.0")],
        "wg0": [interface("2a00:1451::7", None)],
        "lo": [interface("02:42:ac:11:00:02")],
    }
    monkeypatch.setattr(addresses.psutil, "net_if_addrs", lambda: found)
    monkeypatch.setattr(addresses, "_INTERFACES", addresses.Interfaces())
    return found


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.34.16.5", False),
        ("8.34.16.77", False),  # a neighbour on the same network
        ("8.34.17.5", True),
        ("2a00:1450:1::5", False),
        ("2a00:1450:1::77", False),
        ("2a00:1450:1:1::5", True),
        ("8.35.0.1", False),
        ("8.35.0.2", True),  # a netmask of everything is no network of this machine
        ("2a00:1451::7", False),
        ("2a00:1451::8", True),
        ("::ffff:8.34.16.5", False),
        ("64:ff9b::8.34.16.5", False),
        ("2002:822:1005::1", False),
    ],
)
def test_this_machines_own_addresses_and_networks_are_refused(
    machine: dict[str, list[SimpleNamespace]], address: str, public: bool
) -> None:
    assert is_public(address) is public


def test_a_new_address_of_this_machine_is_refused(
    machine: dict[str, list[SimpleNamespace]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert is_public("8.36.0.9")
    machine["eth1"] = [interface("8.36.0.9", "255.255.255.0")]
    assert is_public("8.36.0.9")
    now = addresses.time.monotonic()
    monkeypatch.setattr(addresses.time, "monotonic", lambda: now + addresses.INTERFACES_S)
    assert not is_public("8.36.0.9")


def test_a_link_address_is_no_network() -> None:
    assert network_of(interface("02:42:ac:11:00:02")) is None
