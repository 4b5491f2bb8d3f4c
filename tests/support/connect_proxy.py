"""A small HTTP proxy on loopback, and a server in a thread.

`proxy.requests` lists its requests: `CONNECT host:port`, or method and URL. For every host it connects to
`proxy.leads_to` on loopback. `user`: the credentials that it requires.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


@dataclass
class ConnectProxy:
    """The proxy in its own thread; `url` is its address."""

    leads_to: int
    user: str = ""
    url: str = ""
    requests: list[str] = field(default_factory=list)

    def __enter__(self) -> ConnectProxy:
        self._server = Listening(self._serve)
        self.url = f"http://127.0.0.1:{self._server.port}"
        return self

    def __exit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *headers = head.rstrip().split("\r\n")
        method, target, _ = line.split()
        self.requests.append(f"{method} {target}")
        wanted = f"proxy-authorization: basic {base64.b64encode(self.user.encode()).decode()}".lower()
        if self.user and wanted not in [one.lower() for one in headers]:
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            return
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.leads_to)
        if method == "CONNECT":
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            path = "/" + target.partition("://")[2].partition("/")[2]
            kept = [one for one in headers if not one.lower().startswith(("proxy-", "connection:"))]
            lines = [f"{method} {path} HTTP/1.1", *kept, "Connection: close"]
            far_writer.write("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n")
        try:
            await asyncio.gather(_pipe(reader, far_writer), _pipe(far_reader, writer))
        finally:
            far_writer.close()


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    with contextlib.suppress(OSError):
        writer.write_eof()


class Listening:
    """A TCP server on loopback in a thread of its own, with TLS if there is a context."""

    def __init__(self, handler: Handler, tls: ssl.SSLContext | None = None):
        self._handler, self._tls = handler, tls
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(10)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(10)
        self._loop.close()

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        self._end = asyncio.Event()
        server = await asyncio.start_server(self._one, "127.0.0.1", 0, ssl=self._tls)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._end.wait()
        server.close()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await self._handler(reader, writer)
        writer.close()
