"""Writes to the queues past the client: messages that no client would write."""

from __future__ import annotations

import time

import redis

from workers.broker.keys import queue_lists, record_key
from workers.broker.posting import POST, post, prepare
from workers.messages import Request


def put_message(
    client: redis.Redis, queue: str, request_id: str, message: str | bytes, reply_to: str = ""
) -> None:
    """Queue a record with any message, as `post.lua` would write it."""
    POST(client, [], [10**6, 3600, "*", request_id, queue, 3, message, reply_to, 10**9, 10**9])


def put_entry(client: redis.Redis, queue: str, entry: str | bytes) -> None:
    """Push an entry that names no record."""
    client.lpush(queue_lists(queue)[0], entry)


def lose_queued(client: redis.Redis, queue: str) -> None:
    """Remove the requests that wait in a queue, as a Redis does that lost its last writes."""
    for key in queue_lists(queue):
        for request_id in client.lrange(key, 0, -1):
            client.delete(record_key(request_id.decode()))
        client.delete(key)


def make_old(client: redis.Redis, request_id: str, seconds: float) -> None:
    """Make a queued request look as if it had been posted `seconds` earlier."""
    client.hset(record_key(request_id), "posted", f"{(time.time() - seconds) * 1e6:.0f}")


def queue_up(client: redis.Redis, *requests: Request, reply_to: str = "") -> None:
    """Post requests without a client."""
    for one in requests:
        (answer,) = post(client, [prepare(one, reply_to, time.time())], 10**6, keep_failures=True)
        assert answer.state == "posted"
