"""What a worker gives back is taken before what was posted later, in the order in which it was posted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from kombu import Connection
from queue_jobs import Order
from queue_requests import request_for

from workers.celery_app.transport import channel as transport
from workers.celery_app.transport.qos import WorkerQoS
from workers.client.publisher import encode
from workers.settings import QueueSettings

NAMES = ("first", "second", "third")

Open = Callable[[], Any]


@pytest.fixture
def channel(queue_settings: QueueSettings) -> Iterator[Open]:
    """Makes channels as a worker's, and posts `NAMES` before the first of them."""
    transport.install()
    with redis.Redis.from_url(queue_settings.url) as server:
        for name in NAMES:
            request = request_for(Order()).model_copy(update={"request_id": name})
            server.lpush("code", encode(request, tag=f"tag-{name}", reply_to=""))
    with Connection(queue_settings.url) as connection:
        yield connection.channel


def taken(channel: Any) -> str:
    return channel.basic_get("code").properties["correlation_id"]


def test_what_is_rejected_is_taken_next(channel: Open) -> None:
    at_work = channel()
    at_work.basic_get("code").reject(requeue=True)
    assert tuple(taken(at_work) for _ in NAMES) == NAMES


def test_what_was_not_begun_at_an_orderly_end_is_taken_next_in_its_order(channel: Open) -> None:
    ending, at_work = channel(), channel()
    taken(ending), taken(ending)
    ending.close()
    assert tuple(taken(at_work) for _ in NAMES) == NAMES


def test_what_a_silent_worker_held_is_taken_next_in_its_order(channel: Open) -> None:
    silent, at_work = channel(), channel()
    taken(silent), taken(silent)
    at_work.qos.visibility_timeout = 0
    at_work.qos.restore_visible(num=None, interval=1)
    assert tuple(taken(at_work) for _ in NAMES) == NAMES


def test_kombu_alone_puts_what_is_rejected_behind_all_others(
    channel: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When this fails, `workers.celery_app.transport.qos.WorkerQoS.restore_by_tag` can go."""
    at_work = channel()
    monkeypatch.delattr(WorkerQoS, "restore_by_tag")
    at_work.basic_get("code").reject(requeue=True)
    assert tuple(taken(at_work) for _ in NAMES) == ("second", "third", "first")
