"""kombu's Redis transport, which buries what `workers.celery_app.transport.validation` has a problem with
instead of ending the worker for it, holds messages as `workers.celery_app.transport.qos` does, and goes on
taking when a connection was made anew.

kombu 5.6 takes an entry off its list, and then reads it outside of any handler: bytes that are no JSON, or
JSON that is no envelope, raise through the event loop, and are lost; a body that is no task's raises there
too, and comes again. `_brpop_read` is kombu's own, but for the lines in the middle. It can go when kombu has
a handler for such messages:
`tests/integration/test_dead_letters.py::test_kombu_alone_ends_at_what_is_no_message`.

kombu 5.6 stops asking Redis for messages once any connection of a worker's is gone, and begins again only
with a new transport. redis-py, however, makes a connection that died while nobody used it anew without a
word: a worker that is starting when Redis restarts would live on and take nothing. `register_with_event_loop`
can go when `tests/integration/test_polling.py::test_kombu_alone_takes_nothing_more` fails.

Invariants: what is not buried is delivered as kombu delivers it; a channel that is closed still tells Redis
what became of the jobs that came by it, where kombu's fails.
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

from workers.broker.dead_letters import bury
from workers.broker.retry import once_redis_serves, passes
from workers.celery_app.transport.qos import WorkerQoS
from workers.celery_app.transport.validation import order_problem, why_invalid
from workers.settings import QueueSettings, section

logger = logging.getLogger(__name__)
_ORDERS, _ANSWERS = ".celery.pidbox", ".reply.celery.pidbox"  # how the queues of orders, and to them, end


class Channel(redis.Channel):
    QoS = WorkerQoS

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        self._reached_by = super()._connparams()

    def close(self) -> None:
        poller = self.connection.cycle if self.connection is not None else None
        super().close()
        if poller is not None:  # a descriptor's number soon stands for another file
            for number in [number for number, (channel, _) in poller.fds.items() if channel is self]:
                del poller.fds[number]
            for key in [key for key in poller._chan_to_sock if key[0] is self]:
                del poller._chan_to_sock[key]

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        if self.connection is None:
            return dict(self._reached_by)
        return dict(super()._connparams(asynchronous))

    def _lookup(self, exchange: str, routing_key: str, default: Any = None) -> list[str]:
        if self.connection is None:
            return [routing_key]  # a request names its queue
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
            if why := why_invalid(entry, queue):
                self._bury(queue, why, entry)
                return True
            try:
                self._hand_over(entry, queue)
            except ResponseError as error:
                if passes(error):  # no room to write down that it is held: else one after the other is lost
                    self._give_back(bytes_to_str(name), entry)
                raise
            return True
        finally:
            self._in_poll = None

    def _hand_over(self, entry: bytes, queue: str) -> None:
        message: dict[str, Any] = {}
        try:
            message = redis.loads(bytes_to_str(entry))
            self.connection._deliver(message, queue)
        except (*self.connection_errors, RedisError):
            raise
        except Exception as error:  # whatever Celery trips over in a message must not end the worker
            logger.exception("what came by the queue %s could not be taken", queue)
            self._bury(queue, f"not taken: {type(error).__name__}: {error}", entry)
            if message:
                self.basic_reject(message["properties"]["delivery_tag"], requeue=False)

    @once_redis_serves
    def _give_back(self, key: str, entry: bytes) -> None:
        with self.conn_or_acquire() as client:
            client.rpush(key, entry)

    def _bury(self, queue: str, why: str, entry: bytes) -> None:
        logger.error("buried an entry of the queue %s: %s", queue, why)
        try:
            with self.conn_or_acquire() as client:
                bury(client, queue, why, entry, section("queue", QueueSettings).result_ttl_s)
        except (RedisError, OSError) as error:  # where its line is broken, kombu finds out by itself
            logger.warning("it is not kept: %s", error)

    def _receive_one(self, connected: Any) -> bool | None:
        """By a channel: Celery's own orders, such as which jobs to end."""
        try:
            return super()._receive_one(connected)
        except (*self.connection_errors, RedisError, Empty):
            raise
        except Exception:  # as above; who sent it waits for no answer
            logger.exception("what came by a control channel is no order, and is dropped")
            return None


class Transport(redis.Transport):
    Channel = Channel

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        self._stop_asking: Callable[[], None] = lambda: None

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """Ask for messages in every round of `loop` until this transport is closed. What cannot be read any
        more raises, and Celery then connects anew with another.
        """
        others = set(loop.on_tick)
        super().register_with_event_loop(connection, loop)
        self.cycle._on_connection_disconnect = lambda _gone: None
        (ask,) = loop.on_tick - others
        self._stop_asking = partial(loop.on_tick.discard, ask)

    def close_connection(self, connection: Any) -> None:
        try:
            super().close_connection(connection)
        finally:
            self._stop_asking()

    def on_readable(self, fileno: int) -> None:
        """kombu reads nothing where no slot is free, were it the end of the line, and is told of it without
        a pause.
        """
        channel, kind = self.cycle.fds.get(fileno, (None, ""))
        if channel is None:
            return  # closed in this very round
        if kind == "BRPOP" and not channel._in_poll and not channel.qos.can_consume():
            raise ConnectionError("the line to Redis was closed while every slot was taken")
        super().on_readable(fileno)

    def _deliver(self, message: Any, queue: str) -> None:
        """An order that raises makes Celery begin its control channel anew, without what was on its way."""
        orders = queue.endswith(_ORDERS) and not queue.endswith(_ANSWERS)
        if orders and (why := order_problem(message)):
            logger.error("what came by the control channel is no order, and is dropped: %s", why)
        else:
            super()._deliver(message, queue)


def install() -> None:
    """Have kombu use it for Redis, by its own table of transports."""
    for scheme in ("redis", "rediss"):
        TRANSPORT_ALIASES[scheme] = "workers.celery_app.transport.channel:Transport"
