"""All workers, simulated by one process: `python -m llmi.load.simulated.workers URL SEED LEAST_S MOST_S`.

It consumes many messages at a time, holds each for an evenly drawn service time, and commits its outcome with
the program's own script. It replaces hundreds of Celery workers where only the producer is measured: two
cores cannot run both. It makes no image, only a reference: a producer never reads the bytes. Ends with the
process that started it.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import subprocess
import sys
import time
from pathlib import Path
from random import Random
from typing import Any

import redis

from llmi.tools import SOURCES
from rewards.judges import IMAGE_KIND, TEXT_KIND
from rewards.verdicts import ImageVerdict, TextVerdict, Verdict
from workers.broker.claims import Claim, claim
from workers.broker.outcomes import commit
from workers.messages import BlobRef, Outcome, Success
from workers.process.interpreter import PYTHON
from workers.process.parent_death import start_child
from workers.queues import QUEUES
from workers.redis_client import SCAN_TIMEOUT_S, connect_redis

POLL_S = 0.005
BATCH = 200
TTL_S = 600
VERDICTS: dict[str, type[Verdict]] = {TEXT_KIND: TextVerdict, IMAGE_KIND: ImageVerdict}
LEASE_S = 600.0  # longer than any service time, so that nothing is renewed


def result(kind: str, request_id: str, random: Random) -> Success:
    """The success of a worker of `kind`."""
    if kind in VERDICTS:
        return Success(verdict={axis: random.randint(1, 5) for axis in VERDICTS[kind].axes()})
    image = BlobRef(
        sha256=hashlib.sha256(request_id.encode()).hexdigest(),
        media_type="image/png",
        size=150_000,
        width=1024,
        height=1024,
    )
    return Success(
        images=(image,), source={"provider": "simulated", "caption": f"a picture for {request_id}"}
    )


class SimulatedWorkers:
    """Blocking; `turn` consumes what is queued and commits what is due."""

    def __init__(self, client: redis.Redis, seed: int, service_s: tuple[float, float]):
        self._redis = client
        self._service_s = service_s
        self._random = Random(seed)
        self._held: list[tuple[float, int, str, Outcome]] = []  # (due, number, reply stream, outcome)
        self._numbers = itertools.count()  # of two that are due at the same time
        self._queues = [QUEUES[kind].name for kind in (*SOURCES, *VERDICTS)]

    def turn(self, now: float) -> None:
        for one in claim(self._redis, self._queues, BATCH, "simulated", LEASE_S):
            self._start(one, now)
        pipeline: Any = self._redis.pipeline(transaction=False)
        while self._held and self._held[0][0] <= now:
            _, _, reply_to, outcome = heapq.heappop(self._held)
            commit(pipeline, outcome, reply_to, TTL_S)
        pipeline.execute()

    def _start(self, one: Claim, now: float) -> None:
        service_s = self._random.uniform(*self._service_s)
        outcome = Outcome(
            request_id=one.request_id,
            kind=one.queue,
            result=result(one.queue, one.request_id, self._random),
            worker="simulated",
            started=now,
            finished=now + service_s,
        )
        heapq.heappush(self._held, (now + service_s, next(self._numbers), one.reply_to, outcome))


def main(url: str, seed: int, least_s: float, most_s: float) -> None:
    with connect_redis(url, SCAN_TIMEOUT_S) as client:
        workers = SimulatedWorkers(client, seed, (least_s, most_s))
        while True:
            workers.turn(time.time())
            time.sleep(POLL_S)


def start(url: str, seed: int, service_s: tuple[float, float], log: Path) -> subprocess.Popen[bytes]:
    """Start the process; it dies with this one."""
    numbers = (str(seed), *map(str, service_s))
    return start_child([*PYTHON, "-m", "llmi.load.simulated.workers", url, *numbers], log=log)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4]))
