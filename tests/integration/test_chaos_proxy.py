"""The proxy between Redis and the rest, which drops, delays and withholds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from llmi.load.testbed.proxy import Proxy

LIMIT_S = 5.0


@pytest.fixture
async def echo() -> AsyncIterator[int]:
    """The port of a server that echoes what it receives."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


async def said(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, words: bytes) -> bytes:
    writer.write(words)
    async with asyncio.timeout(LIMIT_S):
        return await reader.read(100)


async def dropped(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Whether the connection is closed from the other side, without a message."""
    try:
        async with asyncio.timeout(LIMIT_S):
            return not await reader.read(100)
    except ConnectionError:
        return True
    finally:
        writer.close()


async def test_the_proxy_forwards_and_drops_connections(echo: int) -> None:
    with Proxy(echo) as proxy:
        ends = await asyncio.open_connection("127.0.0.1", proxy.port)
        assert await said(*ends, b"hello") == b"hello"
        proxy.drop_connections()
        assert await dropped(*ends)
        ends = await asyncio.open_connection("127.0.0.1", proxy.port)
        assert await said(*ends, b"again") == b"again"


async def test_the_proxy_delays_each_packet(echo: int, monkeypatch: pytest.MonkeyPatch) -> None:
    delays: list[float] = []
    sleep = asyncio.sleep

    async def record(seconds: float) -> None:
        delays.append(seconds)
        await sleep(0)

    monkeypatch.setattr("llmi.load.testbed.proxy.asyncio.sleep", record)
    with Proxy(echo) as proxy:
        proxy.delay_s = 0.1
        ends = await asyncio.open_connection("127.0.0.1", proxy.port)
        assert await said(*ends, b"hello") == b"hello"
    assert delays == [0.1, 0.1], "once there, once back"


async def test_a_stalled_packet_arrives_after_resume(echo: int) -> None:
    with Proxy(echo) as proxy:
        ends = await asyncio.open_connection("127.0.0.1", proxy.port)
        proxy.stall()
        answer = asyncio.create_task(said(*ends, b"hello"))
        done, _ = await asyncio.wait([answer], timeout=0.2)
        assert not done
        proxy.resume()
        assert await answer == b"hello"


async def test_the_proxy_closes_a_connection_that_has_no_target() -> None:
    with Proxy(1) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        assert await dropped(reader, writer)
