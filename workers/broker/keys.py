"""Names of the Redis keys of the queue.

Invariants: keys of this program start with `llmi:` and expire; keys without that prefix are kombu's.
"""

from __future__ import annotations

PRIORITY_STEPS = (0, 3, 6, 9)  # kombu keeps one list per step; 0 is consumed first
UNACKED = "unacked"  # kombu's hash: delivery tag -> [message, exchange, routing key], held by workers
UNACKED_INDEX = "unacked_index"  # kombu's sorted set: delivery tag -> when its lease was renewed
# means "no reply stream"; a valid key, since a user's permissions may be limited to `llmi:*`
NO_REPLIES = "llmi:replies:-"
STATS = "llmi:stats"  # hash of totals: KIND:n ended, KIND:ran were started, KIND:service_s seconds they ran


def outcome_key(request_id: str) -> str:
    return f"llmi:outcome:{request_id}"


def attempts_key(request_id: str) -> str:
    """A list with one entry for each time a worker started the request."""
    return f"llmi:attempts:{request_id}"


def replies_key(client_id: str) -> str:
    """The reply stream of one client."""
    return f"llmi:replies:{client_id}"


def worker_key(name: str) -> str:
    """A hash that expires with the worker's heartbeat: `queues` (comma-separated), `consuming` (process id),
    `config` (fingerprint), one `warm:<pid>` per pool process.
    """
    return f"llmi:worker:{name}"


def queue_lists(queue: str) -> list[str]:
    """The Redis lists of one queue in the order in which they are consumed: one per priority step."""
    return [queue if step == 0 else f"{queue}\x06\x16{step}" for step in PRIORITY_STEPS]
