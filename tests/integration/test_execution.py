"""A worker that handles a message while Redis does not answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator.host.redis_server import EmbeddedRedis
from workers import jobs
from workers.celery_app import execution
from workers.errors import Cause
from workers.messages import Failure, Request, SearchPayload
from workers.settings import CONFIG_ENV, REDIS_ENV

QUEUE = "search"


@pytest.fixture
def no_redis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The Redis of this process has just died."""
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"blobs": {"url": str(tmp_path / "blobs")}}))
    monkeypatch.setenv(CONFIG_ENV, str(config))
    jobs.load_jobs()
    execution._redis.cache_clear()
    execution._blobs.cache_clear()
    with EmbeddedRedis(tmp_path / "redis") as server:
        monkeypatch.setenv(REDIS_ENV, server.url)
        server.stop()
        yield
    execution._redis.cache_clear()
    execution._blobs.cache_clear()


@pytest.mark.parametrize(
    ("payload", "timeout_s", "cause"), [({"query": "q"}, -1.0, Cause.TIMEOUT), ({}, 60.0, Cause.BAD_MESSAGE)]
)
def test_a_message_received_just_before_redis_died_gets_its_outcome(
    payload: dict[str, str], timeout_s: float, cause: Cause, no_redis: None
) -> None:
    """Its dead letter cannot be stored. The result backend keeps the outcome until Redis answers."""
    request = Request.make(QUEUE, SearchPayload(query="q"), timeout_s=timeout_s)
    request = request.model_copy(update={"payload": payload})
    outcome = execution.handle(request.request_id, QUEUE, (request.model_dump(mode="json"),))
    assert isinstance(outcome.result, Failure)
    assert outcome.result.cause is cause
