"""The worker processes of a node: each sees the one GPU that it was given, or none.

Invariant: a GPU belongs to at most one living worker, and passes to the worker that replaces it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from coordinator.config.pools import PoolSettings
from coordinator.host.hardware import DEVICES_ENV, display_name
from coordinator.scale.fleet import Make, Worker
from coordinator.scale.nodes.plan import Planned
from workers.errors import Cause, InfrastructureFault
from workers.process.worker import WorkerProcess

logger = logging.getLogger(__name__)
POLL_S = 0.1
FREE_S = 60.0  # until a dead worker's GPU is free


class Devices:
    """The GPUs of one pool, and the worker on each."""

    def __init__(self, devices: tuple[str, ...]):
        self._holders: dict[str, NodeWorker | None] = dict.fromkeys(devices)
        self._lock = threading.Lock()

    def start_on_free(self, worker: NodeWorker) -> str:
        """Start `worker` on a free GPU. Raises `InfrastructureFault` when none becomes free."""
        deadline = time.monotonic() + FREE_S
        while time.monotonic() < deadline:
            with self._lock:
                for device, holder in self._holders.items():
                    if holder is None or not holder.alive:
                        self._holders[device] = worker
                        worker.start_on(device)
                        return device
            time.sleep(POLL_S)
        raise InfrastructureFault(Cause.WORKER_LOST, f"no GPU is free for {worker.name}")


class NodeWorker(WorkerProcess):
    """A worker process that sees its own GPU or none, and logs its life."""

    devices: Devices | None = None

    def start(self) -> None:
        where = self.devices.start_on_free(self) if self.devices else self.start_on("")
        logger.info("%s is starting%s", self.name, f" on {display_name(where)}" if where else "")

    def start_on(self, device: str) -> str:
        self._extra_env = {**self._extra_env, DEVICES_ENV: device}
        super().start()
        return device

    def wait_ready(self, timeout_s: float) -> None:
        super().wait_ready(timeout_s)
        logger.info("%s is ready (process %d)", self.name, self.pid)

    def drain(self, timeout_s: float) -> bool:
        if not self.alive:
            return True
        logger.info("%s is draining", self.name)
        by_itself = super().drain(timeout_s)
        logger.info("%s %s", self.name, "finished what it ran" if by_itself else "was killed")
        return by_itself


def node_worker(plan: Sequence[Planned], config: Path, logs: Path, node: str) -> Make:
    """Make the workers of a node. Their names start with `joined.`: a run may have workers on the same
    host."""
    devices = {one.pool.name: Devices(one.devices) for one in plan if one.devices}

    def make(pool: PoolSettings, name: str) -> Worker:
        log = logs / f"worker-{name}.log"
        worker = NodeWorker(
            pool.queues, config, pool.concurrency, log, f"joined.{name}", node=node, memory_mb=pool.limit_mb
        )
        worker.devices = devices.get(pool.name)
        return worker

    return make
