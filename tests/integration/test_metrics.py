"""Metrics of real workers agree with what was posted, and every endpoint is listed for Prometheus."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from pathlib import Path
from urllib.error import HTTPError

import psutil
import pytest
import redis
from conftest import StartWorker
from metrics_pages import get_json, scrape
from queue_jobs import Order
from queue_requests import Notes, ask, request_for
from raw_queue import queue_up
from waiting import until

from coordinator.host.processes import MemoryWatch
from coordinator.host.redis_server import EmbeddedRedis
from coordinator.scale.fleet import PoolState
from coordinator.watch.exporter import Exporter, RunState
from coordinator.watch.progress import Progress
from policy.ledger.entries import TrainerWaited
from policy.ledger.writer import LedgerWriter
from workers.broker.breakers import ProviderBreaker
from workers.client.client import QueueClient
from workers.errors import Cause, ConfigError
from workers.messages import Failure, Outcome
from workers.metrics.endpoint import Target, announce, targets
from workers.process.worker import WorkerProcess
from workers.settings import BreakerSettings, MetricsSettings, QueueSettings


async def address(raw: redis.Redis, queue: str) -> str:
    """Where the worker of `queue` serves its metrics."""
    found: list[str] = []

    def listed() -> bool:
        found[:] = [t.address for t in targets(raw) if t.labels.get("queues") == queue]
        return bool(found)

    await until(listed)
    return found[0]


def folder(worker: WorkerProcess) -> Path:
    """Where a worker's processes add up their numbers: files that they have in memory."""
    maps = psutil.Process(worker.pid).memory_maps()
    return next(Path(part.path).parent for part in maps if part.path.endswith(f"_{worker.pid}.db"))


async def test_a_workers_metrics_agree_with_what_was_posted(
    start_worker: StartWorker, client: QueueClient, raw: redis.Redis
) -> None:
    start_worker("code", concurrency=2)
    acts = ["answer"] * 5 + ["fail_model"] * 2 + ["fail_infrastructure"]
    outcomes = await asyncio.gather(*(ask(client, Order(act=act, seconds=0.05)) for act in acts))
    page = scrape(await address(raw, "code"))
    assert page["llmi_task_outcomes_total  code success"] == 5
    assert page["llmi_task_outcomes_total no_hit code model"] == 2
    assert page["llmi_task_outcomes_total quota code infrastructure"] == 1
    assert page["llmi_task_wait_seconds_count code"] == 8
    served = sum(o.finished - o.started for o in outcomes if o.ok)
    assert page["llmi_task_service_seconds_count code success"] == 5
    assert page["llmi_task_service_seconds_sum code success"] == pytest.approx(served, abs=1e-6)
    assert served > 5 * 0.05
    assert page["llmi_tasks_requeued_total code"] == 0


async def test_a_killed_process_loses_no_count_and_its_task_is_counted_once(
    start_worker: StartWorker, client: QueueClient, raw: redis.Redis, notes: Notes
) -> None:
    worker = start_worker("code")
    for _ in range(3):
        await ask(client, Order())
    asked = asyncio.create_task(ask(client, notes.order(act="hang_once")))
    os.kill(await notes.started(), signal.SIGKILL)
    assert (await asked).ok
    page = scrape(await address(raw, "code"))
    assert page["llmi_task_outcomes_total  code success"] == 4
    assert page["llmi_task_wait_seconds_count code"] == 4
    assert page["llmi_tasks_requeued_total code"] == 1
    where = folder(worker)
    assert where.is_dir()
    worker.kill()
    assert not where.exists()


async def test_a_job_that_ends_without_its_process_is_counted(
    start_worker: StartWorker, client: QueueClient, raw: redis.Redis
) -> None:
    start_worker("code")
    outcome = await ask(client, Order(seconds=60.0), timeout_s=1.0)  # ended by the hard limit, in the parent
    assert not outcome.ok
    at = await address(raw, "code")
    counted = "llmi_task_outcomes_total timeout code infrastructure"
    await until(lambda: counted in scrape(at))
    await ask(client, Order())  # by now Celery has said all that it says of a task that ran too long
    assert scrape(at)[counted] == 1


async def test_running_jobs_are_shown_while_they_run(
    start_worker: StartWorker, client: QueueClient, raw: redis.Redis
) -> None:
    start_worker("search", concurrency=4)
    at = await address(raw, "search")
    assert scrape(at)["llmi_tasks_running search"] == 0
    running = [asyncio.create_task(ask(client, Order(seconds=1.5), "search")) for _ in range(3)]
    await until(lambda: scrape(at)["llmi_tasks_running search"] == 3)
    await asyncio.gather(*running)
    await until(lambda: scrape(at)["llmi_tasks_running search"] == 0)
    assert scrape(at)["llmi_task_outcomes_total  search success"] == 3


async def test_an_endpoint_that_stops_is_unlisted_within_a_lease(
    queue_settings: QueueSettings, raw: redis.Redis
) -> None:
    short = queue_settings.model_copy(update={"lease_s": 1.0})
    target = Target("10.0.0.1:9", {"role": "producer"})
    beating = asyncio.create_task(announce(target, short))
    await until(lambda: targets(raw) == [target])
    beating.cancel()
    await until(lambda: targets(raw) == [], timeout_s=4.0)


@pytest.fixture
def run(tmp_path: Path) -> RunState:
    """A run of one step with three rollouts that ended and one pool of workers."""
    data = {
        "critic/score/mean": 0.5,
        "timing_s/gen": 1.0,
        "timing_s/step": 4.0,
        "rollout_corr/rollout_is_eff_sample_size": 0.9,
        "rollout_corr/clipped_fraction": 0.03,
    }
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 3, "data": data}) + "\n")
    ledger = LedgerWriter(tmp_path, "rollout")
    ledger.rollout_ended("a_0", "trained", step=3)
    ledger.rollout_ended("a_1", "masked", reason="quota, timeout")
    ledger.rollout_ended("b_0", "masked", reason="dropped with its group", step=3)
    ledger.append(TrainerWaited(time=time.time() - 20.0, began=time.time() - 25.0, step=3))
    ledger.close()
    progress = Progress(tmp_path)
    progress.update()
    pools = {"code": PoolState(wanted=3, ready=1, starting=2, draining=0, restarts=4)}
    return RunState(progress=progress, memory=MemoryWatch(), pools=lambda: pools)


async def test_the_exporter_shows_queues_workers_and_the_run(
    queue_settings: QueueSettings, raw: redis.Redis, run: RunState, tmp_path: Path
) -> None:
    queue_up(raw, request_for(Order(), "edit"))
    with Exporter(MetricsSettings()) as exporter:
        exporter.watch(queue_settings, "night", run)
        exporter.write(tmp_path)
        page = scrape(exporter.url.removeprefix("http://"))
        listed = get_json(f"{exporter.url}/targets")
    expected = {
        "llmi_redis_up": 1,
        "llmi_queue_waiting edit": 1,
        "llmi_queue_waiting code": 0,
        "llmi_queue_running edit": 0,
        "llmi_queue_workers edit": 0,
        "llmi_workers code wanted": 3,
        "llmi_workers code ready": 1,
        "llmi_workers code starting": 2,
        "llmi_worker_restarts_total code": 4,
        "llmi_step": 3,
        "llmi_reward": 0.5,
        "llmi_effective_sample_size": 0.9,
        "llmi_clipped_share": 0.03,
        "llmi_paused": 0,
        "llmi_trainer_idle_ratio": 0.25,
        "llmi_rollouts_total trained": 1,
        "llmi_rollouts_total masked": 2,
        "llmi_masked_total quota": 1,
        "llmi_masked_total timeout": 1,
        "llmi_masked_total dropped_with_group": 1,
        "llmi_rollouts_total stale": 0,
    }
    assert {name: page[name] for name in expected} == expected
    assert page["llmi_idle_seconds unexplained trainer"] == pytest.approx(5.0, abs=0.1)
    assert 0 < page["llmi_queue_oldest_seconds edit"] < 30
    own = exporter.url.removeprefix("http://")
    labels = {"role": "coordinator", "process": "coordinator", "run": "night"}
    assert listed == [{"targets": [own], "labels": labels}]
    endpoints = json.loads((tmp_path / "endpoints.json").read_text())
    assert endpoints == {"redis": queue_settings.redis_url, "metrics": exporter.url}


async def test_the_exporter_shows_an_outage_and_the_paused_run(
    queue_settings: QueueSettings, raw: redis.Redis, run: RunState, tmp_path: Path
) -> None:
    breaker = ProviderBreaker(raw, "search", "serpapi", BreakerSettings(failures=1))
    failure = Failure(cause=Cause.QUOTA, provider="serpapi")
    breaker.record(Outcome(request_id="r", kind="search", result=failure))
    ledger = LedgerWriter(tmp_path, "trainer")
    ledger.paused(["search"], since=time.time())
    ledger.close()
    run.progress.update()
    with Exporter(MetricsSettings()) as exporter:
        exporter.watch(queue_settings, "night", run)
        page = scrape(exporter.url.removeprefix("http://"))
    assert page["llmi_paused"] == 1
    assert 0 <= page["llmi_provider_down_seconds serpapi search"] < 30


async def test_workers_are_listed_with_their_node_and_queues(
    start_worker: StartWorker, queue_settings: QueueSettings, raw: redis.Redis
) -> None:
    worker = start_worker("search")
    at = await address(raw, "search")
    with Exporter(MetricsSettings()) as exporter:
        exporter.watch(queue_settings)
        _, listed = get_json(f"{exporter.url}/targets")
        page = scrape(exporter.url.removeprefix("http://"))
    labels = {"role": "worker", "node": worker.node, "process": worker.name, "queues": "search"}
    assert listed == {"targets": [at], "labels": labels}
    assert page["llmi_queue_workers search"] == 1


def test_without_redis_queue_metrics_are_missing_not_zero(
    tmp_path: Path, run: RunState, monkeypatch: pytest.MonkeyPatch
) -> None:
    with EmbeddedRedis(tmp_path / "redis") as server:
        gone = QueueSettings(redis_url=server.url)
    with Exporter(MetricsSettings()) as exporter:
        exporter.watch(gone, run=run)
        page = scrape(exporter.url.removeprefix("http://"))
        with pytest.raises(HTTPError, match="503"):
            get_json(f"{exporter.url}/targets")
    assert page["llmi_redis_up"] == 0
    assert page["llmi_step"] == 3
    assert not [name for name in page if name.startswith("llmi_queue")]


def test_an_address_in_use_is_named_with_what_to_do() -> None:
    with Exporter(MetricsSettings()) as first:
        port = int(first.url.rpartition(":")[2])
        with pytest.raises(ConfigError, match=r"metrics: 127\.0\.0\.1:\d+ .*metrics\.port"):
            Exporter(MetricsSettings(port=port)).__enter__()
