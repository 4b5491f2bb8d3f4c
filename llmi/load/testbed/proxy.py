"""A TCP proxy before Redis that can drop connections, and delay or stall packets.

Runs in a thread with an event loop of its own. Invariant: a connection that cannot be made, or that one side
closes, is closed on the other side too.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Self

LOOPBACK = "127.0.0.1"
PACKET = 65_536
START_S, END_S = 10.0, 5.0


class Proxy:
    """From a free `port` to `target`, both on loopback. `delay_s` may be set at any time."""

    def __init__(self, target: int):
        self.port = 0
        self.delay_s = 0.0
        self._forwarding = asyncio.Event()
        self._forwarding.set()
        self._target = target
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(START_S)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(START_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(START_S)
        self._loop.close()

    def drop_connections(self) -> None:
        """Abort every open connection."""
        self._loop.call_soon_threadsafe(self._drop)

    def stall(self) -> None:
        """Forward no packet until `resume`."""
        self._loop.call_soon_threadsafe(self._forwarding.clear)

    def resume(self) -> None:
        """Forward the packets held back, and all that follow."""
        self._loop.call_soon_threadsafe(self._forwarding.set)

    def _drop(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, LOOPBACK, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _end(self) -> None:
        self._server.close()
        self._forwarding.set()
        self._drop()
        # They end by themselves; asyncio's streams log an error when the task of a connection is cancelled.
        if others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others, timeout=END_S)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(LOOPBACK, self._target)
        except OSError:  # Redis is being started
            writer.transport.abort()
            return
        ends = {writer, far_writer}
        self._writers |= ends
        ways = [
            asyncio.create_task(self._forward(reader, far_writer)),
            asyncio.create_task(self._forward(far_reader, writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._writers -= ends
            for way in ways:
                way.cancel()
            for end in ends:
                end.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):  # dropped by `drop_connections`, or by either side
            while packet := await reader.read(PACKET):
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                await self._forwarding.wait()
                writer.write(packet)
                await writer.drain()
