"""Fixtures of all tiers: a real Redis-compatible server, a run's configuration file, real Celery worker
processes.
"""

from __future__ import annotations

import functools
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest
import redis
import yaml
from aiohttp.resolver import AsyncResolver
from name_server import NameServer
from places import SUPPORT

from coordinator.host.redis_server import EmbeddedRedis
from workers import event_loop
from workers.client.client import QueueClient
from workers.messages import Outcome
from workers.process.worker import WorkerProcess
from workers.providers.http import names, proxies
from workers.settings import CONFIG_ENV, REDIS_ENV, QueueSettings

if TYPE_CHECKING:
    from queue_requests import Notes

WORKER_START_S = 60.0  # on a busy machine

# The time of an example depends on the load of the machine, not on the program.
hypothesis.settings.register_profile("busy", deadline=None)
hypothesis.settings.load_profile("busy")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files marked `long` first."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


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
def raw(queue_settings: QueueSettings) -> Iterator[redis.Redis]:
    """A connection to the server of `queue_settings`, past all code of this program."""
    with redis.Redis.from_url(queue_settings.url) as client:
        yield client


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
    """`worker(queues, concurrency=1, app="workers.celery_app.app", memory_mb=0, env=None)` starts a worker
    and returns it ready; all end with the test.
    """
    monkeypatch.setenv("PYTHONPATH", str(SUPPORT))
    started: list[WorkerProcess] = []

    def start(
        queues: Sequence[str],
        concurrency: int = 1,
        app: str = "workers.celery_app.app",
        memory_mb: int = 0,
        env: Mapping[str, str] | None = None,
    ) -> WorkerProcess:
        name = f"w{len(started)}-{tmp_path.name}"
        log = tmp_path / f"{name}.log"
        process = WorkerProcess(
            queues, config_file, concurrency, log, name, app=app, memory_mb=memory_mb, extra_env=env
        )
        started.append(process)
        process.start()
        process.wait_ready(WORKER_START_S)
        return process

    yield start
    for process in started:
        process.kill()


@pytest.fixture
def start_worker(worker: StartWorker) -> StartWorker:
    """`start_worker(kind="code", concurrency=1, memory_mb=0)` starts a worker with the jobs of queue_jobs."""

    def start(kind: str = "code", concurrency: int = 1, memory_mb: int = 0) -> WorkerProcess:
        return worker([kind], concurrency, app="queue_app", memory_mb=memory_mb)

    return start


@pytest.fixture
def name_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[NameServer]:
    """The DNS server of every resolver that is made during the test. localhost needs none."""
    with NameServer() as server:
        asking = functools.partial(AsyncResolver, servers=[server.address])
        monkeypatch.setattr(names, "AsyncResolver", asking)
        monkeypatch.setattr(proxies, "_resolved", {})
        event_loop.stop()  # with its resolvers; the next call starts another
        yield server
        event_loop.stop()


@pytest.fixture
def received() -> list[Outcome]:
    """Every outcome that `client` received, in order."""
    return []


@pytest.fixture
async def client(queue_settings: QueueSettings, received: list[Outcome]) -> AsyncIterator[QueueClient]:
    """A client of the queue that ends with the test."""
    async with QueueClient(queue_settings, on_outcome=received.append) as running:
        yield running


@pytest.fixture
def notes(tmp_path: Path) -> Notes:
    """An empty file in which jobs note that they were started."""
    from queue_requests import Notes  # here, for it brings jobs that take the place of two tools

    return Notes(tmp_path / "notes")


@pytest.fixture
def write_config(tmp_path: Path) -> Callable[[object], Path]:
    """Writes a document, or a text as it is, to a YAML file; returns its path."""

    def write(document: object) -> Path:
        path = tmp_path / "run.yaml"
        path.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
        return path

    return write
