"""The Prometheus metrics of producers and workers.

Invariants:
- Recording never blocks, and needs no server.
- A finished task is counted once, by the worker that finished it.
- A label is a kind, a result or a cause, never an id.

In a process started with PROMETHEUS_MULTIPROC_DIR the values are files in that folder, so that the processes
of a pool add up and their values outlive them.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from workers.messages import Outcome, Request, Success
from workers.queues import QUEUES

FOLDER_ENV = "PROMETHEUS_MULTIPROC_DIR"
SUCCESS = "success"
# Seconds, from a cached answer to the longest time limit of a queue that serves rollouts.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 60.0, 120.0, 300.0)


def result_and_cause(outcome: Outcome) -> tuple[str, str]:
    """The labels result and cause of an outcome: ("success", ""), or the fault and cause of a failure."""
    if isinstance(outcome.result, Success):
        return SUCCESS, ""
    return outcome.result.fault.value, outcome.result.cause.value


class WorkerMetrics:
    """The metrics of one worker, all pool processes together."""

    def __init__(self, registry: CollectorRegistry):
        histogram = functools.partial(Histogram, buckets=BUCKETS, registry=registry)
        counter = functools.partial(Counter, registry=registry)
        self._wait = histogram(
            "llmi_task_wait_seconds",
            "From posting to the start of the job.",
            ["kind"],
        )
        self._service = histogram(
            "llmi_task_service_seconds", "From start to end of the job.", ["kind", "result"]
        )
        self._outcomes = counter(
            "llmi_task_outcomes",
            "Finished tasks by result (success, model, infrastructure) and cause of failure.",
            ["kind", "result", "cause"],
        )
        self._requeued = counter(
            "llmi_tasks_requeued", "Tasks requeued because the process that ran them died.", ["kind"]
        )
        self._refusals = counter(
            "llmi_unknown_refusals",
            "Requests that a provider refused (4xx) for a reason not known to be their content.",
            ["provider", "status"],
        )

    def show_zeros(self, kind: str) -> None:
        """Export zeros for `kind` before its first task, so that a rate includes the first one."""
        self._wait.labels(kind)
        self._service.labels(kind, SUCCESS)
        self._outcomes.labels(kind, SUCCESS, "")
        self._requeued.labels(kind)

    def ended(self, outcome: Outcome, *, posted: float, claimed: float) -> None:
        """Record a finished task. `posted`, `claimed`: Unix seconds when it was posted and when a process of
        this worker claimed it (0: unknown). An outcome older than `claimed` was returned again and is not
        counted.
        """
        if outcome.kind not in QUEUES or (claimed and outcome.finished and outcome.finished < claimed):
            return
        result, cause = result_and_cause(outcome)
        self._outcomes.labels(outcome.kind, result, cause).inc()
        if outcome.started and posted:
            self._wait.labels(outcome.kind).observe(max(0.0, outcome.started - posted))
        if outcome.started and outcome.finished:
            self._service.labels(outcome.kind, result).observe(outcome.finished - outcome.started)

    def requeued(self, kind: str) -> None:
        """Record a task that was requeued because its process died."""
        if kind in QUEUES:
            self._requeued.labels(kind).inc()

    def refused(self, provider: str, status: int) -> None:
        """Record a refusal of a provider for an unknown reason. `status`: HTTP status."""
        self._refusals.labels(provider, str(status)).inc()


class ProducerMetrics:
    """The metrics of one process that posts requests. `posted` and `ended` are hooks of `QueueClient`."""

    def __init__(self, registry: CollectorRegistry, clock: Callable[[], float] = time.monotonic):
        histogram = functools.partial(Histogram, buckets=BUCKETS, registry=registry)
        counter = functools.partial(Counter, registry=registry)
        gauge = functools.partial(Gauge, registry=registry, multiprocess_mode="livesum")
        self._clock = clock
        self._since: dict[str, float] = {}
        self._posted = counter("llmi_requests_posted", "Requests posted.", ["kind"])
        self._in_flight = gauge(
            "llmi_requests_in_flight", "Requests posted and without an outcome.", ["kind"]
        )
        self._seconds = histogram(
            "llmi_request_seconds",
            "From posting to the outcome, as the producer sees it.",
            ["kind", "result"],
        )
        self._outcomes = counter(
            "llmi_request_outcomes",
            "Outcomes by result (success, model, infrastructure) and cause of failure.",
            ["kind", "result", "cause"],
        )
        self._rollouts = gauge(
            "llmi_rollouts_in_progress", "Rollouts that are generating or waiting for their score."
        )

    def posted(self, request: Request) -> None:
        self._since[request.request_id] = self._clock()
        self._posted.labels(request.kind).inc()
        self._in_flight.labels(request.kind).inc()

    def ended(self, outcome: Outcome) -> None:
        since = self._since.pop(outcome.request_id, None)
        if since is None:
            return
        result, cause = result_and_cause(outcome)
        self._in_flight.labels(outcome.kind).dec()
        self._seconds.labels(outcome.kind, result).observe(self._clock() - since)
        self._outcomes.labels(outcome.kind, result, cause).inc()

    @contextlib.contextmanager
    def rollout(self) -> Iterator[None]:
        """Count a rollout as in progress inside the block."""
        self._rollouts.inc()
        try:
            yield
        finally:
            self._rollouts.dec()


@functools.cache
def registry() -> CollectorRegistry:
    """The registry of this process's own metrics."""
    return CollectorRegistry()


@functools.cache
def worker_metrics() -> WorkerMetrics:
    return WorkerMetrics(registry())


@functools.cache
def producer_metrics() -> ProducerMetrics:
    return ProducerMetrics(registry())
