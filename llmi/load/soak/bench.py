"""A soak: the load of `llmi chaos` without faults, while memory and open files of every process are recorded.

Invariants: recorded outcomes expire within the soak (in an hour: after the default time), so that Redis has
its full size when measuring begins; nothing else that grows with time is kept here.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from coordinator.console.stages import Step
from llmi.load.soak.memory import Reading, Series, read, series
from llmi.load.testbed.groups import GroupLoad
from llmi.load.testbed.system import running_system
from workers.settings import QueueSettings

READ_S = 5.0
GROUPS = 10  # in flight for each worker: more than it can serve, so that the queues are never empty
EXPIRY_SHARE = 6  # a recorded outcome expires after this part of the soak, or after the default time
END_S = 300.0


@dataclass(frozen=True)
class Soak:
    """`lost`: requests without an outcome when all had ended. `outcomes` by success or cause."""

    seconds: float
    workers: int
    requests: int
    rollouts: int
    lost: int
    outcomes: dict[str, int]
    series: list[Series]
    readings: list[Reading]

    @property
    def flat(self) -> bool:
        return all(one.flat for one in self.series)

    def document(self) -> dict[str, Any]:
        """For JSON, without the readings."""
        rows = [{**asdict(one), "flat": one.flat} for one in self.series]
        whole = {**asdict(self), "series": rows, "flat": self.flat}
        del whole["readings"]
        return whole


async def run(seconds: float, workers: int, seed: int, folder: Path, step: Step) -> Soak:
    """Soak in `folder`, which is empty, and leave `readings.jsonl` there.

    Raises `InfrastructureFault` when the workers do not start.
    """
    ttl_s = max(1, min(QueueSettings().recorded_ttl_s, round(seconds / EXPIRY_SHARE)))
    async with running_system(folder, workers, step, recorded_ttl_s=ttl_s) as system:
        queue, judges = system.config.queue, system.config.judges
        async with GroupLoad(queue, judges, folder, seed, lambda _sample: None, GROUPS * workers) as load:
            began = time.monotonic()
            readings = await _soak(seconds, load, folder, step)
            taken_s = time.monotonic() - began
            return Soak(
                seconds=taken_s,
                workers=workers,
                requests=load.posted,
                rollouts=load.rollouts,
                lost=load.posted - sum(load.outcomes.values()),
                outcomes=dict(sorted(load.outcomes.items())),
                series=series(readings),
                readings=readings,
            )


async def _soak(seconds: float, load: GroupLoad, folder: Path, step: Step) -> list[Reading]:
    """Return the readings when the time is over and every rollout has ended."""
    readings: list[Reading] = []
    began = time.monotonic()
    work = asyncio.create_task(load.run())
    try:
        with (folder / "readings.jsonl").open("a", encoding="utf-8") as file:
            while (so_far := time.monotonic() - began) < seconds and not work.done():
                for reading in await asyncio.to_thread(read, so_far):
                    readings.append(reading)
                    file.write(json.dumps(asdict(reading)) + "\n")
                step("soaking", min(1.0, so_far / seconds), f"{load.posted:,} requests")
                await asyncio.wait([work], timeout=min(READ_S, seconds - so_far))
        load.finish()
        step("waiting for the requests in flight", None, "")
        async with asyncio.timeout(END_S):
            await work
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
    return readings
