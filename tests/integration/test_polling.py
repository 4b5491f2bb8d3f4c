"""A worker goes on after Redis has dropped its connections, also while it starts: it consumes, and answers
control commands; its event loop keeps nothing of the old connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from conftest import StartWorker
from kombu import Message
from queue_jobs import Order
from queue_requests import Notes, ask, request_for
from raw_queue import queue_up
from waiting import until, wait_until

from workers.broker.keys import held_key, record_key
from workers.celery_app.app import make_app
from workers.celery_app.delivery.claimer import Claimer
from workers.client.client import QueueClient
from workers.messages import Outcome
from workers.process.worker import WorkerProcess
from workers.settings import QueueSettings

ANSWER_S = 1.0  # a control command waits so long for all answers
KINDS = ("code", "search")  # processes, threads


class Control:
    """Control commands to one worker, as a dashboard sends them."""

    def __init__(self, settings: QueueSettings, worker: WorkerProcess):
        self._control = make_app(settings).control
        self._name = f"{worker.name}@{worker.node}"

    async def ask(self, command: str) -> Any:
        """Repeat the command until the worker answers: a reconnecting worker misses it."""
        found: list[Any] = []

        def call() -> None:
            """An old connection of this process was dropped too: the next call makes another."""
            with contextlib.suppress(redis.ConnectionError):
                for answer in self._control.broadcast(
                    command, destination=[self._name], reply=True, timeout=ANSWER_S
                ):
                    found.append(answer[self._name])

        for _ in range(20):
            await asyncio.to_thread(call)
            if found:
                return found[-1]
        raise AssertionError(f"{self._name} does not answer to {command}")

    async def idle(self) -> None:
        """Return when the pool has reported the end of each job."""
        for _ in range(20):
            if not await self.ask("active"):
                return
        raise AssertionError(f"{self._name} is not idle")


async def drop_connections(raw: redis.Redis) -> None:
    """Close every connection. Returns when the worker has subscribed again."""
    for kind in ("normal", "pubsub"):
        raw.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
    await until(lambda: any("P" in client["flags"] for client in raw.client_list()))


@pytest.mark.parametrize("kind", KINDS)
async def test_connections_dropped_while_idle_cost_neither_jobs_nor_control_commands(
    kind: str,
    start_worker: StartWorker,
    client: QueueClient,
    raw: redis.Redis,
    queue_settings: QueueSettings,
) -> None:
    worker = start_worker(kind, 2)
    control = Control(queue_settings, worker)
    for _ in range(3):
        await drop_connections(raw)
        assert (await ask(client, Order(), kind)).ok
    assert await control.ask("ping") == {"ok": "pong"}
    assert worker.alive


@pytest.mark.parametrize("kind", KINDS)
async def test_connections_dropped_at_the_start_cost_neither_jobs_nor_control_commands(
    kind: str, worker: StartWorker, client: QueueClient, queue_settings: QueueSettings
) -> None:
    """Regression: kombu's loop never polled the new connections."""
    started = worker([kind], 2, app="reconnect_app")
    assert (await ask(client, Order(), kind)).ok
    assert await Control(queue_settings, started).ask("ping") == {"ok": "pong"}
    assert (await ask(client, Order(), kind)).ok


async def test_the_loop_keeps_nothing_of_old_connections(
    worker: StartWorker, raw: redis.Redis, queue_settings: QueueSettings
) -> None:
    """Regression: descriptors and callbacks of closed connections stayed, and the loop failed on them."""
    control = Control(queue_settings, worker(["code"], app="reconnect_app"))
    await drop_connections(raw)
    before = await control.ask("loop_size")
    for _ in range(4):
        await drop_connections(raw)
    assert await control.ask("loop_size") == before


async def test_a_job_that_no_process_has_started_is_the_next_after_a_reconnection(
    start_worker: StartWorker,
    client: QueueClient,
    notes: Notes,
    raw: redis.Redis,
    received: list[Outcome],
    queue_settings: QueueSettings,
) -> None:
    control = Control(queue_settings, start_worker())
    process = (await ask(client, Order())).result.source["pid"]
    await control.idle()
    os.kill(process, signal.SIGSTOP)
    posted = [await client.post(request_for(notes.order(), seed=seed)) for seed in range(3)]
    await until(lambda: raw.zcard(held_key("code")) == 1)
    await drop_connections(raw)
    await until(lambda: raw.hget(record_key(posted[0].request.request_id), "claims") == b"2")
    os.kill(process, signal.SIGCONT)
    outcomes = [await one.outcome() for one in posted]
    assert received[1:] == outcomes, "in the order of posting"
    assert [outcome.ok for outcome in outcomes] == [True] * 3
    await control.idle()
    assert len(notes.starts) == 3, "what Celery gave back and kept was run once"


@pytest.fixture
def messages() -> list[Message]:
    return []


@pytest.fixture
def claimer(queue_settings: QueueSettings, messages: list[Message]) -> Iterator[Claimer]:
    """With one slot, and no Celery. It delivers to `messages`."""
    claimer = Claimer(queue_settings, "w@node", ["code"], 1, lambda: True)
    claimer.start()
    claimer.resume(lambda call: call(), messages.append)
    yield claimer
    claimer.stop_claiming([])


@pytest.mark.parametrize("end", ["ack", "reject", "requeue"])
def test_an_end_that_redis_refuses_frees_the_slot(
    end: str, claimer: Claimer, messages: list[Message], raw: redis.Redis
) -> None:
    queue_up(raw, request_for(Order()))
    wait_until(lambda: messages)
    assert len(claimer.held()) == 1
    raw.config_set("min-replicas-to-write", "1")
    try:
        getattr(messages[0], end)()
        assert claimer.held() == {}
    finally:
        raw.config_set("min-replicas-to-write", "0")


def test_a_request_that_could_not_be_given_back_comes_again(
    claimer: Claimer, messages: list[Message], raw: redis.Redis
) -> None:
    queue_up(raw, request_for(Order()))
    wait_until(lambda: messages)
    raw.config_set("min-replicas-to-write", "1")
    try:
        messages[0].requeue()
    finally:
        raw.config_set("min-replicas-to-write", "0")
    wait_until(lambda: len(messages) == 2)
    assert messages[1].headers["id"] == messages[0].headers["id"]
    assert raw.zcard(held_key("code")) == 1


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
