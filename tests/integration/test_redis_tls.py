"""Queues over TLS: certificates are verified by clients and by workers, unless the URL says otherwise.

The embedded server speaks no TLS, so a TLS relay is in front of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis
from certificates import make_certificate
from conftest import StartWorker
from connect_proxy import Listening
from queue_jobs import Order
from queue_requests import Notes, ask

from coordinator.host.redis_server import EmbeddedRedis
from workers.client.client import QueueClient
from workers.errors import InfrastructureFault
from workers.redis_url import canonical
from workers.settings import REDIS_ENV, QueueSettings

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Relay:
    """Where it listens, and its certificate."""

    port: int
    certificate: Path

    def url(self, **query: str) -> str:
        words = "&".join(f"{name}={value}" for name, value in query.items())
        return f"rediss://{LOOPBACK}:{self.port}/0?{words}"


@pytest.fixture(scope="module")
def relay(redis_server: EmbeddedRedis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    certificate, key = make_certificate(tmp_path_factory.mktemp("tls"), LOOPBACK)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while part := await reader.read(1 << 16):
                writer.write(part)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, forth = await asyncio.open_connection(LOOPBACK, redis_server.port)
        await asyncio.gather(pump(reader, forth), pump(back, writer))

    server = Listening(serve, context)
    yield Relay(server.port, certificate)
    server.close()


async def test_clients_and_workers_connect_by_tls(
    relay: Relay,
    start_worker: StartWorker,
    queue_settings: QueueSettings,
    notes: Notes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(REDIS_ENV, relay.url(ssl_ca_certs=str(relay.certificate)))
    worker = start_worker()
    async with QueueClient(queue_settings) as client:
        assert (await ask(client, notes.order())).ok
    assert "rediss://" in worker.log.read_text()


async def test_a_client_refuses_a_certificate_that_it_cannot_verify(
    relay: Relay, queue_settings: QueueSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(REDIS_ENV, relay.url())
    async with QueueClient(queue_settings) as client:
        with pytest.raises(InfrastructureFault, match=r"(?i)certificate"):
            await ask(client, Order(), timeout_s=1.0)


def test_celery_refuses_a_certificate_that_it_cannot_verify(relay: Relay) -> None:
    from kombu import Connection

    with Connection(canonical(relay.url())) as connection, pytest.raises(Exception, match=r"(?i)certificate"):
        connection.ensure_connection(max_retries=1, timeout=5.0)
    known = canonical(relay.url(ssl_ca_certs=str(relay.certificate)))
    with Connection(known) as connection:
        connection.ensure_connection(max_retries=1, timeout=5.0)
        connection.default_channel.client.ping()


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("redis://h:1/0", "redis://h:1/0"),
        ("rediss://h:1/0", "rediss://h:1/0?ssl_cert_reqs=required"),
        ("rediss://h:1/0?ssl_ca_certs=/a", "rediss://h:1/0?ssl_ca_certs=/a&ssl_cert_reqs=required"),
        ("rediss://h:1/0?ssl_cert_reqs=none", "rediss://h:1/0?ssl_cert_reqs=none"),
    ],
)
def test_certificates_are_verified_unless_the_url_says_otherwise(given: str, meant: str) -> None:
    assert canonical(given) == meant


def test_the_blocking_client_verifies_too(relay: Relay) -> None:
    with redis.Redis.from_url(canonical(relay.url())) as client, pytest.raises(redis.ConnectionError):
        client.ping()
    with redis.Redis.from_url(canonical(relay.url(ssl_ca_certs=str(relay.certificate)))) as client:
        assert client.ping()
