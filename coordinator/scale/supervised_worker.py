"""One worker of a fleet, started and ended in threads of its own, so that nothing waits for it.

Invariant: an error of the start is kept, one of the end is logged; a worker that ended is also killed, so
that no process of it is left.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Protocol

logger = logging.getLogger(__name__)


class Worker(Protocol):
    """A worker that a fleet can run, such as `workers.process.worker.WorkerProcess`."""

    name: str

    def start(self) -> None: ...
    def wait_ready(self, timeout_s: float) -> None: ...
    @property
    def alive(self) -> bool: ...
    def drain(self, timeout_s: float) -> bool: ...
    def kill(self) -> None: ...


class SupervisedWorker:
    """A worker that starts when this is constructed. `error`: why it did not become ready."""

    def __init__(self, worker: Worker, ready_s: float):
        self.worker = worker
        self.began = time.monotonic()
        self.ready = False
        self.error: Exception | None = None
        self._started = threading.Event()
        self._end: threading.Thread | None = None
        threading.Thread(target=self._begin, args=(ready_s,), name=worker.name, daemon=True).start()

    @property
    def alive(self) -> bool:
        return self.error is None and (not self.ready or self.worker.alive)

    @property
    def ended(self) -> bool:
        return self._end is not None and not self._end.is_alive()

    def end(self, drain_s: float | None) -> None:
        """Start to drain the worker for at most `drain_s` seconds; None: kill it. Idempotent."""
        if self._end is None:
            name = f"{self.worker.name} ends"
            self._end = threading.Thread(target=self._finish, args=(drain_s,), name=name, daemon=True)
            self._end.start()

    def join(self, deadline: float) -> None:
        """Wait until `deadline` (monotonic seconds), then kill it."""
        assert self._end is not None
        self._end.join(max(0.0, deadline - time.monotonic()))
        if self._end.is_alive():
            self.worker.kill()

    def _begin(self, ready_s: float) -> None:
        try:
            self.worker.start()
            self._started.set()
            self.worker.wait_ready(ready_s)
            self.ready = True
        except Exception as error:  # noqa: BLE001 - `check` raises it, or `reconcile` logs it
            self.error = error
            self._started.set()

    def _finish(self, drain_s: float | None) -> None:
        self._started.wait()
        try:
            if drain_s is not None and not self.worker.drain(drain_s):
                logger.warning("worker %s did not end in time and was killed", self.worker.name)
        except Exception:  # it is killed all the same
            logger.exception("worker %s could not be drained", self.worker.name)
        self.worker.kill()  # frees what is left, such as its place in a cluster
