"""The workers of a run's pools: start, replace, resize and drain them.

Invariants:
- `begin`, `reconcile` and `resize` never wait for a worker.
- A worker that dies is counted and replaced by one with another name, after a pause that doubles with each
  death in a row.
- A worker that is not needed any more finishes what it runs, for at most `drain_s`, and consumes
  nothing else.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from coordinator.config.pools import PoolSettings
from coordinator.scale.supervised_worker import SupervisedWorker, Worker

logger = logging.getLogger(__name__)
FIRST_PAUSE_S, LAST_PAUSE_S, CALM_S = 1.0, 60.0, 120.0
POLL_S = 0.05

Make = Callable[[PoolSettings, str], Worker]  # a pool and a name of the worker's own; nothing is started yet
DrainS = Callable[[Sequence[str]], float]  # how long a worker of these queues may take to finish what it runs


def local_worker(config: Path, logs: Path, node: str | None = None) -> Make:
    """Workers that are processes of this machine and read `config`; each writes `logs/worker-NAME.log`."""
    from workers.process.worker import WorkerProcess

    def make(pool: PoolSettings, name: str) -> Worker:
        log = logs / f"worker-{name}.log"
        return WorkerProcess(
            pool.queues, config, pool.concurrency, log, name, node=node, memory_mb=pool.limit_mb
        )

    return make


@dataclass(frozen=True)
class PoolState:
    """Workers of one pool. `restarts` counts those that replaced a dead one; `low`, `high`: the bounds."""

    wanted: int = 0
    ready: int = 0
    starting: int = 0
    draining: int = 0
    restarts: int = 0
    low: int = 0
    high: int = 0


class _Pool:
    def __init__(self, settings: PoolSettings, drain_s: float):
        self.settings = settings
        self.drain_s = drain_s
        self.wanted = settings.low
        self.staff: list[SupervisedWorker] = []  # oldest first
        self.leaving: list[SupervisedWorker] = []
        self.dead = 0  # not replaced yet
        self.restarts = 0
        self.pause_s = FIRST_PAUSE_S
        self.due = 0.0  # no worker is started before

    def remove_dead(self, now: float) -> None:
        """Dismiss who died, and put off the next start."""
        dead = [life for life in self.staff if not life.alive]
        if not dead:
            return
        self.staff = [life for life in self.staff if life.alive]
        for life in dead:
            logger.warning(
                "worker %s died (%s); another one in %.0f s",
                life.worker.name,
                life.error or "its process ended",
                self.pause_s,
            )
            self._dismiss(life, None)
        if any(life.ready and now - life.began > CALM_S for life in dead):
            self.pause_s = FIRST_PAUSE_S
        self.dead += len(dead)
        self.due = now + self.pause_s
        self.pause_s = min(2 * self.pause_s, LAST_PAUSE_S)

    def shrink(self) -> None:
        """Newest first: the oldest is the surest to work."""
        while len(self.staff) > self.wanted:
            self._dismiss(self.staff.pop(), self.drain_s)

    def grow(self, now: float, hire: Callable[[], SupervisedWorker]) -> None:
        self.dead = min(self.dead, max(0, self.wanted - len(self.staff)))
        while len(self.staff) < self.wanted and now >= self.due:
            self.staff.append(hire())
            if self.dead:
                self.dead -= 1
                self.restarts += 1

    def _dismiss(self, life: SupervisedWorker, drain_s: float | None) -> None:
        life.end(drain_s)
        self.leaving.append(life)

    @property
    def state(self) -> PoolState:
        ready = sum(life.ready and life.alive for life in self.staff)
        return PoolState(
            wanted=self.wanted,
            ready=ready,
            starting=len(self.staff) - ready,
            draining=sum(not life.ended for life in self.leaving),
            restarts=self.restarts,
            low=self.settings.low,
            high=self.settings.high,
        )


class Fleet:
    """`ready_s`: how long a worker may take until it consumes. Usable from several threads."""

    def __init__(self, pools: Sequence[PoolSettings], make: Make, ready_s: float, drain_s: DrainS):
        self._pools = {pool.name: _Pool(pool, drain_s(pool.queues)) for pool in pools}
        self._make = make
        self._ready_s = ready_s
        self._hired = 0
        self._stopped = False
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Begin to start every pool's `low` workers."""
        self.reconcile()

    def check(self) -> bool:
        """Whether all workers that were begun are ready. Raises what keeps one from it, such as
        `InfrastructureFault` with its log's end.
        """
        with self._lock:
            staff = [life for pool in self._pools.values() for life in pool.staff]
        for life in staff:
            if life.error is not None:
                raise life.error
        return all(life.ready for life in staff)

    def start(self, tell: Callable[[int, int], None] = lambda ready, wanted: None) -> None:
        """`begin`, and wait until `check` says that all are ready. `tell` gets how many are ready of how
        many, whenever that has changed."""
        self.begin()
        told = 0
        while not self.check():
            states = self.states().values()
            ready, wanted = sum(state.ready for state in states), sum(state.wanted for state in states)
            if ready != told:
                told = ready
                tell(ready, wanted)
            time.sleep(POLL_S)

    def resize(self, pool: str, wanted: int) -> None:
        """Ask for `wanted` workers, within the pool's bounds; `reconcile` sees to it."""
        with self._lock:
            asked = self._pools[pool]
            asked.wanted = min(max(wanted, asked.settings.low), asked.settings.high)

    def reconcile(self) -> None:
        """Replace who died, start who is missing, drain who is too many; to be called every second."""
        now = time.monotonic()
        with self._lock:
            if self._stopped:
                return
            for pool in self._pools.values():
                pool.remove_dead(now)
                pool.shrink()
                pool.grow(now, lambda settings=pool.settings: self._hire(settings))  # type: ignore[misc]
                pool.leaving = [life for life in pool.leaving if not life.ended]

    def states(self) -> dict[str, PoolState]:
        """By the pools' names."""
        with self._lock:
            return {name: pool.state for name, pool in self._pools.items()}

    @property
    def restarts(self) -> int:
        """Workers that replaced a dead one."""
        return sum(state.restarts for state in self.states().values())

    def stop(self, deadline_s: float = 15.0) -> None:
        """Drain all at once, also those that leave already; what does not end by the deadline is killed."""
        deadline = time.monotonic() + deadline_s
        with self._lock:
            self._stopped = True
            lives = [life for pool in self._pools.values() for life in (*pool.staff, *pool.leaving)]
            for pool in self._pools.values():
                pool.wanted, pool.leaving, pool.staff = 0, [*pool.leaving, *pool.staff], []
        for life in lives:
            life.end(deadline_s)
        for life in lives:
            life.join(deadline)

    def _hire(self, settings: PoolSettings) -> SupervisedWorker:
        self._hired += 1
        return SupervisedWorker(self._make(settings, f"{settings.name}-{self._hired}"), self._ready_s)
