"""Which IP addresses a fetch of an untrusted URL may connect to.

Invariants: IPv4 is refused in every special-purpose range of the IANA registry; of IPv6 only global unicast
(2000::/3) is let through, without its special-purpose ranges; a form that embeds IPv4 addresses is judged by
them too; this machine's own addresses, and the networks that it is attached to, are refused whatever they
are. Nothing here relies on `ipaddress.is_global`, which changes with Python's version.
"""

from __future__ import annotations

import ipaddress
import threading
import time
from typing import TypeAlias

import psutil

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

INTERFACES_S = 30.0  # how long the list of this machine's addresses is used before it is read again
# A network of an interface that is wider than this is a mistake or a tunnel that takes all traffic: then only
# the interface's own address is refused.
_WIDEST = {4: 16, 6: 48}

_REFUSED_V4 = tuple(
    ipaddress.IPv4Network(text)
    for text in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # shared by carriers; contains Alibaba's metadata service, 100.100.100.200
        "127.0.0.0/8",  # loopback
        "161.26.0.0/16",  # IBM Cloud's internal services, public by number
        "166.8.0.0/14",  # the same
        "168.63.129.16/32",  # Azure's host agent, public by number
        "169.254.0.0/16",  # link-local; contains most clouds' metadata service, 169.254.169.254
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # IETF protocol assignments; contains Oracle's metadata service, 192.0.0.192
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",  # AS112
        "192.52.193.0/24",  # AMT
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "192.175.48.0/24",  # AS112
        "198.18.0.0/15",  # benchmarking
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
    )
)
_GLOBAL_V6 = ipaddress.IPv6Network("2000::/3")
_REFUSED_V6 = tuple(
    ipaddress.IPv6Network(text)
    for text in (
        "2001::/23",  # IETF protocol assignments: ORCHID, ORCHIDv2, benchmarking, AMT; for Teredo see below
        "2001:db8::/32",  # documentation
        "2620:4f:8000::/48",  # AS112
        "3fff::/20",  # documentation
    )
)
_TEREDO = ipaddress.IPv6Network("2001::/32")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # its local-use block, 64:ff9b:1::/48, is no global unicast
_ISATAP = (0x00005EFE, 0x02005EFE)  # the third group of 32 bits


def is_public(address: str) -> bool:
    """Whether `address` is one of the public Internet, in the usual notation and outside of this machine's
    networks.

    A scope (`fe80::1%eth0`) or any other notation makes it not public.
    """
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    return is_global(ip) and not _is_local(ip)


def is_global(ip: Address) -> bool:
    """Whether `ip` is a unicast address of the public Internet, by its number alone."""
    if isinstance(ip, ipaddress.IPv4Address):
        return not any(ip in network for network in _REFUSED_V4)
    if ip.scope_id is not None or not all(is_global(inner) for inner in embedded(ip)):
        return False
    if ip.ipv4_mapped is not None or ip in _NAT64 or ip in _TEREDO:
        return True  # public if the addresses that it embeds are
    return ip in _GLOBAL_V6 and not any(ip in network for network in _REFUSED_V6)


def embedded(ip: Address) -> tuple[ipaddress.IPv4Address, ...]:
    """The IPv4 addresses to which an IPv6 address leads: mapped, 6to4, Teredo (both), NAT64, ISATAP."""
    if isinstance(ip, ipaddress.IPv4Address):
        return ()
    if ip.ipv4_mapped is not None:
        return (ip.ipv4_mapped,)
    if ip.sixtofour is not None:
        return (ip.sixtofour,)
    if ip.teredo is not None:
        return ip.teredo
    if ip in _NAT64 or (int(ip) >> 32) & 0xFFFFFFFF in _ISATAP:
        return (ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF),)
    return ()


def _is_local(ip: Address) -> bool:
    """Whether this machine, or a machine on one of its networks, has `ip` or an address that it embeds."""
    networks = _INTERFACES.networks()
    return any(one in network for one in (ip, *embedded(ip)) for network in networks)


class Interfaces:
    """The networks of this machine's interfaces, read again every `INTERFACES_S`: addresses come and go."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._networks: tuple[Network, ...] = ()
        self._read_at = float("-inf")

    def networks(self) -> tuple[Network, ...]:
        with self._lock:
            if time.monotonic() - self._read_at >= INTERFACES_S:
                every = psutil.net_if_addrs().values()
                self._networks = tuple(found for many in every for one in many if (found := network_of(one)))
                self._read_at = time.monotonic()
            return self._networks


_INTERFACES = Interfaces()


def network_of(interface: object) -> Network | None:
    """The network of one of psutil's addresses: as its netmask says, or the address alone; None for a link's
    own address.
    """
    address = str(getattr(interface, "address", "")).partition("%")[0]
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return None
    length = _prefix(str(getattr(interface, "netmask", None) or ""), ip)
    if length < _WIDEST[ip.version]:
        length = ip.max_prefixlen
    return ipaddress.ip_network((ip, length), strict=False)


def _prefix(netmask: str, ip: Address) -> int:
    """The length of a netmask (`255.255.255.0`, `ffff:ffff::`); the whole address where there is none."""
    try:
        bits = int(ipaddress.ip_address(netmask.partition("%")[0]))
    except ValueError:
        return ip.max_prefixlen
    return bits.bit_count()
