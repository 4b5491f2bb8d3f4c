"""Celery's consumer (`worker_consumer`), which buries messages that no task of ours can be made of.

Invariant: Celery does with them what it always does (it logs and acknowledges them, and fails a task that it
does not know), and goes on.
"""

from __future__ import annotations

import json
import logging
from typing import Any

import redis
from celery.worker.consumer import Consumer

from workers.dead_letters import TIMEOUT_S, bury
from workers.settings import QueueSettings, section

logger = logging.getLogger(__name__)


class Intake(Consumer):
    def on_unknown_message(self, body: Any, message: Any) -> None:
        _bury(message, "no message of a task")
        super().on_unknown_message(body, message)

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:
        _bury(message, f"no task is called {exc}")
        super().on_unknown_task(body, message, exc)

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:
        _bury(message, f"not accepted: {exc}")
        super().on_invalid_task(body, message, exc)

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        _bury(message, f"cannot be decoded: {exc}")
        super().on_decode_error(message, exc)


def _bury(message: Any, why: str) -> None:
    """Never raises: the worker goes on, and Celery's log has the message too."""
    settings = section("queue", QueueSettings)
    queue = str(message.delivery_info.get("routing_key", ""))
    properties = message.properties or {}
    named = json.dumps({name: str(properties.get(name)) for name in ("correlation_id", "reply_to")})
    text = f"{named} {message.headers!r} {message.body!r}"
    try:
        with redis.Redis.from_url(
            settings.url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S
        ) as client:
            bury(client, queue, why, text.encode(errors="replace"), settings.result_ttl_s)
    except (redis.RedisError, OSError) as error:
        logger.warning("a message of the queue %s (%s) is not kept: %s", queue, why, error)
