"""A DNS server on loopback: answers with the addresses that a test names, or never."""

from __future__ import annotations

import asyncio
import ipaddress
import queue
import threading
from collections.abc import Iterator
from typing import Any, Self

A, AAAA = 1, 28
NAME_UNKNOWN = 3  # the response code NXDOMAIN
Addresses = str | list[str] | Iterator[str]


class NameServer(asyncio.DatagramProtocol):
    """A name that is not in `names` is unknown.

    names: address, or list of addresses, by name. Of an iterator each query for IPv4 gets the next one.
    silent: the ending of names that get no answer.
    queries: the name of every query for IPv4.
    """

    def __init__(self) -> None:
        self.names: dict[str, Addresses] = {}
        self.silent = ".slow.example"
        self.queries: queue.Queue[str] = queue.Queue()
        self.address = ""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        opening = self._loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", 0))
        asyncio.run_coroutine_threadsafe(opening, self._loop).result(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._transport.close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        host, port = transport.get_extra_info("sockname")
        self.address = f"{host}:{port}"

    def datagram_received(self, data: bytes, address: Any) -> None:
        name, end = _question(data)
        kind = int.from_bytes(data[end : end + 2], "big")
        if kind == A:
            self.queries.put(name)
        if not name.endswith(self.silent):
            found = self._found(name, kind)
            self._transport.sendto(_answer(data, end + 4, kind, found, name in self.names), address)

    def _found(self, name: str, kind: int) -> list[str]:
        listed = self.names.get(name, [])
        if isinstance(listed, Iterator):
            return [next(listed)] if kind == A else []
        every = [listed] if isinstance(listed, str) else listed
        return [one for one in every if (ipaddress.ip_address(one).version == 6) == (kind == AAAA)]


def _question(data: bytes) -> tuple[str, int]:
    """The name of a query's question, and where it ends."""
    labels, at = [], 12
    while data[at]:
        labels.append(data[at + 1 : at + 1 + data[at]].decode("ascii"))
        at += 1 + data[at]
    return ".".join(labels).lower(), at + 1


def _answer(query: bytes, end: int, kind: int, addresses: list[str], known: bool) -> bytes:
    code = 0 if known else NAME_UNKNOWN
    header = (
        query[:2] + bytes([0x81, 0x80 | code]) + b"\0\1" + len(addresses).to_bytes(2, "big") + b"\0\0\0\0"
    )
    records = b""
    for address in addresses:
        packed = ipaddress.ip_address(address).packed
        # The name as a pointer to the question, class IN, kept for no time: each look-up asks again.
        records += b"\xc0\x0c" + kind.to_bytes(2, "big") + b"\0\1" + bytes(4)
        records += len(packed).to_bytes(2, "big") + packed
    return header + query[12:end] + records
