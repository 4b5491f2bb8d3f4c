"""One trial from its start to its audit: Redis behind a proxy, a provider, workers, rollouts, the monkey.

Invariants: everything runs in one folder and ends with the trial; the audit begins when every fault is undone
and every rollout has ended; the environment's own Redis and judges have no say.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from coordinator.console.terminal import Notify
from coordinator.host.redis_server import EmbeddedRedis
from llmi.demo.build import cache_folder
from llmi.demo.library import build_library
from llmi.load.chaos.audit import Rule, audit
from llmi.load.chaos.faults import Fault, Kind, timeline
from llmi.load.chaos.injector import Monkey
from llmi.load.chaos.leftovers import gather, outcomes, unreferenced
from llmi.load.chaos.load import Load, Sample
from llmi.load.chaos.provider import Provider
from llmi.load.chaos.proxy import Proxy
from llmi.load.chaos.setup import apart, config_of
from llmi.load.chaos.workers import Crew
from workers.settings import BlobSettings
from workers.storage.blobs import BlobStore

LOOK_S = 0.25
END_S = 600.0  # after the last request was posted; deadlines end every request before


@dataclass(frozen=True)
class Wanted:
    """At least `requests` are posted, for at least `seconds`, while at least `faults` begin."""

    requests: int = 2000
    workers: int = 4
    seconds: float = 0.0
    faults: int = 2 * len(Kind)
    seed: int = 1


@dataclass(frozen=True)
class Result:
    """`outcomes` by kind and by cause or success; `again`: requests that were started more than once, and
    how often in all; `unreferenced`: blobs that no outcome names.
    """

    wanted: Wanted
    seconds: float
    faults: dict[str, int]
    restarts: int
    requests: int
    rollouts: int
    trained: int
    outcomes: dict[str, dict[str, int]]
    again: int
    starts: int
    unreferenced: int
    rules: list[Rule]

    @property
    def kept(self) -> bool:
        return not any(rule.violations for rule in self.rules)


async def run(wanted: Wanted, folder: Path, say: Notify, tell: Callable[[int, int], None]) -> Result:
    """Run it in `folder`, which is empty. `tell(posted, in flight)` is called now and then.

    Raises `InfrastructureFault` when the workers do not start, `TimeoutError` when the rollouts do not end.
    """
    began = time.monotonic()
    logs = folder / "logs"
    provider = Provider(logs / "provider.log")
    with contextlib.ExitStack() as stack:
        stack.enter_context(apart())
        server = stack.enter_context(EmbeddedRedis(folder / "redis"))
        proxy = stack.enter_context(Proxy(server.port))
        stack.callback(provider.kill)
        await asyncio.to_thread(provider.start)
        say("drawing the image library")
        await asyncio.to_thread(build_library, cache_folder() / "library")
        config = config_of(folder, proxy.port, provider)
        config.save(folder)
        crew = Crew(folder / "config.json", logs, wanted.workers)
        stack.callback(crew.stop)
        say(f"starting {wanted.workers} workers")
        await asyncio.to_thread(crew.start)
        monkey = Monkey(crew, server, proxy, provider)
        batch: list[Sample] = []
        async with Load(config.queue, config.judges, folder, wanted.seed, batch.append) as load:
            await _rage(wanted, load, monkey, crew, say, tell)
        say("the audit")
        return await asyncio.to_thread(
            _result, wanted, folder, load, batch, monkey, crew, server, config.blobs, time.monotonic() - began
        )


async def _rage(
    wanted: Wanted,
    load: Load,
    monkey: Monkey,
    crew: Crew,
    say: Notify,
    tell: Callable[[int, int], None],
) -> None:
    """Returns when all that was asked for has happened, is undone, and every rollout has ended."""
    began = time.monotonic()
    begun = 0

    def hear(fault: Fault) -> None:
        nonlocal begun
        begun += 1
        lasts = f" ({fault.lasts_s:.1f} s)" if fault.lasts_s else ""
        say(f"{time.monotonic() - began:6.1f} s  fault {begun}: {fault.kind}{lasts}")

    work = asyncio.create_task(load.run())
    rampage = asyncio.create_task(monkey.rampage(timeline(wanted.seed), hear))
    try:
        while not work.done():
            enough = load.posted >= wanted.requests and begun >= wanted.faults
            if enough and time.monotonic() - began >= wanted.seconds:
                break
            if rampage.done():
                rampage.result()
            await asyncio.to_thread(crew.mend)
            tell(load.posted, load.in_flight)
            await asyncio.sleep(LOOK_S)
        load.finish()
        rampage.cancel()
        await asyncio.gather(rampage, return_exceptions=True)
        await monkey.rest()
        say("no more faults; waiting for what is under way")
        async with asyncio.timeout(END_S):
            while not work.done():
                await asyncio.to_thread(crew.mend)
                tell(load.posted, load.in_flight)
                await asyncio.wait([work], timeout=LOOK_S)
        await work
    finally:
        for task in (work, rampage):
            task.cancel()
        await asyncio.gather(work, rampage, return_exceptions=True)
        await monkey.rest()


def _result(
    wanted: Wanted,
    folder: Path,
    load: Load,
    batch: list[Sample],
    monkey: Monkey,
    crew: Crew,
    server: EmbeddedRedis,
    blobs: BlobSettings,
    seconds: float,
) -> Result:
    evidence = gather(folder, batch, server.url, BlobStore(blobs.url), crew.mend)
    starts = evidence.starts.values()
    return Result(
        wanted=wanted,
        seconds=seconds,
        faults={str(kind): count for kind, count in sorted(monkey.done.items())},
        restarts=crew.restarts,
        requests=len(evidence.ledger.requests),
        rollouts=load.rollouts,
        trained=len(batch),
        outcomes=outcomes(evidence.ledger),
        again=sum(count > 1 for count in starts),
        starts=sum(starts),
        unreferenced=unreferenced(evidence.ledger, Path(blobs.url)),
        rules=audit(evidence),
    )
