"""The process that keeps a node's workers: starts them, replaces dead ones, drains them.

`python -m coordinator.scale.nodes.supervisor FOLDER LOCK` runs it for the record in a `NodeState` folder,
with the lock as an inherited open file.

Invariants:
- It holds the lock as long as it lives, and its workers die with it.
- On SIGTERM or SIGINT every worker finishes its jobs and requeues its prefetched messages; a second signal
  ends everything at once.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from pathlib import Path

from coordinator.host import processes
from coordinator.host.signals import Stopped, StopSignals
from coordinator.scale.fleet import Fleet
from coordinator.scale.nodes.node_worker import node_worker
from coordinator.scale.nodes.state import NodeState, Record
from workers.errors import ConfigError, InfrastructureFault
from workers.process.log_rotation import own_log, rotate

logger = logging.getLogger(__name__)
TICK_S = 0.5
LAST_S = 10.0


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
