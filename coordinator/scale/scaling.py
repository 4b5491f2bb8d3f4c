"""How many workers a pool should have: a pure function of its queues' load, and the memory that it needs.

`size` adds up the work that arrives (Little's law: arrivals per second times seconds of service) and the work
that waits, spread over the time in which a backlog should be gone. No number of workers does the work of a
queue whose provider is down; one tries whether it is back. Invariants: the answer lies within the
pool's bounds and never falls when the backlog grows; a pool grows at once and shrinks by one at a time; it
goes to zero only when nothing waits, runs or has just run. No clock, no Redis: `Sizer` is told the time.
Limit: workers that joined by hand are not deducted; where they carry a queue, keep its pool's `high` small.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from coordinator.config.pools import PoolSettings, ScalerSettings
from workers.broker.depths import QueueDepth

RATE_MEMORY_S = 15.0  # arrivals of so long count, the latest most
SERVICE_MEMORY = 20  # as many jobs count, the latest most
SLACK = 0.05  # so little of a worker is not worth one: a rate that fades never reaches zero


@dataclass(frozen=True)
class Load:
    """One queue at one moment. `rate`: arrivals per second; `service_s`: mean seconds of a job, None until
    one was measured; `active`: whether a job ended since the moment before.
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
    """Workers that the pool needs for `loads`, its queues.

    A queue whose service time is unknown, or whose provider is down, counts as one worker's while anything is
    in it. Jobs that run need the workers they run on.
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
    """`wanted` workers, and why: the sums over the pool's queues, `service_s` their mean by arrivals; `down`:
    those whose provider is."""

    wanted: int
    backlog: int
    running: int
    rate: float
    service_s: float | None
    down: tuple[str, ...] = ()


class Sizer:
    """One pool's memory. `decide` is to be called every so often, with ever later times."""

    def __init__(self, pool: PoolSettings, scaler: ScalerSettings):
        self._pool = pool
        self._scaler = scaler
        self._memories = {queue: _Memory() for queue in pool.queues}
        self._fewer_since: float | None = None

    def decide(
        self,
        now: float,
        depths: Mapping[str, QueueDepth],
        current: int,
        down: AbstractSet[str] = frozenset(),
    ) -> Decision:
        """Decide at `now` (seconds), for a pool that should have `current` workers up to now. `down`: the
        queues whose providers are.
        """
        loads = [
            replace(memory.take_in(now, depths[queue]), down=queue in down)
            for queue, memory in self._memories.items()
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
            down=tuple(sorted(self._memories.keys() & down)),
        )


@dataclass
class _Memory:
    """What is remembered of one queue between two looks."""

    last: QueueDepth | None = None
    at: float = 0.0
    rate: float = 0.0
    service_s: float | None = None

    def take_in(self, now: float, depth: QueueDepth) -> Load:
        last, passed = self.last, now - self.at
        if last is None or depth.finished < last.finished:  # the first look, or Redis has lost its memory
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
