"""kombu's Redis transport with what a long-lived worker needs on top.

Three things differ from kombu 5.6:

- Invalid entries of a queue are dead-lettered. kombu removes an entry from its list and then parses it
  outside of any handler: an entry that is not JSON or not an envelope raises through the event loop and is
  lost; a body that is not a task's raises too, and is delivered again. `Channel._brpop_read` is kombu's own
  but for the lines in the middle. It can go when
  `tests/integration/test_dead_letters.py::test_kombu_alone_raises_at_an_invalid_entry` fails.
- Consuming goes on after a reconnection. kombu stops polling Redis once any connection of the worker is lost,
  until Celery makes a new transport; but redis-py replaces an idle connection without an error, so a worker
  that starts while Redis restarts would consume nothing. `Transport.register_with_event_loop` can go when
  `tests/integration/test_polling.py::test_kombu_alone_consumes_nothing_more` fails.
- A closed channel can still acknowledge and reject: a job may outlive the connection that delivered it.
  kombu's channel fails there (`_connparams`, `_lookup`).

Invariant: a valid message is delivered as kombu delivers it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from queue import Empty
from typing import Any

from kombu.transport import TRANSPORT_ALIASES, redis
from kombu.utils.encoding import bytes_to_str
from redis.exceptions import ConnectionError, RedisError, ResponseError

from workers.broker.dead_letters import dead_letter_message
from workers.broker.retry import is_transient, retry_redis
from workers.celery_app.transport.qos import WorkerQoS
from workers.celery_app.transport.validation import why_invalid
from workers.queues import QUEUES
from workers.settings import QueueSettings, section

logger = logging.getLogger(__name__)


class Channel(redis.Channel):
    QoS = WorkerQoS

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        self._last_connparams = super()._connparams()

    def close(self) -> None:
        poller = self.connection.cycle if self.connection is not None else None
        super().close()
        if poller is not None:  # the operating system reuses descriptor numbers
            for number in [number for number, (channel, _) in poller.fds.items() if channel is self]:
                del poller.fds[number]
            for key in [key for key in poller._chan_to_sock if key[0] is self]:
                del poller._chan_to_sock[key]

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        if self.connection is None:
            return dict(self._last_connparams)
        return dict(super()._connparams(asynchronous))

    def _lookup(self, exchange: str, routing_key: str, default: Any = None) -> list[str]:
        if self.connection is None:
            return [routing_key]  # which is the queue's name
        return list(super()._lookup(exchange, routing_key, default))

    def _brpop_read(self, **options: Any) -> bool:
        try:
            try:
                found = self.client.parse_response(self.client.connection, "BRPOP", **options)
            except self.connection_errors:
                self.client.connection.disconnect()
                raise
            if not found:
                raise Empty()
            name, entry = found
            queue = bytes_to_str(name).rsplit(self.sep, 1)[0]
            self._queue_cycle.rotate(queue)
            if queue in QUEUES and (why := why_invalid(entry, queue)):
                self._dead_letter(queue, why, entry)
                return True
            try:
                self._deliver(entry, queue)
            except ResponseError as error:
                if is_transient(error):  # Redis refused to record the delivery, as when it has no memory
                    self._requeue(bytes_to_str(name), entry)
                raise
            return True
        finally:
            self._in_poll = None

    def _deliver(self, entry: bytes, queue: str) -> None:
        message: dict[str, Any] = {}
        try:
            message = redis.loads(bytes_to_str(entry))
            self.connection._deliver(message, queue)
        except (*self.connection_errors, RedisError):
            raise
        except Exception as error:  # no message may end the worker
            logger.exception("a message of the queue %s could not be consumed", queue)
            self._dead_letter(queue, f"not consumed: {type(error).__name__}: {error}", entry)
            if message:
                self.basic_reject(message["properties"]["delivery_tag"], requeue=False)

    @retry_redis
    def _requeue(self, key: str, entry: bytes) -> None:
        with self.conn_or_acquire() as client:
            client.rpush(key, entry)

    def _dead_letter(self, queue: str, why: str, entry: bytes) -> None:
        logger.error("dead-lettered a message of the queue %s: %s", queue, why)
        try:
            with self.conn_or_acquire() as client:
                dead_letter_message(client, queue, why, entry, section("queue", QueueSettings).result_ttl_s)
        except (RedisError, OSError) as error:  # kombu notices a lost connection by itself
            logger.warning("the dead letter could not be stored: %s", error)


class Transport(redis.Transport):
    Channel = Channel

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        self._stop_polling: Callable[[], None] = lambda: None

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """Poll for messages in every round of `loop` until this transport is closed. A connection that cannot
        be read raises, and Celery then reconnects with a new transport.
        """
        before = set(loop.on_tick)
        super().register_with_event_loop(connection, loop)
        self.cycle._on_connection_disconnect = lambda _connection: None
        (poll,) = loop.on_tick - before
        self._stop_polling = partial(loop.on_tick.discard, poll)

    def close_connection(self, connection: Any) -> None:
        try:
            super().close_connection(connection)
        finally:
            self._stop_polling()

    def on_readable(self, fileno: int) -> None:
        """Read a descriptor. While no slot is free kombu reads nothing, so it would not see that the
        connection was closed, and the loop would call this without a pause: that raises here.
        """
        channel, kind = self.cycle.fds.get(fileno, (None, ""))
        if channel is None:
            return  # closed in this round of the loop
        if kind == "BRPOP" and not channel._in_poll and not channel.qos.can_consume():
            raise ConnectionError("the connection to Redis was closed while no slot was free")
        super().on_readable(fileno)


def install() -> None:
    """Register this transport with kombu for `redis://` and `rediss://` URLs."""
    for scheme in ("redis", "rediss"):
        TRANSPORT_ALIASES[scheme] = "workers.celery_app.transport.channel:Transport"
