"""kombu's Redis transport, which buries what `workers.entry` has a problem with instead of ending the worker
for it, puts what a worker gives back where it is taken next, and goes on taking when a connection was made
anew.

kombu 5.6 takes an entry off its list, and then reads it outside of any handler: bytes that are no JSON, or
JSON that is no envelope, raise through the event loop, and are lost; a body that is no task's raises there
too, and comes again. `_brpop_read` is kombu's own, but for the lines in the middle. It can go when kombu has
a handler for such messages:
`tests/integration/test_dead_letters.py::test_kombu_alone_ends_at_what_is_no_message`.

kombu 5.6 stops asking Redis for messages once any connection of a worker's is gone, and begins again only
with a new transport. redis-py, however, makes a connection that died while nobody used it anew without a
word: a worker that was starting when Redis restarted lived on and took nothing. `register_with_event_loop`
can go when `tests/integration/test_polling.py::test_kombu_alone_takes_nothing_more` fails.

kombu puts a message that was rejected where those lie that were posted last. Invariants: what is not buried
is delivered as kombu delivers it; what comes back, for whatever reason, is taken before all that never left
its queue, since it was posted before.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from queue import Empty
from typing import Any

from kombu.transport import TRANSPORT_ALIASES, redis
from kombu.utils.encoding import bytes_to_str
from redis.exceptions import RedisError

from workers.dead_letters import bury
from workers.entry import order_problem, problem
from workers.settings import QueueSettings, section

logger = logging.getLogger(__name__)
_ORDERS, _ANSWERS = ".celery.pidbox", ".reply.celery.pidbox"  # how the queues of orders, and to them, end


class QoS(redis.QoS):
    """What Redis could not be told of is as good as acknowledged here: kombu would keep its slot for ever,
    and the worker would end up taking nothing. Its lease brings it back.
    """

    def ack(self, delivery_tag: str) -> None:
        try:
            super().ack(delivery_tag)
        finally:
            self._quick_ack(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        try:
            super().reject(delivery_tag, requeue=requeue)
        finally:
            self._quick_ack(delivery_tag)

    def restore_by_tag(self, tag: str, client: Any = None, leftmost: bool = False) -> None:
        super().restore_by_tag(tag, client, leftmost=False)  # BRPOP takes the rightmost

    def restore_unacked(self, client: Any = None) -> None:
        """The oldest last, so that it is taken first."""
        with self.channel.conn_or_acquire(client) as connected:
            for tag in reversed(self._delivered):
                self.restore_by_tag(tag, connected)
        self._delivered.clear()


class Channel(redis.Channel):
    QoS = QoS

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
            if why := problem(entry, queue):
                self._bury(queue, why, entry)
            else:
                self._hand_over(entry, queue)
            return True
        finally:
            self._in_poll = None

    def _hand_over(self, entry: bytes, queue: str) -> None:
        message: dict[str, Any] = {}
        try:
            message = redis.loads(bytes_to_str(entry))
            self.connection._deliver(message, queue)
        except self.connection_errors:
            raise
        except Exception as error:  # whatever Celery trips over in a message must not end the worker
            logger.exception("what came by the queue %s could not be taken", queue)
            self._bury(queue, f"not taken: {type(error).__name__}: {error}", entry)
            if message:
                self.basic_reject(message["properties"]["delivery_tag"], requeue=False)

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
        super().close_connection(connection)
        self._stop_asking()

    def _deliver(self, message: Any, queue: str) -> None:
        """Celery begins its control channel anew when an order raises, and then its worker takes nothing."""
        orders = queue.endswith(_ORDERS) and not queue.endswith(_ANSWERS)
        if orders and (why := order_problem(message)):
            logger.error("what came by the control channel is no order, and is dropped: %s", why)
        else:
            super()._deliver(message, queue)


def install() -> None:
    """Have kombu use it for Redis, by its own table of transports."""
    for scheme in ("redis", "rediss"):
        TRANSPORT_ALIASES[scheme] = "workers.transport:Transport"
