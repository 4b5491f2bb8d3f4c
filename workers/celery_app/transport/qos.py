"""QoS of one channel: how many messages a worker may hold, and what is requeued when a connection ends.

kombu 5.6 differs in four ways, each of which loses or repeats work here:

- It requeues a rejected message behind all others. Here a requeued message is consumed next.
- When a connection is lost it requeues the messages of running jobs too. They would run twice, and count as
  attempts that their worker did not survive.
- After a reconnection it forgets that running jobs occupy slots, so that the worker prefetches one too many.
- When Redis cannot be reached for an acknowledgement, the slot stays occupied for good.

Invariants:
- A requeued message, for whatever reason, is consumed before all messages that never left the queue.
- A running job's message is kept by its lease alone, whatever happens to the connection.
- A worker never holds more messages than it can run, and a finished job occupies no slot.

`tests/integration/test_reconnect.py` shows when this can go.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from celery.worker import state
from kombu.transport import redis

logger = logging.getLogger(__name__)


class WorkerQoS(redis.QoS):
    _sweeping = False

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
        super().restore_by_tag(tag, client, leftmost=False)  # BRPOP consumes the rightmost
        if self._sweeping:
            logger.warning("lease expired: requeued the message with delivery tag %s", tag)

    def restore_visible(self, *arguments: Any, **options: Any) -> None:
        """Requeue the messages with expired leases, of whichever worker."""
        self._sweeping = True
        try:
            super().restore_visible(*arguments, **options)
        finally:
            self._sweeping = False

    def restore_unacked(self, client: Any = None) -> None:
        """Requeue what no process has started, the oldest last, so that it is consumed first."""
        running = {request.message.delivery_tag for request in _running()}
        with self.channel.conn_or_acquire(client) as connected:
            for tag in reversed(self._delivered):
                if tag not in running:
                    self.restore_by_tag(tag, connected)
        self._delivered.clear()

    def can_consume(self) -> bool:
        """Whether a slot is free. Jobs that outlived their connection occupy slots too."""
        slots = self.prefetch_count  # 0 on channels that deliver no tasks
        return bool(super().can_consume()) and (not slots or len(state.active_requests) < slots)


def _running() -> Iterator[Any]:
    return (request for request in tuple(state.requests.values()) if request.time_start is not None)
