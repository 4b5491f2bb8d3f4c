"""The process that keeps a node's workers: starts them, replaces dead ones, drains them.

`python -m coordinator.scale.nodes.supervisor FOLDER LOCK` runs it for the record in a `NodeState` folder,
with the lock as an inherited open file.

Invariants:
- It holds the lock as long as it lives, and its workers die with it.
- On SIGTERM or SIGINT every worker finishes its jobs and requeues what it has not started; a second signal
  ends everything at once.
- Each worker sees one GPU, or none. A GPU belongs to at most one living worker, and passes to the worker that
  replaces it.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from coordinator.config.pools import PoolSettings
from coordinator.host import processes
from coordinator.host.hardware import DEVICES_ENV, display_name
from coordinator.host.signals import Stopped, StopSignals
from coordinator.scale.fleet import Fleet, Make, Worker
from coordinator.scale.nodes.plan import Planned
from coordinator.scale.nodes.state import NodeState, Record
from workers.errors import Cause, ConfigError, InfrastructureFault
from workers.process.log_rotation import own_log, rotate
from workers.process.worker import WorkerProcess

logger = logging.getLogger(__name__)
TICK_S = 0.5
LAST_S = 10.0
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


class Supervisor:
    """Runs the workers of a node until a signal stops it."""

    def __init__(self, state: NodeState, record: Record):
        self._state = state
        self._record = record.model_copy(update={"pid": os.getpid()})
        self._unwritten = False  # whether the last write of the record failed
        pools = record.plan.pools
        make = node_worker(pools, state.config, state.logs, record.node)
        self._fleet = Fleet(
            [planned.pool for planned in pools], make, record.ready_s, lambda queues: record.drain_s
        )

    def run(self, signals: StopSignals) -> None:
        """Run until a signal. Raises the error of a worker that fails to start, such as `InfrastructureFault`
        with the end of its log; then nothing is left running.
        """
        processes.adopt_orphans()
        before = frozenset(process.pid for process in processes.descendants())
        problem = ""
        try:
            self._work()
        except Stopped as stop:
            logger.info("%s: draining, for at most %.0f s", stop, self._record.drain_s)
            self._update(phase="draining")
            self._fleet.stop(self._record.drain_s)
        except BaseException as error:
            problem = str(error) or type(error).__name__
            logger.error("stopping: %s", problem)
            raise
        finally:
            signals.stopping = True
            if problem:
                self._fleet.stop(0.0)
            processes.end_all(LAST_S, keep=before)
            self._update(phase="failed" if problem else "stopped", problem=problem)
            logger.info("every worker has ended")

    def _work(self) -> None:
        self._update(phase="starting")
        logger.info("joining %s as %s", self._record.redis, self._record.node)
        self._fleet.start(lambda ready, wanted: logger.info("%d of %d workers are ready", ready, wanted))
        self._update(phase="ready")
        logger.info("all workers are ready")
        while True:
            self._fleet.reconcile()
            if log := own_log():
                rotate(log)
            if self._unwritten or self._fleet.restarts != self._record.restarts:
                self._update(restarts=self._fleet.restarts)
            time.sleep(TICK_S)

    def _update(self, **change: object) -> None:
        self._record = self._record.model_copy(update=change)
        try:
            self._state.write(self._record)
        except OSError as error:  # the workers go on when the disk is full
            if not self._unwritten:
                logger.warning("the record could not be written: %s", error)
            self._unwritten = True
        else:
            self._unwritten = False


def main() -> int:
    """Entry point of the detached process; its output is the supervisor's log."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr
    )
    state = NodeState(Path(sys.argv[1]))
    os.set_inheritable(int(sys.argv[2]), False)  # workers must not inherit the lock
    record = state.read()
    assert record is not None, "the record is written before this process starts"
    with StopSignals() as signals:
        try:
            Supervisor(state, record).run(signals)
        except (ConfigError, InfrastructureFault, OSError):
            return 1  # the log and the record have the error
    return 0


if __name__ == "__main__":
    sys.exit(main())
