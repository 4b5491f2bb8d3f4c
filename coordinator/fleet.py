"""The worker processes of a run on this machine: started, mended while the run goes on, drained at its end.

Invariants: `start` returns only when every worker is seen to consume; a worker that dies is started again,
after a pause that doubles with each death in a row, and counted; the queue gives its jobs to whoever is alive
meanwhile.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from coordinator.pools import PoolSettings

logger = logging.getLogger(__name__)
READY_S = 180.0  # a worker of image models loads its weights before it consumes
FIRST_PAUSE_S, LAST_PAUSE_S, CALM_S = 1.0, 60.0, 120.0


class Worker(Protocol):
    """What the fleet asks of a worker process; `workers.process.WorkerProcess` is one."""

    name: str

    def start(self) -> None: ...
    def wait_ready(self, timeout_s: float) -> None: ...
    @property
    def alive(self) -> bool: ...
    def drain(self, timeout_s: float) -> bool: ...


class _Slot:
    def __init__(self, worker: Worker):
        self.worker = worker
        self.started = 0.0
        self.pause = FIRST_PAUSE_S
        self.due: float | None = None  # when to start it again; None while it lives


class Fleet:
    """`restarts` counts the workers that had to be started again."""

    def __init__(self, workers: Sequence[Worker]):
        self._slots = [_Slot(worker) for worker in workers]
        self.restarts = 0

    @classmethod
    def of(cls, pools: Sequence[PoolSettings], config: Path, logs: Path) -> Fleet:
        """One worker process per pool, all reading `config`."""
        from workers.process import WorkerProcess

        def worker(number: int, pool: PoolSettings) -> Worker:
            name = f"{'-'.join(pool.queues)}-{number}"
            return WorkerProcess(pool.queues, config, pool.concurrency, logs / f"worker-{name}.log", name)

        return cls([worker(number, pool) for number, pool in enumerate(pools)])

    def start(self) -> None:
        """Start all, then wait for all. Raises `InfrastructureFault` with the log of one that does not come
        up.
        """
        for slot in self._slots:
            slot.worker.start()
            slot.started = time.monotonic()
        for slot in self._slots:
            slot.worker.wait_ready(READY_S)

    def mend(self) -> None:
        """Start again what died; to be called every second or so. Never blocks."""
        now = time.monotonic()
        for slot in self._slots:
            if slot.due is not None:
                if now >= slot.due:
                    slot.worker.start()
                    slot.started, slot.due = now, None
                    self.restarts += 1
            elif not slot.worker.alive:
                if now - slot.started > CALM_S:
                    slot.pause = FIRST_PAUSE_S
                logger.warning("worker %s died; starting it again in %.0f s", slot.worker.name, slot.pause)
                slot.due = now + slot.pause
                slot.pause = min(2 * slot.pause, LAST_PAUSE_S)

    def stop(self, deadline_s: float = 15.0) -> None:
        """Drain all at once; what does not end by the deadline is killed."""
        if not self._slots:
            return
        with ThreadPoolExecutor(len(self._slots)) as threads:
            list(threads.map(lambda slot: slot.worker.drain(deadline_s), self._slots))
