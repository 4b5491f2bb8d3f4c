"""Requeued messages are consumed before what was posted later, in the order in which they were posted."""

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
    """Opens channels like a worker's; the requests `NAMES` are already queued."""
    transport.install()
    with redis.Redis.from_url(queue_settings.url) as server:
        for name in NAMES:
            request = request_for(Order()).model_copy(update={"request_id": name})
            server.lpush("code", encode(request, tag=f"tag-{name}", reply_to=""))
    with Connection(queue_settings.url) as connection:
        yield connection.channel


def consume(channel: Any) -> str:
    return channel.basic_get("code").properties["correlation_id"]


def test_a_rejected_message_is_consumed_next(channel: Open) -> None:
    other = channel()
    other.basic_get("code").reject(requeue=True)
    assert tuple(consume(other) for _ in NAMES) == NAMES


def test_messages_of_a_closed_channel_are_consumed_next_in_order(channel: Open) -> None:
    closing, other = channel(), channel()
    consume(closing), consume(closing)
    closing.close()
    assert tuple(consume(other) for _ in NAMES) == NAMES


def test_messages_with_expired_leases_are_consumed_next_in_order(
    channel: Open, caplog: pytest.LogCaptureFixture
) -> None:
    expired, other = channel(), channel()
    consume(expired), consume(expired)
    other.qos.visibility_timeout = 0
    other.qos.restore_visible(num=None, interval=1)
    assert tuple(consume(other) for _ in NAMES) == NAMES
    assert caplog.text.count("lease expired") == 2


def test_kombu_alone_requeues_behind_all_others(channel: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """When this fails, `workers.celery_app.transport.qos.WorkerQoS.restore_by_tag` can go."""
    other = channel()
    monkeypatch.delattr(WorkerQoS, "restore_by_tag")
    other.basic_get("code").reject(requeue=True)
    assert tuple(consume(other) for _ in NAMES) == ("second", "third", "first")
