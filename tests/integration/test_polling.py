"""A worker goes on consuming after Redis has dropped its connections, also while it starts."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from kombu import Connection, Consumer, Exchange, Message, Queue
from kombu.asynchronous import Hub

from workers.celery_app.app import make_app
from workers.settings import QueueSettings

OURS, KOMBUS = "workers.celery_app.transport.channel:Transport", "kombu.transport.redis:Transport"
ENOUGH_S = 5.0  # kombu polls every second


@pytest.fixture
def raw(queue_settings: QueueSettings) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(queue_settings.url) as client:
        yield client


def consumed(url: str, transport: str, raw: redis.Redis) -> list[str]:
    """What a loop consumes of three messages: it is set up like Celery's, with a task queue and a control
    channel, and its connections are dropped before its first round.
    """
    found: list[str] = []
    hub = Hub()
    with Connection(url, transport=transport) as connection:
        connection.transport.register_with_event_loop(connection.connection, hub)
        work = Consumer(connection.default_channel, [Queue("work", Exchange(""), "work")], no_ack=True)
        work.register_callback(lambda body, _message: found.append(body))
        work.consume()
        control = Consumer(
            connection.channel(), [Queue("control", Exchange("control", "fanout"))], no_ack=True
        )
        control.consume()
        raw.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        with Connection(url) as other, other.SimpleQueue("work") as queue:
            for body in "abc":
                queue.put(body)
        deadline = time.monotonic() + ENOUGH_S
        while len(found) < 3 and time.monotonic() < deadline:
            hub.run_once()
    return found


def test_connections_dropped_at_the_start_cost_no_message(
    queue_settings: QueueSettings, raw: redis.Redis
) -> None:
    assert consumed(queue_settings.url, OURS, raw) == ["a", "b", "c"]


def test_kombu_alone_consumes_nothing_more(queue_settings: QueueSettings, raw: redis.Redis) -> None:
    """If this fails, kombu reconnects by itself, and
    `workers.celery_app.transport.channel.Transport.register_with_event_loop` can go.
    """
    assert consumed(queue_settings.url, KOMBUS, raw) != ["a", "b", "c"]


def test_a_closed_channel_removes_its_descriptors(queue_settings: QueueSettings, tmp_path: Path) -> None:
    """Regression: its descriptor number was reused for another file, and the loop failed on it."""
    hub = Hub()
    with Connection(queue_settings.url, transport=OURS) as connection, contextlib.ExitStack() as files:
        connection.transport.register_with_event_loop(connection.connection, hub)
        work = Consumer(connection.default_channel, [Queue("work", Exchange(""), "work")], no_ack=True)
        found: list[str] = []
        work.register_callback(lambda body, _message: found.append(body))
        work.consume()
        channel = connection.channel()
        Consumer(channel, [Queue("control", Exchange("control", "fanout"))], no_ack=True).consume()
        hub.run_once()
        assert len(connection.transport.cycle.fds) == 2
        channel.close()
        for number in range(20):  # one of them reuses the number
            files.enter_context((tmp_path / f"{number}").open("w"))
        with Connection(queue_settings.url) as other, other.SimpleQueue("work") as queue:
            queue.put("a")
        deadline = time.monotonic() + ENOUGH_S
        while not found and time.monotonic() < deadline:
            hub.run_once()
    assert found == ["a"]


def test_a_closed_transport_leaves_no_callback_in_the_loop(queue_settings: QueueSettings) -> None:
    hub = Hub()
    for _ in range(2):
        with Connection(queue_settings.url, transport=OURS) as connection:
            connection.transport.register_with_event_loop(connection.connection, hub)
            assert len(hub.on_tick) == 1
        assert not hub.on_tick


def test_a_failed_acknowledgement_frees_the_slot(queue_settings: QueueSettings, raw: redis.Redis) -> None:
    with Connection(queue_settings.url, transport=OURS) as connection:
        channel = connection.default_channel
        channel.basic_qos(0, 1, False)
        work = Consumer(channel, [Queue("work", Exchange(""), "work")])
        found: list[Message] = []
        work.register_callback(lambda _body, message: found.append(message))
        work.consume()
        with Connection(queue_settings.url) as other, other.SimpleQueue("work") as queue:
            for end in ("ack", "reject", "requeue"):
                queue.put("a")
                connection.drain_events(timeout=ENOUGH_S)
                message = found.pop()
                assert not channel.qos.can_consume()
                raw.set("unacked_index", "of another type, so that Redis refuses")
                with pytest.raises(redis.ResponseError):
                    getattr(message, end)()
                assert channel.qos.can_consume()
                raw.delete("unacked_index")


def test_a_dead_peer_is_noticed_within_15_s(queue_settings: QueueSettings) -> None:
    app = make_app(queue_settings)
    with app.connection_for_read() as connection:
        socket_ = connection.default_channel.client.connection_pool.get_connection()
        assert 0 < socket_._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) <= 15_000
        waits, every, times = (
            socket_._sock.getsockopt(socket.IPPROTO_TCP, option)
            for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        )
        assert socket_._sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert waits + every * times <= 15
