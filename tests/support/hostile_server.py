"""A malicious web server on loopback, which writes HTTP byte by byte.

`server.url` is its address. `TRICKS` are answers that delay, deceive or redirect a client, one a path;
`server.files` are bodies, served at their name as `image/png` whatever they are; `server.leads` are
redirects. `server.requests` lists the requested paths, `server.sent` is the number of bytes sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from fake_services import png

OK = b"HTTP/1.1 200 OK\r\n"
MEBIBYTE = 2**20
Answer = AsyncIterator[bytes]


def page(body: bytes, kind: str = "image/png", *more: str) -> bytes:
    """A whole, honest answer."""
    lines = [f"Content-Type: {kind}", f"Content-Length: {len(body)}", *more]
    return OK + "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def _drip(_: str) -> Answer:
    yield OK + b"Content-Length: 1000\r\n\r\n"
    while True:
        yield b"\x89"
        await asyncio.sleep(0.05)


async def _drip_of_headers(_: str) -> Answer:
    yield OK
    while True:
        yield b"X: y\r\n"
        await asyncio.sleep(0.05)


async def _endless(_: str) -> Answer:
    yield OK + b"\r\n" + png()
    while True:
        yield bytes(65536)


async def _endless_chunks(_: str) -> Answer:
    yield OK + b"Transfer-Encoding: chunked\r\n\r\n"
    while True:
        yield b"10\r\n" + bytes(16) + b"\r\n" + b"1\r\n\0\r\n" * 20


async def _chunk_without_end(_: str) -> Answer:
    yield OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 15 + b"\r\n"
    while True:
        yield bytes(65536)


async def _flood_of_headers(_: str) -> Answer:
    yield OK
    while True:
        yield b"".join(b"X-%d: y\r\n" % number for number in range(5000))


async def _header_without_end(_: str) -> Answer:
    yield OK + b"X: "
    while True:
        yield b"y" * 65536


async def _flood_of_cookies(_: str) -> Answer:
    yield OK + b"Set-Cookie: a=b\r\n" * 100_000 + b"\r\n" + png()


async def _flood_of_promises(_: str) -> Answer:
    while True:
        yield b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100
        await asyncio.sleep(0.01)


async def _claims_more(_: str) -> Answer:
    yield OK + b"Content-Length: 100000\r\n\r\n" + png()


async def _claims_gigabytes(_: str) -> Answer:
    yield OK + b"Content-Length: 99999999999\r\n\r\n" + png()


async def _claims_less(_: str) -> Answer:
    yield OK + b"Content-Length: 60\r\n\r\n" + png()


async def _claims_two_lengths(_: str) -> Answer:
    yield OK + b"Content-Length: 60\r\nContent-Length: 6000\r\n\r\n" + png()


async def _claims_nonsense(_: str) -> Answer:
    yield OK + b"Content-Length: -1\r\n\r\n" + png()


async def _gzip_bomb(_: str) -> Answer:
    yield page(gzip.compress(bytes(64 * MEBIBYTE), 1), "image/png", "Content-Encoding: gzip")


async def _never(_: str) -> Answer:
    await asyncio.sleep(60)
    yield b""


async def _hangs_up(_: str) -> Answer:
    yield b""


async def _no_http(_: str) -> Answer:
    yield b"\x00\x01\x02 SSH-2.0-OpenSSH_9.6\r\n\r\n"


async def _hops(path: str) -> Answer:
    """/hops/50 leads to /hops/49, and so on to a picture."""
    left = int(path.rpartition("/")[2])
    yield _redirect(f"/hops/{left - 1}") if left else page(png())


async def _round(_: str) -> Answer:
    yield _redirect("/round")


async def _redirect_without_end(_: str) -> Answer:
    yield b"HTTP/1.1 302 Found\r\nLocation: /file.png\r\n\r\n"
    while True:
        yield bytes(65536)


def _redirect(where: str) -> bytes:
    return f"HTTP/1.1 302 Found\r\nLocation: {where}\r\nContent-Length: 0\r\n\r\n".encode()


TRICKS: dict[str, Callable[[str], Answer]] = {
    "/drip": _drip,
    "/drip-of-headers": _drip_of_headers,
    "/endless": _endless,
    "/endless-chunks": _endless_chunks,
    "/chunk-without-end": _chunk_without_end,
    "/flood-of-headers": _flood_of_headers,
    "/header-without-end": _header_without_end,
    "/flood-of-cookies": _flood_of_cookies,
    "/flood-of-promises": _flood_of_promises,
    "/claims-more": _claims_more,
    "/claims-gigabytes": _claims_gigabytes,
    "/claims-less": _claims_less,
    "/claims-two-lengths": _claims_two_lengths,
    "/claims-nonsense": _claims_nonsense,
    "/gzip-bomb": _gzip_bomb,
    "/never": _never,
    "/hangs-up": _hangs_up,
    "/no-http": _no_http,
    "/hops": _hops,
    "/round": _round,
    "/redirect-without-end": _redirect_without_end,
}


@dataclass
class HostileServer:
    """The server in its own thread."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)  # a file's Content-Type, where it is not image/png
    leads: dict[str, str] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    sent: int = 0

    def __enter__(self) -> HostileServer:
        self._loop = asyncio.new_event_loop()
        self._over = asyncio.Event()
        ready = threading.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(ready),))
        self._thread.start()
        assert ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(10)
        self._loop.close()

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    async def _serve(self, ready: threading.Event) -> None:
        server = await asyncio.start_server(self._talk, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        ready.set()
        await self._over.wait()
        server.close()
        talks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in talks:
            task.cancel()
        await asyncio.gather(*talks, return_exceptions=True)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            path = head.split()[1].decode()
            self.requests.append(path)
            async for piece in self._answer(path):
                writer.write(piece)
                await writer.drain()
                self.sent += len(piece)
        writer.close()

    async def _answer(self, path: str) -> Answer:
        trick = TRICKS.get("/" + path.split("/")[1])
        if trick is not None:
            async for piece in trick(path):
                yield piece
        elif path in self.leads:
            yield _redirect(self.leads[path])
        elif path in self.files:
            yield page(self.files[path], self.kinds.get(path, "image/png"))
        else:
            yield b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
