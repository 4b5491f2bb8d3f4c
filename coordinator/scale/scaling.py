"""How many workers a pool should have, computed from the load of its queues. Pure.

`size` adds the work that arrives (Little's law: arrivals per second times seconds of service) and the
backlog, spread over the time in which it should be gone. A queue with a provider that is down counts for one
worker, which makes the trial requests.

Invariants:
- The size lies within the pool's bounds and never falls when the backlog grows.
- A pool grows at once and shrinks by one worker at a time.
- It shrinks to zero only when nothing waits, runs or has just run.

Limit: workers that joined by hand are not deducted. Where they serve a queue, keep its pool's `high` small.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from coordinator.config.pools import PoolSettings, ScalerSettings
from workers.broker.depths import QueueDepth

RATE_MEMORY_S = 15.0  # time constant of the arrival rate
SERVICE_MEMORY = 20  # jobs; constant of the mean service time
SLACK = 0.05  # of a worker; smaller needs are ignored, since a fading rate never reaches zero


@dataclass(frozen=True)
class Load:
    """The load of one queue. `rate`: arrivals per second; `service_s`: mean seconds of a job, None before the
    first; `active`: whether a job ended since the last poll; `down`: whether its provider is down.
    """

    backlog: int = 0
    running: int = 0
    rate: float = 0.0
    service_s: float | None = None
    active: bool = False
    down: bool = False

    @property
    def busy(self) -> bool:
        return bool(self.backlog or self.running or self.active)


def size(loads: Sequence[Load], pool: PoolSettings, scaler: ScalerSettings) -> int:
    """Number of workers that the pool needs for the `loads` of its queues.

    A queue without a service time yet, or with a provider that is down, counts for one worker while it is not
    empty. Running jobs count for the workers that they run on.
    """
    slots = sum(
        (load.rate / scaler.utilization + load.backlog / scaler.drain_s) * load.service_s
        for load in loads
        if load.service_s is not None and not load.down
    )
    needed = math.ceil(slots / pool.concurrency - SLACK)
    occupied = math.ceil(sum(load.running for load in loads) / pool.concurrency)
    awake = int(any(load.busy for load in loads))
    return min(max(needed, occupied, awake, pool.low), pool.high)


@dataclass(frozen=True)
class Decision:
    """The wanted number of workers, and its reason: sums over the pool's queues; `service_s`: mean weighted
    by arrivals; `down`: queues with a provider that is down."""

    wanted: int
    backlog: int
    running: int
    rate: float
    service_s: float | None
    down: tuple[str, ...] = ()


class Sizer:
    """Decides the size of one pool. Call `decide` regularly, with increasing times."""

    def __init__(self, pool: PoolSettings, scaler: ScalerSettings):
        self._pool = pool
        self._scaler = scaler
        self._histories = {queue: _History() for queue in pool.queues}
        self._fewer_since: float | None = None

    def decide(
        self,
        now: float,
        depths: Mapping[str, QueueDepth],
        current: int,
        down: AbstractSet[str] = frozenset(),
    ) -> Decision:
        """Decide the size at `now` (seconds). `current`: wanted workers so far; `down`: queues with a
        provider that is down.
        """
        loads = [
            replace(memory.add(now, depths[queue]), down=queue in down)
            for queue, memory in self._histories.items()
        ]
        needed = size(loads, self._pool, self._scaler)
        wanted = current
        if needed >= current:
            self._fewer_since = None
            wanted = needed
        elif self._fewer_since is None:
            self._fewer_since = now
        elif now - self._fewer_since >= self._scaler.idle_s:
            self._fewer_since = now
            wanted = current - 1
        return Decision(
            wanted=min(max(wanted, self._pool.low), self._pool.high),
            backlog=sum(load.backlog for load in loads),
            running=sum(load.running for load in loads),
            rate=sum(load.rate for load in loads),
            service_s=_mean(loads),
            down=tuple(sorted(self._histories.keys() & down)),
        )


@dataclass
class _History:
    """The history of one queue."""

    last: QueueDepth | None = None
    at: float = 0.0
    rate: float = 0.0
    service_s: float | None = None

    def add(self, now: float, depth: QueueDepth) -> Load:
        last, passed = self.last, now - self.at
        if last is None or depth.finished < last.finished:  # the first poll, or Redis was emptied
            self._serve(depth.ran, depth.service_s)
            ended = 0
        else:
            self._serve(depth.ran - last.ran, depth.service_s - last.service_s)
            ended = depth.finished - last.finished
            if passed > 0:
                # May be negative: an outcome is stored shortly before its message is gone.
                arrived = ended + depth.waiting + depth.running - last.waiting - last.running
                self.rate += (1 - math.exp(-passed / RATE_MEMORY_S)) * (arrived / passed - self.rate)
        self.last, self.at = depth, now
        return Load(depth.waiting, depth.running, max(0.0, self.rate), self.service_s, ended > 0)

    def _serve(self, jobs: int, seconds: float) -> None:
        if jobs <= 0:
            return
        mean = max(0.0, seconds) / jobs
        before = mean if self.service_s is None else self.service_s
        self.service_s = before + (1 - math.exp(-jobs / SERVICE_MEMORY)) * (mean - before)


def _mean(loads: Sequence[Load]) -> float | None:
    known = [(load.rate + load.backlog, load.service_s) for load in loads if load.service_s is not None]
    if not known:
        return None
    total = sum(weight for weight, _ in known)
    if not total:
        return sum(service_s for _, service_s in known) / len(known)
    return sum(weight * service_s for weight, service_s in known) / total
