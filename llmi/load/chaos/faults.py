"""The timeline of faults, drawn from a seed.

Invariants: pure, and the same for the same seed; each round holds every kind of fault once, in another order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from random import Random


class Kind(StrEnum):
    """A kind of fault; the value is its description."""

    KILL_CHILD = "kill -9 of a pool process"
    KILL_WORKER = "kill -9 of a worker's parent process"
    KILL_NODE = "kill -9 of a worker's process group"
    FREEZE = "a worker stopped for longer than its lease, then continued"
    FREEZE_AND_KILL = "a worker stopped, then killed"
    RESTART_REDIS = "kill -9 of Redis, and a new start"
    REFUSE = "Redis refusing writes, for want of memory or of a replica"
    CUT = "all connections to Redis dropped"
    DELAY = "each packet to and from Redis delayed"
    SILENCE = "no packet to or from Redis"
    FULL_DISK = "a worker that cannot write files"
    EXPIRE_LEASES = "the clock of all leases put forward"
    PROVIDER_DOWN = "images service and judges killed, and started again"
    PROVIDER_HANGS = "images service and judges stopped, then continued"


# Evenly drawn duration in seconds. A kind that is missing here is over at once.
LASTS_S: dict[Kind, tuple[float, float]] = {
    Kind.FREEZE: (6.0, 9.0),
    Kind.FREEZE_AND_KILL: (1.0, 3.0),
    Kind.REFUSE: (1.0, 4.0),
    Kind.DELAY: (2.0, 5.0),
    Kind.SILENCE: (1.0, 4.0),
    Kind.FULL_DISK: (1.0, 4.0),
    Kind.PROVIDER_DOWN: (1.0, 5.0),
    Kind.PROVIDER_HANGS: (1.0, 5.0),
}
PAUSE_S = (0.5, 3.0)


@dataclass(frozen=True)
class Fault:
    """Starts `pause_s` after the previous one, lasts for `lasts_s`. `pick` in [0, 1) chooses the target."""

    kind: Kind
    pause_s: float
    lasts_s: float
    pick: float


def timeline(seed: int) -> Iterator[Fault]:
    """Endless; a round has `len(Kind)` faults."""
    random = Random(seed)
    while True:
        kinds = list(Kind)
        random.shuffle(kinds)
        for kind in kinds:
            lasts_s = random.uniform(*LASTS_S[kind]) if kind in LASTS_S else 0.0
            yield Fault(kind, random.uniform(*PAUSE_S), lasts_s, random.random())
