"""Fixtures of all tiers: a real Redis-compatible server, a run's configuration file, real Celery worker
processes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import redis

from coordinator.redis_server import EmbeddedRedis
from workers.process import WorkerProcess
from workers.settings import CONFIG_ENV, REDIS_ENV, QueueSettings

TESTS = Path(__file__).parent
WORKER_START_S = 60.0  # a machine that also runs other things


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    """One server for all tests of a process; empty it with `queue_settings` or `config_file`."""
    with EmbeddedRedis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def queue_settings(redis_server: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch) -> QueueSettings:
    """Queue settings on an emptied server, with a lease short enough to wait for."""
    monkeypatch.delenv(REDIS_ENV, raising=False)
    monkeypatch.delenv(CONFIG_ENV, raising=False)
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
    return QueueSettings(redis_url=redis_server.url, lease_s=4.0)


@pytest.fixture
def config_file(tmp_path: Path, queue_settings: QueueSettings) -> Path:
    """A run's config.json with the sections that workers read."""
    document = {
        "queue": queue_settings.model_dump(mode="json"),
        "blobs": {"url": str(tmp_path / "blobs")},
        "tools": {},
    }
    path = tmp_path / "config.json"
    path.write_text(json.dumps(document))
    return path


StartWorker = Callable[..., WorkerProcess]


@pytest.fixture
def worker(config_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StartWorker]:
    """`worker(queues, concurrency=1, app="workers.app")` starts a worker and returns it ready; all end with
    the test.
    """
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    started: list[WorkerProcess] = []

    def start(queues: Sequence[str], concurrency: int = 1, app: str = "workers.app") -> WorkerProcess:
        name = f"w{len(started)}-{tmp_path.name}"
        process = WorkerProcess(queues, config_file, concurrency, tmp_path / f"{name}.log", name, app=app)
        started.append(process)
        process.start()
        process.wait_ready(WORKER_START_S)
        return process

    yield start
    for process in started:
        process.kill()
