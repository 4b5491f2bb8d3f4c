"""Names of the Redis keys of the queue.

`scripts/queue.lua` documents the keys of queued and held requests.

Invariants: keys of this program start with `llmi:`. They expire, or are removed when they are empty. The
lists of the queues have the names that kombu would give them, so that Flower and other tools of Celery show
their lengths.
"""

from __future__ import annotations

LEVELS = (0, 3, 6)  # of priority, 0 first; kombu's steps, of which Flower adds up the lists
WORKERS = "llmi:workers"  # sorted set: names of workers -> Unix seconds of their last heartbeats
STATS = "llmi:stats"  # hash of totals: KIND:n ended, KIND:ran were started, KIND:service_s seconds they ran


def outcome_key(request_id: str) -> str:
    return f"llmi:outcome:{request_id}"


def record_key(request_id: str) -> str:
    """A hash about one request until it has an outcome."""
    return f"llmi:request:{request_id}"


def held_key(queue: str) -> str:
    """A sorted set: ids of the held requests of one queue, by the time at which their leases expire."""
    return f"llmi:held:{queue}"


def wake_key(queue: str) -> str:
    """A list on which idle workers wait."""
    return f"llmi:wake:{queue}"


def cancelled_key(worker: str) -> str:
    """A list of cancelled requests that one worker holds."""
    return f"llmi:cancelled:{worker}"


def replies_key(client_id: str) -> str:
    """The reply stream of one client."""
    return f"llmi:replies:{client_id}"


def worker_key(name: str) -> str:
    """A hash that expires with the worker's heartbeat: `queues` (comma-separated), `consuming` (process id),
    `config` (fingerprint), `clock_s` (its clock less that of Redis), one `warm:<pid>` per pool process.
    """
    return f"llmi:worker:{name}"


def queue_lists(queue: str) -> list[str]:
    """The Redis lists of one queue, one per level."""
    return [queue if level == 0 else f"{queue}\x06\x16{level}" for level in LEVELS]
