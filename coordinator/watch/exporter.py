"""The coordinator's metrics for Prometheus (`/metrics`), and HTTP service discovery (`/targets`).

Invariants:
- Values are read at each scrape, in the server's threads, so a run never waits for a scrape.
- While Redis does not answer, the queues' metrics are missing, never zero.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
from coordinator.watch import off_policy
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
    """Metrics of the queues, read from Redis at each scrape."""

    def __init__(self, settings: QueueSettings):
        self._settings = settings

    def collect(self) -> Iterator[Metric]:
        try:
            breakers = read_breakers(self._settings.url)
            depths = read_depths(self._settings.url)
            listed = read_targets(self._settings)
        except redis.RedisError:
            yield _gauge("llmi_redis_up", "Whether Redis answers.", (), {(): 0})
            return
        live = Counter(queue for one in listed for queue in one.labels.get("queues", "").split(","))
        by_level = {
            (queue, str(level)): count
            for queue, depth in depths.items()
            for level, count in zip(LEVELS, depth.by_level, strict=True)
        }
        down = {(one.kind, one.provider): breakers.now - one.since for one in breakers.outages}
        queues = [((name,), depth) for name, depth in depths.items()]
        yield _gauge("llmi_redis_up", "Whether Redis answers.", (), {(): 1})
        yield _gauge(
            "llmi_queue_waiting", "Requests in the queue.", ["queue"], {k: d.waiting for k, d in queues}
        )
        text = "Requests in the queue by priority: 0 interactive and edits, 3 training, 6 batch evaluation."
        yield _gauge("llmi_queue_waiting_by_priority", text, ["queue", "priority"], by_level)
        yield _gauge(
            "llmi_queue_running", "Requests held by workers.", ["queue"], {k: d.running for k, d in queues}
        )
        text = "Age of the oldest waiting request, 0 without one."
        yield _gauge("llmi_queue_oldest_seconds", text, ["queue"], {k: d.oldest_s for k, d in queues})
        finished = {k: d.finished for k, d in queues}
        yield _counter("llmi_queue_finished", "Requests with an outcome.", ["queue"], finished)
        serving = {(queue,): live[queue] for queue in depths}
        yield _gauge("llmi_queue_workers", "Worker processes that serve the queue.", ["queue"], serving)
        text = "For how long a provider with an open circuit has been failing."
        yield _gauge("llmi_provider_down_seconds", text, ["queue", "provider"], down)


class RunCollector(Collector):
    """Metrics of a run: its workers and its training."""

    def __init__(self, run: RunState):
        self._run = run

    def collect(self) -> Iterator[Metric]:
        pools, progress = self._run.pools(), self._run.progress
        states = ("wanted", "ready", "starting", "draining")
        sizes = {(pool, name): getattr(size, name) for pool, size in pools.items() for name in states}
        text = "Worker processes of a pool: wanted, ready, starting, draining."
        yield _gauge("llmi_workers", text, ["pool", "state"], sizes)
        restarts = {(pool,): size.restarts for pool, size in pools.items()}
        yield _counter("llmi_worker_restarts", "Workers that replaced a dead one.", ["pool"], restarts)
        text = "Rollouts by terminal state; for the two kinds of masked ones see llmi_masked."
        ended = {(name,): progress.states[name] for name in get_args(State) if name != "evaluated"}
        yield _counter("llmi_rollouts", text, ["state"], ended)
        text = (
            "Masked samples by cause; a sample with several causes counts for each. "
            "dropped_with_group: samples with a reward, in a group with too few valid samples or no signal."
        )
        causes = (DROPPED, *sorted(progress.masked.keys() - {DROPPED}))
        yield _counter("llmi_masked", text, ["cause"], {(name,): progress.masked[name] for name in causes})
        yield _gauge("llmi_step", "Training steps done.", (), {(): progress.steps})
        if progress.rewards:
            yield _gauge("llmi_reward", "Mean reward of the last step.", (), {(): progress.rewards[-1]})
        if (last := progress.evaluation) and last.reward is not None:
            text = "Mean reward of the last evaluation of the test files."
            yield _gauge("llmi_evaluation_reward", text, (), {(): last.reward})
            text = "Version (number of updates) of the weights when the last evaluation was submitted."
            yield _gauge("llmi_evaluation_version", text, (), {(): last.version})
        for measure, value in off_policy.gauges(progress.last_step):
            yield _gauge(measure.gauge, measure.text, (), {(): value})
        if (ratio := progress.idle_ratio) is not None:
            text = "Share of the steps' time that the trainer waited."
            yield _gauge("llmi_trainer_idle_ratio", text, (), {(): ratio})
        both = (("trainer", progress.idle.trainer), ("generator", progress.idle.generator))
        idle = {(who, cause): seconds for who, causes in both for cause, seconds in causes.items()}
        text = "Seconds that the trainer or the generator was idle, by what it waited for."
        yield _gauge("llmi_idle_seconds", text, ["who", "cause"], idle)
        paused = float(progress.paused is not None)
        yield _gauge(
            "llmi_paused", "Whether admission is paused because a provider is down.", (), {(): paused}
        )
        memory = self._run.memory.now
        yield _gauge("llmi_memory_bytes", "Resident memory of the run on this machine.", (), {(): memory})


def _gauge(name: str, text: str, labels: Sequence[str], values: Mapping[Any, float]) -> Metric:
    return _filled(GaugeMetricFamily(name, text, labels=labels), values)


def _counter(name: str, text: str, labels: Sequence[str], values: Mapping[Any, float]) -> Metric:
    return _filled(CounterMetricFamily(name, text, labels=labels), values)


def _filled(family: GaugeMetricFamily | CounterMetricFamily, values: Mapping[Any, float]) -> Metric:
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family


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
