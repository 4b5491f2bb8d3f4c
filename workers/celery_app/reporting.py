"""Records a worker's metrics from Celery's signals, serves them, and keeps the endpoint listed in Redis.

Invariant: a worker that cannot serve its metrics logs that and works on.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from celery import signals
from celery.worker import state
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from workers.celery_app.backend import TASK_PREFIX
from workers.metrics.endpoint import Target, serve_process
from workers.metrics.telemetry import worker_metrics
from workers.queues import QUEUES
from workers.settings import MetricsSettings, QueueSettings, section

logger = logging.getLogger(__name__)
_endpoints: list[Target] = []  # of this worker, once it serves; one at most


class RunningTasks(Collector):
    """The tasks that this worker runs now, by kind, read from Celery at each scrape."""

    def __init__(self, kinds: Sequence[str]):
        self._kinds = kinds

    def collect(self) -> Iterator[GaugeMetricFamily]:
        running = Counter(name.removeprefix(TASK_PREFIX) for name in _active())
        family = GaugeMetricFamily("llmi_tasks_running", "Tasks being run by this worker.", labels=["kind"])
        for kind in self._kinds:
            family.add_metric([kind], running[kind])
        yield family


def _active() -> list[str]:
    while True:
        try:
            return [request.name for request in state.active_requests]
        except RuntimeError:  # another thread changed the set during the iteration
            continue


def renew(pipeline: Any, lease_s: float) -> None:
    """Add to `pipeline` what keeps this worker's metrics endpoint listed."""
    for target in _endpoints:
        target.renew(pipeline, lease_s)


def connect() -> None:
    """Connect to Celery's worker signals."""
    kinds: list[str] = []

    def setup(instance: Any, **_: Any) -> None:
        kinds.extend(kind for kind in instance.app.amqp.queues.consume_from if kind in QUEUES)
        for kind in kinds:
            worker_metrics().show_zeros(kind)

    def claimed(task: Any, **_: Any) -> None:
        task.request.update(claimed=time.time())

    def serve(sender: Any, **_: Any) -> None:
        settings = section("metrics", MetricsSettings)
        name, _at, node = sender.hostname.partition("@")
        labels = {"role": "worker", "node": node, "process": name, "queues": ",".join(kinds)}
        try:
            _endpoints.append(
                serve_process(settings, section("queue", QueueSettings), labels, RunningTasks(kinds))
            )
        except OSError as error:
            logger.warning("metrics.bind: cannot serve metrics on %s: %s", settings.bind, error)

    signals.celeryd_after_setup.connect(setup, weak=False)
    signals.task_prerun.connect(claimed, weak=False)
    signals.worker_ready.connect(serve, weak=False)
