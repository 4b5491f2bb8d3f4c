"""A pool of Ray workers grows with its backlog, goes to zero and comes back, and no job is lost or run
twice.
"""

from __future__ import annotations

import asyncio
import functools
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray
import redis
from places import SUPPORT
from queue_jobs import Order
from queue_requests import Notes, alive, request_for
from raw_queue import queue_up
from waiting import until

from coordinator.config.pools import PoolSettings, ScalerSettings
from coordinator.config.settings import ServiceConfig
from coordinator.host.redis_server import EmbeddedRedis
from coordinator.scale.fleet import Fleet
from coordinator.scale.nodes.needs import drain_s
from coordinator.scale.ray_worker import RayWorker, ray_worker
from coordinator.scale.scaler import RECORD, Scaler
from workers.broker.breakers import ProviderBreaker
from workers.broker.keys import STATS
from workers.client.client import QueueClient
from workers.errors import Cause, InfrastructureFault
from workers.messages import Outcome, Success
from workers.process.worker import WorkerProcess
from workers.settings import BreakerSettings, QueueSettings

pytestmark = pytest.mark.long

READY_S = 60.0
DRAIN_S = functools.partial(drain_s, ServiceConfig())
MIB = 1024**2


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A small Ray of this module's own, with two logical GPUs. Its workers find the test jobs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(SUPPORT))
        patch.setenv("RAY_enable_worker_prestart", "0")
        ray.init(
            address="local", num_cpus=4, num_gpus=2, object_store_memory=80 * MIB, include_dashboard=False,
            log_to_driver=False, configure_logging=False,
        )  # fmt: skip
        yield
        ray.shutdown()


class WorkerFactory:
    """Makes Ray workers with the test jobs, and keeps them in order."""

    def __init__(self, config: Path, logs: Path):
        self.config, self.logs = config, logs
        self.app = "queue_app"
        self.made: list[RayWorker] = []

    def __call__(self, pool: PoolSettings, name: str) -> RayWorker:
        process = functools.partial(
            WorkerProcess, pool.queues, self.config, pool.concurrency, self.logs / f"{name}.log", name,
            app=self.app,
        )  # fmt: skip
        self.made.append(RayWorker(process, name, pool.cpus, pool.gpus))
        return self.made[-1]


class Run:
    """What a run does with its fleet and its scaler: the loop of `coordinator.run.launch`, as a task."""

    def __init__(
        self, url: str, pool: PoolSettings, settings: ScalerSettings, factory: WorkerFactory, run: Path
    ):
        self.fleet = Fleet([pool], factory, READY_S, DRAIN_S)
        self.scaler = Scaler(url, [pool], settings, self.fleet, run)
        self.record = run / RECORD
        self.pool = pool.name

    async def __aenter__(self) -> Run:
        self.fleet.begin()
        self.scaler.start()
        self._task = asyncio.create_task(self._tick())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.to_thread(self.scaler.stop)
        await asyncio.to_thread(self.fleet.stop, 5.0)

    async def _tick(self) -> None:
        while True:
            self.fleet.reconcile()
            await asyncio.sleep(0.1)

    @property
    def sizes(self) -> list[int]:
        return [json.loads(line)["wanted"] for line in self.record.read_text().splitlines()]

    @property
    def ready(self) -> int:
        return self.fleet.states()[self.pool].ready

    async def reaches(self, **counts: int) -> None:
        """Wait until the pool's state has `counts`."""

        def reached() -> bool:
            state = self.fleet.states()[self.pool]
            return all(getattr(state, name) == count for name, count in counts.items())

        await until(reached, READY_S)


@pytest.fixture
def factory(cluster: None, config_file: Path, tmp_path: Path) -> WorkerFactory:
    return WorkerFactory(config_file, tmp_path)


@pytest.fixture
def run(factory: WorkerFactory, queue_settings: QueueSettings, tmp_path: Path) -> Callable[..., Run]:
    def make(idle_s: float = 1.0, **pool: float) -> Run:
        settings = ScalerSettings(every_s=0.2, drain_s=2.0, idle_s=idle_s)
        given = {"low": 0, "high": 2, "cpus": 1.0, **pool}
        return Run(queue_settings.url, PoolSettings(queues=("code",), **given), settings, factory, tmp_path)

    return make


async def test_from_zero_to_high_to_zero_and_back_every_job_runs_once(
    run: Callable[..., Run], client: QueueClient, notes: Notes, factory: WorkerFactory, tmp_path: Path
) -> None:
    both_ready = tmp_path / "both workers are ready"
    async with run() as running:
        assert factory.made == []
        orders = [notes.order(seconds=0.25) for _ in range(8)]  # they tell how long one takes
        orders += [notes.order(seconds=0.25, after=str(both_ready)) for _ in range(32)]
        posted = [await client.post(request_for(order, timeout_s=120.0)) for order in orders]
        await running.reaches(ready=2)
        both_ready.touch()
        outcomes = await asyncio.gather(*(one.outcome() for one in posted))
        assert [outcome.result for outcome in outcomes if not outcome.ok] == []
        await running.reaches(wanted=0, ready=0, starting=0, draining=0)
        assert len(notes.starts) == len(posted)
        assert len(set(notes.starts)) == 2, "one worker did it all"
        assert running.sizes == [1, 2, 1, 0]
        again = await client.post(request_for(notes.order(), timeout_s=60.0))
        assert (await again.outcome()).ok
        assert len(notes.starts) == len(posted) + 1
        assert running.fleet.restarts == 0


async def test_a_job_that_runs_when_its_worker_has_to_go_is_finished_there(
    run: Callable[..., Run], client: QueueClient, notes: Notes
) -> None:
    async with run(idle_s=600.0) as running:
        posted = await client.post(request_for(notes.order(seconds=3.0), timeout_s=60.0))
        await notes.started()
        await asyncio.to_thread(running.scaler.stop)
        running.fleet.resize("code", 0)
        await running.reaches(ready=0, draining=1)
        assert (await posted.outcome()).ok
        await running.reaches(draining=0)
        assert len(notes.starts) == 1


async def test_killing_an_actor_ends_its_worker_and_loses_no_job(
    run: Callable[..., Run], client: QueueClient, notes: Notes, factory: WorkerFactory
) -> None:
    async with run(idle_s=600.0, low=1, high=1) as running:
        await running.reaches(ready=1)
        posted = [await client.post(request_for(notes.order(seconds=1.0), timeout_s=60.0)) for _ in range(4)]
        job = await notes.started()
        first = factory.made[0]
        celery = first.pid
        ray.kill(first._host)
        await until(lambda: not alive(job) and not alive(celery))
        outcomes = await asyncio.gather(*(one.outcome() for one in posted))
        assert [outcome.result for outcome in outcomes if not outcome.ok] == []
        assert len(notes.starts) == 5, "only the job that ran in the actor is run again"
        assert running.fleet.restarts == 1


async def test_a_worker_waits_for_its_gpu_without_blocking_others(
    factory: WorkerFactory, queue_settings: QueueSettings
) -> None:
    pool = PoolSettings(queues=("code",), high=3, cpus=0.5, gpus=1.0)
    fleet = Fleet([pool], factory, READY_S, DRAIN_S)
    fleet.begin()
    try:
        fleet.resize("code", 3)
        fleet.reconcile()  # returns although the third has no GPU
        await until(lambda: fleet.states()["code"].ready == 2, READY_S)
        placed = [worker for worker in factory.made if ray.wait([worker._placed], timeout=0)[0]]
        seen = [
            Path(f"/proc/{worker.pid}/environ").read_bytes().partition(b"CUDA_VISIBLE_DEVICES=")[2][:1]
            for worker in placed
        ]
        assert sorted(seen) == [b"0", b"1"]
        assert fleet.states()["code"].starting == 1
        placed[0].kill()
        await until(lambda: (fleet.reconcile(), fleet.states()["code"].ready)[1] == 2, READY_S)
        await until(
            lambda: (fleet.reconcile(), sum(worker.alive for worker in factory.made))[1] == 3, READY_S
        )
    finally:
        await asyncio.to_thread(fleet.stop, 5.0)


async def test_missing_resources_are_reported(factory: WorkerFactory) -> None:
    pool = PoolSettings(queues=("code",), gpus=9.0)
    worker = factory(pool, "code-1")
    worker.start()
    with pytest.raises(InfrastructureFault, match="no node had 1 CPUs and 9 GPUs free"):
        await asyncio.to_thread(worker.wait_ready, 0.5)
    worker.kill()


async def test_the_error_of_a_worker_that_does_not_start_is_reported(
    factory: WorkerFactory, config_file: Path
) -> None:
    worker = ray_worker(config_file, factory.logs)(PoolSettings(queues=("code",)), "code-1")
    (factory.logs / "worker-ray-code-1.log").mkdir()  # nothing can be written there
    worker.start()
    with pytest.raises(InfrastructureFault, match=r"ray-code-1.*IsADirectoryError"):
        await asyncio.to_thread(worker.wait_ready, READY_S)
    worker.kill()


async def test_a_worker_that_ends_while_starting_shows_the_end_of_its_log(factory: WorkerFactory) -> None:
    factory.app = "no_such_app"
    fleet = Fleet([PoolSettings(queues=("code",))], factory, READY_S, DRAIN_S)
    with pytest.raises(InfrastructureFault, match=r"(?s): worker code-1 ended while starting.*no_such_app"):
        await asyncio.to_thread(fleet.start)
    await asyncio.to_thread(fleet.stop, 5.0)


async def test_while_redis_is_away_the_sizes_stay(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pool = PoolSettings(queues=("code",), low=0, high=4)
    fleet = Fleet([pool], lambda pool, name: pytest.fail("nothing to start"), READY_S, DRAIN_S)
    fleet.resize("code", 3)
    with EmbeddedRedis(tmp_path / "redis") as server:
        url = server.url
    scaler = Scaler(url, [pool], ScalerSettings(every_s=0.01, idle_s=0.0), fleet, tmp_path)
    with pytest.raises(redis.RedisError):
        scaler.poll(time.monotonic())
    scaler.start()
    await until(lambda: "the pools keep their sizes" in caplog.text)
    scaler.stop()
    assert fleet.states()["code"].wanted == 3
    assert not scaler.depths
    assert caplog.text.count("the pools keep their sizes") == 1


def test_a_backlog_with_a_provider_that_is_down_gets_no_workers(
    queue_settings: QueueSettings, tmp_path: Path
) -> None:
    pool = PoolSettings(queues=("search",), low=1, high=4)
    fleet = Fleet([pool], lambda pool, name: pytest.fail("nothing to start"), READY_S, DRAIN_S)
    scaler = Scaler(queue_settings.url, [pool], ScalerSettings(), fleet, tmp_path)
    with redis.Redis.from_url(queue_settings.url) as server:
        server.hset(STATS, mapping={"search:n": 9, "search:ran": 9, "search:service_s": 90.0})
        breaker = ProviderBreaker(server, "search", "serpapi at serpapi.com", BreakerSettings(failures=1))
        request = request_for(Order(), "search")
        scaler.poll(0.0)
        breaker.record(Outcome.failed(request, Cause.PROVIDER_DOWN, provider="serpapi"))
        queue_up(server, *[request_for(Order(), "search") for _ in range(100)])
        scaler.poll(1.0)
        assert fleet.states()["search"].wanted == 1
        breaker.record(Outcome(request_id=request.request_id, kind="search", result=Success()))
        scaler.poll(2.0)
        assert fleet.states()["search"].wanted == 4
