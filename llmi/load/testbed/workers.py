"""The workers under test: half for images and code, half for search and judges; dead ones are replaced.

The wall clock of the first is ahead and that of the second behind, where `clocks` can shift them.

Invariant: a replacement has a name of its own, since Celery must not see one name twice. Blocking.
"""

from __future__ import annotations

from pathlib import Path

import psutil

from coordinator.console.stages import Step
from llmi.load.testbed.clocks import SHIFT_S, shifted
from rewards.judges import IMAGE_KIND, TEXT_KIND
from workers.process.worker import WorkerProcess

DUTIES = (("diffusion", "edit", "code"), ("search", TEXT_KIND, IMAGE_KIND))
CONCURRENCY = (2, 8)
READY_S = 120.0


class WorkersUnderTest:
    """`count` workers, at least two."""

    def __init__(self, config: Path, logs: Path, count: int):
        self._config = config
        self._logs = logs
        self._made = 0
        self.restarts = 0
        self.workers = [self._worker(index) for index in range(count)]

    def start(self, step: Step) -> None:
        """Start all and wait until they are ready. Raises `InfrastructureFault`."""
        for worker in self.workers:
            worker.start()
        for number, worker in enumerate(self.workers):
            step("starting workers", number / len(self.workers), f"{number} of {len(self.workers)} ready")
            worker.wait_ready(READY_S)

    def replace_dead(self) -> None:
        """Start a new worker for each that died, without waiting until it is ready."""
        for index, worker in enumerate(self.workers):
            if not worker.alive:
                worker.kill()  # its children
                self.restarts += 1
                self.workers[index] = self._worker(index)
                self.workers[index].start()

    def pick(self, share: float) -> WorkerProcess:
        """One worker, by a number in [0, 1)."""
        return self.workers[int(share * len(self.workers))]

    def child(self, share: float) -> psutil.Process | None:
        """One pool process, by a number in [0, 1); None while there is none."""
        found = []
        for worker in self.workers:
            if worker.queues == DUTIES[0] and worker.alive:
                found += psutil.Process(worker.pid).children()
        return found[int(share * len(found))] if found else None

    def stop(self) -> None:
        for worker in self.workers:
            worker.kill()

    def _worker(self, index: int) -> WorkerProcess:
        duty = index % len(DUTIES)
        clock = shifted({0: SHIFT_S, 1: -SHIFT_S}[index]) if index < len(DUTIES) else {}
        self._made += 1
        name = f"workers-{self._made}"
        log = self._logs / f"{name}.log"
        return WorkerProcess(DUTIES[duty], self._config, CONCURRENCY[duty], log, name, extra_env=clock)
