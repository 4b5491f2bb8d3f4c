"""A soak: the load of `llmi chaos` without its faults, as much of it as this machine bears, for as long as
wanted, while the memory and the open files of every process are read.

Invariants: outcomes expire within the soak, so that Redis is at its full size when measuring begins; nothing
that grows with time is kept here but the readings.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from coordinator.console.terminal import Notify
from coordinator.host.redis_server import EmbeddedRedis
from llmi.demo.build import cache_folder
from llmi.demo.library import build_library
from llmi.load.chaos.load import Load
from llmi.load.chaos.provider import Provider
from llmi.load.chaos.setup import apart, config_of
from llmi.load.chaos.workers import Crew
from llmi.load.soak.gauge import Reading, Series, read, series

READ_S = 5.0
GROUPS = 10  # in flight for each worker: more than it can serve, so that the queues are never empty
EXPIRY_SHARE = 6  # of a soak, after which an outcome is forgotten
LEAST_EXPIRY_S = 60.0
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


async def run(
    seconds: float, workers: int, seed: int, folder: Path, say: Notify, tell: Callable[[float, int], None]
) -> Soak:
    """Soak in `folder`, which is empty, and leave `readings.jsonl` there. `tell(seconds so far, posted)` is
    called now and then. Raises `InfrastructureFault` when the workers do not start.
    """
    logs = folder / "logs"
    provider = Provider(logs / "provider.log")
    with contextlib.ExitStack() as stack:
        stack.enter_context(apart())
        server = stack.enter_context(EmbeddedRedis(folder / "redis"))
        stack.callback(provider.kill)
        await asyncio.to_thread(provider.start)
        say("drawing the image library")
        await asyncio.to_thread(build_library, cache_folder() / "library")
        config = config_of(folder, server.port, provider)
        ttl_s = round(max(LEAST_EXPIRY_S, seconds / EXPIRY_SHARE))
        config = config.model_copy(update={"queue": config.queue.model_copy(update={"result_ttl_s": ttl_s})})
        config.save(folder)
        crew = Crew(folder / "config.json", logs, workers)
        stack.callback(crew.stop)
        say(f"starting {workers} workers")
        await asyncio.to_thread(crew.start)
        async with Load(
            config.queue, config.judges, folder, seed, lambda _sample: None, GROUPS * workers
        ) as load:
            began = time.monotonic()
            readings = await _soak(seconds, load, folder, tell)
            taken_s = time.monotonic() - began
            return Soak(
                seconds=taken_s,
                workers=workers,
                requests=load.posted,
                rollouts=load.rollouts,
                lost=load.posted - sum(load.told.values()),
                outcomes=dict(sorted(load.told.items())),
                series=series(readings),
                readings=readings,
            )


async def _soak(
    seconds: float, load: Load, folder: Path, tell: Callable[[float, int], None]
) -> list[Reading]:
    """Returns when the time is over and every rollout has ended."""
    readings: list[Reading] = []
    began = time.monotonic()
    work = asyncio.create_task(load.run())
    try:
        with (folder / "readings.jsonl").open("a", encoding="utf-8") as file:
            while (so_far := time.monotonic() - began) < seconds and not work.done():
                for reading in await asyncio.to_thread(read, so_far):
                    readings.append(reading)
                    file.write(json.dumps(asdict(reading)) + "\n")
                tell(so_far, load.posted)
                await asyncio.wait([work], timeout=min(READ_S, seconds - so_far))
        load.finish()
        async with asyncio.timeout(END_S):
            await work
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
    return readings
