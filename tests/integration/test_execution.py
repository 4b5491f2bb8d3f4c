"""A worker that handles a message while Redis does not answer."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from coordinator.host.redis_server import EmbeddedRedis
from workers.celery_app import execution
from workers.errors import Cause
from workers.messages import Failure, Request, SearchPayload
from workers.settings import CONFIG_ENV, REDIS_ENV

QUEUE = "search"


def test_a_message_received_just_before_redis_died_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"blobs": {"url": str(tmp_path / "blobs")}}))
    monkeypatch.setenv(CONFIG_ENV, str(config))
    with EmbeddedRedis(tmp_path / "redis") as server:
        monkeypatch.setenv(REDIS_ENV, server.url)
        execution._redis.cache_clear()
        execution._blobs.cache_clear()
        request = Request.make(QUEUE, SearchPayload(query="q"), timeout_s=-1.0)  # too late: no job is run
        server.stop()
        tried = threading.Event()
        record_attempt = execution.record_attempt

        def noticed(*arguments):
            try:
                return record_attempt(*arguments)
            finally:
                tried.set()

        monkeypatch.setattr(execution, "record_attempt", noticed)
        back = threading.Thread(target=lambda: tried.wait(30) and server.start())
        back.start()
        outcome = execution.handle(request.request_id, QUEUE, (request.model_dump(mode="json"),))
        back.join()
    execution._redis.cache_clear()
    execution._blobs.cache_clear()
    assert isinstance(outcome.result, Failure)
    assert outcome.result.cause in (Cause.TIMEOUT, Cause.BAD_MESSAGE)  # answered, not broken by the outage
