"""The messages that a worker holds: how many it may take, and what is given back when a line ends.

kombu 5.6 puts a message that was rejected where those lie that were posted last, gives back what runs when
the line breaks over which it came (it would run twice, and count as an attempt that its worker did not
survive), forgets that it takes up a slot, and keeps a slot for ever of which Redis could not be told that it
is free. Invariants: what comes back, for whatever reason, is taken before all that never left its queue,
since it was posted before; what runs is kept by its lease alone, whatever becomes of the line; a worker never
takes more than it can run, and what ended takes up no slot. `tests/integration/test_reconnect.py` tells.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from celery.worker import state
from kombu.transport import redis


class WorkerQoS(redis.QoS):
    """Of one channel."""

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
        """What no process has begun; the oldest last, so that it is taken first."""
        running = {request.message.delivery_tag for request in _running()}
        with self.channel.conn_or_acquire(client) as connected:
            for tag in reversed(self._delivered):
                if tag not in running:
                    self.restore_by_tag(tag, connected)
        self._delivered.clear()

    def can_consume(self) -> bool:
        """Jobs that outlived their line take up slots too."""
        slots = self.prefetch_count  # 0 on channels that bring no work
        return bool(super().can_consume()) and (not slots or len(state.active_requests) < slots)


def _running() -> Iterator[Any]:
    return (request for request in tuple(state.requests.values()) if request.time_start is not None)
