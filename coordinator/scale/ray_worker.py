"""Workers on a Ray cluster: each is an actor that owns one Celery worker process.

The actor declares CPUs and GPUs, so Ray finds a node for it and, with autoscaling, adds one.

Invariants:
- The actor dies with the process that created it, and the worker with the actor.
- An actor that waits for resources counts as starting and blocks nothing; an ended one frees its resources.
- The index of a GPU reaches the worker in CUDA_VISIBLE_DEVICES, which Ray sets for the actor.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from coordinator.config.pools import PoolSettings
from coordinator.scale.fleet import Make
from workers.errors import Cause, InfrastructureFault
from workers.process.worker import WorkerProcess

ANSWER_S = 10.0  # time for an actor's answer, beyond the wait itself
POLL_S = 0.2
THREADS = 4  # of an actor: waiting for the end, for readiness and draining run at the same time


def ray_worker(config: Path, logs: Path) -> Make:
    """Make workers on the Ray cluster of this process. All its nodes must see both paths."""

    def make(pool: PoolSettings, name: str) -> RayWorker:
        name = f"ray-{name}"  # differs from workers that joined by hand on the same host
        log = logs / f"worker-{name}.log"
        process = functools.partial(
            WorkerProcess, pool.queues, config, pool.concurrency, log, name, memory_mb=pool.limit_mb
        )
        return RayWorker(process, name, pool.cpus, pool.gpus)

    return make


class Host:
    """The actor. Its methods run in parallel threads; none raises."""

    def __init__(self, make: Callable[[], WorkerProcess]):
        self._worker = make()
        self._worker.start()

    def pid(self) -> int:
        return self._worker.pid

    def problem(self, timeout_s: float) -> str:
        """Wait until the worker is ready; returns the problem after `timeout_s`, else an empty text."""
        try:
            self._worker.wait_ready(timeout_s)
        except InfrastructureFault as error:
            return error.detail
        return ""

    def ended(self) -> None:
        """Return when the worker has ended."""
        while self._worker.alive:
            time.sleep(POLL_S)

    def drain(self, timeout_s: float) -> bool:
        return self._worker.drain(timeout_s)


class RayWorker:
    """A `Worker` on the cluster that needs `cpus` and `gpus`. `process`: makes the worker in the actor."""

    def __init__(self, process: Callable[[], WorkerProcess], name: str, cpus: float, gpus: float):
        self.name = name
        self._process = process
        self._needs = {"num_cpus": cpus, "num_gpus": gpus}
        self._host: Any = None
        self._placed: Any = None
        self._ended: Any = None

    def start(self) -> None:
        import ray

        actor = ray.remote(max_restarts=0, max_concurrency=THREADS, **self._needs)(Host)
        self._host = actor.remote(self._process)
        self._placed = self._host.pid.remote()
        self._ended = self._host.ended.remote()

    def wait_ready(self, timeout_s: float) -> None:
        """Return when the worker consumes. Raises `InfrastructureFault(WORKER_LOST)` with the end of its log,
        or with the resources that no node had.
        """
        import ray

        deadline = time.monotonic() + timeout_s
        if not ray.wait([self._placed], timeout=timeout_s)[0]:
            raise self._fault(f"no node had {self._resources()} free in {timeout_s:.0f} s")
        try:
            left_s = max(0.0, deadline - time.monotonic())
            problem = ray.get(self._host.problem.remote(left_s), timeout=left_s + ANSWER_S)
        except ray.exceptions.RayError as error:
            raise self._fault(f"its Ray actor is lost: {str(error).splitlines()[-1].strip()}") from error
        if problem:
            raise InfrastructureFault(Cause.WORKER_LOST, problem)

    @property
    def alive(self) -> bool:
        """Whether it runs, or waits for resources."""
        import ray

        return self._ended is not None and not ray.wait([self._ended], timeout=0)[0]

    @property
    def pid(self) -> int:
        """Process id of the Celery parent on its node."""
        import ray

        return ray.get(self._placed)

    def drain(self, timeout_s: float) -> bool:
        """Let it finish what it runs, and kill it after `timeout_s`. Returns whether it ended by itself."""
        import ray

        if not self.alive or not ray.wait([self._placed], timeout=0)[0]:
            self.kill()
            return True
        try:
            return ray.get(self._host.drain.remote(timeout_s), timeout=timeout_s + ANSWER_S)
        except ray.exceptions.RayError:
            return False
        finally:
            self.kill()

    def kill(self) -> None:
        """Kill the actor, and with it the worker; this frees its resources."""
        import ray

        if self._host is not None:
            ray.kill(self._host)

    def _resources(self) -> str:
        cpus, gpus = self._needs["num_cpus"], self._needs["num_gpus"]
        return f"{cpus:g} CPUs and {gpus:g} GPUs" if gpus else f"{cpus:g} CPUs"

    def _fault(self, detail: str) -> InfrastructureFault:
        return InfrastructureFault(Cause.WORKER_LOST, f"worker {self.name}: {detail}")
