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
FIRST_PAUSE_S, LAST_PAUSE_S, STABLE_S = 1.0, 60.0, 120.0
POLL_S = 0.05

Make = Callable[[PoolSettings, str], Worker]  # from a pool and a name; the worker is not started yet
DrainS = Callable[[Sequence[str]], float]  # seconds that a worker of these queues may take to drain


def local_worker(config: Path, logs: Path, node: str | None = None) -> Make:
    """Make workers as local processes that read `config`; each writes `logs/worker-NAME.log`."""
    from workers.process.worker import WorkerProcess

    def make(pool: PoolSettings, name: str) -> Worker:
        log = logs / f"worker-{name}.log"
        return WorkerProcess(
            pool.queues, config, pool.concurrency, log, name, node=node, memory_mb=pool.limit_mb
        )

    return make


@dataclass(frozen=True)
class PoolState:
    """Number of workers of one pool. `restarts`: those that replaced a dead one; `low`, `high`: the
    bounds."""

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
        self.workers: list[SupervisedWorker] = []  # oldest first
        self.leaving: list[SupervisedWorker] = []
        self.dead = 0  # workers that are not replaced yet
        self.restarts = 0
        self.pause_s = FIRST_PAUSE_S
        self.due = 0.0  # time of the next start, after a death

    def remove_dead(self, now: float) -> None:
        """Remove dead workers, and delay the next start."""
        dead = [one for one in self.workers if not one.alive]
        if not dead:
            return
        self.workers = [one for one in self.workers if one.alive]
        for one in dead:
            logger.warning(
                "worker %s died (%s); it is replaced in %.0f s",
                one.worker.name,
                one.error or "its process ended",
                self.pause_s,
            )
            self._stop(one, None)
        if any(one.ready and now - one.began > STABLE_S for one in dead):
            self.pause_s = FIRST_PAUSE_S
        self.dead += len(dead)
        self.due = now + self.pause_s
        self.pause_s = min(2 * self.pause_s, LAST_PAUSE_S)

    def shrink(self) -> None:
        """Stop workers, the newest first, since the oldest have proved to work."""
        while len(self.workers) > self.wanted:
            self._stop(self.workers.pop(), self.drain_s)

    def grow(self, now: float, make: Callable[[], SupervisedWorker]) -> None:
        self.dead = min(self.dead, max(0, self.wanted - len(self.workers)))
        while len(self.workers) < self.wanted and now >= self.due:
            self.workers.append(make())
            if self.dead:
                self.dead -= 1
                self.restarts += 1

    def _stop(self, one: SupervisedWorker, drain_s: float | None) -> None:
        one.end(drain_s)
        self.leaving.append(one)

    @property
    def state(self) -> PoolState:
        ready = sum(one.ready and one.alive for one in self.workers)
        return PoolState(
            wanted=self.wanted,
            ready=ready,
            starting=len(self.workers) - ready,
            draining=sum(not one.ended for one in self.leaving),
            restarts=self.restarts,
            low=self.settings.low,
            high=self.settings.high,
        )


class Fleet:
    """The workers of several pools. Thread-safe. `ready_s`: seconds until a new worker must consume."""

    def __init__(self, pools: Sequence[PoolSettings], make: Make, ready_s: float, drain_s: DrainS):
        self._pools = {pool.name: _Pool(pool, drain_s(pool.queues)) for pool in pools}
        self._make = make
        self._ready_s = ready_s
        self._created = 0
        self._stopped = False
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Start `low` workers of every pool, without waiting for them."""
        self.reconcile()

    def check(self) -> bool:
        """Return whether all workers are ready. Raises the error of one that failed to start, such as
        `InfrastructureFault` with the end of its log.
        """
        with self._lock:
            workers = [one for pool in self._pools.values() for one in pool.workers]
        for one in workers:
            if one.error is not None:
                raise one.error
        return all(one.ready for one in workers)

    def start(self, notify: Callable[[int, int], None] = lambda ready, wanted: None) -> None:
        """Call `begin` and wait until all workers are ready. `notify`: gets the numbers of ready and of
        wanted workers at each change."""
        self.begin()
        known = 0
        while not self.check():
            states = self.states().values()
            ready, wanted = sum(state.ready for state in states), sum(state.wanted for state in states)
            if ready != known:
                known = ready
                notify(ready, wanted)
            time.sleep(POLL_S)

    def resize(self, pool: str, wanted: int) -> None:
        """Set the wanted number of workers, within the pool's bounds; `reconcile` applies it."""
        with self._lock:
            resized = self._pools[pool]
            resized.wanted = min(max(wanted, resized.settings.low), resized.settings.high)

    def reconcile(self) -> None:
        """Replace dead workers, start missing ones, drain surplus ones. Call it every second."""
        now = time.monotonic()
        with self._lock:
            if self._stopped:
                return
            for pool in self._pools.values():
                pool.remove_dead(now)
                pool.shrink()
                pool.grow(now, lambda settings=pool.settings: self._new_worker(settings))  # type: ignore[misc]
                pool.leaving = [one for one in pool.leaving if not one.ended]

    def states(self) -> dict[str, PoolState]:
        """States by pool name."""
        with self._lock:
            return {name: pool.state for name, pool in self._pools.items()}

    @property
    def restarts(self) -> int:
        """Workers that replaced a dead one."""
        return sum(state.restarts for state in self.states().values())

    def stop(self, deadline_s: float = 15.0) -> None:
        """Drain all workers at once, and kill those that do not end by the deadline."""
        deadline = time.monotonic() + deadline_s
        with self._lock:
            self._stopped = True
            ones = [one for pool in self._pools.values() for one in (*pool.workers, *pool.leaving)]
            for pool in self._pools.values():
                pool.wanted, pool.leaving, pool.workers = 0, [*pool.leaving, *pool.workers], []
        for one in ones:
            one.end(deadline_s)
        for one in ones:
            one.join(deadline)

    def _new_worker(self, settings: PoolSettings) -> SupervisedWorker:
        self._created += 1
        return SupervisedWorker(self._make(settings, f"{settings.name}-{self._created}"), self._ready_s)
