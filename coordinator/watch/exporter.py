"""The coordinator's metrics for Prometheus (`/metrics`), and HTTP service discovery (`/targets`).

Invariants:
- Values are read at each scrape, in the server's threads, so a run never waits for a scrape.
- While Redis does not answer, the queues' metrics are missing, never zero.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args
from urllib.parse import urlsplit

import redis
from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from coordinator.host.processes import MemoryWatch
from coordinator.scale.fleet import PoolState
from coordinator.watch.progress import Progress
from policy.ledger.entries import State
from policy.ledger.masked import DROPPED
from workers.broker.breakers import read_breakers
from workers.broker.depths import read_depths
from workers.broker.keys import LEVELS
from workers.errors import ConfigError
from workers.metrics.endpoint import Server, Target, advertised, serve, targets
from workers.redis_client import CHECK_TIMEOUT_S, connect_redis
from workers.redis_url import without_password
from workers.settings import MetricsSettings, QueueSettings

logger = logging.getLogger(__name__)
ENDPOINTS = "endpoints.json"


@dataclass(frozen=True)
class RunState:
    """The parts of a run that are exported. They are read while the run changes them."""

    progress: Progress
    memory: MemoryWatch
    pools: Callable[[], Mapping[str, PoolState]]


class QueueCollector(Collector):
    """Metrics of every queue, read from Redis."""

    def __init__(self, settings: QueueSettings):
        self._settings = settings

    def collect(self) -> Iterator[Metric]:
        waiting = GaugeMetricFamily("llmi_queue_waiting", "Requests in the queue.", labels=["queue"])
        levels = GaugeMetricFamily(
            "llmi_queue_waiting_by_priority",
            "Requests in the queue by priority: 0 interactive, 3 training, 6 batch.",
            labels=["queue", "priority"],
        )
        running = GaugeMetricFamily("llmi_queue_running", "Requests held by workers.", labels=["queue"])
        oldest = GaugeMetricFamily(
            "llmi_queue_oldest_seconds", "Age of the oldest waiting request, 0 without one.", labels=["queue"]
        )
        finished = CounterMetricFamily("llmi_queue_finished", "Requests with an outcome.", labels=["queue"])
        serving = GaugeMetricFamily(
            "llmi_queue_workers", "Worker processes that serve the queue.", labels=["queue"]
        )
        failing = GaugeMetricFamily(
            "llmi_provider_down_seconds",
            "For how long a provider with an open circuit has been failing.",
            labels=["queue", "provider"],
        )
        up = GaugeMetricFamily("llmi_redis_up", "Whether Redis answers.")
        try:
            breakers = read_breakers(self._settings.url)
            depths = read_depths(self._settings.url)
            live = Counter(
                queue
                for target in read_targets(self._settings)
                for queue in target.labels.get("queues", "").split(",")
            )
        except redis.RedisError:
            up.add_metric([], 0)
            yield up
            return
        up.add_metric([], 1)
        for queue, depth in depths.items():
            waiting.add_metric([queue], depth.waiting)
            for level, count in zip(LEVELS, depth.by_level, strict=True):
                levels.add_metric([queue, str(level)], count)
            running.add_metric([queue], depth.running)
            oldest.add_metric([queue], depth.oldest_s)
            finished.add_metric([queue], depth.finished)
            serving.add_metric([queue], live[queue])
        for down in breakers.outages:
            failing.add_metric([down.kind, down.provider], breakers.now - down.since)
        yield from (up, waiting, levels, running, oldest, finished, serving, failing)


class RunCollector(Collector):
    """Metrics of a run: its workers and its training."""

    def __init__(self, run: RunState):
        self._run = run

    def collect(self) -> Iterator[Metric]:
        workers = GaugeMetricFamily(
            "llmi_workers",
            "Worker processes of a pool: wanted, ready, starting, draining.",
            labels=["pool", "state"],
        )
        restarts = CounterMetricFamily(
            "llmi_worker_restarts", "Workers that replaced a dead one.", labels=["pool"]
        )
        for pool, state in self._run.pools().items():
            for name in ("wanted", "ready", "starting", "draining"):
                workers.add_metric([pool, name], getattr(state, name))
            restarts.add_metric([pool], state.restarts)
        progress = self._run.progress
        rollouts = CounterMetricFamily(
            "llmi_rollouts",
            "Rollouts by terminal state; for the two kinds of masked ones see llmi_masked.",
            labels=["state"],
        )
        for name in get_args(State):
            rollouts.add_metric([name], progress.states[name])
        masked = CounterMetricFamily(
            "llmi_masked",
            "Masked samples by cause; a sample with several causes counts for each. "
            "dropped_with_group: samples with a reward, in a group with too few valid samples.",
            labels=["cause"],
        )
        for cause in (DROPPED, *sorted(progress.masked.keys() - {DROPPED})):
            masked.add_metric([cause], progress.masked[cause])
        yield from (workers, restarts, rollouts, masked)
        yield GaugeMetricFamily("llmi_step", "Training steps done.", value=progress.steps)
        if progress.rewards:
            yield GaugeMetricFamily(
                "llmi_reward", "Mean reward of the last step.", value=progress.rewards[-1]
            )
        if (ratio := progress.idle_ratio) is not None:
            yield GaugeMetricFamily(
                "llmi_trainer_idle_ratio", "Share of the steps' time that the trainer waited.", value=ratio
            )
        idle = GaugeMetricFamily(
            "llmi_idle_seconds",
            "Seconds that the trainer or the generator was idle, by what it waited for.",
            labels=["who", "cause"],
        )
        for who, causes in (("trainer", progress.idle.trainer), ("generator", progress.idle.generator)):
            for cause, seconds in causes.items():
                idle.add_metric([who, cause], seconds)
        yield idle
        paused = float(progress.paused is not None)
        yield GaugeMetricFamily(
            "llmi_paused", "Whether admission is paused because a provider is down.", value=paused
        )
        yield GaugeMetricFamily(
            "llmi_memory_bytes", "Resident memory of the run on this machine.", value=self._run.memory.now
        )


class Exporter:
    """A context manager that serves metrics on `metrics.bind` and `metrics.port`; empty before `watch`.

    Raises `ConfigError` when it cannot listen there.
    """

    def __init__(self, metrics: MetricsSettings):
        self._metrics = metrics
        self._registry = CollectorRegistry()
        self._queue: QueueSettings | None = None
        self._name = ""
        self._server: Server | None = None

    @property
    def url(self) -> str:
        """The address for Prometheus. Raises `RuntimeError` before it serves."""
        if self._server is None:
            raise RuntimeError("the exporter does not serve")
        queue = self._queue or QueueSettings()
        return f"http://{advertised(self._metrics.bind, self._server.server_port, queue)}"

    def __enter__(self) -> Exporter:
        try:
            self._server = serve(self._application(), self._metrics.bind, self._metrics.port)
        except OSError as error:
            raise ConfigError(
                f"metrics: {self._metrics.bind}:{self._metrics.port} cannot be served ({error}); name an "
                f"address of this machine in metrics.bind and a free port, or 0, in metrics.port"
            ) from error
        return self

    def __exit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()

    def watch(self, queue: QueueSettings, name: str = "", run: RunState | None = None) -> None:
        """Export the queues at `queue`, and `run` if there is one. Call it once."""
        self._queue, self._name = queue, name
        self._registry.register(QueueCollector(queue))
        if run is not None:
            self._registry.register(RunCollector(run))

    def write(self, run: Path) -> None:
        """Write the addresses of Redis (without password) and metrics into the run's folder."""
        assert self._queue is not None
        endpoints = {"redis": without_password(self._queue.url), "metrics": self.url}
        (run / ENDPOINTS).write_text(json.dumps(endpoints, indent=1) + "\n", encoding="utf-8")

    def _targets(self) -> list[dict[str, Any]]:
        """This process and all registered ones, in the format of Prometheus' HTTP service discovery."""
        if self._queue is None:
            return []
        own = Target(urlsplit(self.url).netloc, {"role": "coordinator", "process": "coordinator"})
        found = [own, *read_targets(self._queue)]
        run = {"run": self._name} if self._name else {}
        return [{"targets": [t.address], "labels": {**t.labels, **run}} for t in found]

    def _application(self) -> Callable[..., Iterable[bytes]]:
        metrics = make_wsgi_app(self._registry)

        def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
            if environ["PATH_INFO"] != "/targets":
                return metrics(environ, start_response)
            try:
                body = json.dumps(self._targets()).encode()
            except (redis.RedisError, OSError) as error:  # Prometheus then keeps its last list
                start_response("503 Service Unavailable", [("Content-Type", "text/plain; charset=utf-8")])
                return [f"Redis does not answer: {type(error).__name__}".encode()]
            start_response("200 OK", [("Content-Type", "application/json")])
            return [body]

        return application


def read_targets(settings: QueueSettings) -> list[Target]:
    """All processes that serve metrics now. Raises `redis.RedisError`."""
    with connect_redis(settings.url, CHECK_TIMEOUT_S) as client:
        return targets(client)
